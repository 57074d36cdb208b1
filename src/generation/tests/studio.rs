//! A studio without a browser: what FFmpeg once encoded, segment by segment, as often as wanted. Everything behind it
//! (media writer, admission, stores, assembly) is the real thing; as a successor it goes by the same arithmetic as the real
//! recorder (`task::course`), on a gate of whole segments.

mod reel;
mod standby;
mod warm;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::generation::admission::Admission;
use crate::generation::backlog::{Bounds, Inlet, backlog};
use crate::generation::media::{self, Media, MediaStatus};
use crate::generation::outcome::{Ended, Outcome, Stopped, Timings, Trouble, conclude};
use crate::generation::record::{Job, Studio, Tools, Watcher};
use crate::generation::run::{Command, Progress};
use crate::generation::standby::Standby;
use crate::platform::Clock;
use crate::platform::clock::SystemClock;
use crate::recording::capture::{CaptureCounts, CaptureEnd};
use crate::recording::display::Counts;
use crate::recording::encoder::EncoderOutput;
use crate::recording::stills::{Still, Stills};
use crate::task::course::Anchor;
use crate::task::init::Init;
use crate::task::measuring::Measuring;
use crate::task::quality::Quality;
use crate::task::spec::RecordingSpec;

use super::hours::padded;
use reel::stored;
pub use reel::{SIZE, shown};
pub use standby::Standbys;
use standby::Waiting;
use warm::Warm;

/// Segment length at these rates, samples.
pub const SEGMENT: u64 = 76_800;
/// Samples in a millisecond, which is what the world's clock counts.
const MS: u64 = 48;
/// From a segment's end to its coming out of the encoder, milliseconds.
const ENCODER_MS: u64 = 300;
/// How a page comes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// After so long.
    Up(Duration),
    /// Not at all: an error page.
    Error,
}

/// Plays the same two seconds again and again.
#[derive(Default)]
pub struct Replay {
    /// Segments after which the page ends the recording by itself.
    pub segments: u64,
    /// How the pages of the next recorders come up; at once when none is left.
    pub pages: Mutex<VecDeque<Page>>,
    /// Commands as they came, but for those of the relay that come several times a second.
    pub commands: Mutex<Vec<Command>>,
    /// Bytes that are added to every segment.
    pub padding: usize,
    /// The world's: of media, which runs evenly, and of the system, which may be set.
    pub clocks: Option<(Arc<dyn Clock>, Arc<dyn Clock>)>,
    /// What may wait between encoder and writer.
    pub bounds: Bounds,
    /// Longest time that a segment waited for room.
    pub held_up: Mutex<Duration>,
    /// How long a browser takes to start, before its page comes up.
    pub launch: Duration,
    /// Recorders that stood by.
    pub standbys: Arc<Standbys>,
}

#[async_trait]
impl Studio for Replay {
    async fn record(&self, job: Job, commands: mpsc::Receiver<Command>, watcher: &dyn Watcher) -> Outcome {
        self.film(self.launch, job, commands, watcher).await
    }

    fn stand_by(self: Arc<Self>, _spec: RecordingSpec, _tools: Tools) -> Box<dyn Standby> {
        Box::new(Waiting::new(self))
    }
}

impl Replay {
    /// Records with a browser that is there after so long.
    async fn film(
        &self,
        launch: Duration,
        job: Job,
        commands: mpsc::Receiver<Command>,
        watcher: &dyn Watcher,
    ) -> Outcome {
        let (mut outputs, queue) = backlog(self.bounds);
        let (status_sender, _status) = watch::channel(MediaStatus::default());
        let media = Media {
            chunks: job.chunks,
            target: job.target,
            task: job.task,
            generation: job.generation,
            segment: SEGMENT,
            admission: Arc::clone(&job.admission),
        };
        let writer = tokio::spawn(media::write(media, queue, status_sender));
        let generation = job.generation;
        let (init, parsed, mut segments) = stored();
        if self.padding > 0 {
            segments = segments.map(|segment| padded(&segment, self.padding));
        }
        outputs.send(EncoderOutput::Init(init)).await;
        let system = || (Arc::new(SystemClock) as Arc<dyn Clock>, Arc::new(SystemClock) as Arc<dyn Clock>);
        let (clock, system) = self.clocks.clone().unwrap_or_else(system);
        let page = self.pages.lock().unwrap().pop_front().unwrap_or(Page::Up(Duration::ZERO));
        let mut player = Player {
            studio: self,
            watcher,
            clock,
            system,
            admission: job.admission,
            offset: job.offset.cast_signed(),
            first: 0,
            begun: false,
            paused: job.paused,
            up: false,
            generation,
            stills: job.stills,
            still_due: 0,
            warm: job.successor.map(Warm::new),
            open: None,
            recorded: 0,
            leave: None,
            measuring: Measuring::default(),
            counted: 0,
        };
        let end = player.play(launch, page, commands, outputs, &parsed, &segments).await;
        player.admission.close();
        let (stopped, trouble) = match end {
            Ok(stopped) => (stopped, None),
            Err(trouble) => (Stopped::Failed, Some(trouble)),
        };
        // A picture a segment, so that a test can tell whether each is counted once.
        let pictures = Counts { fresh: (player.recorded - player.first) / SEGMENT, ..Counts::default() };
        let counts = CaptureCounts { pictures, ..CaptureCounts::default() };
        let (end, end_us) = (player.recorded, player.now_us());
        let capture = CaptureEnd { end, end_us, counts, sound_shift_ms: 0.0, silent: Vec::new(), blank: Vec::new() };
        let ended = Ended {
            stopped,
            begun: player.begun,
            trouble,
            capture: player.begun.then_some(capture),
            gaps: Vec::new(),
            reduced_seconds: 0,
            offset: player.offset,
            first: player.first,
            before: None,
            paused: player.paused,
            withdrawn: player.warm.is_some(),
        };
        conclude(ended, writer, Timings::default(), watcher).await
    }
}

