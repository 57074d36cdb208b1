//! A recording as HLS at a place that is lent: first everything that the playlist names, beside the place, then the playlist.
//!
//! How far that is stands in the playlist itself, which is kept among the chunks meanwhile, and the place in the task's record:
//! whoever comes after a crash goes on there, and puts nothing again but what the last seconds had put. An invocation whose time
//! is over writes down all of it and asks for the next one, which puts no segment again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{FIRST_WAIT, Kind, PublishError, TRIES, Vod, in_time};
use crate::delivery::hls::{CONTENT_TYPE, Playlist};
use crate::generation::chain;
use crate::generation::desk::prefix;
use crate::generation::lease::Holder;
use crate::generation::publish::cut::{Cutter, SEGMENT_TYPE, playlist};
use crate::generation::publish::{ENDED, FOR_EVER, PublishError as CutError, object};
use crate::generation::tasks::{PATIENCE, TaskRunner};
use crate::platform::{ChunkStore, LentStore, StoreError};
use crate::task::loan::Lent;
use crate::task::order::VodOrder;
use crate::task::record::{TaskRecord, Uploaded};
use crate::task::segment::{ChunkName, chunk_key};
use crate::task::timeline::seconds;

/// Segments that are read at once, and put at once. The longest have 5.3 MB: 43 MB of both.
const AT_ONCE: u64 = 4;
/// How often what is there is written down: a playlist of hours has 2 MB.
const WRITE_DOWN: Duration = Duration::from_secs(5);

/// Tries of an upload to one place since anything of it went well: with their waits a store may be away for a minute.
const STORE_TRIES: u32 = 7;

impl TaskRunner {
    /// Puts playlist and segments where the service wants them, and writes down that they are there. `None`: nothing was
    /// recorded.
    pub(super) async fn upload_hls(
        &self,
        vod: &Vod,
        holder: &Holder,
        record: &TaskRecord,
        order: &VodOrder,
        leave: Option<Instant>,
    ) -> Result<Option<Uploaded>, PublishError> {
        let mut kept = record.vod.as_ref().and_then(|v| v.lent.clone());
        let (mut tries, mut wait) = (1, FIRST_WAIT);
        loop {
            let lent = match kept.take().filter(|lent| lent.expires > self.platform.clock.now()) {
                Some(lent) => lent,
                None => self.borrow(vod, holder, order).await?,
            };
            match self.fill(vod, holder, record, &lent, leave).await {
                Ok(None) => return Ok(None),
                Ok(Some(list)) => {
                    return self.is_there(holder, lent, list.bytes(), seconds(list.samples())).await.map(Some);
                }
                // Leave to put may have run out: a new application helps against that.
                Err(PublishError::Store(error)) if tries < TRIES && !error.kind.is_transient() => {
                    tracing::warn!(tries, error = %chain(&error), "upload to the VOD service failed");
                }
                Err(error) => return Err(error),
            }
            holder.holding(tokio::time::sleep(wait)).await?;
            (tries, wait) = (tries + 1, wait * 2);
        }
    }

    /// A place, which whoever comes next is to know, too.
    async fn borrow(&self, vod: &Vod, holder: &Holder, order: &VodOrder) -> Result<Lent, PublishError> {
        let lent = self.lent(vod, holder, order, Kind::Hls).await?;
        let edit = |task: &mut TaskRecord, _| {
            task.vod.get_or_insert_default().lent = Some(lent.clone());
            Ok(())
        };
        holder.persist(PATIENCE, edit).await?;
        Ok(lent)
    }

    /// Puts everything to one place; what went well is not done again. `None`: nothing was recorded.
    async fn fill(
        &self,
        vod: &Vod,
        holder: &Holder,
        record: &TaskRecord,
        lent: &Lent,
        leave: Option<Instant>,
    ) -> Result<Option<Playlist>, PublishError> {
        let (mut tries, mut wait) = (1, FIRST_WAIT);
        loop {
            let mut upload = Upload::new(&*vod.uploads, self.chunks(record), record, lent);
            let error = match holder.holding(upload.run(leave)).await? {
                Ok(true) => return Ok(Some(upload.list)),
                Ok(false) => return Ok(None),
                Err(PublishError::Store(error) | PublishError::Hls(CutError::Store(error)))
                    if error.kind.is_transient() && (tries < STORE_TRIES || upload.went_on) =>
                {
                    error
                }
                Err(error) => return Err(error),
            };
            tracing::warn!(tries, error = %chain(&error), "upload to the VOD service interrupted");
            if upload.went_on {
                upload.write_down().await;
                (tries, wait) = (0, FIRST_WAIT);
            }
            in_time(leave, wait).map_err(|_| PublishError::OutOfTime { went_on: upload.went_on })?;
            holder.holding(tokio::time::sleep(wait)).await?;
            (tries, wait) = (tries + 1, wait * 2);
        }
    }
}

