//! Failures on demand: a decorator for every port, driven by one count over all of them, so that a test can let each
//! single call of a whole recording fail.

use super::{
    ChunkStore, Continuation, Created, Cursor, HeadLastObject, LentStore, Loan, Mark, Place, Platform, PublicObject,
    PublicStore, RecorderEvent, RecordingStore, Shelf, StoreError, StoreErrorKind, TaskPage, TaskStore, Versioned,
};
use crate::task::record::TaskRecord;
use async_trait::async_trait;
use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// When a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Nothing happened.
    Before,
    /// It happened, and the caller does not know.
    After,
}

/// Which calls fail. They count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// None: the calls are only counted.
    None,
    /// This one.
    One(u64, Moment),
    /// All of these, before their effect.
    Outage(Range<u64>),
    /// All within this time of the beginning, before their effect.
    Away(Range<Duration>),
    /// One in so many by chance, which is always the same for a seed, before their effect or after it.
    Often {
        /// Of chance.
        seed: u64,
        /// Calls of which one fails.
        one_in: u64,
    },
}

/// The count of calls, and the plan.
#[derive(Debug)]
pub struct Faults {
    plan: Plan,
    begun: Instant,
    calls: AtomicU64,
    /// Of these, such as fail before their effect only.
    once: AtomicU64,
    failed: AtomicU64,
}

impl Faults {
    /// A plan at its beginning.
    pub fn new(plan: Plan) -> Arc<Self> {
        Arc::new(Self {
            plan,
            begun: Instant::now(),
            calls: AtomicU64::new(0),
            once: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    /// Calls so far, failed ones included.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Failures that one of these calls might have had: before its effect, or after it.
    pub fn points(&self) -> u64 {
        2 * self.calls() - self.once.load(Ordering::Relaxed)
    }

    /// Calls that this has let fail so far.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Everything outside, with failures.
    pub fn around(self: &Arc<Self>, platform: Platform) -> Platform {
        Platform {
            tasks: Arc::new(Faulty::new(platform.tasks, self)),
            chunks: Arc::new(Faulty::new(platform.chunks, self)),
            mounted: platform.mounted.map(|chunks| Arc::new(Faulty::new(chunks, self)) as Arc<dyn ChunkStore>),
            recordings: Arc::new(Faulty::new(platform.recordings, self)),
            public: Arc::new(Faulty::new(platform.public, self)),
            continuation: Arc::new(Faulty::new(platform.continuation, self)),
            clock: platform.clock,
            retries: platform.retries,
        }
    }

    /// Places that are lent, with failures of what is put beside them.
    pub fn around_lent(self: &Arc<Self>, lent: Arc<dyn LentStore>) -> impl LentStore + use<> {
        Faulty::new(lent, self)
    }

    fn next(&self) -> Option<Moment> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let fails = match &self.plan {
            Plan::None => None,
            Plan::One(one, moment) => (*one == number).then_some(*moment),
            Plan::Outage(span) => span.contains(&number).then_some(Moment::Before),
            Plan::Away(span) => span.contains(&self.begun.elapsed()).then_some(Moment::Before),
            Plan::Often { seed, one_in } => {
                let chance = scattered(seed ^ number);
                let moment = if chance >> 63 == 0 { Moment::Before } else { Moment::After };
                chance.is_multiple_of(*one_in).then_some(moment)
            }
        };
        self.failed.fetch_add(fails.is_some().into(), Ordering::Relaxed);
        fails
    }

    /// Makes a call, or fails it.
    async fn call<T>(
        &self,
        op: &'static str,
        key: &str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let when = match self.next() {
            None => return call.await,
            Some(Moment::Before) => "before",
            Some(Moment::After) => call.await.map(|_| "after")?,
        };
        let source = io::Error::other(format!("a failure was injected {when} the effect"));
        Err(StoreError { op, key: key.into(), kind: StoreErrorKind::Unavailable, source })
    }
}

/// A number that looks like chance (the finalizer of SplitMix64: Steele, Lea, Flood 2014).
fn scattered(number: u64) -> u64 {
    let z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A port whose calls may fail.
pub struct Faulty<P: ?Sized> {
    port: Arc<P>,
    faults: Arc<Faults>,
}

impl<P: ?Sized> Faulty<P> {
    /// `port`, with failures.
    pub fn new(port: Arc<P>, faults: &Arc<Faults>) -> Self {
        Self { port, faults: faults.clone() }
    }
}

#[async_trait]
impl<P: TaskStore + ?Sized> TaskStore for Faulty<P> {
    async fn create(&self, record: &TaskRecord, now: u64) -> Result<Created, StoreError> {
        self.faults.call("create", &record.id, self.port.create(record, now)).await
    }
    async fn load(&self, id: &str, now: u64) -> Result<Option<Versioned>, StoreError> {
        self.faults.call("load", id, self.port.load(id, now)).await
    }
    async fn save(&self, record: &TaskRecord, version: u64) -> Result<Option<u64>, StoreError> {
        self.faults.call("save", &record.id, self.port.save(record, version)).await
    }
    async fn delete(&self, id: &str, version: u64) -> Result<bool, StoreError> {
        self.faults.call("delete", id, self.port.delete(id, version)).await
    }
    async fn list(&self, shelf: Shelf, limit: u32, after: Option<&Cursor>, now: u64) -> Result<TaskPage, StoreError> {
        self.faults.call("list", "tasks", self.port.list(shelf, limit, after, now)).await
    }
}

#[async_trait]
impl<P: ChunkStore + ?Sized> ChunkStore for Faulty<P> {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.faults.call("put", key, self.port.put(key, bytes)).await
    }
    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.faults.call("get", key, self.port.get(key)).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.faults.call("list", prefix, self.port.list(prefix)).await
    }
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.faults.call("delete", key, self.port.delete(key)).await
    }
}

