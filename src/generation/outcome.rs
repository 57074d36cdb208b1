//! What a recording came to, good or bad.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::media::{Made, MediaEnd, MediaError};
use super::page::PageError;
use super::record::Watcher;
use crate::recording::bundle::BundleError;
use crate::recording::capture::{CaptureCounts, CaptureEnd, CaptureError};
use crate::recording::encoder::EncoderError;
use crate::task::course::{Anchor, micros};
use crate::task::failure::{Failure, FailureCode};
use crate::task::quality::{Gap, Quality, Stretch};
use crate::task::timeline::{SAMPLE_RATE, seconds};

/// Why a recording ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stopped {
    /// Its limit was reached.
    Duration,
    /// The caller said so.
    Interrupted,
    /// The page said so.
    Page,
    /// Another recorder goes on.
    HandOver,
    /// It could not go on.
    Failed,
}

/// How long things took.
#[derive(Debug, Clone, Default, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Timings {
    /// From the start to the running browser.
    pub launch_ms: u64,
    /// From the navigation to the painted page.
    pub load_ms: u64,
    /// From the start to the first recorded slot.
    pub first_frame_ms: u64,
    /// From the end of the recording to the finished file.
    pub finish_ms: u64,
}

/// A finished file.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// Name in the store of finished recordings.
    pub key: String,
    /// Length in seconds.
    pub duration: f64,
    /// Bytes.
    pub size: u64,
}

/// What a recording came to.
#[derive(Debug)]
pub struct Outcome {
    /// Why it ended.
    pub stopped: Stopped,
    /// Where what was recorded and kept ends: position in the file, and unix microseconds.
    pub end: Option<Anchor>,
    /// It began as a successor, and the task never was its own.
    pub withdrawn: bool,
    /// The file; `None` when nothing was recorded.
    pub saved: Option<Saved>,
    /// What was measured.
    pub quality: Quality,
    /// How long things took.
    pub timings: Timings,
    /// What went wrong.
    pub failure: Option<Failure>,
    /// Keys of chunks that are not needed any more once the file is known to whoever needs it. Empty without a file:
    /// then they are all there is.
    pub chunks: Vec<String>,
    /// The file could not be reached; the chunks hold all of it.
    pub only_chunks: bool,
}

