//! A file that grows while it is recorded, whoever records it: payload goes to the store of recordings, and beside the chunks
//! lies a ledger of it, with which another invocation goes on. What that reads back is what was not lasting yet: a few
//! megabytes, however long the recording is.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::desk::prefix;
use super::media::MediaError;
use crate::delivery::ledger::{Found, Ledger, LedgerError, Page};
use crate::delivery::mp4::Movie;
use crate::delivery::recovery::{Recovery, RecoveryError, order};
use crate::platform::{ChunkStore, HeadLastObject, Place, RecordingStore, StoreError, StoreErrorKind};
use crate::task::init::Init;
use crate::task::seam::Seams;
use crate::task::segment::{ChunkName, Segment, TrackKind, page_key, parse_page_key};
use crate::task::timeline::ticks;

/// Most that is read back while recording, bytes: more would keep the recorder from its work. What is missing is read when
/// the recording is over.
pub const MOST: u64 = 64 << 20;

/// Why nobody can go on with a file.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The chunks or the file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What lies beside the chunks.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A chunk.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// There is none to go on with, and too much for a new one.
    #[error("nothing is known of a growing file, and there is more than {MOST} bytes to begin it with")]
    Unknown,
}

impl ResumeError {
    /// The same may go well a little later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.kind.is_transient())
    }
}

/// Where a task's file grows.
#[derive(Clone)]
pub struct Ground {
    /// The file.
    pub recordings: Arc<dyn RecordingStore>,
    /// Segments and pages.
    pub chunks: Arc<dyn ChunkStore>,
    /// Where the file belongs.
    pub place: Place,
    /// The task.
    pub task: String,
}

/// The growing file.
pub struct Growth {
    object: Box<dyn HeadLastObject>,
    movie: Option<Movie>,
    /// The init segment of what follows, and what it says.
    init: Option<Init>,
    ledger: Option<(Ledger, Arc<dyn ChunkStore>, String, u32)>,
    /// Keys of the pages that were written.
    pub pages: Vec<String>,
}

impl Growth {
    /// A file of which nobody else will know.
    pub fn new(object: Box<dyn HeadLastObject>) -> Self {
        Self { object, movie: None, init: None, ledger: None, pages: Vec::new() }
    }

    /// A task's file that begins. `generation` writes its pages.
    pub fn begin(object: Box<dyn HeadLastObject>, ground: &Ground, seams: Seams, generation: u32) -> Self {
        let ledger = Some((Ledger::new(seams), Arc::clone(&ground.chunks), ground.task.clone(), generation));
        Self { ledger, ..Self::new(object) }
    }

    /// Goes on with a task's file: everything before segment `upto` is in it. `most`: see [`MOST`].
    pub async fn resume(
        ground: &Ground,
        seams: &Seams,
        generation: u32,
        upto: u64,
        most: u64,
    ) -> Result<Self, ResumeError> {
        let keys = ground.keys().await?;
        let mut growth = match Self::found(ground, seams, generation, upto, &keys).await? {
            Some(growth) => growth,
            None => {
                let object = ground.recordings.create(&ground.place).await?;
                Self::begin(object, ground, seams.clone(), generation)
            }
        };
        growth.catch_up(ground, seams, keys, upto, most).await?;
        Ok(growth)
    }

    /// The same when nobody records any more; `None` if there is no file to go on with.
    pub async fn take_over(
        ground: &Ground,
        seams: &Seams,
        generation: u32,
        upto: u64,
    ) -> Result<Option<Self>, ResumeError> {
        let keys = ground.keys().await?;
        let Some(mut growth) = Self::found(ground, seams, generation, upto, &keys).await? else { return Ok(None) };
        growth.catch_up(ground, seams, keys, upto, u64::MAX).await?;
        Ok(Some(growth))
    }

    /// The file as its last page left it.
    async fn found(
        ground: &Ground,
        seams: &Seams,
        generation: u32,
        upto: u64,
        keys: &[String],
    ) -> Result<Option<Self>, ResumeError> {
        let Some((found, held)) = find(ground, seams, keys, upto).await? else { return Ok(None) };
        let held = ground.front(seams, keys, held).await?;
        let object = ground.recordings.resume(&ground.place, &found.states, held).await?;
        let growth = Self::begin(object, ground, seams.clone(), generation);
        let ledger = growth.ledger.map(|l| (found.ledger, l.1, l.2, l.3));
        Ok(Some(Self { movie: Some(found.movie), ledger, ..growth }))
    }

