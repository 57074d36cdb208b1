//! Objects in a bucket that somebody else has lent, with temporary credentials, in the S3 protocol. What is asked of the
//! other side is little, since it may be no S3: plain puts and parts, no conditions, no checksums of its own.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use aws_config::Region;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Builder, Credentials, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};

use super::chunks::s3;
use super::{Aws, TRANSFER_LIMIT, limits};
use crate::platform::{HeadLastObject, LentStore, Loan, Mark, PublicObject, StoreError};

/// Smallest part but for the last; held back to follow the head in the first.
const HELD_BYTES: usize = 5 << 20;
/// Bytes of every part but the first and the last.
const PART_BYTES: usize = 10 << 20;

/// Buckets in the S3 protocol.
pub struct S3Lent {
    endpoint: Option<String>,
    /// The last client, with its connections, and the region and credentials that it is good for: uploads of many objects have
    /// one loan.
    last: Mutex<Option<(Loan, Client)>>,
}

impl S3Lent {
    /// Buckets at `endpoint`, path style, or where the vendor has them.
    pub fn new(endpoint: Option<String>) -> Self {
        Self { endpoint, last: Mutex::default() }
    }

    async fn client(&self, loan: &Loan) -> Client {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match last {
            Some((of, client)) if of == (Loan { key: of.key.clone(), bucket: of.bucket.clone(), ..loan.clone() }) => {
                client
            }
            _ => {
                let client = self.connect(loan).await;
                *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((loan.clone(), client.clone()));
                client
            }
        }
    }

    async fn connect(&self, loan: &Loan) -> Client {
        let endpoint = self.endpoint.clone().unwrap_or_else(|| format!("https://cos.{}.myqcloud.com", loan.region));
        let Loan { access_key, secret_key, token, region, .. } = loan;
        let credentials = Credentials::new(access_key, secret_key, Some(token.clone()), None, "lent");
        let shared = Aws::loader()
            .region(Region::new(region.clone()))
            .credentials_provider(credentials)
            .endpoint_url(endpoint)
            .load()
            .await;
        let config = Builder::from(&shared)
            .timeout_config(limits(TRANSFER_LIMIT))
            .force_path_style(self.endpoint.is_some())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        Client::from_conf(config)
    }
}

#[async_trait]
impl LentStore for S3Lent {
    async fn open(&self, loan: &Loan) -> Result<Box<dyn HeadLastObject>, StoreError> {
        let (held, filling) = (BytesMut::new(), BytesMut::new());
        let client = self.client(loan).await;
        Ok(Box::new(LentObject { client, loan: loan.clone(), held, filling, upload: None, parts: Vec::new() }))
    }

    async fn put(&self, loan: &Loan, object: PublicObject) -> Result<(), StoreError> {
        let client = self.client(loan).await;
        let call = client.put_object().bucket(&loan.bucket).key(&loan.key).body(object.bytes.into());
        let call = call.content_type(object.content_type).cache_control(object.cache_control);
        call.send().await.map(drop).map_err(|e| s3("put", &loan.key, e))
    }
}

struct LentObject {
    client: Client,
    loan: Loan,
    held: BytesMut,
    filling: BytesMut,
    /// An upload in parts, begun.
    upload: Option<String>,
    /// From the second on.
    parts: Vec<CompletedPart>,
}

impl LentObject {
    async fn begin(&mut self) -> Result<String, StoreError> {
        if let Some(id) = &self.upload {
            return Ok(id.clone());
        }
        let Loan { bucket, key, .. } = &self.loan;
        let call = self.client.create_multipart_upload().bucket(bucket).key(key).content_type("video/mp4");
        let begun = call.send().await.map_err(|e| s3("begin the upload of", key, e))?;
        Ok(self.upload.insert(begun.upload_id.unwrap_or_default()).clone())
    }

    async fn part(&mut self, number: i32, body: Bytes) -> Result<CompletedPart, StoreError> {
        let id = self.begin().await?;
        let Loan { bucket, key, .. } = &self.loan;
        let call = self.client.upload_part().bucket(bucket).key(key).upload_id(id).part_number(number);
        let done = call.body(body.into()).send().await.map_err(|e| s3("upload a part of", key, e))?;
        Ok(CompletedPart::builder().part_number(number).set_e_tag(done.e_tag).build())
    }

    async fn next_part(&mut self, body: Bytes) -> Result<(), StoreError> {
        let part = self.part(self.parts.len() as i32 + 2, body).await?;
        self.parts.push(part);
        Ok(())
    }

    async fn complete(&mut self, first: Bytes) -> Result<(), StoreError> {
        if !self.filling.is_empty() {
            let rest = self.filling.split().freeze();
            self.next_part(rest).await?;
        }
        let first = self.part(1, first).await?;
        self.parts.insert(0, first);
        let id = self.begin().await?;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.parts.clone())).build();
        let Loan { bucket, key, .. } = &self.loan;
        let call = self.client.complete_multipart_upload().bucket(bucket).key(key).upload_id(id);
        call.multipart_upload(parts).send().await.map(drop).map_err(|e| s3("finish", key, e))
    }

    async fn give_up(&self) -> Result<(), StoreError> {
        let Some(id) = &self.upload else { return Ok(()) };
        let Loan { bucket, key, .. } = &self.loan;
        let call = self.client.abort_multipart_upload().bucket(bucket).key(key).upload_id(id);
        call.send().await.map(drop).map_err(|e| s3("abort the upload of", key, e))
    }
}

#[async_trait]
impl HeadLastObject for LentObject {
    fn head_alignment(&self) -> u64 {
        1
    }

    async fn append(&mut self, mut payload: Bytes) -> Result<(), StoreError> {
        while self.filling.len() >= PART_BYTES {
            let part = self.filling.clone().split_to(PART_BYTES).freeze();
            self.next_part(part).await?;
            let _sent = self.filling.split_to(PART_BYTES);
        }
        let held = payload.split_to(payload.len().min(HELD_BYTES - self.held.len()));
        self.held.extend_from_slice(&held);
        self.filling.extend_from_slice(&payload);
        Ok(())
    }

    async fn finish(mut self: Box<Self>, head: Bytes, _name: &str) -> Result<String, StoreError> {
        let key = self.loan.key.clone();
        let mut first = BytesMut::with_capacity(head.len() + self.held.len());
        first.extend_from_slice(&head);
        first.extend_from_slice(&self.held);
        if self.upload.is_none() {
            first.extend_from_slice(&self.filling);
            let call = self.client.put_object().bucket(&self.loan.bucket).key(&key).content_type("video/mp4");
            return match call.body(first.freeze().into()).send().await {
                Ok(_) => Ok(key),
                Err(e) => Err(s3("finish", &key, e)),
            };
        }
        if let Err(error) = self.complete(first.freeze()).await {
            if let Err(left) = self.give_up().await {
                tracing::warn!(key, error = %left.source, "an unfinished upload is left behind");
            }
            return Err(error);
        }
        Ok(key)
    }

    async fn abort(self: Box<Self>) -> Result<(), StoreError> {
        self.give_up().await
    }

    /// It is made in one go, of chunks that stay until then: nobody goes on with half of it.
    fn marks(&mut self) -> Vec<Mark> {
        Vec::new()
    }

    async fn settle(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}
