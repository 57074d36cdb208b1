//! One recording from the first page load to the finished file.
//!
//! Sets the parts up, lets [`run`](super::run) drive them, and takes them down in the order in which nothing is lost:
//! capture first, then the browser, then the writer, then the file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use super::admission::Admission;
use super::backlog::{Bounds, Inlet, backlog};
use super::media::{self, Media, MediaStatus, Target};
use super::outcome::{Ended, Outcome, Stopped, Timings, Trouble, conclude};
use super::page::Stage;
use super::run::{Alignment, Command, Plan, Progress, Readiness, Run};
use super::standby::{ChromiumStandby, Ready, Standby};
use crate::platform::ChunkStore;
use crate::recording::capture::{Capture, CaptureConfig};
use crate::recording::encoder::Tail;
use crate::recording::process::{Guard, give_memory_back};
use crate::recording::program::{Chromium, Program};
use crate::recording::stills::Stills;
use crate::task::course::Anchor;
use crate::task::measuring::Measuring;
use crate::task::spec::RecordingSpec;
use crate::task::timeline::seconds;

/// The programs that are needed.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Chromium.
    pub chromium: Chromium,
    /// FFmpeg.
    pub ffmpeg: Program,
}

#[cfg(test)]
impl Tools {
    /// For studios that start nothing.
    pub fn none() -> Self {
        use crate::recording::browser::{Sandbox, Tier, Tiers};
        let (program, tiers) = (Program::installed(""), Tiers::only(Tier::Zygote));
        Self { chromium: Chromium { program: program.clone(), sandbox: Sandbox::Off, tiers }, ffmpeg: program }
    }
}

/// Who wants to know how a recording goes.
#[async_trait]
pub trait Watcher: Send + Sync {
    /// About once a second.
    fn progress(&self, progress: &Progress);
    /// A segment has ended, and this was measured by then.
    fn measured(&self, _so_far: &Measuring) {}
    /// Recording has begun, or was paused or resumed since, at this position in the file.
    fn state(&self, at: Anchor);
    /// The page is there.
    fn up(&self) {}
    /// A command has been obeyed; they are in order.
    fn obeyed(&self) {}
    /// It began as a successor, and can go on from here, or (`None`) cannot any more.
    fn ready(&self, _readiness: Option<Readiness>) {}
    /// Capture is over. The file is to be made under this name if it has none yet; `None`: it must not be made.
    async fn finishing(&self, stopped: Stopped) -> Option<String>;
}

/// What makes recordings.
#[async_trait]
pub trait Studio: Send + Sync {
    /// Makes one.
    async fn record(&self, job: Job, commands: mpsc::Receiver<Command>, watcher: &dyn Watcher) -> Outcome;
    /// Gets ready for one that may have to be made in a moment, without waiting for that.
    fn stand_by(self: Arc<Self>, spec: RecordingSpec, tools: Tools) -> Box<dyn Standby>;
}

/// Chromium on our own display and sound card.
pub struct ChromiumStudio;

#[async_trait]
impl Studio for ChromiumStudio {
    async fn record(&self, job: Job, commands: mpsc::Receiver<Command>, watcher: &dyn Watcher) -> Outcome {
        let outcome = record(job, commands, watcher).await;
        give_memory_back();
        outcome
    }

