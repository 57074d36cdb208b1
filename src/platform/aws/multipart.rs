//! An upload in parts, of which the first comes last.
//!
//! Parts 2…n go up while recording, one in flight while the next fills, so memory is bounded by two parts and one append.
//! A part that could not be sent is kept and sent again; nothing that was accepted is lost before the upload ends.
//!
//! Another process goes on with it from its marks. The end names each part by its ETag, so a part that somebody replaced
//! who does not know that the upload is no longer his makes the end fail and not the recording wrong; and whoever goes on
//! leaves a few numbers free for him.
//!
//! An upload that is neither completed nor aborted costs its owner money, unseen: dropping it aborts it, unless somebody
//! else may go on, and where a runtime is left to do so. After that the bucket's lifecycle rule for incomplete uploads has to.

use std::time::Duration;

use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::task::{JoinError, JoinHandle};

use super::chunks::s3;
use super::error::own;
use super::recordings::{CACHE_CONTROL, CONTENT_TYPE, MARK, Naming};
use crate::platform::{Mark, StoreError, StoreErrorKind};

/// Bytes of a part at least, S3's smallest: what is not in a part yet is read back when another process goes on.
pub(super) const SMALL_PART_BYTES: usize = 5 << 20;
/// From this number on parts are larger: S3 takes 10,000, which are 114 GiB, and ten hours at the highest bitrates are 85.
const LARGE_FROM: i32 = 4_000;
const LARGE_PART_BYTES: usize = 16 << 20;
/// Numbers that whoever goes on leaves to whoever was before. A hundred lost recorders leave numbers for 100 GiB.
const SKIPPED: i32 = 8;

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
    async fn upload(self, number: i32, body: Bytes) -> Result<Part, StoreError> {
        let Naming { client, bucket, .. } = &self.naming;
        let length = body.len() as u64;
        let call = client.upload_part().bucket(bucket).key(&self.key).upload_id(&self.id);
        let done = call.part_number(number).body(body.into()).send().await;
        let done = done.map_err(|e| s3("upload a part of", &self.key, e))?;
        Ok(Part { number, tag: done.e_tag, crc32: done.checksum_crc32, length })
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

/// A part that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    #[serde(rename = "n")]
    number: i32,
    #[serde(rename = "e")]
    tag: Option<String>,
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    crc32: Option<String>,
    #[serde(rename = "l")]
    length: u64,
}

impl Part {
    fn completed(&self) -> CompletedPart {
        let part = CompletedPart::builder().part_number(self.number).set_e_tag(self.tag.clone());
        part.set_checksum_crc32(self.crc32.clone()).build()
    }
}

/// What a mark says: the first one of an upload where it goes, each one a part.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upload: Option<Begun>,
    part: Part,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    key: String,
    id: String,
    mark: String,
}

/// A part on its way, and its bytes in case it does not arrive.
struct Flight {
    number: i32,
    body: Bytes,
    task: JoinHandle<Result<Part, StoreError>>,
}

/// An upload under way.
pub(super) struct Multipart {
    to: Destination,
    parts: Vec<Part>,
    next: i32,
    flight: Option<Flight>,
    /// Bytes held back, and bytes of payload that are there.
    held: u64,
    payload: u64,
    /// Marks that nobody has taken.
    marks: Vec<Mark>,
    /// Somebody else may go on with it.
    shared: bool,
    over: bool,
}

impl Multipart {
    /// Begins an upload under a name that is free now.
    pub(super) async fn begin(naming: &Naming, name: &str, held: usize) -> Result<Self, StoreError> {
        let mut candidates = naming.candidates(name)?;
        let key = naming.next_free(&mut candidates).await?;
        let Naming { client, bucket, mark, .. } = naming;
        let call = client.create_multipart_upload().bucket(bucket).key(&key).metadata(MARK, mark);
        let call = call.content_type(CONTENT_TYPE).cache_control(CACHE_CONTROL);
        let begun = call.checksum_algorithm(ChecksumAlgorithm::Crc32).send().await;
        let id = begun.map_err(|e| s3("begin the upload of", &key, e))?.upload_id.unwrap_or_default();
        let to = Destination { naming: naming.clone(), key, id };
        Ok(Self::of(to, Vec::new(), held as u64))
    }

    fn of(to: Destination, parts: Vec<Part>, held: u64) -> Self {
        let payload = held + parts.iter().map(|p| p.length).sum::<u64>();
        Self { to, parts, next: 2, flight: None, held, payload, marks: Vec::new(), shared: false, over: false }
    }