/// A recorder whose gate is open or not, and which puts a segment out whenever one is full.
struct Player<'a> {
    studio: &'a Replay,
    watcher: &'a dyn Watcher,
    clock: Arc<dyn Clock>,
    system: Arc<dyn Clock>,
    admission: Arc<Admission>,
    generation: u32,
    /// Who wants a picture now and then, and when the next one is due, own samples.
    stills: Option<Stills>,
    still_due: u64,
    offset: i64,
    first: u64,
    begun: bool,
    paused: bool,
    up: bool,
    warm: Option<Warm>,
    /// Since when it records, in the clock's milliseconds (which may lie ahead), and the position then.
    open: Option<(u64, u64)>,
    /// Position, where it does not record, or up to which segments have come out.
    recorded: u64,
    /// Position at which another recorder is to go on.
    leave: Option<u64>,
    measuring: Measuring,
    /// Segments that it has counted, up to this index.
    counted: u64,
}

impl Player<'_> {
    fn now_us(&self) -> u64 {
        self.unix_us(self.clock.now())
    }

    /// Unix microseconds at a moment of the media clock, as the system's clock has it now.
    fn unix_us(&self, at: u64) -> u64 {
        (at + self.system.now() - self.clock.now()) * 1000
    }

    /// Own position now.
    fn position(&self) -> u64 {
        match self.open {
            Some((since, from)) => from + self.clock.now().saturating_sub(since) * MS,
            None => self.recorded,
        }
    }

    async fn play(
        &mut self,
        launch: Duration,
        page: Page,
        mut commands: mpsc::Receiver<Command>,
        mut outputs: Inlet,
        parsed: &Init,
        segments: &[Bytes; 2],
    ) -> Result<Stopped, Trouble> {
        let mut opening = match page {
            Page::Up(after) => Some(Instant::now() + launch + after),
            Page::Error => Some(Instant::now() + launch + Duration::from_millis(500)),
        };
        let (mut out, mut kept) = (0, 0);
        loop {
            // The end of the segment that is being recorded, and the encoder's time after it.
            let next = (out + 1) * SEGMENT;
            let ends = match self.open {
                Some((since, from)) => {
                    let end = since + next.saturating_sub(from).div_ceil(MS);
                    let (now, at) = (self.clock.now(), Instant::now());
                    Some([end, end + ENCODER_MS].map(|t| at + Duration::from_millis(t.saturating_sub(now))))
                }
                None => (self.recorded >= next).then(|| [Instant::now(); 2]),
            };
            let due = ends.map(|[_, out]| out);
            let ends = ends.map(|[end, _]| end).filter(|_| self.warm.is_none() && self.counted <= out);
            tokio::select! {
                biased;
                command = commands.recv(), if !commands.is_closed() || !commands.is_empty() => {
                    let Some(command) = command else { continue };
                    if let Some(stopped) = self.command(command) {
                        self.flush(&mut out, &mut outputs, parsed, segments).await;
                        return Ok(stopped);
                    }
                }
                () = sleep_until(opening.unwrap_or_else(Instant::now)), if opening.is_some() => {
                    opening = None;
                    if page == Page::Error {
                        return Err(Trouble::NotReady(Duration::ZERO));
                    }
                    self.come_up();
                }
                () = sleep_until(ends.unwrap_or_else(Instant::now)), if ends.is_some() => self.count(out),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.put(&mut out, &mut outputs, parsed, segments).await;
                    kept += u64::from(self.warm.is_none());
                    if let Some(at) = self.leave.filter(|at| out * SEGMENT >= *at) {
                        self.recorded = at;
                        return Ok(Stopped::HandOver);
                    }
                    if self.warm.is_none() && kept >= self.studio.segments {
                        self.recorded = out * SEGMENT;
                        return Ok(Stopped::Page);
                    }
                }
            }
            if self.leave.is_some() && self.open.is_none() && self.warm.is_none() {
                self.flush(&mut out, &mut outputs, parsed, segments).await;
                return Ok(Stopped::HandOver);
            }
        }
    }

    async fn put(&mut self, out: &mut u64, outputs: &mut Inlet, parsed: &Init, stored: &[Bytes; 2]) {
        let next = parsed.segment(stored[usize::from(*out > 0)].clone(), *out, *out * SEGMENT).unwrap();
        if let Some(stills) = self.stills.as_ref().filter(|_| *out * SEGMENT >= self.still_due) {
            let still = Still { recorded: *out * SEGMENT, real: true, size: SIZE, i420: shown(self.generation, *out) };
            let _ = stills.out.try_send(still);
            self.still_due = (*out * SEGMENT / stills.every + 1) * stills.every;
        }
        self.count(*out);
        let since = Instant::now();
        outputs.send(EncoderOutput::Segment(next)).await;
        {
            let mut held_up = self.studio.held_up.lock().unwrap();
            *held_up = held_up.max(since.elapsed());
        }
        *out += 1;
        self.mark();
    }

    /// A recorder counts as a segment ends, before the encoder lets it out.
    fn count(&mut self, out: u64) {
        if self.warm.is_some() || self.counted > out {
            return;
        }
        self.counted = out + 1;
        let ended = self.counted * SEGMENT;
        let frames = Quality { frames_delivered: (ended - self.first) / SEGMENT, ..Quality::default() };
        let end = self.offset.wrapping_add_unsigned(ended).max(0).cast_unsigned();
        self.measuring.note(end, frames, 0);
        self.watcher.measured(&self.measuring);
    }

    /// The encoder lets out what is whole; what is not is forgotten here.
    async fn flush(&mut self, out: &mut u64, outputs: &mut Inlet, parsed: &Init, stored: &[Bytes; 2]) {
        let whole = self.position() / SEGMENT;
        while *out < whole {
            self.put(out, outputs, parsed, stored).await;
        }
        self.recorded = whole * SEGMENT;
    }

    fn come_up(&mut self) {
        self.up = true;
        self.watcher.up();
        match self.warm {
            Some(_) => self.steer(),
            None => self.begin(),
        }
    }

    fn begin(&mut self) {
        self.begun = true;
        if !self.paused {
            self.open = Some((self.clock.now(), self.recorded));
        }
        self.report();
    }

    fn anchor(&self) -> Anchor {
        let recorded = self.offset.wrapping_add_unsigned(self.position()).cast_unsigned();
        // One that is to begin in a moment stands where it begins, then.
        let wall = self.open.map_or(0, |(since, _)| since).max(self.clock.now());
        Anchor { recorded, wall_us: self.unix_us(wall), paused: self.open.is_none() }
    }

    fn report(&self) {
        self.watcher.state(self.anchor());
        self.mark();
    }

    fn mark(&self) {
        let anchor = self.begun.then(|| self.anchor());
        self.watcher.progress(&Progress { anchor, ..Progress::default() });
    }

    fn command(&mut self, command: Command) -> Option<Stopped> {
        if !matches!(command, Command::Align(_)) {
            self.studio.commands.lock().unwrap().push(command);
        }
        match command {
            Command::Stop => return Some(Stopped::Interrupted),
            Command::Pause | Command::Resume if !self.begun => self.paused = command == Command::Pause,
            Command::Pause => {
                (self.paused, self.leave) = (true, None);
                self.recorded = self.position();
                self.open = None;
                self.report();
            }
            Command::Resume => {
                self.paused = false;
                self.open = self.open.or(Some((self.clock.now(), self.recorded)));
                self.report();
            }
            Command::HandOver(Some(0)) if self.open.is_some() => {}
            Command::HandOver(at) => {
                let own = at.map_or(0, |at| at.wrapping_add_signed(-self.offset));
                self.leave = self.leave.or(Some(own.max(self.position()).next_multiple_of(SEGMENT)));
            }
            Command::Stay => self.leave = None,
            Command::Refresh | Command::Reload => {}
            Command::Align(alignment) => {
                if let Some(warm) = &mut self.warm {
                    warm.align(alignment);
                    self.steer();
                }
            }
            Command::Own(own) => self.own(own),
        }
        if matches!(command, Command::Pause | Command::Resume | Command::Refresh) {
            self.watcher.obeyed();
        }
        None
    }
}
