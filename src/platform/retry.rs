//! Trying again what may go well a little later, with growing pauses, for the ports where that is safe.
//!
//! Only transient failures are tried again. After `Unavailable` the effect may have happened, so what must not happen
//! twice is looked up first: an own record counts as added, an own change as saved, an absent record as removed.

use super::{
    ChunkStore, Continuation, Created, Cursor, HeadLastObject, Place, PublicObject, PublicStore, RecorderEvent,
    RecordingStore, Shelf, StoreError, StoreErrorKind, TaskPage, TaskStore, Versioned,
};
use crate::task::record::TaskRecord;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Attempts at most. With the pauses below they span 0.6 to 1.2 s, which a throttled partition or a server's fail-over
/// in the background needs, and which a caller behind a gateway's 30 s can wait several times in one request.
const ATTEMPTS: u32 = 6;
/// The first pause at most; each is twice as long as the one before. Short beside the 500 ms within which a command is to
/// be seen, long beside a request.
const FIRST_PAUSE: Duration = Duration::from_millis(40);
/// Longest pause at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Attempts at storing a chunk. It is all there is of two seconds of somebody's recording and nobody waits for it: with
/// the pauses a store may be away for 60 to 120 s.
const CHUNK_ATTEMPTS: u32 = 20;
/// A moment at which every record exists that was not removed.
const ALWAYS: u64 = 0;

/// A port whose calls are tried again.
pub struct Retrying<P: ?Sized> {
    port: Arc<P>,
    count: Arc<AtomicU64>,
}

impl<P: ?Sized> Retrying<P> {
    /// `port`, tried again; `count` counts how often.
    pub fn new(port: Arc<P>, count: &Arc<AtomicU64>) -> Self {
        Self { port, count: Arc::clone(count) }
    }

    fn attempts(&self, most: u32) -> Attempts<'_> {
        Attempts { made: 0, most, unsure: false, count: &self.count }
    }
}

/// The attempts at one call.
struct Attempts<'a> {
    made: u32,
    most: u32,
    count: &'a AtomicU64,
    /// An earlier one may have had its effect.
    unsure: bool,
}

impl Attempts<'_> {
    /// Says whether the call may be made once more after this error.
    fn another(&mut self, error: &StoreError) -> bool {
        self.made += 1;
        self.unsure |= error.kind == StoreErrorKind::Unavailable;
        let another = error.kind.is_transient() && self.made < self.most;
        if another {
            self.count.fetch_add(1, Ordering::Relaxed);
            let (op, attempt, cause) = (error.op, self.made, &error.source);
            tracing::debug!(op, key = error.key, attempt, kind = ?error.kind, error = %cause, "trying again");
        }
        another
    }

    /// What an error says about all of them: the last one may have done nothing, an earlier one something.
    fn verdict(&self, mut error: StoreError) -> StoreError {
        if self.unsure && error.kind == StoreErrorKind::Throttled {
            error.kind = StoreErrorKind::Unavailable;
        }
        error
    }

    /// Waits before it: half of the pause for certain, the rest by chance, so that those who were refused together do
    /// not come back together.
    async fn pause(&self) {
        let whole = FIRST_PAUSE.saturating_mul(1 << (self.made - 1)).min(LONGEST_PAUSE);
        tokio::time::sleep(whole.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }
}

/// Makes a call again that may happen twice.
async fn repeat<T, F: Future<Output = Result<T, StoreError>>>(
    mut attempts: Attempts<'_>,
    mut call: impl FnMut() -> F,
) -> Result<T, StoreError> {
    loop {
        match call().await {
            Err(error) if attempts.another(&error) => attempts.pause().await,
            other => return other.map_err(|e| attempts.verdict(e)),
        }
    }
}

/// What a look at the record says about a save that may have happened.
enum Seen {
    /// It has not happened so far.
    NotYet,
    /// It has, or cannot any more.
    Settled(Option<u64>),
    /// The record went on since, perhaps from our version.
    Unknown,
}

impl<P: TaskStore + ?Sized> Retrying<P> {
    async fn look(&self, record: &TaskRecord, version: u64) -> Result<Seen, StoreError> {
        let found = self.load(&record.id, ALWAYS).await?;
        Ok(match found {
            None => Seen::Settled(None),
            Some(found) if found.version == version => Seen::NotYet,
            Some(found) if found.version == version + 1 => {
                Seen::Settled((found.record == *record).then_some(found.version))
            }
            Some(found) if found.version < version => Seen::Settled(None),
            Some(_) => Seen::Unknown,
        })
    }
}

#[async_trait]
impl<P: TaskStore + ?Sized> TaskStore for Retrying<P> {
    async fn create(&self, record: &TaskRecord, now: u64) -> Result<Created, StoreError> {
        let mut attempts = self.attempts(ATTEMPTS);
        loop {
            match self.port.create(record, now).await {
                Ok(Created::Exists(found)) if attempts.unsure && found.record == *record => {
                    return Ok(Created::New(found.version));
                }
                Err(error) if attempts.another(&error) => attempts.pause().await,
                other => return other.map_err(|e| attempts.verdict(e)),
            }
        }
    }