#[async_trait]
impl<P: RecordingStore + ?Sized> RecordingStore for Faulty<P> {
    async fn create(&self, place: &Place) -> Result<Box<dyn HeadLastObject>, StoreError> {
        let object = self.faults.call("create", &place.dir, self.port.create(place)).await?;
        Ok(Box::new(FaultyObject { object, faults: self.faults.clone() }))
    }
    async fn resume(
        &self,
        place: &Place,
        states: &[String],
        held: Bytes,
    ) -> Result<Box<dyn HeadLastObject>, StoreError> {
        let object = self.faults.call("resume", &place.dir, self.port.resume(place, states, held)).await?;
        Ok(Box::new(FaultyObject { object, faults: self.faults.clone() }))
    }
    fn url(&self, place: &Place, key: &str, domain: Option<&str>) -> String {
        self.port.url(place, key, domain)
    }
}

struct FaultyObject {
    object: Box<dyn HeadLastObject>,
    faults: Arc<Faults>,
}

#[async_trait]
impl HeadLastObject for FaultyObject {
    fn head_alignment(&self) -> u64 {
        self.object.head_alignment()
    }
    /// Fails before the effect only: after an error nothing of the payload may be there.
    async fn append(&mut self, payload: Bytes) -> Result<(), StoreError> {
        let Self { object, faults } = self;
        faults.once.fetch_add(1, Ordering::Relaxed);
        match faults.next() {
            None => object.append(payload).await,
            Some(Moment::Before | Moment::After) => {
                let source = io::Error::other("a failure was injected before the effect");
                Err(StoreError { op: "append to", key: String::new(), kind: StoreErrorKind::Unavailable, source })
            }
        }
    }
    async fn finish(self: Box<Self>, head: Bytes, name: &str) -> Result<String, StoreError> {
        self.faults.call("finish", name, self.object.finish(head, name)).await
    }
    async fn abort(self: Box<Self>) -> Result<(), StoreError> {
        self.faults.call("abort", "", self.object.abort()).await
    }
    fn marks(&mut self) -> Vec<Mark> {
        self.object.marks()
    }
    async fn settle(&mut self) -> Result<(), StoreError> {
        self.faults.call("settle", "", self.object.settle()).await
    }
}

#[async_trait]
impl<P: PublicStore + ?Sized> PublicStore for Faulty<P> {
    async fn put(&self, place: &Place, key: &str, object: PublicObject) -> Result<(), StoreError> {
        self.faults.call("put", key, self.port.put(place, key, object)).await
    }
    async fn replace(
        &self,
        place: &Place,
        key: &str,
        object: PublicObject,
        seen: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        self.faults.call("replace", key, self.port.replace(place, key, object, seen)).await
    }
    async fn read(&self, place: &Place, key: &str) -> Result<Option<(Bytes, String)>, StoreError> {
        self.faults.call("read", key, self.port.read(place, key)).await
    }
    async fn link(&self, place: &Place, key: &str, lifetime: Duration) -> Result<String, StoreError> {
        self.port.link(place, key, lifetime).await
    }
}

#[async_trait]
impl<P: LentStore + ?Sized> LentStore for Faulty<P> {
    async fn open(&self, loan: &Loan) -> Result<Box<dyn HeadLastObject>, StoreError> {
        self.port.open(loan).await
    }
    async fn put(&self, loan: &Loan, object: PublicObject) -> Result<(), StoreError> {
        self.faults.call("put", &loan.key, self.port.put(loan, object)).await
    }
}

#[async_trait]
impl<P: Continuation + ?Sized> Continuation for Faulty<P> {
    async fn invoke(&self, event: &RecorderEvent) -> Result<(), StoreError> {
        self.faults.call("invoke for", &event.task, self.port.invoke(event)).await
    }
}

#[cfg(test)]
mod tests;
