//! The record of a task: what was asked for, how far it is, who works on it. Pure: every change is a method that either
//! leaves a consistent record or changes nothing. Stores keep it whole, under a version.
//!
//! Who may change what: callers add commands and the wish to stop; the holder of the lease does everything else. A lease
//! is a fencing token: who lost it finds another owner in the record and must not write any more.

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::order::Order;
use super::quality::{Gap, GapReason, Quality};
use super::status::{IllegalTransition, Status, StatusEvent};
use super::timeline::seconds;

/// Commands that may wait at once. More means that nobody applies them: the recorder looks several times a second.
pub const MAX_WAITING_COMMANDS: usize = 64;
/// How long a record is kept after the task could have ended at the latest, milliseconds: 30 days.
pub const KEEP_MS: u64 = 30 * 24 * 3600 * 1000;

/// Gaps that are listed at most. More of them would not fit a record, and nobody would read them.
pub const MAX_GAPS: usize = 500;

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

/// Who works on the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Unique for each attempt of each invocation.
    pub owner: String,
    /// Unix milliseconds; later, anybody may take over.
    pub expires: u64,
}

/// A file that is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Video {
    /// Its name without directories.
    pub filename: String,
    /// Bytes.
    pub file_size: u64,
    /// Where it can be fetched.
    #[serde(rename = "FileURL")]
    pub file_url: String,
    /// Seconds.
    pub file_duration: f64,
}

/// What came out so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The files.
    #[serde(default)]
    pub videos: Vec<Video>,
    /// What was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
    /// Memory of the function times the time of its recorder invocations, GB·s; 0 where no memory is set.
    #[serde(default)]
    pub billed_gb_seconds: f64,
}

/// Where recorded time stood at a moment: with it, whoever comes later knows what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Position in the file, samples.
    pub recorded: u64,
    /// Unix milliseconds.
    pub wall: u64,
    /// From then on nothing was recorded.
    pub paused: bool,
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
    /// The last moment at which recording began, was paused or resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Anchor>,
    /// What is missing although it should be in the file.
    #[serde(default)]
    pub gaps: Vec<Gap>,
    /// Samples by which segments of earlier generations are shorter than the grid: the last of each that handed over.
    #[serde(default)]
    pub short: u64,
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
}

impl TaskRecord {
    /// A task that was just asked for.
    pub fn new(id: String, order: Order, fingerprint: Option<String>, now: u64) -> Self {
        let expires = now + u64::from(order.limit_seconds) * 1000 + KEEP_MS;
        Self {
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
            crashes: 0,
            handed_over: false,
            lease: None,
            generation: 0,
            result: TaskResult::default(),
        }
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
        self.status = self.status.next(StatusEvent::Stop)?;
        if self.status == Status::Canceled {
            self.canceled.get_or_insert(now);
        }
        Ok(())
    }

    /// Somebody who may work on the task when nobody else does. Commands that a new page fulfils by being new are done;
    /// pause and resume come down to which was last.
    pub fn claim(&mut self, owner: &str, now: u64, lease_ms: u64) -> Result<(), Refused> {
        if self.status == Status::Finished {
            return Err(IllegalTransition { status: self.status, event: StatusEvent::Capturing }.into());
        }
        match &self.lease {
            Some(lease) if lease.owner != owner && lease.expires > now => return Err(Refused::Leased),
            Some(_) => self.crashes += 1,
            None => {}
        }
        self.generation += 1;
        self.lease = Some(Lease { owner: owner.into(), expires: now + lease_ms });
        for command in std::mem::take(&mut self.waiting) {
            match command.kind {
                CommandKind::Pause => self.paused = true,
                CommandKind::Resume => self.paused = false,
                CommandKind::Refresh => {}
            }
        }
        Ok(())
    }

    /// Says whether `owner` still holds the lease. Its time being over does not end it: another owner does.
    pub fn held_by(&self, owner: &str) -> Result<(), Refused> {
        match &self.lease {
            Some(lease) if lease.owner == owner => Ok(()),
            Some(_) | None => Err(Refused::Fenced),
        }
    }

    /// Nobody works on it although somebody should.
    pub fn orphaned(&self, now: u64, start_grace_ms: u64) -> bool {
        let over = match &self.lease {
            Some(lease) => lease.expires <= now,
            None => self.created + start_grace_ms <= now,
        };
        self.status != Status::Finished && over
    }

    /// The lease lasts longer.
    pub fn renew(&mut self, now: u64, lease_ms: u64) {
        if let Some(lease) = &mut self.lease {
            lease.expires = now + lease_ms;
        }
    }

    /// Commands up to `seq` have been applied.
    pub fn applied(&mut self, seq: u64) {
        self.waiting.retain(|c| c.seq > seq);
    }

    /// The recorder is up: it records, or is paused.
    pub fn capturing(&mut self, at: Anchor) -> Result<(), Refused> {
        let event = if at.paused { StatusEvent::Holding } else { StatusEvent::Capturing };
        self.status = self.status.next(event)?;
        self.paused = at.paused;
        self.started.get_or_insert(at.wall);
        self.anchor = Some(at);
        Ok(())
    }

    /// The same of a recorder that goes on where another was lost: what lies between is missing.
    pub fn resumed(&mut self, at: Anchor) -> Result<(), Refused> {
        let before = self.anchor;
        self.capturing(at)?;
        let handed_over = std::mem::take(&mut self.handed_over);
        let reason = if handed_over { GapReason::HandOver } else { GapReason::RecorderLost };
        if let Some(before) = before {
            let wall = if before.paused { 0 } else { at.wall.saturating_sub(before.wall) };
            let duration = seconds(before.recorded) - seconds(at.recorded) + wall as f64 / 1000.0;
            // Less than a picture is none.
            if duration > 0.001 && self.gaps.len() < MAX_GAPS {
                self.gaps.push(Gap { start: seconds(at.recorded), duration, reason });
            }
        }
        Ok(())
    }

    /// Another invocation is to go on after the last sample that was recorded: nobody holds the task. `short`: see the
    /// field.
    pub fn hand_over(&mut self, end: Anchor, short: u64) {
        self.anchor = Some(end);
        self.short += short;
        self.handed_over = true;
        self.lease = None;
    }

    /// A step of delivery.
    pub fn deliver(&mut self, event: StatusEvent, now: u64) -> Result<(), Refused> {
        self.status = self.status.next(event)?;
        self.stopped.get_or_insert(now);
        Ok(())
    }

    /// The result is there and is being announced.
    pub fn announce(&mut self, now: u64) -> Result<(), Refused> {
        self.status = self.status.next(StatusEvent::Announcing)?;
        self.finished.get_or_insert(now);
        Ok(())
    }

    /// Over. The lease goes, so that nobody waits for it.
    pub fn end(&mut self, now: u64) -> Result<(), Refused> {
        self.status = self.status.next(StatusEvent::Ended)?;
        self.finished.get_or_insert(now);
        self.lease = None;
        self.waiting.clear();
        Ok(())
    }

    /// When it ends by itself: the limit counts from the start of capture, pauses included, or from the creation while
    /// capture has not begun.
    pub fn ends_at(&self) -> u64 {
        self.started.unwrap_or(self.created) + u64::from(self.order.limit_seconds) * 1000
    }

    /// It is among those that are worked on.
    pub fn running(&self) -> bool {
        self.status != Status::Finished
    }
}

#[cfg(test)]
#[path = "record/tests.rs"]
mod tests;
