//! What a recording came to, good or bad.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::media::{Made, MediaEnd, MediaError};
use super::page::PageError;
use super::record::Watcher;
use crate::recording::capture::{CaptureEnd, CaptureError};
use crate::recording::encoder::EncoderError;
use crate::task::failure::{Failure, FailureCode};
use crate::task::quality::{Gap, Quality};
use crate::task::timeline::seconds;

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
    /// Samples recorded and kept.
    pub kept: u64,
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
            Self::Page(_) | Self::Capture(_) | Self::Encoder(_) | Self::RunDir { .. } => FailureCode::InternalErr,
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
    let Ended { mut stopped, trouble, capture, gaps, reduced_seconds, .. } = ended;
    let mut troubles: Vec<Trouble> = trouble.into_iter().collect();
    let mut saved = None;
    let mut kept = 0;
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
            kept = end.min(media.recorded());
            let keys = media.keys();
            match media.finish(end, name.as_deref()).await {
                Ok(Made::File { key, size }) => {
                    saved = Some(Saved { key, duration: seconds(kept), size });
                    chunks = keys;
                }
                Ok(Made::Elsewhere) => only_chunks = true,
                Ok(Made::Nothing) => {}
                Err(error) => troubles.push(error.into()),
            }
        }
        Err(error) => tracing::error!(%error, "media writer panicked"),
    }
    if saved.is_none() && troubles.is_empty() {
        tracing::info!("stopped before anything was recorded");
    }
    if !troubles.is_empty() {
        stopped = Stopped::Failed;
    }
    let quality = capture.map(|capture| measure(capture, kept, gaps, reduced_seconds)).unwrap_or_default();
    Outcome {
        stopped,
        kept,
        saved,
        quality,
        timings,
        failure: troubles.first().map(Trouble::failure),
        chunks,
        only_chunks,
    }
}

fn measure(capture: CaptureEnd, kept: u64, gaps: Vec<Gap>, reduced_seconds: u64) -> Quality {
    let counts = capture.counts;
    let length = seconds(kept);
    Quality {
        frames_delivered: counts.pictures.fresh,
        frame_rate: if length > 0.0 { round(counts.pictures.fresh as f64 / length, 100.0) } else { 0.0 },
        frames_dropped: counts.pictures.painted_over,
        gaps,
        av_offset_ms: counts
            .stamp_delay_ms
            .filter(|_| counts.sound.streams_opened > 0)
            .map(|picture| round(capture.sound_shift_ms - picture, 10.0)),
        underruns: counts.sound.underruns,
        reduced_rate_seconds: reduced_seconds as f64,
        silent: capture.silent,
        blank: capture.blank,
    }
}

fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}