/// Why a recording cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Page(#[from] PageError),
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    #[error(transparent)]
    Media(#[from] MediaError),
    #[error("a program of the layers is not there")]
    Bundle(#[from] std::sync::Arc<BundleError>),
    #[error("the page did not call startRecord() within {0:?}; give it longer with --ready-timeout")]
    NotReady(Duration),
    #[error("the page crashed {0} times in a row")]
    Crashing(u32),
    #[error("a run directory cannot be made in {path}")]
    RunDir {
        path: String,
        #[source]
        source: std::io::Error,
    },
}

impl Trouble {
    fn failure(&self) -> Failure {
        let code = match self {
            Self::NotReady(_) => FailureCode::PageNotReady,
            Self::Crashing(_) => FailureCode::PageCrashed,
            Self::Media(_) => FailureCode::UploadFailed,
            Self::Page(_) | Self::Capture(_) | Self::Encoder(_) | Self::Bundle(_) | Self::RunDir { .. } => {
                FailureCode::InternalErr
            }
        };
        Failure { code, message: super::chain(self) }
    }
}

/// What is known when capture is over.
pub(super) struct Ended {
    pub stopped: Stopped,
    /// Recording had begun.
    pub begun: bool,
    pub trouble: Option<Trouble>,
    pub capture: Option<CaptureEnd>,
    pub gaps: Vec<Gap>,
    pub reduced_seconds: u64,
    /// Position in the file of the recorder's own sample 0.
    pub offset: i64,
    /// The recorder's own sample from which on it was to be kept.
    pub first: u64,
    /// What was counted before the task was its own.
    pub before: Option<CaptureCounts>,
    /// Nothing was to be recorded when it ended.
    pub paused: bool,
    pub withdrawn: bool,
}

impl Ended {
    pub fn before_it_began(trouble: Trouble) -> Self {
        Self {
            stopped: Stopped::Failed,
            begun: false,
            trouble: Some(trouble),
            capture: None,
            gaps: Vec::new(),
            reduced_seconds: 0,
            offset: 0,
            first: 0,
            before: None,
            paused: false,
            withdrawn: false,
        }
    }
}

/// Waits for the last segment, finishes the file and says what came of it.
pub(super) async fn conclude(
    ended: Ended,
    writer: JoinHandle<MediaEnd>,
    timings: Timings,
    watcher: &dyn Watcher,
) -> Outcome {
    let Ended {
        mut stopped, trouble, capture, gaps, reduced_seconds, offset, first, before, paused, withdrawn, ..
    } = ended;
    let mut troubles: Vec<Trouble> = trouble.into_iter().collect();
    let mut saved = None;
    let mut kept = first;
    let mut chunks = Vec::new();
    let mut only_chunks = false;
    let name = watcher.finishing(stopped).await;
    match writer.await {
        Ok(mut media) => {
            troubles.extend(media.error.take().map(Trouble::Media));
            // An encoder that was never given anything may say so; that is no news.
            let encoder = std::mem::replace(&mut media.encoder, Ok(()));
            if capture.is_some() {
                troubles.extend(encoder.err().map(Trouble::Encoder));
            }
            let end = capture.as_ref().map_or(0, |c| c.end);
            kept = end.min(media.kept()).max(first);
            let keys = media.keys();
            match media.finish(end, name.as_deref()).await {
                Ok(Made::File { key, size, recorded }) => {
                    saved = Some(Saved { key, duration: seconds(recorded), size });
                    chunks = keys;
                }
                Ok(Made::Elsewhere) => only_chunks = true,
                Ok(Made::Nothing) => {}
                Err(error) => troubles.push(error.into()),
            }
        }
        Err(error) => tracing::error!(%error, "media writer panicked"),
    }
    if kept == first && troubles.is_empty() {
        tracing::info!("stopped before anything was recorded");
    }
    if !troubles.is_empty() {
        stopped = Stopped::Failed;
    }
    let end = capture.as_ref().map(|c| Anchor {
        recorded: offset.wrapping_add_unsigned(kept).max(0).cast_unsigned(),
        wall_us: c.end_us.saturating_sub(micros(c.end.saturating_sub(kept))),
        paused,
    });
    let quality = capture
        .map(|capture| measure(capture, kept - first, before, gaps, reduced_seconds, offset, first))
        .unwrap_or_default();
    Outcome {
        stopped,
        end,
        withdrawn,
        saved,
        quality,
        timings,
        failure: troubles.first().map(Trouble::failure),
        chunks,
        only_chunks,
    }
}

/// What was measured, positions being those of the file.
fn measure(
    capture: CaptureEnd,
    kept: u64,
    before: Option<CaptureCounts>,
    gaps: Vec<Gap>,
    reduced_seconds: u64,
    offset: i64,
    first: u64,
) -> Quality {
    let stretches = listed([capture.silent, capture.blank], offset, first);
    let counted = counted(capture.counts, before, capture.sound_shift_ms);
    let length = seconds(kept);
    Quality {
        frame_rate: if length > 0.0 { round(counted.frames_delivered as f64 / length, 100.0) } else { 0.0 },
        gaps,
        reduced_rate_seconds: reduced_seconds as f64,
        silent: stretches.silent,
        blank: stretches.blank,
        ..counted
    }
}

/// A recorder's silent and blank stretches from its sample `first` on, as those of the file.
pub(super) fn listed([silent, blank]: [Vec<Stretch>; 2], offset: i64, first: u64) -> Quality {
    Quality { silent, blank, ..Quality::default() }.after(seconds(first)).shifted(offset as f64 / SAMPLE_RATE as f64)
}

/// What was counted since `before`.
pub(super) fn counted(now: CaptureCounts, before: Option<CaptureCounts>, sound_shift_ms: f64) -> Quality {
    let before = before.unwrap_or_default();
    Quality {
        frames_delivered: now.pictures.fresh - before.pictures.fresh,
        frames_dropped: now.pictures.painted_over - before.pictures.painted_over,
        av_offset_ms: now
            .stamp_delay_ms
            .filter(|_| now.sound.streams_opened > 0)
            .map(|picture| round(sound_shift_ms - picture, 10.0)),
        underruns: now.sound.underruns - before.sound.underruns,
        ..Quality::default()
    }
}

fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}
