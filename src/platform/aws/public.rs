//! Objects beside recordings, in their bucket.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::presigning::PresigningConfig;
use bytes::Bytes;

use super::chunks::s3;
use super::error::{own, status};
use super::recordings::{S3Recordings, is_taken};
use crate::platform::{Place, PublicObject, PublicStore, StoreError, StoreErrorKind, key};

impl S3Recordings {
    fn putting(&self, place: &Place, key: &str, object: PublicObject) -> Result<PutObjectFluentBuilder, StoreError> {
        key::check(key).map_err(|reason| own("put", key, StoreErrorKind::Refused, reason))?;
        let (client, bucket) = self.opened("replace", place)?;
        let put = client.put_object().bucket(bucket).key(key).body(object.bytes.into());
        Ok(put.content_type(object.content_type).cache_control(object.cache_control))
    }
}

#[async_trait]
impl PublicStore for S3Recordings {
    async fn put(&self, place: &Place, key: &str, object: PublicObject) -> Result<(), StoreError> {
        self.putting(place, key, object)?.send().await.map(drop).map_err(|e| s3("put", key, e))
    }

    async fn replace(
        &self,
        place: &Place,
        key: &str,
        object: PublicObject,
        seen: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        let put = self.putting(place, key, object)?;
        let put = match seen {
            Some(version) => put.if_match(version),
            None => put.if_none_match("*"),
        };
        match put.send().await {
            Ok(done) => match done.e_tag() {
                Some(version) => Ok(Some(version.to_owned())),
                None => Err(own("replace", key, StoreErrorKind::Refused, "the store gives no ETag; it is no S3")),
            },
            // Gone is another than was seen, too.
            Err(e) if is_taken(&e) || (seen.is_some() && status(&e) == 404) => Ok(None),
            Err(e) => Err(s3("replace", key, e)),
        }
    }

    async fn read(&self, place: &Place, key: &str) -> Result<Option<(Bytes, String)>, StoreError> {
        let (client, bucket) = self.opened("read", place)?;
        let found = match client.get_object().bucket(bucket).key(key).send().await.map_err(|e| s3("read", key, e)) {
            Err(e) if e.kind == StoreErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        let version = found.e_tag().unwrap_or_default().to_owned();
        let body = found.body.collect().await;
        let bytes = body.map_err(|e| own("read", key, StoreErrorKind::Unavailable, e.to_string()))?.into_bytes();
        Ok(Some((bytes, version)))
    }

    async fn link(&self, place: &Place, key: &str, lifetime: Duration) -> Result<String, StoreError> {
        let (client, bucket) = self.opened("link", place)?;
        let refuse = |reason: String| own("link to", key, StoreErrorKind::Refused, reason);
        let config = PresigningConfig::expires_in(lifetime).map_err(|e| refuse(e.to_string()))?;
        // Nothing is sent.
        let signed = client.get_object().bucket(bucket).key(key).presigned(config).await;
        Ok(signed.map_err(|e| s3("link to", key, e))?.uri().to_owned())
    }
}
