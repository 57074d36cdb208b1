//! Stores that forget: the world of simulations, where thousands of recordings are made in seconds. They pass the same
//! conformance suite as the lasting ones.

mod recordings;

pub use recordings::MemoryRecordings;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    ChunkStore, Clock, Continuation, Created, Cursor, RecorderEvent, Shelf, StoreError, StoreErrorKind, TaskPage,
    TaskStore, Versioned, key,
};
use crate::task::record::TaskRecord;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn error(op: &'static str, key: &str, kind: StoreErrorKind, reason: &str) -> StoreError {
    StoreError { op, key: key.escape_debug().to_string(), kind, source: io::Error::other(reason.to_string()) }
}

fn checked(op: &'static str, key: &str) -> Result<(), StoreError> {
    key::check(key).map_err(|reason| error(op, key, StoreErrorKind::Refused, &reason))
}

/// Task records. Versions count over the whole store, so that one of a record that was removed never comes again.
#[derive(Default)]
pub struct MemoryTaskStore(Mutex<BTreeMap<String, Versioned>>, AtomicU64);

impl MemoryTaskStore {
    fn version(&self) -> u64 {
        1 + (self.1.fetch_add(1, Ordering::SeqCst) << 32)
    }
}

#[async_trait]
impl TaskStore for MemoryTaskStore {
    async fn create(&self, record: &TaskRecord, now: u64) -> Result<Created, StoreError> {
        let mut all = lock(&self.0);
        match all.get(&record.id).filter(|found| found.record.expires > now) {
            Some(found) => Ok(Created::Exists(Box::new(found.clone()))),
            None => {
                let version = self.version();
                all.insert(record.id.clone(), Versioned { record: record.clone(), version });
                Ok(Created::New(version))
            }
        }
    }

    async fn load(&self, id: &str, now: u64) -> Result<Option<Versioned>, StoreError> {
        Ok(lock(&self.0).get(id).filter(|found| found.record.expires > now).cloned())
    }

    async fn save(&self, record: &TaskRecord, version: u64) -> Result<Option<u64>, StoreError> {
        match lock(&self.0).get_mut(&record.id).filter(|found| found.version == version) {
            Some(found) => {
                *found = Versioned { record: record.clone(), version: version + 1 };
                Ok(Some(version + 1))
            }
            None => Ok(None),
        }
    }

    async fn delete(&self, id: &str, version: u64) -> Result<bool, StoreError> {
        let mut all = lock(&self.0);
        let there = all.get(id).is_some_and(|found| found.version == version);
        if there {
            all.remove(id);
        }
        Ok(there)
    }

    async fn list(&self, shelf: Shelf, limit: u32, after: Option<&Cursor>, now: u64) -> Result<TaskPage, StoreError> {
        let place = |t: &TaskRecord| Cursor { created: t.created, id: t.id.clone() };
        let mut found: Vec<TaskRecord> = lock(&self.0)
            .values()
            .map(|v| &v.record)
            .filter(|t| t.expires > now && after.is_none_or(|after| place(t) < *after))
            .filter(|t| match shelf {
                Shelf::All => true,
                Shelf::Running => t.running(),
                Shelf::Finished => !t.running(),
            })
            .cloned()
            .collect();
        found.sort_by_key(|t| std::cmp::Reverse(place(t)));
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let next = found.last().filter(|_| more).map(place);
        Ok(TaskPage { records: found, next })
    }
}

type Objects = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// Chunks.
#[derive(Default, Clone)]
pub struct MemoryChunkStore(Objects, Arc<AtomicU64>);

impl MemoryChunkStore {
    /// Puts that went well so far.
    pub fn puts(&self) -> u64 {
        self.1.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl ChunkStore for MemoryChunkStore {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        checked("put", key)?;
        self.1.fetch_add(1, Ordering::SeqCst);
        lock(&self.0).insert(key.into(), bytes);
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        checked("get", key)?;
        lock(&self.0).get(key).cloned().ok_or_else(|| error("get", key, StoreErrorKind::NotFound, "no such object"))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        key::check_prefix(prefix).map_err(|reason| error("list", prefix, StoreErrorKind::Refused, &reason))?;
        Ok(lock(&self.0).keys().filter(|k| k.starts_with(prefix)).cloned().collect())
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        checked("delete", key)?;
        lock(&self.0).remove(key);
        Ok(())
    }
}

/// Events that were asked for and that nobody has taken yet.
#[derive(Default)]
pub struct MemoryContinuation(Mutex<Vec<RecorderEvent>>);

impl MemoryContinuation {
    /// Takes what was asked for, oldest first.
    pub fn take(&self) -> Vec<RecorderEvent> {
        std::mem::take(&mut lock(&self.0))
    }
}

#[async_trait]
impl Continuation for MemoryContinuation {
    async fn invoke(&self, event: &RecorderEvent) -> Result<(), StoreError> {
        lock(&self.0).push(event.clone());
        Ok(())
    }
}

/// A clock that stands until it is moved.
#[derive(Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn at(now: u64) -> Self {
        Self(AtomicU64::new(now))
    }

    /// Moves it on.
    pub fn pass(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::conformance;

    #[tokio::test]
    async fn they_keep_what_the_ports_promise() {
        conformance::chunk_store(&MemoryChunkStore::default()).await;
        conformance::task_store(&MemoryTaskStore::default()).await;
        conformance::public_store(&MemoryRecordings::default()).await;
    }
}
