//! The ports to the world, and the worlds that implement them.
//!
//! Ports are small and decide nothing. Every error says whether the effect may have happened.

pub mod conformance;
pub mod key;
pub mod local;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

/// What went wrong in a store, and what may be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// No such object.
    NotFound,
    /// The medium is full; nothing of the object was kept.
    Full,
    /// The key or the target is not acceptable or not permitted.
    Refused,
    /// Anything else; trying again may help. The effect may have happened.
    Unavailable,
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

/// An object written head last: media payload while recording, the head (whose size depends on all of it) at the end.
#[async_trait]
pub trait HeadLastObject: Send {
    /// Head lengths must be a multiple of this for [`finish`](Self::finish) to be cheap; 1 where it does not matter.
    fn head_alignment(&self) -> u64;
    /// Appends payload. On error nothing of it is kept.
    async fn append(&mut self, payload: Bytes) -> Result<(), StoreError>;
    /// Puts the head in front and makes the object visible under its name, whole. Not idempotent.
    async fn finish(self: Box<Self>, head: Bytes) -> Result<(), StoreError>;
    /// Leaves nothing behind.
    async fn abort(self: Box<Self>) -> Result<(), StoreError>;
}