    /// Goes on with one that another process began.
    pub(super) fn resume(mut naming: Naming, states: &[String], held: usize) -> Result<Self, serde_json::Error> {
        let states = states.iter().map(|s| serde_json::from_str(s)).collect::<Result<Vec<State>, _>>()?;
        let missing = || serde::de::Error::custom("no upload is named");
        let Begun { key, id, mark } = states.iter().find_map(|s| s.upload.as_ref()).ok_or_else(missing)?;
        naming.mark = mark.clone();
        let to = Destination { naming, key: key.clone(), id: id.clone() };
        let mut upload = Self::of(to, states.into_iter().map(|s| s.part).collect(), held as u64);
        upload.next = upload.parts.last().map_or(2, |p| p.number + 1 + SKIPPED);
        upload.shared = true;
        Ok(upload)
    }

    /// How much makes a part now.
    fn part_bytes(&self) -> usize {
        if self.next < LARGE_FROM { SMALL_PART_BYTES } else { LARGE_PART_BYTES }
    }

    /// See [`crate::platform::HeadLastObject::marks`].
    pub(super) fn marks(&mut self) -> Vec<Mark> {
        self.shared |= !self.marks.is_empty();
        std::mem::take(&mut self.marks)
    }

    /// Sends what makes a part. An error keeps everything: what was not sent is sent by the next call.
    pub(super) async fn send_whole(&mut self, filling: &mut BytesMut) -> Result<(), StoreError> {
        if filling.len() >= self.part_bytes() {
            self.settle().await?;
            self.launch(filling.split().freeze());
        } else if self.flight.as_ref().is_some_and(|f| f.task.is_finished()) {
            self.settle().await?;
        }
        Ok(())
    }

    /// Makes the object of `first`, what was sent, and `rest`, and says its key. On error the upload is aborted, unless
    /// somebody may go on with it.
    pub(super) async fn complete(mut self, first: Bytes, mut rest: BytesMut) -> Result<String, StoreError> {
        let sent = self.payload - self.held + self.flight.as_ref().map_or(0, |f| f.body.len() as u64);
        let whole = (first.len() + rest.len()) as u64 + sent;
        match self.end(first, &mut rest).await {
            Ok(()) => {
                self.over = true;
                Ok(self.to.key.clone())
            }
            // Whoever was before had come to the end already, and could not say so.
            Err(error)
                if error.kind == StoreErrorKind::NotFound && self.to.naming.is_ours(&self.to.key, whole).await =>
            {
                self.over = true;
                Ok(self.to.key.clone())
            }
            Err(error) => {
                if !self.shared || !error.kind.is_transient() {
                    self.abort_logged().await;
                }
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
    pub(super) async fn settle(&mut self) -> Result<(), StoreError> {
        let Some(flight) = &mut self.flight else { return Ok(()) };
        let done = (&mut flight.task).await;
        let gone = |e: JoinError| own("upload a part of", &self.to.key, StoreErrorKind::Unavailable, e.to_string());
        match done.map_err(gone).flatten() {
            Ok(part) => {
                self.payload += part.length;
                self.mark(&part);
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

    fn mark(&mut self, part: &Part) {
        let Destination { naming, key, id } = &self.to;
        let begun = || Begun { key: key.clone(), id: id.clone(), mark: naming.mark.clone() };
        let state = State { upload: self.parts.is_empty().then(begun), part: part.clone() };
        let state = serde_json::json!(state).to_string();
        self.marks.push(Mark { payload: self.payload, held: self.held, state });
    }

    fn launch(&mut self, body: Bytes) {
        self.flight = Some(self.to.spawn(self.next, body));
        self.next += 1;
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
        let size = first.length + self.payload - self.held;
        self.parts.insert(0, first);
        while let Err(error) = self.publish(size).await {
            patience.after(error).await?;
        }
        Ok(())
    }

    async fn publish(&self, size: u64) -> Result<(), StoreError> {
        let Destination { naming, key, id } = &self.to;
        let parts = self.parts.iter().map(Part::completed).collect();
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let call = naming.client.complete_multipart_upload().bucket(&naming.bucket).key(key).upload_id(id);
        let Err(error) = call.multipart_upload(parts).if_none_match("*").send().await else { return Ok(()) };
        // The answer to a try that went well may have been lost.
        if naming.is_ours(key, size).await {
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
        if self.over || self.shared {
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
