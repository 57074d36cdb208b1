//! One recording from the first page load to the finished file.
//!
//! States: opening → (waiting for the page's `startRecord`) → recording ⇄ paused → ending. Commands come from the caller
//! and from the page alike. A crash closes the timeline, brings the page up again and lists the span as a gap. Whatever
//! ends a recording, what was recorded before is kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::media::{self, Media, MediaEnd, MediaStatus};
use super::page::{Opened, Opening, PageError, Stage};
use crate::platform::{ChunkStore, HeadLastObject};
use crate::recording::browser::{Call, PageEvent};
use crate::recording::cadence::{Cadence, Look, stalled_us};
use crate::recording::capture::{Capture, CaptureConfig, CaptureCounts, CaptureEnd, CaptureError};
use crate::recording::encoder::EncoderError;
use crate::recording::process::Guard;
use crate::task::failure::{Failure, FailureCode};
use crate::task::quality::{Gap, GapReason, Quality};
use crate::task::spec::RecordingSpec;
use crate::task::timeline::{SAMPLE_RATE, seconds};

/// Times a crashed page is brought up again before giving up, as long as it keeps crashing.
const MAX_RELAUNCHES: u32 = 3;
/// A page that ran this long after a relaunch has recovered: the count starts anew.
const RECOVERED: Duration = Duration::from_secs(60);
/// How often measurements are taken.
const LOOK: Duration = Duration::from_secs(1);
/// Before the end of a limited recording its closing is sent out this long ahead, so that it ends on the slot.
const END_AHEAD: Duration = Duration::from_millis(150);

/// The programs that are needed.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Chromium.
    pub chromium: PathBuf,
    /// FFmpeg.
    pub ffmpeg: PathBuf,
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
    /// Where segments go.
    pub chunks: Arc<dyn ChunkStore>,
    /// The file.
    pub target: Box<dyn HeadLastObject>,
}

/// What the caller may say while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// End it.
    Stop,
    /// Record nothing until `Resume`.
    Pause,
    /// Go on.
    Resume,
    /// Reload the page.
    Refresh,
}

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
    /// It could not go on.
    Failed,
}

/// How things are, once a second.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// `opening`, `waiting`, `recording`, `paused`.
    pub state: &'static str,
    /// Recorded so far.
    pub recorded_seconds: f64,
    /// Distinct pictures in the last second.
    pub frame_rate: f64,
    /// Pictures lost so far.
    pub dropped: u64,
    /// Media so far.
    pub bytes: u64,
    /// Highest level of the last second, 0 to 1.
    pub peak: f32,
    /// Slots per picture.
    pub divisor: u64,
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
    /// The file; `None` when nothing was recorded.
    pub saved: Option<Saved>,
    /// What was measured.
    pub quality: Quality,
    /// How long things took.
    pub timings: Timings,
    /// What went wrong.
    pub failure: Option<Failure>,
}

/// Why a recording cannot go on.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Page(#[from] PageError),
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    #[error(transparent)]
    Media(#[from] media::MediaError),
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
        Failure { code, message: chain(self) }
    }
}

