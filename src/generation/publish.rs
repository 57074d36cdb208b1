//! HLS while a recording runs: every chunk that is stored is put beside the recording for players too, and into the
//! playlist.
//!
//! It never holds the recording up: what finds no room in its queue, or cannot be stored, is read back from the chunk store
//! later, at the latest at the end ([`Publisher::close`]). The playlist is replaced only in the state in which it was last
//! seen, so a generation that has lost the task cannot touch that of its successor.

pub(super) mod cut;
mod live;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::desk::prefix;
use super::preview::Showing;
use crate::delivery::hls::{CONTENT_TYPE, Entry, Playlist};
use crate::platform::{ChunkStore, Place, Platform, PublicObject, StoreError};
use crate::task::course::{Anchor, micros};
use crate::task::fragment::FragmentError;
use crate::task::record::TaskRecord;
use crate::task::segment::{ChunkName, parse_chunk_key};
use crate::task::timeline::seconds;
use cut::{Cutter, SEGMENT_TYPE, playlist, segment_uri};

/// Segments in memory that wait to be published.
const QUEUE: usize = 4;
/// Other names that are tried for a playlist whose name is taken.
const MAX_OTHER_NAMES: u32 = 1000;
/// Times that the end of a playlist is tried to be written while somebody else still writes it.
const MAX_RACES: u32 = 8;
/// A moment that is off by less follows from what comes before: clocks are set by as much.
const ROUNDING_MS: u64 = 20;
/// Nothing is ever replaced under the address of a segment.
pub(super) const FOR_EVER: &str = "public, max-age=31536000, immutable";
pub(super) const GROWING: &str = "no-cache";
pub(super) const ENDED: &str = "public, max-age=3600";

/// Why something is not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The stores.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A chunk.
    #[error("segment {index} cannot be read")]
    Segment {
        /// Which.
        index: u64,
        /// Why.
        #[source]
        source: FragmentError,
    },
    /// The segment, and with it what follows, is somebody else's.
    #[error("the playlist is another generation's")]
    Lost,
    /// Somebody else has written the playlist since it was looked at.
    #[error("the playlist was written by another generation meanwhile")]
    Raced,
    /// Every name that was tried is taken.
    #[error(
        "the playlist's name and {MAX_OTHER_NAMES} more like it are taken; choose another with Output.Cos.TargetName"
    )]
    Taken,
}

/// Where the recording stood when, for the time of day of its segments.
#[derive(Debug, Clone, Default)]
pub struct Course(Arc<Mutex<Vec<Anchor>>>);

impl Course {
    /// It has begun, or gone on, or was paused here.
    pub fn note(&self, at: Anchor) {
        if !at.paused {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(at);
        }
    }

    /// Unix milliseconds at which a position was recorded.
    fn wall_ms(&self, position: u64) -> Option<u64> {
        let anchors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = anchors.iter().rev().find(|a| a.recorded <= position)?;
        Some((at.wall_us + micros(position - at.recorded)) / 1000)
    }
}

/// A chunk store that tells a publisher of every segment.
pub struct TellingChunks {
    chunks: Arc<dyn ChunkStore>,
    segments: mpsc::Sender<Fresh>,
}

/// A segment that has just been stored.
pub struct Fresh {
    generation: u32,
    index: u64,
    bytes: Bytes,
}

#[async_trait]
impl ChunkStore for TellingChunks {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.chunks.put(key, bytes.clone()).await?;
        if let Some((generation, ChunkName::Segment(index))) = parse_chunk_key(key) {
            // One that finds no room is read back with the next.
            let _ = self.segments.try_send(Fresh { generation, index, bytes });
        }
        Ok(())
    }
    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.chunks.get(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.chunks.list(prefix).await
    }
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.chunks.delete(key).await
    }
}

/// The playlist as it was last seen.
struct Open {
    list: Playlist,
    key: String,
    version: Option<String>,
}

/// A finished playlist.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// Its key.
    pub key: String,
    /// Seconds.
    pub duration: f64,
    /// Bytes of all of it.
    pub bytes: u64,
}

/// What publishes one task's segments.
pub struct Publisher {
    platform: Platform,
    chunks: Arc<dyn ChunkStore>,
    /// As it was when the playlist was opened.
    record: TaskRecord,
    place: Place,
    course: Course,
    showing: Showing,
    open: Option<Open>,
    cutter: Cutter,
    lost: bool,
}

