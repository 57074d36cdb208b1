//! Stores that forget: the world of simulations, where thousands of recordings are made in seconds. They pass the same
//! conformance suite as the lasting ones.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::public::version;
use super::{
    ChunkStore, Clock, Continuation, Created, Cursor, HeadLastObject, Place, PublicObject, PublicStore, RecorderEvent,
    RecordingStore, Shelf, StoreError, StoreErrorKind, TaskPage, TaskStore, Versioned, key, on_domain,
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

/// Finished recordings.
#[derive(Default, Clone)]
pub struct MemoryRecordings(Objects);

impl MemoryRecordings {
    /// Everything that is visible.
    pub fn visible(&self) -> BTreeMap<String, Bytes> {
        lock(&self.0).clone()
    }
}

#[async_trait]
impl RecordingStore for MemoryRecordings {
    async fn create(&self, place: &Place) -> Result<Box<dyn HeadLastObject>, StoreError> {
        let name = place.name.as_deref().unwrap_or("unnamed");
        checked("create", &format!("{}/{name}", place.dir))?;
        Ok(Box::new(MemoryObject { objects: Arc::clone(&self.0), place: place.clone(), payload: Vec::new() }))
    }

    fn url(&self, _place: &Place, key: &str, domain: Option<&str>) -> String {
        on_domain(domain.unwrap_or("memory.invalid"), key)
    }
}

#[async_trait]
impl PublicStore for MemoryRecordings {
    async fn put(&self, _place: &Place, key: &str, object: PublicObject) -> Result<(), StoreError> {
        checked("put", key)?;
        lock(&self.0).insert(key.into(), object.bytes);
        Ok(())
    }

    async fn replace(
        &self,
        _place: &Place,
        key: &str,
        object: PublicObject,
        seen: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        checked("replace", key)?;
        let mut objects = lock(&self.0);
        if objects.get(key).map(|bytes| version(bytes)).as_deref() != seen {
            return Ok(None);
        }
        let new = version(&object.bytes);
        objects.insert(key.into(), object.bytes);
        Ok(Some(new))
    }

    async fn read(&self, _place: &Place, key: &str) -> Result<Option<(Bytes, String)>, StoreError> {
        Ok(lock(&self.0).get(key).map(|bytes| (bytes.clone(), version(bytes))))
    }

    async fn link(&self, place: &Place, key: &str, _lifetime: Duration) -> Result<String, StoreError> {
        Ok(self.url(place, key, None))
    }
}

struct MemoryObject {
    objects: Objects,
    place: Place,
    payload: Vec<u8>,
}

#[async_trait]
impl HeadLastObject for MemoryObject {
    fn head_alignment(&self) -> u64 {
        1
    }

    async fn append(&mut self, payload: Bytes) -> Result<(), StoreError> {
        self.payload.extend_from_slice(&payload);
        Ok(())
    }

    async fn finish(self: Box<Self>, head: Bytes, name: &str) -> Result<String, StoreError> {
        let name = self.place.name.as_deref().unwrap_or(name);
        let (stem, extension) = name.rsplit_once('.').map_or((name, String::new()), |(s, e)| (s, format!(".{e}")));
        let mut objects = lock(&self.objects);
        let names = std::iter::once(name.to_string()).chain((1..).map(|n| format!("{stem}-{n}{extension}")));
        let mut keys = names.map(|name| format!("{}/{name}", self.place.dir));
        let key = keys.find(|key| !objects.contains_key(key)).unwrap_or_default();
        objects.insert(key.clone(), [&head[..], &self.payload].concat().into());
        Ok(key)
    }

    async fn abort(self: Box<Self>) -> Result<(), StoreError> {
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
