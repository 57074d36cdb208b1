//! An upload in parts, of which the first comes last.
//!
//! Parts 2…n go up while recording, one in flight while the next fills, so memory is bounded by two parts and one append.
//! A part that could not be sent is kept and sent again; nothing that was accepted is lost before the upload ends.
//!
//! An upload that is neither completed nor aborted costs its owner money, unseen: dropping it aborts it where a runtime
//! is left to do so. After a kill, the bucket's lifecycle rule for incomplete uploads has to.

use std::time::Duration;

use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use tokio::task::{JoinError, JoinHandle};

use super::chunks::s3;
use super::error::own;
use super::recordings::{CONTENT_TYPE, MARK, Naming};
use crate::platform::{StoreError, StoreErrorKind};

/// Bytes of every part but the first and the last. S3 takes 10,000 parts: 98 GiB, and ten hours at the highest bitrates
/// are 85.
pub(super) const PART_BYTES: usize = 10 << 20;

/// Waits at the end of a recording when a call failed for now, all together: a quarter of a minute, within which a network
/// comes back or does not. The end can be tried once only, and giving up means to read everything back and send it again.
const WAITS: [u64; 5] = [500, 1000, 2000, 4000, 8000];

/// What is left of [`WAITS`].
#[derive(Default)]
pub(super) struct Patience {
    waited: usize,
}

impl Patience {
    /// Waits before the next try, or gives the error back.
    pub(super) async fn after(&mut self, error: StoreError) -> Result<(), StoreError> {
        let Some(wait) = WAITS.get(self.waited).filter(|_| error.kind.is_transient()) else { return Err(error) };
        tracing::warn!(op = error.op, key = error.key, wait_ms = wait, "failed for now; trying again");
        self.waited += 1;
        tokio::time::sleep(Duration::from_millis(*wait)).await;
        Ok(())
    }
}

/// Where parts go.
#[derive(Clone)]
struct Destination {
    naming: Naming,
    key: String,
    id: String,
}

impl Destination {
    async fn upload(self, number: i32, body: Bytes) -> Result<CompletedPart, StoreError> {
        let Naming { client, bucket, .. } = &self.naming;
        let call = client.upload_part().bucket(bucket).key(&self.key).upload_id(&self.id);
        let done = call.part_number(number).body(body.into()).send().await;
        let done = done.map_err(|e| s3("upload a part of", &self.key, e))?;
        let part = CompletedPart::builder().part_number(number).set_e_tag(done.e_tag);
        Ok(part.set_checksum_crc32(done.checksum_crc32).build())
    }

    fn spawn(&self, number: i32, body: Bytes) -> Flight {
        Flight { number, body: body.clone(), task: tokio::spawn(self.clone().upload(number, body)) }
    }