/// An error with its causes, outermost first.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Makes a recording. `commands` ending is no command; `progress` is called about once a second.
pub async fn record(job: Job, commands: mpsc::Receiver<Command>, progress: impl FnMut(Progress) + Send) -> Outcome {
    let started = Instant::now();
    let media = Media { chunks: job.chunks, target: job.target, task: job.task, generation: job.generation };
    let prepared = prepare(&job.spec, &job.tools);
    let (outputs, queue) = mpsc::channel(media::QUEUE);
    let (status_sender, status) = watch::channel(MediaStatus::default());
    let writer = tokio::spawn(media::write(media, queue, status_sender));
    let (guard, run_dir) = match prepared {
        Ok(prepared) => prepared,
        Err(trouble) => {
            drop(outputs);
            return conclude(Ended::before_it_began(trouble), writer, Timings::default()).await;
        }
    };
    let config = CaptureConfig { run_dir: run_dir.path().to_path_buf(), ffmpeg: job.tools.ffmpeg.clone(), start: 0 };
    let capture = Capture::start(&config, &job.spec, &guard, move |output| {
        // The receiver outlives the encoder.
        let _ = outputs.blocking_send(output);
    });
    let capture = match capture {
        Ok(capture) => capture,
        Err(error) => return conclude(Ended::before_it_began(error.into()), writer, Timings::default()).await,
    };
    let stage = Stage::new(&job.spec, &job.tools.chromium, &guard, run_dir.path());
    let mut run = Run {
        spec: &job.spec,
        stage: &stage,
        capture,
        page: None,
        commands,
        status,
        progress,
        started,
        timings: Timings::default(),
        begun: false,
        paused: false,
        gaps: Vec::new(),
        relaunches: 0,
        cadence: Cadence::default(),
        seen: Seen::default(),
    };
    let end = run.drive().await;
    let stopping = Instant::now();
    let Run { capture, page, timings, gaps, cadence, begun, .. } = run;
    let limit = job.spec.max_duration.filter(|_| matches!(end, Ok(Stopped::Duration)));
    let limit = limit.map(|d| (d.as_secs_f64() * SAMPLE_RATE as f64) as u64);
    let closing = tokio::task::spawn_blocking(move || capture.finish(limit));
    if let Some(page) = page {
        page.browser.close().await;
    }
    stage.close().await;
    let capture = closing.await.ok();
    let (stopped, trouble) = match end {
        Ok(stopped) => (stopped, None),
        Err(trouble) => (Stopped::Failed, Some(trouble)),
    };
    let ended =
        Ended { stopped, trouble, capture: capture.filter(|_| begun), gaps, reduced_seconds: cadence.reduced_looks() };
    let mut outcome = conclude(ended, writer, timings).await;
    outcome.timings.finish_ms = stopping.elapsed().as_millis() as u64;
    outcome
}

fn prepare(_: &RecordingSpec, _: &Tools) -> Result<(Arc<Guard>, tempfile::TempDir), Trouble> {
    let in_temp = |source| Trouble::RunDir { path: std::env::temp_dir().display().to_string(), source };
    let run_dir = tempfile::Builder::new().prefix("panorec-").tempdir().map_err(in_temp)?;
    let guard = Guard::start(None).map_err(in_temp)?;
    guard.watch_dir(run_dir.path());
    Ok((guard, run_dir))
}

/// What is known when capture is over.
struct Ended {
    stopped: Stopped,
    trouble: Option<Trouble>,
    capture: Option<CaptureEnd>,
    gaps: Vec<Gap>,
    reduced_seconds: u64,
}

impl Ended {
    fn before_it_began(trouble: Trouble) -> Self {
        Self { stopped: Stopped::Failed, trouble: Some(trouble), capture: None, gaps: Vec::new(), reduced_seconds: 0 }
    }
}