    async fn load(&self, id: &str, now: u64) -> Result<Option<Versioned>, StoreError> {
        repeat(self.attempts(ATTEMPTS), || self.port.load(id, now)).await
    }

    /// After an error it may have been replaced, also when the record went on so far that this cannot be seen any more.
    async fn save(&self, record: &TaskRecord, version: u64) -> Result<Option<u64>, StoreError> {
        let mut attempts = self.attempts(ATTEMPTS);
        let mut unsure = None;
        loop {
            let outcome = self.port.save(record, version).await;
            // Perhaps it was an earlier attempt of ours, which arrived after we had looked.
            let lost = matches!(outcome, Ok(None)) && unsure.is_some();
            match outcome {
                Err(error) if attempts.another(&error) => {
                    attempts.pause().await;
                    if error.kind == StoreErrorKind::Unavailable {
                        unsure = Some(error);
                    }
                }
                Ok(None) if lost => {}
                other => return other.map_err(|e| attempts.verdict(e)),
            }
            let Some(error) = unsure.take() else { continue };
            match self.look(record, version).await {
                Ok(Seen::Settled(outcome)) => return Ok(outcome),
                Ok(Seen::NotYet) if lost => return Ok(None),
                Ok(Seen::NotYet) => unsure = Some(error),
                Ok(Seen::Unknown) | Err(_) => return Err(error),
            }
        }
    }

    async fn delete(&self, id: &str, version: u64) -> Result<bool, StoreError> {
        let mut attempts = self.attempts(ATTEMPTS);
        loop {
            match self.port.delete(id, version).await {
                Ok(false) if attempts.unsure => return Ok(self.load(id, ALWAYS).await?.is_none()),
                Err(error) if attempts.another(&error) => attempts.pause().await,
                other => return other.map_err(|e| attempts.verdict(e)),
            }
        }
    }

    async fn list(&self, shelf: Shelf, limit: u32, after: Option<&Cursor>, now: u64) -> Result<TaskPage, StoreError> {
        repeat(self.attempts(ATTEMPTS), || self.port.list(shelf, limit, after, now)).await
    }
}

#[async_trait]
impl<P: ChunkStore + ?Sized> ChunkStore for Retrying<P> {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        repeat(self.attempts(CHUNK_ATTEMPTS), || self.port.put(key, bytes.clone())).await
    }
    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        repeat(self.attempts(ATTEMPTS), || self.port.get(key)).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        repeat(self.attempts(ATTEMPTS), || self.port.list(prefix)).await
    }
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        repeat(self.attempts(ATTEMPTS), || self.port.delete(key)).await
    }
}

#[async_trait]
impl<P: RecordingStore + ?Sized> RecordingStore for Retrying<P> {
    /// What a failed attempt may have begun is invisible and goes by itself.
    async fn create(&self, place: &Place) -> Result<Box<dyn HeadLastObject>, StoreError> {
        repeat(self.attempts(ATTEMPTS), || self.port.create(place)).await
    }

    async fn resume(
        &self,
        place: &Place,
        states: &[String],
        held: Bytes,
    ) -> Result<Box<dyn HeadLastObject>, StoreError> {
        repeat(self.attempts(ATTEMPTS), || self.port.resume(place, states, held.clone())).await
    }

    fn url(&self, place: &Place, key: &str, domain: Option<&str>) -> String {
        self.port.url(place, key, domain)
    }
}

#[async_trait]
impl<P: PublicStore + ?Sized> PublicStore for Retrying<P> {
    async fn put(&self, place: &Place, key: &str, object: PublicObject) -> Result<(), StoreError> {
        repeat(self.attempts(CHUNK_ATTEMPTS), || self.port.put(place, key, object.clone())).await
    }
    async fn replace(
        &self,
        place: &Place,
        key: &str,
        object: PublicObject,
        seen: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        repeat(self.attempts(CHUNK_ATTEMPTS), || self.port.replace(place, key, object.clone(), seen)).await
    }
    async fn read(&self, place: &Place, key: &str) -> Result<Option<(Bytes, String)>, StoreError> {
        repeat(self.attempts(ATTEMPTS), || self.port.read(place, key)).await
    }
    async fn link(&self, place: &Place, key: &str, lifetime: Duration) -> Result<String, StoreError> {
        self.port.link(place, key, lifetime).await
    }
}

#[async_trait]
impl<P: Continuation + ?Sized> Continuation for Retrying<P> {
    async fn invoke(&self, event: &RecorderEvent) -> Result<(), StoreError> {
        repeat(self.attempts(ATTEMPTS), || self.port.invoke(event)).await
    }
}

#[cfg(test)]
mod tests;