    async fn abort(&self) -> Result<(), StoreError> {
        let Naming { client, bucket, .. } = &self.naming;
        let call = client.abort_multipart_upload().bucket(bucket).key(&self.key).upload_id(&self.id);
        match call.send().await.map_err(|e| s3("abort the upload of", &self.key, e)) {
            Err(e) if e.kind != StoreErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

/// A part on its way, and its bytes in case it does not arrive.
struct Flight {
    number: i32,
    body: Bytes,
    task: JoinHandle<Result<CompletedPart, StoreError>>,
}

/// An upload under way.
pub(super) struct Multipart {
    to: Destination,
    parts: Vec<CompletedPart>,
    flight: Option<Flight>,
    over: bool,
}

impl Multipart {
    /// Begins an upload under a name that is free now.
    pub(super) async fn begin(naming: &Naming, name: &str) -> Result<Self, StoreError> {
        let mut candidates = naming.candidates(name)?;
        let key = naming.next_free(&mut candidates).await?;
        let Naming { client, bucket, mark, .. } = naming;
        let call = client.create_multipart_upload().bucket(bucket).key(&key).metadata(MARK, mark);
        let begun = call.content_type(CONTENT_TYPE).checksum_algorithm(ChecksumAlgorithm::Crc32).send().await;
        let id = begun.map_err(|e| s3("begin the upload of", &key, e))?.upload_id.unwrap_or_default();
        let to = Destination { naming: naming.clone(), key, id };
        Ok(Self { to, parts: Vec::new(), flight: None, over: false })
    }

    /// Sends what makes whole parts. An error keeps everything: what was not sent is sent by the next call.
    pub(super) async fn send_whole(&mut self, filling: &mut BytesMut) -> Result<(), StoreError> {
        while filling.len() >= PART_BYTES {
            self.settle().await?;
            self.launch(filling.split_to(PART_BYTES).freeze());
        }
        Ok(())
    }

    /// Makes the object of `first`, what was sent, and `rest`, and says its key. On error the upload is aborted.
    pub(super) async fn complete(mut self, first: Bytes, mut rest: BytesMut) -> Result<String, StoreError> {
        match self.end(first, &mut rest).await {
            Ok(()) => {
                self.over = true;
                Ok(self.to.key.clone())
            }
            Err(error) => {
                self.abort_logged().await;
                Err(error)
            }
        }
    }

    /// Leaves nothing behind.
    pub(super) async fn abort(mut self) -> Result<(), StoreError> {
        if let Some(Flight { task, .. }) = self.flight.take() {
            task.abort();
            // A part that arrives after the end of its upload would stay.
            let _ = task.await;
        }
        let aborted = self.to.abort().await;
        self.over = true;
        aborted
    }

    async fn abort_logged(self) {
        let key = self.to.key.clone();
        if let Err(error) = self.abort().await {
            tracing::warn!(key, error = %error.source, "an unfinished upload is left behind");
        }
    }

    /// Waits for the part that is on its way. If it failed it is on its way again.
    async fn settle(&mut self) -> Result<(), StoreError> {
        let Some(flight) = &mut self.flight else { return Ok(()) };
        let done = (&mut flight.task).await;
        let gone = |e: JoinError| own("upload a part of", &self.to.key, StoreErrorKind::Unavailable, e.to_string());
        match done.map_err(gone).flatten() {
            Ok(part) => {
                self.parts.push(part);
                self.flight = None;
                Ok(())
            }
            Err(error) => {
                *flight = self.to.spawn(flight.number, flight.body.clone());
                Err(error)
            }
        }
    }

    fn launch(&mut self, body: Bytes) {
        let number = self.parts.len() as i32 + 2;
        self.flight = Some(self.to.spawn(number, body));
    }

    /// The last parts, then the first, then the whole.
    async fn end(&mut self, first: Bytes, rest: &mut BytesMut) -> Result<(), StoreError> {
        let mut patience = Patience::default();
        while let Err(error) = self.send_whole(rest).await {
            patience.after(error).await?;
        }
        while let Err(error) = self.settle().await {
            patience.after(error).await?;
        }
        if !rest.is_empty() {
            self.launch(rest.split().freeze());
        }
        let first = loop {
            match self.to.clone().upload(1, first.clone()).await {
                Ok(part) => break part,
                Err(error) => patience.after(error).await?,
            }
        };
        while let Err(error) = self.settle().await {
            patience.after(error).await?;
        }
        self.parts.insert(0, first);
        while let Err(error) = self.publish().await {
            patience.after(error).await?;
        }
        Ok(())
    }

    async fn publish(&self) -> Result<(), StoreError> {
        let Destination { naming, key, id } = &self.to;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.parts.clone())).build();
        let call = naming.client.complete_multipart_upload().bucket(&naming.bucket).key(key).upload_id(id);
        let Err(error) = call.multipart_upload(parts).if_none_match("*").send().await else { return Ok(()) };
        // The answer to a try that went well may have been lost.
        if naming.is_ours(key).await {
            return Ok(());
        }
        if super::recordings::is_taken(&error) {
            let reason = "another object got this name while recording and is kept; the recording is not: finish it \
                          again under another name";
            return Err(own("finish", key, StoreErrorKind::Refused, reason));
        }
        Err(s3("finish", key, error))
    }
}

impl Drop for Multipart {
    fn drop(&mut self) {
        let flight = self.flight.take();
        if let Some(Flight { task, .. }) = &flight {
            task.abort();
        }
        if self.over {
            return;
        }
        let (to, over) = (self.to.clone(), flight.map(|f| f.task));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Some(task) = over {
                    let _ = task.await;
                }
                if let Err(error) = to.abort().await {
                    tracing::warn!(key = to.key, error = %error.source, "an unfinished upload is left behind");
                }
            });
        }
    }
}