    fn stand_by(self: Arc<Self>, spec: RecordingSpec, tools: Tools) -> Box<dyn Standby> {
        Box::new(ChromiumStandby::start(spec, tools))
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
    /// Position in the file of its first sample.
    pub offset: u64,
    /// Which of its segments are kept.
    pub admission: Arc<Admission>,
    /// It begins as a successor of one that records where this says.
    pub successor: Option<Alignment>,
    /// Where segments go.
    pub chunks: Arc<dyn ChunkStore>,
    /// The file.
    pub target: Target,
    /// Who wants a picture now and then.
    pub stills: Option<Stills>,
}

/// Makes a recording. `commands` ending is no command.
pub async fn record(job: Job, commands: mpsc::Receiver<Command>, watcher: &dyn Watcher) -> Outcome {
    film(job, None, commands, watcher).await
}

/// The same with what is there already.
pub(super) async fn film(
    job: Job,
    ready: Option<Ready>,
    commands: mpsc::Receiver<Command>,
    watcher: &dyn Watcher,
) -> Outcome {
    let started = Instant::now();
    let Job { spec, tools, task, generation, paused, offset, admission, successor, chunks, target, stills } = job;
    let (parts, queue) = match ready {
        Some(Ready { parts, queue }) => (Ok(parts), queue),
        None => {
            let (outputs, queue) = backlog(Bounds::default());
            (Err(outputs), queue)
        }
    };
    let (status_sender, status) = watch::channel(MediaStatus::default());
    let segment = spec.rate.segment();
    let media = Media { chunks, target, task, generation, segment, admission: Arc::clone(&admission) };
    let writer = tokio::spawn(media::write(media, queue, status_sender));
    let in_step_with = successor.map(|s| s.anchor.wall_us);
    let parts = match parts {
        Ok(parts) => Ok(parts),
        Err(outputs) => set_up(&spec, tools, in_step_with, outputs).await,
    };
    let parts = match parts {
        Ok(parts) => parts,
        Err(trouble) => {
            let ended = Ended { withdrawn: successor.is_some(), ..Ended::before_it_began(trouble) };
            admission.close();
            return conclude(ended, writer, Timings::default(), watcher).await;
        }
    };
    stills.into_iter().for_each(|stills| parts.capture.show(stills));
    let plan = Plan { paused, offset, admission: Arc::clone(&admission), successor };
    let mut run = Run::new(&spec, &parts.stage, parts.capture, commands, status, watcher, started, plan);
    let end = run.drive().await;
    let limit = match end {
        Ok(Stopped::Duration) => Some(run.limit()),
        Ok(Stopped::HandOver) => Some(run.capture.recorded().next_multiple_of(segment)),
        Ok(Stopped::Interrupted | Stopped::Page | Stopped::Failed) | Err(_) => None,
    };
    let tail = if matches!(end, Ok(Stopped::HandOver)) { Tail::Whole } else { Tail::Cut };
    let (capture, page, mut ended, timings) = run.dissolve(end);
    admission.close();
    // The end of a limited recording is ordered ahead.
    let ahead = limit.map_or(0, |limit| limit.saturating_sub(capture.recorded()));
    let stopping = Instant::now() + Duration::from_secs_f64(seconds(ahead));
    let begun = ended.begun;
    let capture = tokio::task::spawn_blocking(move || capture.finish(limit, tail)).await;
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
pub(super) struct Parts {
    capture: Capture,
    pub stage: Stage,
    // Last to go: sockets and profile of all the others lie in it.
    _run_dir: tempfile::TempDir,
}

impl Parts {
    /// Takes down what no page was opened on.
    pub async fn leave(self) {
        let Self { capture, stage, _run_dir } = self;
        stage.leave().await;
        // Threads and processes end, and the guard: that takes its time.
        let _ = tokio::task::spawn_blocking(move || drop((capture, _run_dir))).await;
    }
}

pub(super) async fn set_up(
    spec: &RecordingSpec,
    tools: Tools,
    in_step_with: Option<u64>,
    mut outputs: Inlet,
) -> Result<Parts, Trouble> {
    let in_temp = |source| Trouble::RunDir { path: std::env::temp_dir().display().to_string(), source };
    let run_dir = tempfile::Builder::new().prefix("panorec-").tempdir().map_err(in_temp)?;
    let guard = Guard::start(None).map_err(in_temp)?;
    guard.watch_dir(run_dir.path());
    let ffmpeg = tools.ffmpeg.ready().await?;
    let config = CaptureConfig { run_dir: run_dir.path().to_path_buf(), ffmpeg, start: 0, in_step_with };
    let runtime = tokio::runtime::Handle::current();
    // The writer outlives the encoder.
    let capture = Capture::start(&config, spec, &guard, move |output| outputs.blocking_send(&runtime, output))?;
    let chromium = tools.chromium.ready().await?;
    let stage = Stage::new(spec, chromium, &guard, run_dir.path()).await?;
    Ok(Parts { capture, stage, _run_dir: run_dir })
}
