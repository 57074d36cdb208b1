//! The record of a task: what was asked for, how far it is, who works on it. Pure: every change is a method that either
//! leaves a consistent record or changes nothing. Stores keep it whole, under a version.
//!
//! Who may change what: callers add commands and the wish to stop; the holder of the lease does everything else. A lease
//! is a fencing token: who lost it finds another owner in the record and must not write any more.

use serde::{Deserialize, Serialize};

mod hand_over;
mod lease;
mod result;

use super::calls::Calls;
pub use super::course::Anchor;
use super::course::Segments;
use super::measuring::Measuring;
use super::order::Order;
use super::output::Preview;
use super::quality::{Gap, Quality};
use super::relay::Relay;
use super::seam::Seams;
use super::status::{IllegalTransition, Status, StatusEvent};
pub use hand_over::Joined;
pub use lease::Lease;
pub(super) use lease::holds;
pub use result::{TaskResult, Uploaded, Video, VodUpload};

/// Commands that may wait at once. More means that nobody applies them: the recorder looks several times a second.
pub const MAX_WAITING_COMMANDS: usize = 64;
/// How long capture may take to begin whatever the limit, milliseconds.
pub const START_MS: u64 = 120_000;
/// How long a record is kept after the task could have ended at the latest, milliseconds: 30 days.
pub const KEEP_MS: u64 = 30 * 24 * 3600 * 1000;

/// What a caller wants a running recorder to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandKind {
    /// Record nothing until `Resume`.
    Pause,
    /// Go on.
    Resume,
    /// Reload the page.
    Refresh,
}

/// A command in the order of its arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingCommand {
    /// Counts up from 1 over the whole task.
    pub seq: u64,
    /// What.
    pub kind: CommandKind,
}

/// The record. Times are unix milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// `TaskID`.
    pub id: String,
    /// What was asked for.
    pub order: Order,
    /// Digest of the parameters; with a `ClientToken` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// How far it is.
    pub status: Status,
    /// When it was created.
    pub created: u64,
    /// When capture began.
    pub started: Option<u64>,
    /// When stop was accepted.
    pub canceled: Option<u64>,
    /// When capture ended.
    pub stopped: Option<u64>,
    /// When everything was over.
    pub finished: Option<u64>,
    /// When the record may be forgotten.
    pub expires: u64,
    /// Commands that the recorder has not applied yet, oldest first.
    #[serde(default)]
    pub waiting: Vec<WaitingCommand>,
    /// Number of the last command that was taken.
    #[serde(default)]
    pub last_seq: u64,
    /// The recorder records nothing for now: what a successor has to know.
    #[serde(default)]
    pub paused: bool,
    /// Where the recording stands: the last moment at which it began, was paused or resumed, or was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Anchor>,
    /// What is missing although it should be in the file.
    #[serde(default)]
    pub gaps: Vec<Gap>,
    /// Samples by which segments of earlier generations are shorter than the grid: the last of each that handed over.
    #[serde(default)]
    pub short: u64,
    /// Whose segments are in the file.
    #[serde(default, skip_serializing_if = "Seams::is_empty")]
    pub seams: Seams,
    /// How far the next generation is.
    #[serde(default, skip_serializing_if = "Relay::is_idle")]
    pub relay: Relay,
    /// What the page's start took, from the recorder's claim to its first picture, milliseconds: the longest so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_up_ms: Option<u64>,
    /// Times that the page was loaded again: a successor that gets ready does so too.
    #[serde(default)]
    pub refreshed: u32,
    /// What generations that are over have measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Quality>,
    /// What the one at work has measured when it was last heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measuring: Option<Measuring>,
    /// Recorders that ended without warning.
    #[serde(default)]
    pub crashes: u32,
    /// The last one handed over instead.
    #[serde(default)]
    pub handed_over: bool,
    /// Who works on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// Generations that were begun.
    #[serde(default)]
    pub generation: u32,
    /// What came out so far.
    #[serde(default)]
    pub result: TaskResult,
    /// What is left to do for the video-on-demand service, once the recording is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vod: Option<VodUpload>,
    /// What there is to see of it while it runs.
    #[serde(default, skip_serializing_if = "Preview::is_empty")]
    pub preview: Preview,
    /// Whom to tell of what.
    #[serde(default, skip_serializing_if = "Calls::is_idle")]
    pub calls: Calls,
}

/// Why a record cannot be changed as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The status does not allow it.
    #[error(transparent)]
    Status(#[from] IllegalTransition),
    /// Nobody applies commands.
    #[error("{MAX_WAITING_COMMANDS} commands wait already; call again once the recorder has applied them")]
    TooManyCommands,
    /// Somebody else works on it.
    #[error("another invocation works on the task")]
    Leased,
    /// The lease went to somebody else: this invocation must not touch the task any more.
    #[error("the task was taken over by another invocation")]
    Fenced,
    /// What a successor got ready for has changed meanwhile.
    #[error("the recording was paused or resumed meanwhile")]
    Moved,
}

impl TaskRecord {
    /// A task that was just asked for.
    pub fn new(id: String, order: Order, fingerprint: Option<String>, now: u64) -> Self {
        let expires = now + u64::from(order.limit_seconds) * 1000 + KEEP_MS;
        let mut task = Self {
            id,
            order,
            fingerprint,
            status: Status::Normal,
            created: now,
            started: None,
            canceled: None,
            stopped: None,
            finished: None,
            expires,
            waiting: Vec::new(),
            last_seq: 0,
            paused: false,
            anchor: None,
            gaps: Vec::new(),
            short: 0,
            seams: Seams::default(),
            relay: Relay::default(),
            start_up_ms: None,
            refreshed: 0,
            measured: None,
            measuring: None,
            crashes: 0,
            handed_over: false,
            lease: None,
            generation: 0,
            result: TaskResult::default(),
            vod: None,
            preview: Preview::default(),
            calls: Calls::default(),
        };
        task.owe(Status::Normal, now);
        task
    }

