//! Pictures of a task beside its recording: the poster, thumbnails with their index, and the newest picture while it runs.
//!
//! It never holds the recording up, and what fails here is logged and is no failure of the recording. A picture counts once
//! its segment has passed the writer: those of a successor that only gets ready are dropped. The poster is put where none
//! is, so the first one stays; the index goes on from generation to generation ([`thumbnails`]).

mod thumbnails;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::Instant;

use super::admission::Admission;
use super::preview::Showing;
use super::publish::{FOR_EVER, GROWING, object, owner};
use super::tasks::place;
use crate::delivery::pictures;
use crate::platform::{Place, Platform, PublicObject, StoreError};
use crate::recording::stills::{Still, Stills};
use crate::task::course::Segments;
use crate::task::output::Pictures;
use crate::task::record::TaskRecord;
use crate::task::spec::Size;
use crate::task::timeline::SAMPLE_RATE;
use thumbnails::Thumbnails;
pub use thumbnails::{Shots, close};

/// Between two looks whether the segments of pictures have passed the writer; at the end, when somebody waits.
const LOOK: Duration = Duration::from_millis(250);
const LAST_LOOK: Duration = Duration::from_millis(20);
/// How long the last pictures wait for their segments.
const LAST: Duration = Duration::from_millis(1500);
/// Pictures that may wait: the writer's queue holds half a minute, and no interval is shorter than 2 s.
const WAITING: usize = 32;
/// Seconds between the pictures that are looked at where only a poster is wanted.
const POSTER_SECONDS: u32 = 5;

const POSTER: &str = "poster.jpg";
const NEWEST: &str = "newest.jpg";

/// Why a picture is not stored.
#[derive(Debug, thiserror::Error)]
enum GalleryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the task is another generation's")]
    Lost,
}

/// Where a task's pictures are: a directory of its own beside the recording, so that no name is somebody else's.
struct Shelf {
    platform: Platform,
    place: Place,
    dir: String,
}

impl Shelf {
    fn of(platform: &Platform, record: &TaskRecord) -> Self {
        let place = Place { name: None, ..place(record) };
        let dir = format!("{}/pictures-{}", place.dir, owner(&record.id));
        Self { platform: platform.clone(), place, dir }
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }

    async fn put(&self, name: &str, object: PublicObject) -> Result<(), StoreError> {
        self.platform.public.put(&self.place, &self.key(name), object).await
    }

    async fn replace(
        &self,
        name: &str,
        object: PublicObject,
        seen: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        self.platform.public.replace(&self.place, &self.key(name), object, seen).await
    }

    async fn read(&self, name: &str) -> Result<Option<(Bytes, String)>, StoreError> {
        self.platform.public.read(&self.place, &self.key(name)).await
    }
}

/// A picture that waits for its segment.
struct Waiting {
    recorded: u64,
    real: bool,
    jpeg: Bytes,
    tile: Vec<u8>,
    tile_size: Size,
}

/// One generation's pictures.
pub struct Gallery {
    shelf: Shelf,
    record: TaskRecord,
    generation: u32,
    admission: Arc<Admission>,
    showing: Showing,
    waiting: VecDeque<Waiting>,
    /// The segments of the file, once the task is known to be this generation's.
    segments: Option<Segments>,
    /// There is one.
    poster: bool,
    thumbnails: Option<Thumbnails>,
}

impl Gallery {
    /// For the recorder whose segments `admission` lets pass.
    pub fn new(
        platform: &Platform,
        record: &TaskRecord,
        wanted: Pictures,
        generation: u32,
        admission: &Arc<Admission>,
        showing: Showing,
    ) -> Self {
        Self {
            shelf: Shelf::of(platform, record),
            record: record.clone(),
            generation,
            admission: Arc::clone(admission),
            showing,
            waiting: VecDeque::new(),
            segments: None,
            poster: false,
            thumbnails: wanted.interval_seconds.map(|seconds| Thumbnails::new(generation, seconds)),
        }
    }

    /// For the recorder, and what comes of it for [`run`](Self::run).
    pub fn stills(&self) -> (Stills, Receiver<Still>) {
        let seconds = self.thumbnails.as_ref().map_or(POSTER_SECONDS, Thumbnails::interval_seconds);
        let (out, taken) = channel(1);
        (Stills { every: u64::from(seconds) * SAMPLE_RATE, out }, taken)
    }

    /// Stores what comes, until nothing more can or is wanted.
    pub async fn run(&mut self, taken: &mut Receiver<Still>) {
        let more = self.while_it_runs(taken).await;
        taken.close();
        if more && let Err(error) = self.end().await {
            tracing::warn!(error = %super::chain(&error), "last pictures not stored");
        }
    }

