//! A recording while it runs.
//!
//! States: opening → (waiting for the page's `startRecord`) → recording ⇄ paused. Commands come from the caller and from
//! the page alike. A crash closes the timeline, brings the page up again and lists the span as a gap.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::media::MediaStatus;
use super::outcome::{Ended, Stopped, Timings, Trouble};
use super::page::{Opened, Page, PageError, Stage};
use super::record::Watcher;
use crate::recording::browser::{Action, Call, Lost, PageEvent};
use crate::recording::cadence::{Cadence, Look, stalled_us};
use crate::recording::capture::{Capture, CaptureCounts};
use crate::task::quality::{Gap, GapReason};
use crate::task::spec::RecordingSpec;
use crate::task::timeline::{SAMPLE_RATE, seconds};

/// Times a crashed page is brought up again before giving up, as long as it keeps crashing.
const MAX_RELAUNCHES: u32 = 3;
/// A page that ran this long after a relaunch has recovered: the count starts anew.
const RECOVERED: Duration = Duration::from_secs(60);
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
    /// End at the end of the segment, so that another recorder can go on from there.
    HandOver,
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

/// The last look's totals.
#[derive(Default)]
struct Seen {
    counts: CaptureCounts,
    stalled_us: Option<u64>,
}

pub(super) struct Run<'a> {
    spec: &'a RecordingSpec,
    stage: &'a Stage,
    capture: Capture,
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
    /// Recorded sample at which another recorder is to go on.
    leave: Option<u64>,
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
        paused: bool,
    ) -> Self {
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
            gaps: Vec::new(),
            relaunches: 0,
            cadence: Cadence::default(),
            seen: Seen::default(),
        }
    }

    /// What has to be taken down, and what is known.
    pub fn dissolve(self, end: Result<Stopped, Trouble>) -> (Capture, Option<Page>, Ended, Timings) {
        let (stopped, trouble) = match end {
            Ok(stopped) => (stopped, None),
            Err(trouble) => (Stopped::Failed, Some(trouble)),
        };
        let reduced_seconds = self.cadence.reduced_looks();
        let ended = Ended { stopped, begun: self.begun, trouble, capture: None, gaps: self.gaps, reduced_seconds };
        (self.capture, self.page, ended, self.timings)
    }

    /// Runs until something ends it.
    pub async fn drive(&mut self) -> Result<Stopped, Trouble> {
        if let Some(stopped) = self.opened(self.stage.open()).await? {
            return Ok(stopped);
        }
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
                Next::Command(Some(command)) => self.command(command),
                Next::Command(None) => None,
                Next::Page(Some(event)) => self.page_event(event).await?,
                Next::Page(None) => self.lost(Lost::Browser, "its connection ended").await?,
                Next::Media => self.media_changed(),
                Next::End if self.leave.is_some_and(|at| at < self.limit()) => Some(Stopped::HandOver),
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
            if self.leave.is_some() && !self.capture.is_open() {
                return Ok(Stopped::HandOver);
            }
        }
    }

    /// Waits for the page; commands are obeyed meanwhile. `Some` when the recording is over before it is up.
    async fn opened(
        &mut self,
        opening: impl Future<Output = Result<Opened, PageError>>,
    ) -> Result<Option<Stopped>, PageError> {
        tokio::pin!(opening);
        loop {
            tokio::select! {
                opened = &mut opening => {
                    let Opened { page, launch, load } = opened?;
                    self.page = Some(page);
                    if !self.begun {
                        self.timings.launch_ms = launch.as_millis() as u64;
                        self.timings.load_ms = load.as_millis() as u64;
                    }
                    return Ok(None);
                }
                Some(command) = self.commands.recv() => match command {
                    Command::Stop => return Ok(Some(Stopped::Interrupted)),
                    Command::Pause => self.paused = true,
                    Command::Resume => self.paused = false,
                    Command::Refresh => {}
                    Command::HandOver => return Ok(Some(Stopped::HandOver)),
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
            self.watcher.state(self.paused, self.capture.recorded());
        }
    }

    fn command(&mut self, command: Command) -> Option<Stopped> {
        match command {
            Command::Stop => return Some(Stopped::Interrupted),
            Command::Pause => self.pause(),
            Command::Resume => self.resume(),
            Command::Refresh => self.refresh(),
            Command::HandOver => {
                let soonest = self.capture.recorded() + END_AHEAD.as_millis() as u64 * SAMPLE_RATE / 1000;
                self.leave = Some(soonest.next_multiple_of(self.spec.rate.segment()));
            }
        }
        None
    }

    fn pause(&mut self) {
        self.paused = true;
        if self.begun {
            self.capture.close();
            self.watcher.state(true, self.capture.recorded());
        }
    }

    fn resume(&mut self) {
        self.paused = false;
        if self.begun {
            self.capture.open();
            self.watcher.state(false, self.capture.recorded());
        }
    }

    fn refresh(&mut self) {
        if let Some(page) = &mut self.page {
            page.reload();
        }
    }

    async fn page_event(&mut self, event: PageEvent) -> Result<Option<Stopped>, Trouble> {
        match event {
            PageEvent::Called(call) => Ok(self.called(&call).await),
            PageEvent::Navigated { .. } => Ok(None),
            PageEvent::Lost { what, detail } => self.lost(what, &detail).await,
        }
    }

    async fn called(&mut self, call: &Call) -> Option<Stopped> {
        if let (Action::Start | Action::Resume, Some(page)) = (call.action, &self.page) {
            page.drawn().await;
        }
        match call.action {
            Action::Start if !self.begun => self.begin(),
            Action::Start | Action::Resume => self.resume(),
            Action::Pause => self.pause(),
            Action::Refresh | Action::Stop => {}
        }
        if let Some(page) = &self.page {
            page.acknowledge(call).await;
        }
        if call.action == Action::Refresh {
            self.refresh();
        }
        (call.action == Action::Stop).then_some(Stopped::Page)
    }

    /// The page is gone: brings it up again and lists what is missing.
    async fn lost(&mut self, what: Lost, detail: &str) -> Result<Option<Stopped>, Trouble> {
        tracing::warn!(?what, detail, "page lost");
        let missing_from = self.capture.is_open().then(|| self.capture.close());
        if self.page.as_ref().is_some_and(|p| p.since.elapsed() > RECOVERED) {
            self.relaunches = 0;
        }
        loop {
            if self.relaunches == MAX_RELAUNCHES {
                return Err(Trouble::Crashing(self.relaunches));
            }
            self.relaunches += 1;
            // A new browser in any case: the tab that follows a crashed one is not quite like a first one (in Chromium 148
            // its lists do not open), and it comes only half a second sooner.
            if let Some(page) = self.page.take() {
                page.close().await;
            }
            match self.opened(self.stage.open()).await {
                Ok(Some(stopped)) => return Ok(Some(stopped)),
                Ok(None) => break,
                // A page that was there and is not now may be there again in a moment.
                Err(error) => tracing::warn!(error = %super::chain(&error), "page did not come back"),
            }
        }
        let start = seconds(self.capture.recorded());
        let here = if self.begun && !self.paused { self.capture.open() } else { self.capture.clock().now() };
        if let Some(missing_from) = missing_from {
            let duration = seconds(here.saturating_sub(missing_from));
            self.gaps.push(Gap { start, duration, reason: GapReason::PageCrash });
        }
        Ok(None)
    }

    fn media_changed(&mut self) -> Option<Stopped> {
        let status = *self.status.borrow_and_update();
        // The reasons are told when the writer is asked for them.
        (status.failed || status.ended).then_some(Stopped::Failed)
    }

    /// Time until the closing of a recording that ends at a sample has to be sent out.
    fn time_left(&self) -> Option<Duration> {
        let end = self.leave.unwrap_or(u64::MAX).min(self.limit());
        if end == u64::MAX || !self.capture.is_open() {
            return None;
        }
        let left = end.saturating_sub(self.capture.recorded());
        Some(Duration::from_secs_f64(seconds(left)).saturating_sub(END_AHEAD))
    }

    /// Recorded sample at which the recording ends by itself.
    fn limit(&self) -> u64 {
        self.spec.max_duration.map_or(u64::MAX, |d| (d.as_secs_f64() * SAMPLE_RATE as f64) as u64)
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
        self.watcher.progress(&Progress {
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
