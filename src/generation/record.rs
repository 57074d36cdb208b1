//! One recording from the first page load to the finished file.
//!
//! Sets the parts up, lets [`run`](super::run) drive them, and takes them down in the order in which nothing is lost:
//! capture first, then the browser, then the writer, then the file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use super::media::{self, Media, MediaStatus};
use super::outcome::{Ended, Outcome, Stopped, Timings, Trouble, conclude};
use super::page::Stage;
use super::run::{Command, Progress, Run};
use crate::platform::{ChunkStore, HeadLastObject};
use crate::recording::capture::{Capture, CaptureConfig};
use crate::recording::encoder::EncoderOutput;
use crate::recording::process::Guard;
use crate::task::spec::RecordingSpec;
use crate::task::timeline::{SAMPLE_RATE, seconds};

/// The programs that are needed.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Chromium.
    pub chromium: PathBuf,
    /// FFmpeg.
    pub ffmpeg: PathBuf,
}

/// Who wants to know how a recording goes.
#[async_trait]
pub trait Watcher: Send + Sync {
    /// About once a second.
    fn progress(&self, progress: &Progress);
    /// Recording has begun, or was paused or resumed since, at this position of what this invocation records (samples).
    fn state(&self, paused: bool, recorded: u64);
    /// Capture is over. The file is to be made under this name if it has none yet; `None`: it must not be made.
    async fn finishing(&self, stopped: Stopped) -> Option<String>;
}

/// What makes recordings.
#[async_trait]
pub trait Studio: Send + Sync {
    /// Makes one.
    async fn record(&self, job: Job, commands: mpsc::Receiver<Command>, watcher: &dyn Watcher) -> Outcome;
}

/// Chromium on our own display and sound card.
pub struct ChromiumStudio;

#[async_trait]
impl Studio for ChromiumStudio {
    async fn record(&self, job: Job, commands: mpsc::Receiver<Command>, watcher: &dyn Watcher) -> Outcome {
        record(job, commands, watcher).await
    }
}

/// A recording to be made.
pub struct Job {
    /// What.
    pub spec: RecordingSpec,
    /// With what.
    pub tools: Tools,
    /// Task and generation.
    pub task: String,
    /// See `task`.
    pub generation: u32,
    /// It begins paused.
    pub paused: bool,
    /// Index of its first segment.
    pub base: u64,
    /// Where segments go.
    pub chunks: Arc<dyn ChunkStore>,
    /// The file; without one, segments are all that is kept.
    pub target: Option<Box<dyn HeadLastObject>>,
}

/// Makes a recording. `commands` ending is no command.
pub async fn record(job: Job, commands: mpsc::Receiver<Command>, watcher: &dyn Watcher) -> Outcome {
    let started = Instant::now();
    let Job { spec, tools, task, generation, paused, base, chunks, target } = job;
    let (outputs, queue) = mpsc::channel(media::QUEUE);
    let (status_sender, status) = watch::channel(MediaStatus::default());
    let writer = tokio::spawn(media::write(Media { chunks, target, task, generation, base }, queue, status_sender));
    let parts = match set_up(&spec, tools, outputs).await {
        Ok(parts) => parts,
        Err(trouble) => return conclude(Ended::before_it_began(trouble), writer, Timings::default(), watcher).await,
    };
    let mut run = Run::new(&spec, &parts.stage, parts.capture, commands, status, watcher, started, paused);
    let end = run.drive().await;
    let (capture, page, mut ended, timings) = run.dissolve(end);
    let limit = match ended.stopped {
        Stopped::Duration => spec.max_duration.map(|d| (d.as_secs_f64() * SAMPLE_RATE as f64) as u64),
        Stopped::HandOver => Some(capture.recorded().next_multiple_of(spec.rate.segment())),
        Stopped::Interrupted | Stopped::Page | Stopped::Failed => None,
    };
    // The end of a limited recording is ordered ahead.
    let ahead = limit.map_or(0, |limit| limit.saturating_sub(capture.recorded()));
    let stopping = Instant::now() + Duration::from_secs_f64(seconds(ahead));
    let begun = ended.begun;
    let capture = tokio::task::spawn_blocking(move || capture.finish(limit)).await;
    ended.capture = capture.ok().filter(|_| begun);
    let mut outcome = conclude(ended, writer, timings, watcher).await;
    outcome.timings.finish_ms = stopping.elapsed().as_millis() as u64;
    // The file is there: what follows keeps nobody waiting for it.
    if let Some(page) = page {
        page.close().await;
    }
    outcome
}

/// Everything that has to be there before the page.
struct Parts {
    capture: Capture,
    stage: Stage,
    // Last to go: sockets and profile of all the others lie in it.
    _run_dir: tempfile::TempDir,
}

async fn set_up(spec: &RecordingSpec, tools: Tools, outputs: mpsc::Sender<EncoderOutput>) -> Result<Parts, Trouble> {
    let in_temp = |source| Trouble::RunDir { path: std::env::temp_dir().display().to_string(), source };
    let run_dir = tempfile::Builder::new().prefix("panorec-").tempdir().map_err(in_temp)?;
    let guard = Guard::start(None).map_err(in_temp)?;
    guard.watch_dir(run_dir.path());
    let config = CaptureConfig { run_dir: run_dir.path().to_path_buf(), ffmpeg: tools.ffmpeg, start: 0 };
    let capture = Capture::start(&config, spec, &guard, move |output| {
        // The receiver outlives the encoder.
        let _ = outputs.blocking_send(output);
    })?;
    let stage = Stage::new(spec, tools.chromium, &guard, run_dir.path()).await?;
    Ok(Parts { capture, stage, _run_dir: run_dir })
}