/// Whose an object beside recordings is, without the id that commands the task.
pub(super) fn owner(task: &str) -> String {
    Sha256::new_with_prefix(b"panorec playlist ").chain_update(task).finalize()[..8]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

pub(super) fn object(bytes: Bytes, content_type: &'static str, cache_control: &'static str) -> PublicObject {
    PublicObject { bytes, content_type, cache_control }
}

impl Publisher {
    /// One for a task whose chunks are in `chunks`.
    pub fn new(platform: &Platform, chunks: Arc<dyn ChunkStore>, record: &TaskRecord, place: Place) -> Self {
        Self {
            platform: platform.clone(),
            chunks,
            record: record.clone(),
            place: Place { name: None, ..place },
            course: Course::default(),
            showing: Showing::default(),
            open: None,
            cutter: Cutter::default(),
            lost: false,
        }
    }

    /// The same, which knows where the recording stood when.
    pub fn knowing(self, course: Course) -> Self {
        Self { course, ..self }
    }

    /// To be told where the recording stands.
    pub fn course(&self) -> Course {
        self.course.clone()
    }

    /// What says that there is a playlist.
    pub fn showing(&self) -> Showing {
        self.showing.clone()
    }

    /// `chunks` as the recorder is to have them, and what comes of it for [`run`](Self::run).
    pub fn listen(&self) -> (Arc<dyn ChunkStore>, mpsc::Receiver<Fresh>) {
        let (segments, queue) = mpsc::channel(QUEUE);
        (Arc::new(TellingChunks { chunks: Arc::clone(&self.chunks), segments }), queue)
    }

    /// Publishes what comes, until nothing more can.
    pub async fn run(&mut self, queue: &mut mpsc::Receiver<Fresh>) {
        while let Some(fresh) = queue.recv().await {
            if self.lost {
                continue;
            }
            match self.publish(fresh.index, Some(fresh)).await {
                Ok(()) => {}
                Err(PublishError::Lost) => {
                    tracing::warn!("the playlist is another generation's; this one leaves it alone");
                    self.lost = true;
                }
                Err(error) => {
                    tracing::warn!(error = %super::chain(&error), "segment not published; it will be with a later one");
                    self.open = None;
                }
            }
        }
    }

    /// Publishes everything up to a segment.
    async fn publish(&mut self, last: u64, fresh: Option<Fresh>) -> Result<(), PublishError> {
        if self.catch_up(last, fresh).await? { self.write().await } else { Ok(()) }
    }

    /// Stores everything up to a segment for players. Whether the playlist has got what it was not yet written with.
    async fn catch_up(&mut self, last: u64, mut fresh: Option<Fresh>) -> Result<bool, PublishError> {
        if self.open.is_none() {
            self.find().await?;
        }
        // What a generation stored after it had lost the task must not come under the name of its successor's.
        let holder = self.record.seams.generation_of(last);
        if fresh.as_ref().is_some_and(|fresh| holder != Some(fresh.generation)) {
            return Err(PublishError::Lost);
        }
        let mut grown = false;
        loop {
            let next = self.open.as_ref().map_or(0, |o| o.list.entries.len() as u64);
            if next > last {
                return Ok(grown);
            }
            let bytes = if next == last { fresh.take().map(|fresh| fresh.bytes) } else { None };
            if !self.add(bytes).await? {
                return Ok(grown);
            }
            grown = true;
            // What is much is shown in steps; the last segment never, as it may have to come with the end.
            if next < last && next % 16 == 15 {
                self.write().await?;
                grown = false;
            }
        }
    }

    /// Finds the task's playlist, or a name for one that does not exist yet, and what the task's record says by now.
    async fn find(&mut self) -> Result<(), PublishError> {
        let now = self.platform.clock.now();
        let found = self.platform.tasks.load(&self.record.id, now).await?.ok_or(PublishError::Lost)?;
        self.record = found.record;
        self.record.anchor.into_iter().for_each(|at| self.course.note(at));
        // What an attempt that failed has made may not be stored.
        self.cutter = Cutter::default();
        let owner = owner(&self.record.id);
        let stem = self.record.order.target.stem().unwrap_or("playlist");
        for taken in 0..=MAX_OTHER_NAMES {
            let suffix = if taken == 0 { String::new() } else { format!("-{taken}") };
            let key = format!("{}/{stem}{suffix}.m3u8", self.place.dir);
            let (mut list, version) = match self.platform.public.read(&self.place, &key).await? {
                None => (playlist(&self.record), None),
                Some((bytes, version)) => match std::str::from_utf8(&bytes).ok().and_then(Playlist::read) {
                    Some(list) if list.owner == owner => (list, Some(version)),
                    _ => continue,
                },
            };
            // What a generation added that had lost the task already is not in the recording.
            let seams = &self.record.seams;
            let ours = |(index, entry): (usize, &Entry)| {
                seams
                    .generation_of(index as u64)
                    .is_some_and(|g| entry.uri == segment_uri(&self.record.id, g, index as u64))
            };
            let kept = list.entries.iter().enumerate().take_while(|e| ours((e.0, e.1))).count();
            list.entries.truncate(kept);
            self.open = Some(Open { list, key, version });
            return Ok(());
        }
        Err(PublishError::Taken)
    }

    async fn put(&self, uri: &str, bytes: Bytes) -> Result<(), StoreError> {
        let key = format!("{}/{uri}", self.place.dir);
        self.platform.public.put(&self.place, &key, object(bytes, SEGMENT_TYPE, FOR_EVER)).await
    }

    /// Stores the next segment for players, and its init segment if it is a new one. Not so a fresh one that is shorter than
    /// others: it may be the last, and a player that is loading it when it hears of the end may never come to it (hls.js 1.7). It
    /// is left to whoever ends the playlist, or goes on with it.
    async fn add(&mut self, fresh: Option<Bytes>) -> Result<bool, PublishError> {
        let Some(open) = &self.open else { return Err(PublishError::Lost) };
        let newest = fresh.is_some();
        let mut cut = self.cutter.cut(&*self.chunks, &self.record, &open.list, fresh).await?;
        if newest && cut.entry.samples < self.record.order.rate.segment() {
            // Its init segment has not been stored either.
            self.cutter = Cutter::default();
            return Ok(false);
        }
        let follows = open.list.wall_ms();
        let wall = self.course.wall_ms(cut.position).or_else(|| follows.is_none().then_some(self.record.started)?);
        cut.entry.wall_ms = wall.filter(|at| follows.is_none_or(|f| f.abs_diff(*at) > ROUNDING_MS));
        for (uri, bytes) in cut.files {
            self.put(&uri, bytes).await?;
        }
        if let Some(open) = &mut self.open {
            open.list.entries.push(cut.entry);
        }
        Ok(true)
    }

    /// Writes the playlist, if it still is what was last seen of it.
    async fn write(&mut self) -> Result<(), PublishError> {
        let Some(open) = &mut self.open else { return Err(PublishError::Lost) };
        let text = Bytes::from(open.list.text());
        let cache = if open.list.ended { ENDED } else { GROWING };
        let (public, place) = (&self.platform.public, &self.place);
        let new = object(text.clone(), CONTENT_TYPE, cache);
        let written = public.replace(place, &open.key, new, open.version.as_deref()).await?;
        open.version = match written {
            Some(version) => Some(version),
            // An attempt whose answer was lost may have been the one.
            None => match public.read(place, &open.key).await? {
                Some((there, version)) if there == text => Some(version),
                _ => return Err(PublishError::Raced),
            },
        };
        self.show().await;
        Ok(())
    }

    /// Publishes what is missing, and ends the playlist. `None`: nothing was recorded. It may be done again.
    pub async fn close(&mut self) -> Result<Option<Published>, PublishError> {
        let keys = self.chunks.list(&prefix(&self.record.id)).await?;
        let mut races = 0;
        loop {
            self.open = None;
            self.find().await?;
            match self.end(&keys).await {
                Err(PublishError::Lost | PublishError::Raced) if races < MAX_RACES => races += 1,
                other => return other,
            }
        }
    }

    async fn end(&mut self, keys: &[String]) -> Result<Option<Published>, PublishError> {
        let segments = self.record.seams.next_index(keys);
        if let Some(last) = segments.checked_sub(1) {
            // The last one is shown together with the end: see `add`.
            self.catch_up(last, None).await?;
        }
        if self.open.as_ref().is_none_or(|o| o.list.entries.is_empty()) {
            return Ok(None);
        }
        if let Some(open) = &mut self.open {
            open.list.ended = true;
        }
        self.write().await?;
        Ok(self.open.as_ref().map(|open| Published {
            key: open.key.clone(),
            duration: seconds(open.list.samples()),
            bytes: open.list.bytes(),
        }))
    }
}