/// An upload to one place.
struct Upload<'a> {
    uploads: &'a dyn LentStore,
    chunks: Arc<dyn ChunkStore>,
    record: &'a TaskRecord,
    lent: &'a Lent,
    /// What is there.
    list: Playlist,
    cutter: Cutter,
    /// More is there than was.
    went_on: bool,
}

impl<'a> Upload<'a> {
    fn new(uploads: &'a dyn LentStore, chunks: Arc<dyn ChunkStore>, record: &'a TaskRecord, lent: &'a Lent) -> Self {
        let (list, cutter) = (playlist(record), Cutter::default());
        Self { uploads, chunks, record, lent, list, cutter, went_on: false }
    }

    /// Puts what is missing; whether there is anything. What is there when it has to leave is written down.
    async fn run(&mut self, leave: Option<Instant>) -> Result<bool, PublishError> {
        let keys = self.chunks.list(&prefix(&self.record.id)).await.map_err(CutError::from)?;
        let segments = self.record.seams.next_index(&keys);
        if keys.contains(&note(self.record, self.lent)) {
            self.read_up().await.map_err(CutError::from)?;
        }
        let mut written = Instant::now();
        while (self.list.entries.len() as u64) < segments {
            if in_time(leave, Duration::ZERO).is_err() {
                self.write_down().await;
                return Err(PublishError::OutOfTime { went_on: self.went_on });
            }
            self.some(segments).await?;
            if written.elapsed() >= WRITE_DOWN {
                self.write_down().await;
                written = Instant::now();
            }
        }
        if self.list.entries.is_empty() {
            return Ok(false);
        }
        self.list.ended = true;
        let text = Bytes::from(self.list.text());
        self.uploads.put(&self.lent.loan, object(text, CONTENT_TYPE, ENDED)).await?;
        Ok(true)
    }

    /// Learns what is there.
    async fn read_up(&mut self) -> Result<(), StoreError> {
        let text = self.chunks.get(&note(self.record, self.lent)).await?;
        if let Some(list) = std::str::from_utf8(&text).ok().and_then(Playlist::read) {
            self.list = list;
        }
        Ok(())
    }

    /// Puts some segments: all of them or, for what is written down, none.
    async fn some(&mut self, segments: u64) -> Result<(), PublishError> {
        let there = self.list.entries.len();
        let done = self.cut_and_put(segments).await;
        match done {
            Ok(()) => self.went_on = true,
            Err(_) => self.list.entries.truncate(there),
        }
        done
    }

    async fn cut_and_put(&mut self, segments: u64) -> Result<(), PublishError> {
        let from = self.list.entries.len() as u64;
        let read = (from..segments.min(from + AT_ONCE)).map(|index| self.chunk(index));
        let mut files = Vec::new();
        for chunk in try_join_all(read).await? {
            let cut = self.cutter.cut(&*self.chunks, self.record, &self.list, Some(chunk)).await?;
            self.list.entries.push(cut.entry);
            files.extend(cut.files);
        }
        try_join_all(files.into_iter().map(|(uri, bytes)| self.put(uri, bytes))).await?;
        Ok(())
    }

    async fn chunk(&self, index: u64) -> Result<Bytes, CutError> {
        let Some(generation) = self.record.seams.generation_of(index) else { return Err(CutError::Lost) };
        Ok(self.chunks.get(&chunk_key(&self.record.id, generation, ChunkName::Segment(index))).await?)
    }

    async fn put(&self, uri: String, bytes: Bytes) -> Result<(), StoreError> {
        self.uploads.put(&self.lent.loan.beside(&uri), object(bytes, SEGMENT_TYPE, FOR_EVER)).await
    }

    /// Has whoever comes next know what is there. If that is not to be, more is put again.
    async fn write_down(&self) {
        let text = Bytes::from(self.list.text());
        if let Err(error) = self.chunks.put(&note(self.record, self.lent), text).await {
            tracing::warn!(error = %chain(&error), "not written down what has been put");
        }
    }
}

/// Key of what is written down of an upload to a place.
fn note(record: &TaskRecord, lent: &Lent) -> String {
    let digest = Sha256::new_with_prefix(b"panorec upload ").chain_update(&lent.session).finalize();
    let digest: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
    format!("raw/{}/upload-{digest}.m3u8", record.id)
}
