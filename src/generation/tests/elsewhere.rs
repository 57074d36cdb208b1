//! Real stores for a world whose time jumps: their calls are made on a runtime of their own, whose time is real, and while one
//! of them is on its way the world's time stands still (a blocking task holds it).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::runtime::Handle;

use crate::platform::{
    ChunkStore, Created, Cursor, HeadLastObject, Mark, Place, RecordingStore, Shelf, StoreError, TaskPage, TaskStore,
    Versioned,
};
use crate::task::record::TaskRecord;

/// A store that is elsewhere.
pub struct Elsewhere<P: ?Sized> {
    port: Arc<P>,
    there: Handle,
    /// Calls so far.
    pub calls: Arc<AtomicU64>,
    /// Bytes of the largest record that was written.
    pub largest: Arc<AtomicUsize>,
    /// When a record was first written that says that its task is over, in real time.
    pub over: Arc<OnceLock<Instant>>,
}

impl<P: ?Sized> Elsewhere<P> {
    pub fn new(port: Arc<P>, there: &Handle) -> Self {
        Self { port, there: there.clone(), calls: Arc::default(), largest: Arc::default(), over: Arc::default() }
    }

    async fn call<T, F>(&self, make: impl FnOnce(Arc<P>) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.calls.fetch_add(1, Ordering::Relaxed);
        on(&self.there, make(Arc::clone(&self.port))).await
    }
}

async fn on<T: Send + 'static>(there: &Handle, work: impl Future<Output = T> + Send + 'static) -> T {
    let there = there.clone();
    tokio::task::spawn_blocking(move || there.block_on(work)).await.unwrap()
}

#[async_trait]
impl ChunkStore for Elsewhere<dyn ChunkStore> {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.call(|port| async move { port.put(&key, bytes).await }).await
    }
    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let key = key.to_owned();
        self.call(|port| async move { port.get(&key).await }).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let prefix = prefix.to_owned();
        self.call(|port| async move { port.list(&prefix).await }).await
    }
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.call(|port| async move { port.delete(&key).await }).await
    }
}

#[async_trait]
impl TaskStore for Elsewhere<dyn TaskStore> {
    async fn create(&self, record: &TaskRecord, now: u64) -> Result<Created, StoreError> {
        let record = record.clone();
        self.call(|port| async move { port.create(&record, now).await }).await
    }
    async fn load(&self, id: &str, now: u64) -> Result<Option<Versioned>, StoreError> {
        let id = id.to_owned();
        self.call(|port| async move { port.load(&id, now).await }).await
    }
    async fn save(&self, record: &TaskRecord, version: u64) -> Result<Option<u64>, StoreError> {
        self.largest.fetch_max(serde_json::to_string(record).unwrap().len(), Ordering::Relaxed);
        let (record, over) = (record.clone(), !record.running());
        let saved = self.call(|port| async move { port.save(&record, version).await }).await;
        if over && saved.is_ok() {
            self.over.get_or_init(Instant::now);
        }
        saved
    }
    async fn delete(&self, id: &str, version: u64) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.call(|port| async move { port.delete(&id, version).await }).await
    }
    async fn list(&self, shelf: Shelf, limit: u32, after: Option<&Cursor>, now: u64) -> Result<TaskPage, StoreError> {
        let after = after.cloned();
        self.call(|port| async move { port.list(shelf, limit, after.as_ref(), now).await }).await
    }
}

#[async_trait]
impl RecordingStore for Elsewhere<dyn RecordingStore> {
    async fn create(&self, place: &Place) -> Result<Box<dyn HeadLastObject>, StoreError> {
        let place = place.clone();
        let object = self.call(|port| async move { port.create(&place).await }).await?;
        Ok(Box::new(Abroad { object: Some(object), there: self.there.clone() }))
    }
    async fn resume(
        &self,
        place: &Place,
        states: &[String],
        held: Bytes,
    ) -> Result<Box<dyn HeadLastObject>, StoreError> {
        let (place, states) = (place.clone(), states.to_vec());
        let object = self.call(|port| async move { port.resume(&place, &states, held).await }).await?;
        Ok(Box::new(Abroad { object: Some(object), there: self.there.clone() }))
    }
    fn url(&self, place: &Place, key: &str, domain: Option<&str>) -> String {
        self.port.url(place, key, domain)
    }
}

/// An object of such a store. What is dropped in the middle of a call is dropped there.
struct Abroad {
    object: Option<Box<dyn HeadLastObject>>,
    there: Handle,
}

impl Abroad {
    fn object(&mut self) -> Box<dyn HeadLastObject> {
        self.object.take().expect("a call was given up, and the object with it")
    }
}

impl Drop for Abroad {
    fn drop(&mut self) {
        let _there = self.there.enter();
        drop(self.object.take());
    }
}

#[async_trait]
impl HeadLastObject for Abroad {
    fn head_alignment(&self) -> u64 {
        self.object.as_ref().map_or(1, |o| o.head_alignment())
    }
    async fn append(&mut self, payload: Bytes) -> Result<(), StoreError> {
        let mut object = self.object();
        let work = async move { (object.append(payload).await, object) };
        let (done, object) = on(&self.there, work).await;
        self.object = Some(object);
        done
    }
    async fn finish(mut self: Box<Self>, head: Bytes, name: &str) -> Result<String, StoreError> {
        let (object, name) = (self.object(), name.to_owned());
        on(&self.there, async move { object.finish(head, &name).await }).await
    }
    async fn abort(mut self: Box<Self>) -> Result<(), StoreError> {
        let object = self.object();
        on(&self.there, async move { object.abort().await }).await
    }
    fn marks(&mut self) -> Vec<Mark> {
        let _there = self.there.enter();
        self.object.as_mut().map(|o| o.marks()).unwrap_or_default()
    }
    async fn settle(&mut self) -> Result<(), StoreError> {
        let mut object = self.object();
        let work = async move { (object.settle().await, object) };
        let (done, object) = on(&self.there, work).await;
        self.object = Some(object);
        done
    }
}