    /// Appends what is in the chunks and not in the file.
    async fn catch_up(
        &mut self,
        ground: &Ground,
        seams: &Seams,
        keys: Vec<String>,
        upto: u64,
        most: u64,
    ) -> Result<(), ResumeError> {
        let mut read = 0;
        for chunk in order(seams.select(keys)) {
            let next = self.movie.as_ref().map_or(0, Movie::next);
            let wanted = match chunk.name {
                ChunkName::Init => seams.is_of(chunk.generation, next, upto),
                ChunkName::Segment(index) => (next..upto).contains(&index),
            };
            if !wanted {
                continue;
            }
            let bytes = ground.chunks.get(&chunk.key).await?;
            read += bytes.len() as u64;
            if read > most {
                return Err(ResumeError::Unknown);
            }
            let damaged = |source| RecoveryError::Damaged { key: chunk.key.clone(), source };
            match (chunk.name, &self.init) {
                (ChunkName::Init, _) => self.init(&bytes).map_err(|e| e.at(&chunk.key))?,
                (ChunkName::Segment(_), None) => return Err(RecoveryError::NoInit { key: chunk.key }.into()),
                (ChunkName::Segment(index), Some(init)) => {
                    let recorded = self.movie.as_ref().map_or(0, Movie::recorded);
                    let segment = init.segment(bytes, index, recorded).map_err(damaged)?;
                    self.append(&segment).await.map_err(|e| e.at(&chunk.key))?;
                }
            }
        }
        Ok(())
    }

    /// Another encoder's segments follow.
    pub fn init(&mut self, init: &[u8]) -> Result<(), MediaError> {
        match &mut self.movie {
            Some(movie) => movie.init(init)?,
            none => *none = Some(Movie::new(init)?),
        }
        self.init = Some(Init::read(init).map_err(crate::delivery::mp4::Mp4Error::from)?);
        if let Some((ledger, ..)) = &mut self.ledger {
            ledger.init(init)?;
        }
        Ok(())
    }

    /// Appends a recorder's segment as the one with this index. Returns the length of its payload.
    pub async fn segment(&mut self, segment: &Segment, index: u64) -> Result<u64, MediaError> {
        let recorded = self.movie.as_ref().map_or(0, Movie::recorded);
        let video = segment.runs.iter().find(|r| r.kind == TrackKind::Video);
        let elsewhere = segment.index != index || video.is_none_or(|r| r.start != ticks(recorded).cast_signed());
        match self.init.as_ref().filter(|_| elsewhere) {
            // A recorder's own times begin at 0.
            Some(init) => {
                let bytes = segment.bytes.clone();
                let placed = init.segment(bytes, index, recorded).map_err(crate::delivery::mp4::Mp4Error::from)?;
                self.append(&Segment { samples: segment.samples, ..placed }).await
            }
            None => self.append(segment).await,
        }
    }

    async fn append(&mut self, segment: &Segment) -> Result<u64, MediaError> {
        let Some(movie) = &mut self.movie else { return Ok(0) };
        // The movie takes the segment only once its payload is in the file: after a full disk the head must fit the file.
        let step = movie.prepare(segment)?;
        let payload = step.payload();
        let bytes = payload.len() as u64;
        self.object.append(payload).await?;
        let taken = step.commit();
        if let Some((ledger, ..)) = &mut self.ledger {
            ledger.segment(taken, movie)?;
            self.note().await;
        }
        Ok(bytes)
    }

    /// Writes down what has become lasting. A page that cannot be written costs whoever goes on some reading.
    async fn note(&mut self) {
        let Some((ledger, chunks, task, generation)) = &mut self.ledger else { return };
        let Some(held) = keep(ledger, &mut *self.object) else { return };
        let key = page_key(task, *generation, ledger.next());
        let page = ledger.page(&key, held);
        let written = match page.write() {
            Ok(bytes) => chunks.put(&key, bytes.into()).await,
            Err(error) => Err(StoreError {
                op: "write",
                key: key.clone(),
                kind: StoreErrorKind::Refused,
                source: std::io::Error::other(error),
            }),
        };
        match written {
            Ok(()) => self.pages.push(key),
            Err(error) => {
                ledger.lost(&key);
                tracing::warn!(error = %super::chain(&error), "page of the ledger not written");
            }
        }
    }

