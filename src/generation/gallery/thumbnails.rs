//! Thumbnails in sprite sheets, each of one generation, and their index, which all of them go on with.
//!
//! A sheet is stored before the index names it. The index is replaced only in the state in which it was last seen, so a
//! generation that has lost the task cannot touch that of its successor.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{GalleryError, POSTER, Shelf};
use crate::delivery::pictures::{self, Cue, INDEX_TYPE, Index, Sheet};
use crate::generation::chain;
use crate::generation::publish::{ENDED, FOR_EVER, GROWING, object};
use crate::platform::{Platform, StoreError};
use crate::task::output::Pictures;
use crate::task::record::TaskRecord;
use crate::task::spec::Size;

/// A sheet that is not full is stored so often: what is newer is lost with the recorder.
const WRITE: Duration = Duration::from_secs(60);
/// Longest that the end of a task waits for its pictures.
const CLOSING: Duration = Duration::from_secs(10);

const INDEX: &str = "thumbnails.vtt";

/// Keys of what is there at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shots {
    /// The poster.
    pub poster: Option<String>,
    /// The index of the thumbnails.
    pub thumbnails: Option<String>,
}

/// The sheet that fills.
struct Open {
    name: String,
    sheet: Sheet,
    cues: Vec<Cue>,
    /// It is stored as it is.
    stored: bool,
}

/// One generation's thumbnails.
pub(super) struct Thumbnails {
    generation: u32,
    interval_seconds: u32,
    /// Position in the file at which this generation begins, milliseconds.
    from_ms: u64,
    /// As it was last seen, with its version.
    index: Option<(Index, Option<String>)>,
    open: Option<Open>,
    sheets: u32,
    written: Instant,
}

impl Thumbnails {
    pub fn new(generation: u32, interval_seconds: u32) -> Self {
        Self { generation, interval_seconds, from_ms: 0, index: None, open: None, sheets: 0, written: Instant::now() }
    }

    pub fn interval_seconds(&self) -> u32 {
        self.interval_seconds
    }

    /// The task is this generation's from a position on.
    pub fn begin(&mut self, from_ms: u64) {
        (self.from_ms, self.written) = (from_ms, Instant::now());
    }

    fn prefix(&self) -> String {
        format!("thumbnails-{}-", self.generation)
    }

    /// Adds one, and stores what there is when it is time.
    pub async fn add(&mut self, shelf: &Shelf, at_ms: u64, tile: &[u8], size: Size) -> Result<(), GalleryError> {
        if self.open.as_ref().is_some_and(|open| open.sheet.is_full())
            && let Err(error) = self.write(shelf, false).await
        {
            let lost = matches!(error, GalleryError::Lost);
            tracing::warn!(error = %chain(&error), "a sheet of thumbnails is given up");
            self.open = None;
            if lost {
                return Err(error);
            }
        }
        let prefix = self.prefix();
        let open = self.open.get_or_insert_with(|| {
            let name = format!("{prefix}{:04}.jpg", self.sheets);
            self.sheets += 1;
            Open { name, sheet: Sheet::new(size), cues: Vec::new(), stored: true }
        });
        let area = open.sheet.push(tile);
        open.cues.push(Cue { at_ms, sheet: open.name.clone(), area });
        open.stored = false;
        match open.sheet.is_full() || self.written.elapsed() >= WRITE {
            true => self.write(shelf, false).await,
            false => Ok(()),
        }
    }

    /// Stores what is not stored yet. `last`: no more is added to the sheet.
    pub async fn write(&mut self, shelf: &Shelf, last: bool) -> Result<(), GalleryError> {
        let Some(open) = self.open.as_mut().filter(|open| !open.stored) else { return Ok(()) };
        let (sheet, full) = (open.sheet.clone(), open.sheet.is_full());
        // It panics for no sheet, so there is one.
        let jpeg = tokio::task::spawn_blocking(move || sheet.jpeg()).await.unwrap_or_default();
        let cache = if full || last { FOR_EVER } else { GROWING };
        shelf.put(&open.name, object(jpeg.into(), pictures::CONTENT_TYPE, cache)).await?;
        let (name, cues) = (open.name.clone(), open.cues.clone());
        self.write_index(shelf, &name, cues).await?;
        self.written = Instant::now();
        match &mut self.open {
            Some(open) if !full => open.stored = true,
            _ => self.open = None,
        }
        Ok(())
    }

    async fn write_index(&mut self, shelf: &Shelf, sheet: &str, cues: Vec<Cue>) -> Result<(), GalleryError> {
        let (mut index, version) = match self.index.take() {
            Some(seen) => seen,
            None => self.read_index(shelf).await?,
        };
        index.cues.retain(|cue| cue.sheet != sheet);
        index.cues.extend(cues);
        let end_ms = index.cues.last().map_or(0, |cue| cue.at_ms) + u64::from(self.interval_seconds) * 1000;
        let text = Bytes::from(index.text(end_ms));
        let new = object(text.clone(), INDEX_TYPE, GROWING);
        let version = match shelf.replace(INDEX, new, version.as_deref()).await? {
            Some(version) => version,
            // An attempt whose answer was lost may have been the one.
            None => match shelf.read(INDEX).await? {
                Some((there, version)) if there == text => version,
                _ => return Err(GalleryError::Lost),
            },
        };
        self.index = Some((index, Some(version)));
        Ok(())
    }

    /// What others have put there, without what one added that had lost the task already.
    async fn read_index(&self, shelf: &Shelf) -> Result<(Index, Option<String>), StoreError> {
        let Some((bytes, version)) = shelf.read(INDEX).await? else { return Ok((Index::default(), None)) };
        let mut index = std::str::from_utf8(&bytes).ok().and_then(Index::read).unwrap_or_default();
        let prefix = self.prefix();
        index.cues.retain(|cue| cue.at_ms < self.from_ms || cue.sheet.starts_with(&prefix));
        Ok((index, Some(version)))
    }
}

/// Ends a task's index with its file, `length` seconds, and says what there is. It may be done again.
pub async fn close(platform: &Platform, record: &TaskRecord, wanted: Pictures, length: f64) -> Shots {
    let shelf = Shelf::of(platform, record);
    let there = async {
        let poster = shelf.read(POSTER).await.map(|found| found.map(|_| shelf.key(POSTER)));
        let thumbnails = match wanted.interval_seconds {
            Some(_) => end_index(&shelf, (length * 1000.0) as u64).await,
            None => Ok(None),
        };
        let or_none = |what: Result<Option<String>, StoreError>| {
            what.unwrap_or_else(|error| {
                tracing::warn!(error = %chain(&error), "pictures not found");
                None
            })
        };
        Shots { poster: or_none(poster), thumbnails: or_none(thumbnails) }
    };
    tokio::time::timeout(CLOSING, there).await.unwrap_or_else(|_| {
        tracing::warn!("pictures not found in time");
        Shots::default()
    })
}

async fn end_index(shelf: &Shelf, end_ms: u64) -> Result<Option<String>, StoreError> {
    let Some((bytes, version)) = shelf.read(INDEX).await? else { return Ok(None) };
    let Some(mut index) = std::str::from_utf8(&bytes).ok().and_then(Index::read) else { return Ok(None) };
    index.truncate(end_ms);
    let new = object(index.text(end_ms).into(), INDEX_TYPE, ENDED);
    if shelf.replace(INDEX, new, Some(&version)).await?.is_none() {
        tracing::warn!("somebody else ends the index of the thumbnails");
    }
    Ok((!index.cues.is_empty()).then(|| shelf.key(INDEX)))
}