/// Waits for the last segment, finishes the file and says what came of it.
async fn conclude(ended: Ended, writer: JoinHandle<MediaEnd>, timings: Timings) -> Outcome {
    let Ended { mut stopped, trouble, capture, gaps, reduced_seconds } = ended;
    let mut troubles: Vec<Trouble> = trouble.into_iter().collect();
    let mut saved = None;
    let mut kept = 0;
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
            match media.finish(end).await {
                Ok(size) => saved = size.map(|size| Saved { duration: seconds(kept), size }),
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
    Outcome { stopped, saved, quality, timings, failure: troubles.first().map(Trouble::failure) }
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

/// The last look's totals.
#[derive(Default)]
struct Seen {
    counts: CaptureCounts,
    stalled_us: Option<u64>,
}

struct Run<'a, P> {
    spec: &'a RecordingSpec,
    stage: &'a Stage,
    capture: Capture,
    page: Option<Opened>,
    commands: mpsc::Receiver<Command>,
    status: watch::Receiver<MediaStatus>,
    progress: P,
    started: Instant,
    timings: Timings,
    /// Recording has begun.
    begun: bool,
    /// Caller or page asked for a pause.
    paused: bool,
    gaps: Vec<Gap>,
    relaunches: u32,
    cadence: Cadence,
    seen: Seen,
}

/// What happened next.
enum Next {
    Command(Option<Command>),
    Page(Option<PageEvent>),
    Media,
    Look,
    End,
    NotReady,
}

impl<P: FnMut(Progress) + Send> Run<'_, P> {
    async fn drive(&mut self) -> Result<Stopped, Trouble> {
        if let Some(stopped) = self.open_page().await? {
            return Ok(stopped);
        }
        self.timings.first_frame_ms = 0;
        if !self.spec.manual_start {
            self.begin();
        }
        let not_ready = self.spec.ready_timeout.filter(|_| self.spec.manual_start).map(|t| (t, Instant::now() + t));
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let end = self.time_left();
            let ready_by = not_ready.filter(|_| !self.begun).map(|(_, at)| at);
            let page = self.page.as_mut().map(|p| &mut p.events);
            let next = tokio::select! {
                command = self.commands.recv(), if !self.commands.is_closed() || !self.commands.is_empty() => Next::Command(command),
                event = async { match page { Some(events) => events.recv().await, None => std::future::pending().await } } => Next::Page(event),
                changed = self.status.changed() => { let _ = changed; Next::Media }
                () = sleep(end) => Next::End,
                () = sleep(ready_by.map(|at| at.saturating_duration_since(Instant::now()))) => Next::NotReady,
                _ = looks.tick() => Next::Look,
            };
            let stopped = match next {
                Next::Command(Some(command)) => self.command(command).await?,
                Next::Command(None) => None,
                Next::Page(Some(event)) => self.page_event(event).await?,
                Next::Page(None) => self.crashed("its connection ended").await?,
                Next::Media => self.media_changed(),
                Next::End => Some(Stopped::Duration),
                Next::NotReady => return Err(Trouble::NotReady(self.spec.ready_timeout.unwrap_or_default())),
                Next::Look => {
                    self.look()?;
                    None
                }
            };
            if let Some(stopped) = stopped {
                return Ok(stopped);
            }
        }
    }

    /// Brings the page up; commands are obeyed meanwhile. `Some` when the recording is over before it is up.
    async fn open_page(&mut self) -> Result<Option<Stopped>, Trouble> {
        let opening = self.stage.open();
        tokio::pin!(opening);
        loop {
            tokio::select! {
                opened = &mut opening => {
                    let Opening { page, launch, load } = opened?;
                    self.timings.launch_ms = launch.as_millis() as u64;
                    self.timings.load_ms = load.as_millis() as u64;
                    self.page = Some(page);
                    return Ok(None);
                }
                Some(command) = self.commands.recv() => match command {
                    Command::Stop => return Ok(Some(Stopped::Interrupted)),
                    Command::Pause => self.paused = true,
                    Command::Resume => self.paused = false,
                    Command::Refresh => {}
                },
            }
        }
    }

    fn begin(&mut self) {
        if !self.begun {
            self.begun = true;
            let wall = if self.paused { None } else { Some(self.capture.open()) };
            let ahead = wall.map_or(0, |w| w.saturating_sub(self.capture.clock().now()) * 1000 / SAMPLE_RATE);
            self.timings.first_frame_ms = self.started.elapsed().as_millis() as u64 + ahead;
        }
    }

    async fn command(&mut self, command: Command) -> Result<Option<Stopped>, Trouble> {
        match command {
            Command::Stop => return Ok(Some(Stopped::Interrupted)),
            Command::Pause => self.pause(),
            Command::Resume => self.resume(),
            Command::Refresh => self.refresh().await,
        }
        Ok(None)
    }

    fn pause(&mut self) {
        self.paused = true;
        if self.begun {
            self.capture.close();
        }
    }

    fn resume(&mut self) {
        self.paused = false;
        if self.begun {
            self.capture.open();
        }
    }

    async fn refresh(&mut self) {
        if let Some(page) = &self.page
            && let Err(error) = page.browser.reload().await
        {
            tracing::warn!(error = %chain(&error), "reload failed");
        }
    }

    async fn page_event(&mut self, event: PageEvent) -> Result<Option<Stopped>, Trouble> {
        match event {
            PageEvent::Called(call, handle) => {
                let stop = match call {
                    Call::Start => {
                        if self.begun {
                            self.resume();
                        } else {
                            self.begin();
                        }
                        false
                    }
                    Call::Pause => {
                        self.pause();
                        false
                    }
                    Call::Resume => {
                        self.resume();
                        false
                    }
                    Call::Refresh | Call::Stop => call == Call::Stop,
                };
                if let Some(page) = &self.page {
                    page.browser.acknowledge(handle).await;
                }
                if call == Call::Refresh {
                    self.refresh().await;
                }
                Ok(stop.then_some(Stopped::Page))
            }
            PageEvent::Crashed { what } => self.crashed(&what).await,
        }
    }

    /// The page is gone: brings it up again and lists what is missing.
    async fn crashed(&mut self, what: &str) -> Result<Option<Stopped>, Trouble> {
        tracing::warn!(what, "page crashed");
        let recorded = self.capture.is_open();
        let closed = self.capture.close();
        loop {
            if self.page.as_ref().is_some_and(|p| p.since.elapsed() > RECOVERED) {
                self.relaunches = 0;
            }
            if let Some(page) = self.page.take() {
                page.browser.close().await;
            }
            if self.relaunches == MAX_RELAUNCHES {
                return Err(Trouble::Crashing(self.relaunches));
            }
            self.relaunches += 1;
            match self.open_page().await {
                Ok(Some(stopped)) => return Ok(Some(stopped)),
                Ok(None) => break,
                // A page that was there and is not now may be there again in a moment.
                Err(error) => tracing::warn!(error = %chain(&error), "page did not come back"),
            }
        }
        if recorded {
            let start = seconds(self.capture.recorded());
            let opened = if self.paused { self.capture.clock().now() } else { self.capture.open() };
            let duration = seconds(opened.saturating_sub(closed));
            self.gaps.push(Gap { start, duration, reason: GapReason::PageCrash });
        } else if self.begun && !self.paused {
            self.capture.open();
        }
        Ok(None)
    }

    fn media_changed(&mut self) -> Option<Stopped> {
        let status = *self.status.borrow_and_update();
        // The reasons are told when the writer is asked for them.
        (status.failed || status.ended).then_some(Stopped::Failed)
    }

    /// Time until the closing of a limited recording has to be sent out.
    fn time_left(&self) -> Option<Duration> {
        let limit = self.spec.max_duration.filter(|_| self.capture.is_open())?;
        let recorded = Duration::from_secs_f64(seconds(self.capture.recorded()));
        Some(limit.saturating_sub(recorded).saturating_sub(END_AHEAD))
    }

    fn look(&mut self) -> Result<(), Trouble> {
        let counts = self.capture.counts();
        let stalled_us = stalled_us();
        let stalled = stalled_us.zip(self.seen.stalled_us).map(|(now, then)| (now.saturating_sub(then)) as f64 / 1e6);
        let (now, then) = (counts.pictures, self.seen.counts.pictures);
        let look = Look { drawn: now.commits - then.commits, refused: now.refused - then.refused, stalled };
        if let Some(divisor) = self.cadence.look(look) {
            tracing::warn!(divisor, "frame rate changed to fit the machine");
            self.capture.divide(divisor);
        }
        let state = match (&self.page, self.begun, self.paused) {
            (None, ..) => "opening",
            (_, false, _) => "waiting",
            (_, true, true) => "paused",
            (_, true, false) => "recording",
        };
        (self.progress)(Progress {
            state,
            recorded_seconds: seconds(self.capture.recorded()),
            frame_rate: (now.fresh - then.fresh) as f64,
            dropped: now.painted_over,
            bytes: self.status.borrow().bytes,
            peak: counts.peak,
            divisor: self.cadence.divisor(),
        });
        self.seen = Seen { counts, stalled_us };
        self.capture.check()?;
        Ok(())
    }
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
