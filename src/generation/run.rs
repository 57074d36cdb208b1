//! A recording while it runs.
//!
//! States: opening → (waiting for the page's `startRecord`) → recording ⇄ paused. Commands come from the caller and from
//! the page alike. A crash closes the timeline, brings the page up again and lists the span as a gap. A successor
//! ([`warm`]) records along with the one that holds the task, before it goes on in its place.

mod commands;
mod measure;
mod page;
mod warm;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::admission::Admission;
use super::media::MediaStatus;
use super::outcome::{Ended, Stopped, Timings, Trouble};
use super::page::{Page, Stage};
use super::record::Watcher;
use crate::recording::browser::{Lost, PageEvent};
use crate::recording::cadence::{Cadence, Look, stalled_us};
use crate::recording::capture::{Capture, CaptureCounts};
use crate::task::course::Anchor;
use crate::task::measuring::Measuring;
use crate::task::quality::Gap;
use crate::task::spec::RecordingSpec;
use crate::task::timeline::{SAMPLE_RATE, seconds};
use warm::Warm;
pub use warm::{Alignment, Own, Readiness};

/// How often measurements are taken.
const LOOK: Duration = Duration::from_secs(1);
/// Before the end of a limited recording its closing is sent out this long ahead, so that it ends on its slot on a busy
/// machine too.
const END_AHEAD: Duration = Duration::from_millis(500);

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
    /// End where a segment ends, so that another recorder can go on from there: at this position in the file or the next
    /// one that can still be kept to; 0: at once, since it is paused; `None`: as soon as possible.
    HandOver(Option<u64>),
    /// The end that was arranged is off.
    Stay,
    /// To a successor: where the holder records.
    Align(Alignment),
    /// To a successor: the holder has reloaded its page.
    Reload,
    /// To a successor: the task is its own.
    Own(Own),
}

/// How a recording is to begin.
#[derive(Debug)]
pub(super) struct Plan {
    /// It begins paused.
    pub paused: bool,
    /// Position in the file of its first sample.
    pub offset: u64,
    /// Which of its segments are kept.
    pub admission: Arc<Admission>,
    /// It begins as a successor.
    pub successor: Option<Alignment>,
}

/// When another recorder is to go on.
#[derive(Debug, Clone, Copy)]
struct Leave {
    /// At this recorded sample.
    at: u64,
    /// The invocation's time is over.
    forced: bool,
}

/// How things are, once a second.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// `opening`, `waiting`, `recording`, `paused`, `warm`.
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
    /// Where the recording stands, if that is known.
    pub anchor: Option<Anchor>,
}

/// The last look's totals.
#[derive(Default)]
struct Seen {
    counts: CaptureCounts,
    stalled_us: Option<u64>,
}

pub(super) struct Run<'a> {
    spec: &'a RecordingSpec,
    stage: &'a Stage,
    pub(super) capture: Capture,
    page: Option<Page>,
    commands: mpsc::Receiver<Command>,
    status: watch::Receiver<MediaStatus>,
    watcher: &'a dyn Watcher,
    started: Instant,
    timings: Timings,
    /// Recording has begun.
    begun: bool,
    /// Caller or page asked for a pause.
    paused: bool,
    leave: Option<Leave>,
    /// Position in the file of recorded sample 0.
    offset: i64,
    /// The first sample that is kept, and what was counted before.
    first: u64,
    before: Option<CaptureCounts>,
    admission: Arc<Admission>,
    /// The task is somebody else's still.
    warm: Option<Warm>,
    /// In the file.
    gaps: Vec<Gap>,
    relaunches: u32,
    cadence: Cadence,
    seen: Seen,
    /// For whoever has to go on without a word from this recorder, and up to which own sample.
    measuring: Measuring,
    measured: u64,
}

/// What happened next.
enum Next {
    Command(Option<Command>),
    Page(Option<PageEvent>),
    Media,
    Look,
    End,
    NotReady,
    Seam,
    SegmentEnd,
}

impl<'a> Run<'a> {
    /// A recording whose page is not there yet.
    #[expect(clippy::too_many_arguments, reason = "one caller, which has made each of them")]
    pub fn new(
        spec: &'a RecordingSpec,
        stage: &'a Stage,
        capture: Capture,
        commands: mpsc::Receiver<Command>,
        status: watch::Receiver<MediaStatus>,
        watcher: &'a dyn Watcher,
        started: Instant,
        plan: Plan,
    ) -> Self {
        let Plan { paused, offset, admission, successor } = plan;
        Self {
            spec,
            stage,
            capture,
            page: None,
            commands,
            status,
            watcher,
            started,
            timings: Timings::default(),
            begun: false,
            paused,
            leave: None,
            offset: offset.cast_signed(),
            first: 0,
            before: None,
            admission,
            warm: successor.map(Warm::new),
            gaps: Vec::new(),
            relaunches: 0,
            cadence: Cadence::default(),
            seen: Seen::default(),
            measuring: Measuring::default(),
            measured: 0,
        }
    }

    /// What has to be taken down, and what is known.
    pub fn dissolve(self, end: Result<Stopped, Trouble>) -> (Capture, Option<Page>, Ended, Timings) {
        let (stopped, trouble) = match end {
            Ok(stopped) => (stopped, None),
            Err(trouble) => (Stopped::Failed, Some(trouble)),
        };
        let reduced_seconds = self.cadence.reduced_looks();
        let ended = Ended {
            stopped,
            begun: self.begun,
            trouble,
            capture: None,
            gaps: self.gaps,
            reduced_seconds,
            offset: self.offset,
            first: self.first,
            before: self.before,
            paused: self.paused,
            withdrawn: self.warm.is_some(),
        };
        (self.capture, self.page, ended, self.timings)
    }

