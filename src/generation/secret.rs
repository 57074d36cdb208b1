//! Chunks of an encrypted recording: they are encrypted wherever they are kept, too.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::delivery::hls::cipher::{decrypt, encrypt};
use crate::platform::{ChunkStore, StoreError, StoreErrorKind};
use crate::task::output::Key;

/// Chunks that are encrypted wherever they are kept.
pub struct EncryptedChunks {
    chunks: Arc<dyn ChunkStore>,
    key: Key,
}

impl EncryptedChunks {
    /// `chunks`, encrypted with `key`.
    pub fn new(chunks: Arc<dyn ChunkStore>, key: Key) -> Self {
        Self { chunks, key }
    }

    /// One for each name: the same chunk again must come out the same.
    fn iv(&self, name: &str) -> [u8; 16] {
        let digest = Sha256::new_with_prefix(b"panorec chunk").chain_update(self.key.0).chain_update(name).finalize();
        std::array::from_fn(|n| digest[n])
    }
}

#[async_trait]
impl ChunkStore for EncryptedChunks {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.chunks.put(key, encrypt(&self.key, self.iv(key), &bytes)).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let secret = self.chunks.get(key).await?;
        decrypt(&self.key, self.iv(key), &secret).ok_or_else(|| {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidData, "it is damaged: it cannot be decrypted");
            StoreError { op: "get", key: key.into(), kind: StoreErrorKind::Refused, source }
        })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.chunks.list(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.chunks.delete(key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::conformance;
    use crate::platform::memory::MemoryChunkStore;

    #[tokio::test]
    async fn chunks_come_back_and_are_not_kept_in_the_clear() {
        let kept = MemoryChunkStore::default();
        let chunks = EncryptedChunks::new(Arc::new(kept.clone()), Key(*b"0123456789abcdef"));
        conformance::chunk_store(&chunks).await;
        chunks.put("raw/t/1/x", Bytes::from_static(b"moof and mdat, in the clear")).await.unwrap();
        let there = kept.get("raw/t/1/x").await.unwrap();
        assert!(!there.windows(4).any(|w| w == b"moof"));
    }
}