    /// Says whether the recording is over and more is wanted.
    async fn while_it_runs(&mut self, taken: &mut Receiver<Still>) -> bool {
        loop {
            tokio::select! {
                still = taken.recv() => match still {
                    Some(still) => self.prepare(still).await,
                    None => return true,
                },
                () = tokio::time::sleep(LOOK), if !self.waiting.is_empty() => {}
            }
            if !self.settle().await {
                return false;
            }
        }
    }

    async fn end(&mut self) -> Result<(), GalleryError> {
        let until = Instant::now() + LAST;
        while !self.waiting.is_empty() && Instant::now() < until {
            if !self.settle().await {
                return Ok(());
            }
            tokio::time::sleep(LAST_LOOK).await;
        }
        match &mut self.thumbnails {
            Some(thumbnails) => thumbnails.write(&self.shelf, true).await,
            None => Ok(()),
        }
    }

    /// Makes of a picture what is stored of it, away from those threads that something else waits for.
    async fn prepare(&mut self, still: Still) {
        let Still { recorded, real, size, i420 } = still;
        let begun = Instant::now();
        let made = tokio::task::spawn_blocking(move || {
            (Bytes::from(pictures::jpeg(&i420, size)), pictures::thumbnail(&i420, size))
        });
        let Ok((jpeg, tile)) = made.await else {
            tracing::warn!("a picture could not be made");
            return;
        };
        tracing::debug!(took_ms = begun.elapsed().as_millis() as u64, bytes = jpeg.len(), "picture made");
        if self.waiting.len() == WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Waiting { recorded, real, jpeg, tile, tile_size: pictures::thumbnail_size(size) });
    }

    /// Stores those whose segments are kept. Says whether more is wanted.
    async fn settle(&mut self) -> bool {
        let length = self.record.order.rate.segment();
        while let Some(passed) = self.waiting.front().and_then(|w| self.admission.passed(w.recorded / length)) {
            let Some((picture, index)) = self.waiting.pop_front().zip(passed) else { continue };
            match self.keep(picture, index).await {
                Ok(()) => {}
                Err(GalleryError::Lost) => {
                    tracing::warn!("the pictures are another generation's; this one leaves them alone");
                    return false;
                }
                Err(error) => tracing::warn!(error = %super::chain(&error), "picture not stored"),
            }
        }
        !self.poster || self.thumbnails.is_some()
    }

    /// Stores a picture of the file's segment `index`.
    async fn keep(&mut self, picture: Waiting, index: u64) -> Result<(), GalleryError> {
        let segments = match self.segments {
            Some(segments) => segments,
            None => self.begin(index).await?,
        };
        let at = segments.begin(index) + picture.recorded % self.record.order.rate.segment();
        if picture.real && !self.poster {
            self.put_poster(&picture).await;
        }
        let Some(thumbnails) = &mut self.thumbnails else { return Ok(()) };
        match self.shelf.put(NEWEST, object(picture.jpeg, pictures::CONTENT_TYPE, GROWING)).await {
            Ok(()) => self.showing.picture(&self.shelf.key(NEWEST)),
            Err(error) => tracing::warn!(error = %super::chain(&error), "newest picture not stored"),
        }
        thumbnails.add(&self.shelf, at * 1000 / SAMPLE_RATE, &picture.tile, picture.tile_size).await
    }

    /// The first one stays; one that cannot be stored is followed by another.
    async fn put_poster(&mut self, picture: &Waiting) {
        let poster = object(picture.jpeg.clone(), pictures::CONTENT_TYPE, FOR_EVER);
        match self.shelf.replace(POSTER, poster, None).await {
            Ok(_) => {
                self.poster = true;
                if self.thumbnails.is_none() {
                    self.showing.picture(&self.shelf.key(POSTER));
                }
            }
            Err(error) => tracing::warn!(error = %super::chain(&error), "poster not stored"),
        }
    }

    /// The first picture of this generation's: what its task says by now.
    async fn begin(&mut self, index: u64) -> Result<Segments, GalleryError> {
        let now = self.shelf.platform.clock.now();
        let found = self.shelf.platform.tasks.load(&self.record.id, now).await?.ok_or(GalleryError::Lost)?;
        let seams = &found.record.seams;
        if seams.generation_of(index) != Some(self.generation) {
            return Err(GalleryError::Lost);
        }
        let segments = found.record.segments();
        let first = seams.list().iter().rev().find(|s| s.first <= index).map_or(0, |s| s.first);
        if let Some(thumbnails) = &mut self.thumbnails {
            thumbnails.begin(segments.begin(first) * 1000 / SAMPLE_RATE);
        }
        self.segments = Some(segments);
        Ok(segments)
    }
}
