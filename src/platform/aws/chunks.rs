//! A bucket as chunk store.

use async_trait::async_trait;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use bytes::Bytes;

use super::Aws;
use super::error::{failed, own, status};
use crate::platform::{ChunkStore, StoreError, StoreErrorKind, key};

/// Pages of 1,000 keys that a listing may have: ten hours of the shortest segments are 23.
const MAX_PAGES: usize = 1000;

/// Objects of a bucket below a prefix. Puts are whole or not at all, and repeating one changes nothing, so the SDK may.
#[derive(Clone)]
pub struct S3ChunkStore {
    client: aws_sdk_s3::Client,
    bucket: String,
    prefix: String,
}

impl S3ChunkStore {
    /// A store in a bucket of the configured region; `prefix` comes before every key as it is (`""`, `"panorec/"`).
    pub fn new(aws: &Aws, bucket: &str, prefix: &str) -> Result<Self, StoreError> {
        key::check_prefix(prefix).map_err(|reason| own("open chunk store", prefix, StoreErrorKind::Refused, reason))?;
        Ok(Self { client: aws.s3(None), bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }

    /// The object's whole key.
    fn full(&self, op: &'static str, key: &str) -> Result<String, StoreError> {
        let full = format!("{}{key}", self.prefix);
        let checked = key::check(key).and_then(|()| key::check(&full));
        checked.map(|()| full).map_err(|reason| own(op, key, StoreErrorKind::Refused, reason))
    }
}

#[async_trait]
impl ChunkStore for S3ChunkStore {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let full = self.full("put", key)?;
        let sent = self.client.put_object().bucket(&self.bucket).key(full).body(bytes.into()).send().await;
        sent.map(drop).map_err(|e| s3("put", key, e))
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let full = self.full("get", key)?;
        let answer = self.client.get_object().bucket(&self.bucket).key(full).send().await;
        let body = answer.map_err(|e| s3("get", key, e))?.body.collect().await;
        // The rest of an answer is not tried again by the SDK; reading again helps.
        Ok(body.map_err(|e| own("get", key, StoreErrorKind::Unavailable, e.to_string()))?.into_bytes())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        key::check_prefix(prefix).map_err(|reason| own("list", prefix, StoreErrorKind::Refused, reason))?;
        let full = format!("{}{prefix}", self.prefix);
        let mut pages = self.client.list_objects_v2().bucket(&self.bucket).prefix(full).into_paginator().send();
        let mut keys = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some(page) = pages.next().await else {
                keys.sort_unstable();
                return Ok(keys);
            };
            let page = page.map_err(|e| s3("list", prefix, e))?;
            let found = page.contents().iter().filter_map(|object| object.key()?.strip_prefix(&self.prefix));
            // What no key of ours can be was put there by somebody else.
            keys.extend(found.filter(|key| key::check(key).is_ok()).map(str::to_owned));
        }
        let reason = format!("more than {MAX_PAGES},000 objects; name a longer prefix");
        Err(own("list", prefix, StoreErrorKind::Refused, reason))
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let full = self.full("delete", key)?;
        match self.client.delete_object().bucket(&self.bucket).key(full).send().await {
            Ok(_) => Ok(()),
            Err(e) => match s3("delete", key, e) {
                e if e.kind == StoreErrorKind::NotFound => Ok(()),
                e => Err(e),
            },
        }
    }
}

/// A failed call of S3, which says "reduce your request rate" with a status that elsewhere means anything.
pub(super) fn s3<E>(op: &'static str, key: &str, error: SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let busy = status(&error) == 503;
    let mut failed = failed(op, key, error);
    if busy {
        failed.kind = StoreErrorKind::Throttled;
    }
    failed
}