    /// Recorded samples in the file.
    pub fn recorded(&self) -> u64 {
        self.movie.as_ref().map_or(0, Movie::recorded)
    }

    /// Leaves it to whoever goes on.
    pub async fn leave(mut self) {
        if let Err(error) = self.object.settle().await {
            tracing::warn!(error = %super::chain(&error), "not everything is lasting; it will be read back");
        }
        self.note().await;
    }

    /// Puts the file together under `name` if it has none, up to a recorded sample. Gives key and size; without anything
    /// recorded nothing is left behind.
    pub async fn finish(self, recorded: u64, name: &str) -> Result<Option<(String, u64)>, MediaError> {
        let Some(movie) = self.movie.filter(|_| recorded > 0) else {
            self.object.abort().await?;
            return Ok(None);
        };
        let head = movie.head(recorded, self.object.head_alignment())?;
        let size = head.len() as u64 + movie.payload();
        Ok(Some((self.object.finish(head, name).await?, size)))
    }

    /// Leaves nothing behind.
    pub async fn abort(self) -> Result<(), StoreError> {
        self.object.abort().await
    }
}

/// Puts marks into the ledger; says how much is held back if there were any.
fn keep(ledger: &mut Ledger, object: &mut dyn HeadLastObject) -> Option<u64> {
    let mut held = None;
    for mark in object.marks() {
        if let Err(error) = ledger.lasting(mark.payload, mark.state) {
            tracing::warn!(error = %super::chain(&error), "ledger not kept");
            return None;
        }
        held = Some(mark.held);
    }
    held
}

impl Ground {
    /// Aborts what others began, if there is anything.
    pub async fn discard(&self, seams: &Seams) -> Result<(), ResumeError> {
        let keys = self.keys().await?;
        if let Some((found, _)) = find(self, seams, &keys, u64::MAX).await? {
            self.recordings.resume(&self.place, &found.states, Bytes::new()).await?.abort().await?;
        }
        Ok(())
    }

    async fn keys(&self) -> Result<Vec<String>, StoreError> {
        self.chunks.list(&prefix(&self.task)).await
    }

    async fn page(&self, key: &str) -> Result<Page, ResumeError> {
        Ok(Page::read(&self.chunks.get(key).await?)?)
    }

    /// The first `held` bytes of payload, from the chunks.
    async fn front(&self, seams: &Seams, keys: &[String], held: u64) -> Result<Bytes, ResumeError> {
        let (mut front, mut recovery) = (BytesMut::new(), Recovery::new());
        for chunk in order(seams.select(keys.iter().cloned())) {
            if front.len() as u64 >= held {
                break;
            }
            if let Some(payload) = recovery.take(&chunk, self.chunks.get(&chunk.key).await?)? {
                front.extend_from_slice(&payload);
            }
        }
        match front.len() as u64 == held {
            true => Ok(front.freeze()),
            false => Err(LedgerError::Sums.into()),
        }
    }
}

/// The last page that speaks of the task's own segments, and how much of the payload it says is held back.
async fn find(ground: &Ground, seams: &Seams, keys: &[String], upto: u64) -> Result<Option<(Found, u64)>, ResumeError> {
    let mut pages: Vec<_> = keys.iter().filter_map(|k| parse_page_key(k).map(|(g, next)| (next, g, k))).collect();
    pages.retain(|(next, generation, _)| {
        (1..=upto).contains(next) && seams.generation_of(*next - 1).is_some_and(|g| g <= *generation)
    });
    pages.sort();
    for (next, _, key) in pages.into_iter().rev() {
        let page = ground.page(key).await?;
        if page.seams != seams.before(next) {
            continue;
        }
        let base = match &page.base {
            Some(base) => Some((base.clone(), ground.page(base).await?)),
            None => None,
        };
        let held = page.held;
        return Ok(Some((Ledger::open(page, base, seams)?, held)));
    }
    Ok(None)
}
