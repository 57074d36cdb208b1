//! The ports to the world, and the worlds that implement them.
//!
//! Ports are small and decide nothing. Every error says whether the effect may have happened.

pub mod aws;
pub mod clock;
pub mod conformance;
pub mod faults;
pub mod key;
pub mod local;
pub mod memory;
pub mod public;
pub mod retry;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use crate::task::loan::Loan;
use crate::task::record::TaskRecord;
pub use public::{PublicObject, PublicStore};

/// What went wrong in a store, and what may be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// No such object.
    NotFound,
    /// The medium is full; nothing of the object was kept.
    Full,
    /// The key or the target is not acceptable or not permitted.
    Refused,
    /// Too many requests; nothing happened, and trying again later helps.
    Throttled,
    /// Anything else; trying again may help. The effect may have happened.
    Unavailable,
}

impl StoreErrorKind {
    /// The same call may go well a little later.
    pub fn is_transient(self) -> bool {
        match self {
            Self::Throttled | Self::Unavailable => true,
            Self::NotFound | Self::Full | Self::Refused => false,
        }
    }
}

/// A failed store operation.
#[derive(Debug, Error)]
#[error("{op} `{key}` failed")]
pub struct StoreError {
    /// The operation.
    pub op: &'static str,
    /// The object.
    pub key: String,
    /// Its class.
    pub kind: StoreErrorKind,
    /// The cause.
    #[source]
    pub source: std::io::Error,
}

/// Where segments are kept while a recording runs.
#[async_trait]
pub trait ChunkStore: Send + Sync {
    /// Stores an object whole or not at all. Idempotent: the same key and bytes again change nothing.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError>;
    /// Reads an object.
    async fn get(&self, key: &str) -> Result<Bytes, StoreError>;
    /// Keys below a prefix, sorted. An absent prefix is an empty list.
    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError>;
    /// Removes an object. Idempotent: removing an absent one succeeds.
    async fn delete(&self, key: &str) -> Result<(), StoreError>;
}

/// Word of payload that has become lasting: another process can go on with the object from its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Bytes of payload up to here: the end of one that was appended.
    pub payload: u64,
    /// Of these, bytes at the front that are held back in memory: a process that goes on brings them along.
    pub held: u64,
    /// What the store has to be told to go on: all of them, in the order in which they came.
    pub state: String,
}

/// An object written head last: media payload while recording, the head (whose size depends on all of it) at the end.
#[async_trait]
pub trait HeadLastObject: Send {
    /// Head lengths must be a multiple of this for [`finish`](Self::finish) to be cheap; 1 where it does not matter.
    fn head_alignment(&self) -> u64;
    /// Appends payload. On error nothing of it is kept.
    async fn append(&mut self, payload: Bytes) -> Result<(), StoreError>;
    /// Puts the head in front and makes the object visible, whole, under the name it was created with, or under `name`
    /// if it was created without one. Never replaces what is there already: another name is found instead. Returns the
    /// key under which it is visible. Not idempotent.
    async fn finish(self: Box<Self>, head: Bytes, name: &str) -> Result<String, StoreError>;
    /// Leaves nothing behind.
    async fn abort(self: Box<Self>) -> Result<(), StoreError>;
    /// What has become lasting since the last call, oldest first. From the first one on, an object that is dropped, or
    /// whose end fails for now, stays for [`RecordingStore::resume`].
    fn marks(&mut self) -> Vec<Mark>;
    /// Waits for what is on its way to become lasting.
    async fn settle(&mut self) -> Result<(), StoreError>;
}

/// Where a finished recording belongs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Bucket, where it is not the configured one.
    pub bucket: Option<String>,
    /// Its region, where it is not the configured one.
    pub region: Option<String>,
    /// Directory part of the key.
    pub dir: String,
    /// Last part of the key with its extension; given at the end if absent.
    pub name: Option<String>,
}

/// Puts objects where others have lent a place.
#[async_trait]
pub trait LentStore: Send + Sync {
    /// An object at the place; it appears, whole, when it is finished, under its own key whatever name that is given.
    async fn open(&self, loan: &Loan) -> Result<Box<dyn HeadLastObject>, StoreError>;
    /// Stores an object whole or not at all, over one that is there. Idempotent.
    async fn put(&self, loan: &Loan, object: PublicObject) -> Result<(), StoreError>;
}

