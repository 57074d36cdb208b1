//! Objects beside a finished recording that are there for players while it still grows: playlists, segments, pictures.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{Place, StoreError};

/// An object with what a web server says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicObject {
    /// Its content.
    pub bytes: Bytes,
    /// Media type.
    pub content_type: &'static str,
    /// `Cache-Control`.
    pub cache_control: &'static str,
}

/// Where such objects are kept: whole objects under whole keys, in the bucket (or directory) of a [`Place`].
#[async_trait]
pub trait PublicStore: Send + Sync {
    /// Stores an object whole or not at all, over one that is there: for keys that nobody else has. Idempotent.
    async fn put(&self, place: &Place, key: &str, object: PublicObject) -> Result<(), StoreError>;
    /// Stores an object in the place of the one whose version was seen, or (`None`) where none was. Gives the new version;
    /// `None` if it is another by now. After an error, or after `None` that follows one, it may have been stored: whoever
    /// must know reads it.
    async fn replace(
        &self,
        place: &Place,
        key: &str,
        object: PublicObject,
        seen: Option<&str>,
    ) -> Result<Option<String>, StoreError>;
    /// An object and its version, if it is there.
    async fn read(&self, place: &Place, key: &str) -> Result<Option<(Bytes, String)>, StoreError>;
    /// An address under which whoever has it can fetch the object for so long (a store without closed doors: for ever).
    async fn link(&self, place: &Place, key: &str, lifetime: Duration) -> Result<String, StoreError>;
}

/// Version of an object in stores that have none: it follows from the content.
pub(super) fn version(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..16].iter().map(|b| format!("{b:02x}")).collect()
}