    /// A step of the task's life, of which whoever asked for it is to hear.
    fn advance(&mut self, event: StatusEvent, now: u64) -> Result<(), IllegalTransition> {
        let next = self.status.next(event)?;
        let before = std::mem::replace(&mut self.status, next);
        if self.status != before {
            self.owe(self.status, now);
        }
        Ok(())
    }

    /// The result is announced to whoever is to be called, other statuses where they were asked for. The one at the end is
    /// owed with the result: nothing is left to do once a task is finished.
    fn owe(&mut self, status: Status, now: u64) {
        let asked = self.order.callback_events.contains(&status);
        if self.order.callback_url.is_some() && (status == Status::Callback || asked && status != Status::Finished) {
            self.calls.owe(status, now);
            if status == Status::Callback && self.order.callback_events.contains(&Status::Finished) {
                self.calls.owe(Status::Finished, now);
            }
        }
    }

    /// The task as it was told when it came to `status` at `at`: every try of a call says the same.
    pub fn as_of(&self, status: Status, at: u64) -> Self {
        let mut task = self.clone();
        task.status = status;
        for time in [&mut task.started, &mut task.canceled, &mut task.stopped, &mut task.finished] {
            *time = time.filter(|t| *t <= at);
        }
        if status < Status::Callback {
            task.result = TaskResult::default();
        }
        task.calls = Calls::default();
        task
    }

    /// A caller's command. One that changes nothing any more succeeds without waiting.
    pub fn command(&mut self, kind: CommandKind) -> Result<(), Refused> {
        let event = match kind {
            CommandKind::Pause => StatusEvent::Pause,
            CommandKind::Resume => StatusEvent::Resume,
            CommandKind::Refresh => StatusEvent::Refresh,
        };
        self.status.next(event)?;
        if self.status > Status::Paused {
            return Ok(());
        }
        if self.waiting.len() >= MAX_WAITING_COMMANDS {
            return Err(Refused::TooManyCommands);
        }
        self.last_seq += 1;
        self.waiting.push(WaitingCommand { seq: self.last_seq, kind });
        Ok(())
    }

    /// The end of capture is wanted, by whomever.
    pub fn stop(&mut self, now: u64) -> Result<(), Refused> {
        self.advance(StatusEvent::Stop, now)?;
        if self.status == Status::Canceled && self.canceled.is_none() {
            self.canceled = Some(now);
            self.wanted_until(now);
        }
        Ok(())
    }

    /// Commands up to `seq` have been applied.
    pub fn applied(&mut self, seq: u64) {
        let (done, waiting) = self.waiting.iter().partition(|c| c.seq <= seq);
        self.waiting = waiting;
        let done: Vec<WaitingCommand> = done;
        self.refreshed += done.iter().filter(|c| c.kind == CommandKind::Refresh).count() as u32;
    }

    /// The recorder is up: it records, or is paused.
    pub fn capturing(&mut self, at: Anchor) -> Result<(), Refused> {
        let event = if at.paused { StatusEvent::Holding } else { StatusEvent::Capturing };
        self.advance(event, at.wall_us / 1000)?;
        self.paused = at.paused;
        self.started.get_or_insert(at.wall_us / 1000);
        if at.paused {
            self.not_late(&at);
        }
        self.anchor = Some(at);
        self.moved();
        Ok(())
    }

    /// The recording goes on as it did, and stands here: clocks that run apart, or are set, are followed.
    pub fn mark(&mut self, at: Anchor) {
        if self.anchor.is_some_and(|a| a.paused == at.paused) {
            self.anchor = Some(at);
        }
    }

    /// The segments of its file.
    pub fn segments(&self) -> Segments {
        Segments { rate: self.order.rate, short: self.short }
    }

    /// A step of delivery.
    pub fn deliver(&mut self, event: StatusEvent, now: u64) -> Result<(), Refused> {
        self.advance(event, now)?;
        if self.stopped.is_none() {
            self.stopped = Some(now);
            if self.canceled.is_none() {
                self.wanted_until(now);
            }
        }
        Ok(())
    }

    /// The result is there and is being announced.
    pub fn announce(&mut self, now: u64) -> Result<(), Refused> {
        self.advance(StatusEvent::Announcing, now)?;
        self.finished.get_or_insert(now);
        Ok(())
    }

    /// What is left is a call that is not due yet: whoever looks for tasks that nobody works on finds it when it is.
    pub fn rest(&mut self) {
        self.lease = None;
    }

    /// Over. The lease goes, so that nobody waits for it.
    pub fn end(&mut self, now: u64) -> Result<(), Refused> {
        self.advance(StatusEvent::Ended, now)?;
        self.finished.get_or_insert(now);
        self.lease = None;
        self.relay = Relay::default();
        self.waiting.clear();
        Ok(())
    }

    /// When it ends by itself: the limit counts from the start of capture, pauses included. While that has not come, from the
    /// creation, and no less than a slow page and a cold function may take: a short limit would leave nothing recorded.
    pub fn ends_at(&self) -> u64 {
        let limit = u64::from(self.order.limit_seconds) * 1000;
        self.started.map_or(self.created + limit.max(START_MS), |started| started + limit)
    }

    /// It is among those that are worked on.
    pub fn running(&self) -> bool {
        self.status != Status::Finished
    }
}

#[cfg(test)]
#[path = "record/tests.rs"]
mod tests;