/// Where finished recordings are kept.
#[async_trait]
pub trait RecordingStore: Send + Sync {
    /// A new recording; nothing of it is visible before it is finished.
    async fn create(&self, place: &Place) -> Result<Box<dyn HeadLastObject>, StoreError>;
    /// Goes on with an object that another process began: `states` are those of its marks, `held` the bytes that they
    /// say are held back. Payload is appended from the last mark on. Whoever began it may still be at it: nothing that it
    /// does from now on gets into the recording. `NotFound` if it is gone, which may show later, too.
    async fn resume(
        &self,
        place: &Place,
        states: &[String],
        held: Bytes,
    ) -> Result<Box<dyn HeadLastObject>, StoreError>;
    /// Address of the recording with this key for those who play it, on `domain` if that is given.
    fn url(&self, place: &Place, key: &str, domain: Option<&str>) -> String;
}

/// Address of a key on a playback domain, percent-encoded part by part.
pub fn on_domain(domain: &str, key: &str) -> String {
    let Ok(mut url) = url::Url::parse(&format!("https://{domain}/")) else { return format!("https://{domain}/{key}") };
    if let Ok(mut parts) = url.path_segments_mut() {
        parts.pop_if_empty().extend(key.split('/'));
    }
    url.into()
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned {
    /// The record.
    pub record: TaskRecord,
    /// Counts up with every save.
    pub version: u64,
}

/// What came of adding a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Created {
    /// It was added, with this version.
    New(u64),
    /// One with its id is there already.
    Exists(Box<Versioned>),
}

/// Which tasks to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shelf {
    /// Every task.
    All,
    /// Those that are not finished.
    Running,
    /// Those that are.
    Finished,
}

/// A position in a listing: everything older than this task follows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor {
    /// Unix milliseconds.
    pub created: u64,
    /// Breaks ties.
    pub id: String,
}

/// A page of a listing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TaskPage {
    /// Newest first.
    pub records: Vec<TaskRecord>,
    /// Where the next page begins, if there may be more.
    pub next: Option<Cursor>,
}

/// Task records under a version. Records whose time is over (`expires <= now`) do not exist, removed or not.
#[async_trait]
pub trait TaskStore: Send + Sync {
    /// Adds a record unless one with its id exists. Repeating it after an error may find its own record.
    async fn create(&self, record: &TaskRecord, now: u64) -> Result<Created, StoreError>;
    /// Reads a record as the last successful write left it.
    async fn load(&self, id: &str, now: u64) -> Result<Option<Versioned>, StoreError>;
    /// Replaces a record if it still has `version`, and returns the new version; `None` if it has another or is gone.
    /// After an error it may have been replaced: whoever tries again must read it first.
    async fn save(&self, record: &TaskRecord, version: u64) -> Result<Option<u64>, StoreError>;
    /// Removes a record if it still has `version`; says whether it did.
    async fn delete(&self, id: &str, version: u64) -> Result<bool, StoreError>;
    /// Tasks of a shelf, newest first, at most `limit` (1 or more), beginning after `after`. May lag behind writes.
    async fn list(&self, shelf: Shelf, limit: u32, after: Option<&Cursor>, now: u64) -> Result<TaskPage, StoreError>;
}

/// The event that makes an invocation record a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecorderEvent {
    /// The task.
    #[serde(rename = "TaskID")]
    pub task: String,
    /// The generation that it is to be. An event that comes again, or late, finds that one begun and changes nothing. Without
    /// it, whichever is next: of a task that nobody works on.
    #[serde(rename = "Generation", default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
}

/// The event as an invocation gets it.
pub fn recorder_event(event: &RecorderEvent) -> serde_json::Value {
    serde_json::json!({ "Recorder": event })
}

/// Starts invocations of ourselves.
#[async_trait]
pub trait Continuation: Send + Sync {
    /// Asks for an invocation with this event and does not wait for it. It will happen at least once, perhaps late; after
    /// an error of kind `Unavailable` it may happen.
    async fn invoke(&self, event: &RecorderEvent) -> Result<(), StoreError>;
}

/// Wall time.
pub trait Clock: Send + Sync {
    /// Unix milliseconds. May step.
    fn now(&self) -> u64;
}

/// Everything outside, as one deployment has it.
#[derive(Clone)]
pub struct Platform {
    /// Task records.
    pub tasks: Arc<dyn TaskStore>,
    /// Intermediate chunks in the object store (`cos`).
    pub chunks: Arc<dyn ChunkStore>,
    /// Intermediate chunks on a mounted file system (`cfs`), if one is configured; then it is the default.
    pub mounted: Option<Arc<dyn ChunkStore>>,
    /// Finished recordings.
    pub recordings: Arc<dyn RecordingStore>,
    /// What is beside them for players.
    pub public: Arc<dyn PublicStore>,
    /// Invocations of ourselves.
    pub continuation: Arc<dyn Continuation>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Calls that were tried again, for metrics.
    pub retries: Arc<AtomicU64>,
}
