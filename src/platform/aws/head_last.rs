//! A recording in S3, written head last.
//!
//! The first [`HELD_BYTES`] of payload stay in memory and become part 1, behind the head, because every part but the
//! last must have as many. What follows goes up while recording. So the work at the end does not grow with the length of
//! the recording, and a recording that was never more than one part beyond what is held is a single put.
//!
//! Parts end where what was appended ends, so that another process can go on from there.
//!
//! Nothing is ever replaced. The name of an upload in parts must be chosen when it begins: a free one is. Whoever takes it
//! before the end wins. A single put tries the next name instead.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::chunks::s3;
use super::multipart::{Multipart, Patience, SMALL_PART_BYTES};
use super::recordings::{CACHE_CONTROL, CONTENT_TYPE, Candidates, MARK, Naming, is_taken};
use crate::platform::{Clock, HeadLastObject, Mark, StoreError};

/// S3's smallest part.
const HELD_BYTES: usize = 5 << 20;

/// An object that appears when it is finished. One that was created without a name and outgrows memory has to be named
/// before its end: after the unix milliseconds of that moment, and `.mp4`.
pub struct S3HeadLast {
    naming: Naming,
    name: Option<String>,
    clock: Arc<dyn Clock>,
    held: BytesMut,
    filling: BytesMut,
    multipart: Option<Multipart>,
}

impl S3HeadLast {
    pub(super) fn new(naming: Naming, name: Option<String>, clock: Arc<dyn Clock>) -> Self {
        let (held, filling) = (BytesMut::new(), BytesMut::new());
        Self { naming, name, clock, held, filling, multipart: None }
    }

    /// One that another process began.
    pub(super) fn resumed(naming: Naming, clock: Arc<dyn Clock>, multipart: Multipart, held: Bytes) -> Self {
        Self { held: held.into(), multipart: Some(multipart), ..Self::new(naming, None, clock) }
    }

    /// Sends what makes a part, so that there is room for more payload.
    async fn make_room(&mut self) -> Result<(), StoreError> {
        if self.multipart.is_none() && self.filling.len() >= SMALL_PART_BYTES {
            let name = self.name.clone().unwrap_or_else(|| format!("{}.mp4", self.clock.now()));
            self.multipart = Some(Multipart::begin(&self.naming, &name, self.held.len()).await?);
        }
        match &mut self.multipart {
            Some(multipart) => multipart.send_whole(&mut self.filling).await,
            None => Ok(()),
        }
    }

    /// A small recording, under the first free name.
    async fn put(&self, body: Bytes, name: &str) -> Result<String, StoreError> {
        let mut candidates = self.naming.candidates(name)?;
        let mut patience = Patience::default();
        loop {
            match self.try_put(&body, &mut candidates).await {
                Ok(Some(key)) => return Ok(key),
                Ok(None) => candidates.advance(),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    /// One try; `None` when the name was taken meanwhile.
    async fn try_put(&self, body: &Bytes, candidates: &mut Candidates) -> Result<Option<String>, StoreError> {
        let naming = &self.naming;
        let key = naming.next_free(candidates).await?;
        let call = naming.client.put_object().bucket(&naming.bucket).key(&key).metadata(MARK, &naming.mark);
        let call = call.content_type(CONTENT_TYPE).cache_control(CACHE_CONTROL).if_none_match("*");
        match call.body(body.clone().into()).send().await {
            Ok(_) => Ok(Some(key)),
            // The answer to a try that went well may have been lost.
            Err(_) if naming.is_ours(&key, body.len() as u64).await => Ok(Some(key)),
            Err(e) if is_taken(&e) => Ok(None),
            Err(e) => Err(s3("finish", &key, e)),
        }
    }
}

#[async_trait]
impl HeadLastObject for S3HeadLast {
    fn head_alignment(&self) -> u64 {
        1
    }

    async fn append(&mut self, payload: Bytes) -> Result<(), StoreError> {
        // Before anything of this payload is kept: an error is then an error of what came earlier.
        self.make_room().await?;
        let part = if self.held.len() < HELD_BYTES { &mut self.held } else { &mut self.filling };
        part.extend_from_slice(&payload);
        Ok(())
    }

    async fn finish(mut self: Box<Self>, head: Bytes, name: &str) -> Result<String, StoreError> {
        let mut first = BytesMut::with_capacity(head.len() + self.held.len());
        first.extend_from_slice(&head);
        first.extend_from_slice(&self.held);
        match self.multipart.take() {
            Some(multipart) => multipart.complete(first.freeze(), std::mem::take(&mut self.filling)).await,
            None => {
                first.extend_from_slice(&self.filling);
                let name = self.name.clone().unwrap_or_else(|| name.to_owned());
                self.put(first.freeze(), &name).await
            }
        }
    }

    fn marks(&mut self) -> Vec<Mark> {
        self.multipart.as_mut().map_or_else(Vec::new, Multipart::marks)
    }

    async fn settle(&mut self) -> Result<(), StoreError> {
        match &mut self.multipart {
            Some(multipart) => multipart.settle().await,
            None => Ok(()),
        }
    }

    async fn abort(mut self: Box<Self>) -> Result<(), StoreError> {
        match self.multipart.take() {
            Some(multipart) => multipart.abort().await,
            None => Ok(()),
        }
    }
}
