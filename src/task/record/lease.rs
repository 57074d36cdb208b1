//! Who works on a task, and until when.

use serde::{Deserialize, Serialize};

use super::super::relay::Relay;
use super::super::status::{IllegalTransition, Status, StatusEvent};
use super::{CommandKind, Refused, TaskRecord};

/// No lease lasts as long, with what clocks of two machines may be apart: one that seems to was written before a clock was set
/// back.
const FAR_MS: u64 = 15_000;

/// Who works on the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Unique for each attempt of each invocation.
    pub owner: String,
    /// Unix milliseconds; later, anybody may take over.
    pub expires: u64,
}

impl Lease {
    /// It is what became of `before` when whoever wrote that was found lost.
    pub fn given_up(&self, before: &Self) -> bool {
        self.owner == before.owner && self.expires == GIVEN_UP
    }
}

/// When a lease ends whose owner was found lost.
const GIVEN_UP: u64 = 0;

/// Whether a claim that ends then is good now.
pub(in crate::task) fn holds(expires: u64, now: u64) -> bool {
    (now + 1..=now + FAR_MS).contains(&expires)
}

impl TaskRecord {
    /// Somebody who may work on the task when nobody else does. Commands that a new page fulfils by being new are done;
    /// pause and resume come down to which was last.
    pub fn claim(&mut self, owner: &str, now: u64, lease_ms: u64) -> Result<(), Refused> {
        if self.status == Status::Finished {
            return Err(IllegalTransition { status: self.status, event: StatusEvent::Capturing }.into());
        }
        match &self.lease {
            Some(lease) if lease.owner != owner && holds(lease.expires, now) => return Err(Refused::Leased),
            // A successor that is there goes on by itself.
            Some(_) | None if self.relay.alive(now).is_some() => return Err(Refused::Leased),
            Some(_) => self.lost(),
            None => {}
        }
        let lease = Lease { owner: owner.into(), expires: now + lease_ms };
        if self.status == Status::Callback || self.vod.is_some() {
            // Nothing is recorded any more: this is no generation, and has no successor.
            (self.lease, self.relay) = (Some(lease), Relay::default());
            return Ok(());
        }
        self.begin(lease);
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
            Some(lease) => !holds(lease.expires, now),
            None if self.status == Status::Callback => self.calls.head().is_none_or(|c| c.next <= now),
            None => self.created + start_grace_ms <= now,
        };
        self.status != Status::Finished && over && self.relay.alive(now).is_none()
    }

    /// By the clock, its holder should have renewed its lease long ago, which then lasts for `lease_ms`: a recorder, of which
    /// another one has to take over soon, `late_ms` after the last time; anybody else when it is over.
    pub fn overdue(&self, now: u64, lease_ms: u64, late_ms: u64) -> bool {
        let records = self.status <= Status::Paused;
        let late = |lease: &Lease| records && now + lease_ms >= lease.expires + late_ms;
        self.lease.as_ref().is_some_and(|lease| !holds(lease.expires, now) || late(lease))
    }

    /// Whoever wrote this lease was watched, and is lost: it is over, by any clock.
    pub fn give_up(&mut self, seen: &Lease) -> Result<(), Refused> {
        match self.lease.as_mut().filter(|lease| *lease == seen) {
            Some(lease) => {
                lease.expires = GIVEN_UP;
                Ok(())
            }
            None => Err(Refused::Leased),
        }
    }

    /// The lease lasts longer.
    pub fn renew(&mut self, now: u64, lease_ms: u64) {
        if let Some(lease) = &mut self.lease {
            lease.expires = now + lease_ms;
        }
    }
}
