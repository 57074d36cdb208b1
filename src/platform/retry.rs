//! Patience with stores: what fails for a moment is tried again, a bounded number of times, later each time, and not by
//! everybody at the same moment. Calls whose effect may have happened are looked at before they are repeated.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    ChunkStore, Continuation, Created, Cursor, RecorderEvent, Shelf, StoreError, TaskPage, TaskStore, Versioned,
};
use crate::task::record::TaskRecord;

/// Tries of one call. With the waits between them about three seconds, so that a request through a gateway can still be
/// answered in time.
const TRIES: u32 = 5;
/// Wait after the first failure; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Tries of a chunk. It is all there is of two seconds of somebody's recording, and nobody waits for it: with the waits
/// about two minutes, which the queue behind it and the encoder's pauses bridge.
const CHUNK_TRIES: u32 = 12;
/// Longest wait.
const MAX_WAIT: Duration = Duration::from_secs(15);

/// A patient port.
pub struct Retry<T: ?Sized> {
    inner: Arc<T>,
    count: Arc<AtomicU64>,
}

impl Retry<dyn TaskStore> {
    /// Patient task records.
    pub fn tasks(inner: Arc<dyn TaskStore>, count: &Arc<AtomicU64>) -> Arc<dyn TaskStore> {
        Arc::new(Self { inner, count: Arc::clone(count) })
    }
}

impl Retry<dyn ChunkStore> {
    /// Patient chunks.
    pub fn chunks(inner: Arc<dyn ChunkStore>, count: &Arc<AtomicU64>) -> Arc<dyn ChunkStore> {
        Arc::new(Self { inner, count: Arc::clone(count) })
    }
}

impl Retry<dyn Continuation> {
    /// Patient invocations.
    pub fn continuation(inner: Arc<dyn Continuation>, count: &Arc<AtomicU64>) -> Arc<dyn Continuation> {
        Arc::new(Self { inner, count: Arc::clone(count) })
    }
}

/// Half of the bound is certain, half is chance.
fn wait(failures: u32) -> Duration {
    let bound = (FIRST_WAIT * 2u32.saturating_pow(failures - 1)).min(MAX_WAIT);
    let chance = (uuid::Uuid::new_v4().as_u64_pair().0 % 1024) as u32;
    bound / 2 + bound * chance / 2048
}

/// How much is left of it for one call.
struct Patience<'a> {
    failures: u32,
    tries: u32,
    count: &'a AtomicU64,
}

impl<'a> Patience<'a> {
    fn of(tries: u32, count: &'a AtomicU64) -> Self {
        Self { failures: 0, tries, count }
    }

    /// Whether the call was tried before, so that its effect may have happened.
    fn repeated(&self) -> bool {
        self.failures > 0
    }

    /// Waits after a failure that may pass; returns the error when it may not, or when it was the last try.
    async fn after(&mut self, error: StoreError) -> Result<(), StoreError> {
        if !error.kind.is_transient() || self.failures + 1 >= self.tries {
            return Err(error);
        }
        self.failures += 1;
        self.count.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(op = error.op, key = error.key, failures = self.failures, "failed for now; trying again");
        tokio::time::sleep(wait(self.failures)).await;
        Ok(())
    }
}

/// Tries a call until it goes well or patience is over.
macro_rules! patiently {
    ($self:ident, $tries:expr, $call:expr) => {{
        let mut patience = Patience::of($tries, &$self.count);
        loop {
            match $call.await {
                Err(error) => patience.after(error).await?,
                ok => break ok,
            }
        }
    }};
}

#[async_trait]
impl TaskStore for Retry<dyn TaskStore> {
    async fn create(&self, record: &TaskRecord, now: u64) -> Result<Created, StoreError> {
        let mut patience = Patience::of(TRIES, &self.count);
        loop {
            match self.inner.create(record, now).await {
                // Ours, from a try that failed after its effect.
                Ok(Created::Exists(found)) if patience.repeated() && found.record == *record => {
                    return Ok(Created::New(found.version));
                }
                Err(error) => patience.after(error).await?,
                created => return created,
            }
        }
    }

    async fn load(&self, id: &str, now: u64) -> Result<Option<Versioned>, StoreError> {
        patiently!(self, TRIES, self.inner.load(id, now))
    }

    async fn save(&self, record: &TaskRecord, version: u64) -> Result<Option<u64>, StoreError> {
        let mut patience = Patience::of(TRIES, &self.count);
        loop {
            match self.inner.save(record, version).await {
                // Ours, from a try that failed after its effect; or somebody else's.
                Ok(None) if patience.repeated() => {
                    let found = self.load(&record.id, 0).await?;
                    return Ok(found.filter(|f| f.version == version + 1 && f.record == *record).map(|f| f.version));
                }
                Err(error) => patience.after(error).await?,
                saved => return saved,
            }
        }
    }

    async fn delete(&self, id: &str, version: u64) -> Result<bool, StoreError> {
        let mut patience = Patience::of(TRIES, &self.count);
        loop {
            match self.inner.delete(id, version).await {
                Ok(false) if patience.repeated() => return Ok(self.load(id, 0).await?.is_none()),
                Err(error) => patience.after(error).await?,
                deleted => return deleted,
            }
        }
    }

    async fn list(&self, shelf: Shelf, limit: u32, after: Option<&Cursor>, now: u64) -> Result<TaskPage, StoreError> {
        patiently!(self, TRIES, self.inner.list(shelf, limit, after, now))
    }
}

#[async_trait]
impl ChunkStore for Retry<dyn ChunkStore> {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        patiently!(self, CHUNK_TRIES, self.inner.put(key, bytes.clone()))
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        patiently!(self, CHUNK_TRIES, self.inner.get(key))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        patiently!(self, CHUNK_TRIES, self.inner.list(prefix))
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        patiently!(self, TRIES, self.inner.delete(key))
    }
}

#[async_trait]
impl Continuation for Retry<dyn Continuation> {
    async fn invoke(&self, event: &RecorderEvent) -> Result<(), StoreError> {
        // An invocation too many finds the task taken and ends.
        patiently!(self, TRIES, self.inner.invoke(event))
    }
}