    /// Runs until something ends it.
    pub async fn drive(&mut self) -> Result<Stopped, Trouble> {
        if let Some(stopped) = self.opened(self.stage.open()).await? {
            return Ok(stopped);
        }
        if self.warm.is_some() {
            self.steer();
        } else if !self.spec.manual_start {
            self.begin();
        }
        let not_ready = self.spec.ready_timeout.filter(|_| self.spec.manual_start).map(|t| (t, Instant::now() + t));
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let end = self.time_left();
            let (seam, segment_end) = (self.seam(), self.segment_end());
            let ready_by = not_ready.filter(|_| !self.begun).map(|(_, at)| at);
            let page = self.page.as_mut().map(|p| &mut p.events);
            let next = tokio::select! {
                command = self.commands.recv(), if !self.commands.is_closed() || !self.commands.is_empty() => Next::Command(command),
                event = async { match page { Some(events) => events.recv().await, None => std::future::pending().await } } => Next::Page(event),
                changed = self.status.changed() => { let _ = changed; Next::Media }
                () = sleep(end) => Next::End,
                () = sleep(ready_by.map(|at| at.saturating_duration_since(Instant::now()))) => Next::NotReady,
                () = seam => Next::Seam,
                () = sleep(segment_end) => Next::SegmentEnd,
                _ = looks.tick() => Next::Look,
            };
            let stopped = match next {
                Next::Command(Some(command)) => self.command(command),
                Next::Command(None) => None,
                Next::Page(Some(event)) => self.page_event(event).await?,
                Next::Page(None) => self.lost(Lost::Browser, "its connection ended").await?,
                Next::Media => self.media_changed(),
                Next::End if self.leave.is_some_and(|l| l.at < self.limit()) => Some(Stopped::HandOver),
                Next::End => Some(Stopped::Duration),
                Next::NotReady => return Err(Trouble::NotReady(self.spec.ready_timeout.unwrap_or_default())),
                Next::Look => {
                    self.look()?;
                    None
                }
                Next::Seam => {
                    self.at_seam();
                    None
                }
                Next::SegmentEnd => {
                    self.at_segment_end();
                    None
                }
            };
            if let Some(stopped) = stopped {
                return Ok(stopped);
            }
            if self.leave.is_some() && !self.capture.is_open() {
                return Ok(Stopped::HandOver);
            }
        }
    }

    fn begin(&mut self) {
        if !self.begun {
            self.begun = true;
            let wall = if self.paused { None } else { Some(self.capture.open()) };
            let ahead = wall.map_or(0, |w| w.saturating_sub(self.capture.clock().now()) * 1000 / SAMPLE_RATE);
            self.timings.first_frame_ms = self.started.elapsed().as_millis() as u64 + ahead;
            let Timings { launch_ms, load_ms, first_frame_ms, .. } = self.timings;
            tracing::info!(launch_ms, load_ms, first_frame_ms, "recording begins");
            self.report();
        }
    }

    /// Where the recording stands in the file; `None` while it should record and does not.
    fn anchor(&self) -> Option<Anchor> {
        let (clock, gate) = (self.capture.clock(), self.capture.gate());
        let (recorded, wall) = match gate.opened_at().filter(|_| gate.is_open()) {
            Some(opened) => {
                let wall = self.capture.boundary().max(opened);
                (gate.recorded(wall)?, wall)
            }
            None if self.paused => (gate.recorded_until_close(), clock.now()),
            None => return None,
        };
        let recorded = self.offset.wrapping_add_unsigned(recorded).max(0).cast_unsigned();
        Some(Anchor { recorded, wall_us: clock.unix_us(wall), paused: !gate.is_open() })
    }

    fn report(&self) {
        if let Some(at) = self.anchor() {
            self.watcher.state(at);
        }
    }

    fn media_changed(&mut self) -> Option<Stopped> {
        let status = *self.status.borrow_and_update();
        // The reasons are told when the writer is asked for them.
        (status.failed || status.ended).then_some(Stopped::Failed)
    }

    /// Time until the closing of a recording that ends at a sample has to be sent out.
    fn time_left(&self) -> Option<Duration> {
        let end = self.leave.map_or(u64::MAX, |l| l.at).min(self.limit());
        if end == u64::MAX || !self.capture.is_open() || self.warm.is_some() {
            return None;
        }
        let left = end.saturating_sub(self.capture.recorded());
        Some(Duration::from_secs_f64(seconds(left)).saturating_sub(END_AHEAD))
    }

    /// Recorded sample at which the recording ends by itself.
    pub(super) fn limit(&self) -> u64 {
        let limit = self.spec.max_duration.map(|d| (d.as_secs_f64() * SAMPLE_RATE as f64) as i64 - self.offset);
        limit.map_or(u64::MAX, |l| l.max(0).cast_unsigned())
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
            _ if self.warm.is_some() => "warm",
            (None, ..) => "opening",
            (_, false, _) => "waiting",
            (_, true, true) => "paused",
            (_, true, false) => "recording",
        };
        self.watcher.progress(&Progress {
            state,
            recorded_seconds: seconds(self.capture.recorded()),
            frame_rate: (now.fresh - then.fresh) as f64,
            dropped: now.painted_over,
            bytes: self.status.borrow().bytes,
            peak: counts.peak,
            divisor: self.cadence.divisor(),
            anchor: self.anchor().filter(|_| self.begun),
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
