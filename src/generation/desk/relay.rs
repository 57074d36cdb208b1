//! The relay at the desk: a holder asks for a successor, hears of it and ends where that goes on; a successor says how far
//! it is, and takes the task over when it is its turn, or when the holder is lost.

use std::time::Duration;

use tokio::time::Instant;

use super::Desk;
use crate::generation::change::ChangeError;
use crate::generation::lease::LEASE;
use crate::generation::run::{Alignment, Command, Own};
use crate::platform::RecorderEvent;
use crate::task::record::TaskRecord;
use crate::task::relay::{RelayEvent, RelayState, Switch};
use crate::task::status::Status;

/// How long a successor that was asked for may take to be there before another one is asked for: cold starts take seconds.
const PATIENCE: Duration = Duration::from_secs(8);
const LEASE_MS: u64 = LEASE.as_millis() as u64;

/// Prefix of a task's chunks.
pub(in crate::generation) fn prefix(task: &str) -> String {
    format!("raw/{task}/")
}

impl Desk<'_> {
    /// A holder's side: sees to it that somebody goes on before this invocation is killed.
    pub(super) async fn arrange(&self, record: &TaskRecord) -> Result<(), ChangeError> {
        let due = |at: Option<Instant>| at.is_some_and(|at| Instant::now() >= at);
        if record.status > Status::Paused || self.told(|t| t.finishing) {
            return Ok(());
        }
        if due(self.office.leave_at) {
            if !self.told(|t| std::mem::replace(&mut t.out_of_time, true)) {
                self.send(Command::HandOver(None)).await;
            }
            return Ok(());
        }
        let now = self.office.platform.clock.now();
        self.follow(record, now).await;
        // A page that has not begun yet is left to the next generation as it stands.
        let begun = record.anchor.is_some() && self.told(|t| t.reported);
        if begun && due(self.office.call_at) && record.relay.wants_call(now, PATIENCE.as_millis() as u64) {
            self.call(record).await?;
        }
        Ok(())
    }

    async fn call(&self, record: &TaskRecord) -> Result<(), ChangeError> {
        let mark = self.told(|t| t.mark);
        let edit = |record: &mut TaskRecord, now| {
            // A successor sets its clock by this.
            if let Some(mark) = mark {
                record.mark(mark);
            }
            record.relay(RelayEvent::Call, now, LEASE_MS)
        };
        let called = self.office.holder.edit(edit).await?;
        let event = RecorderEvent { task: record.id.clone(), generation: Some(called.generation + 1) };
        tracing::info!(generation = called.generation + 1, calls = called.relay.calls, "asking for a successor");
        let asked = self.office.holder.holding(self.office.platform.continuation.invoke(&event)).await?;
        if let Err(error) = asked {
            // It is asked for again once patience is over.
            tracing::warn!(error = %crate::generation::chain(&error), "successor not asked for");
        }
        Ok(())
    }

    /// Ends where the successor goes on, or stays if it cannot after all.
    async fn follow(&self, record: &TaskRecord, now: u64) {
        // What the recorder has just done and the record does not say yet may undo what was agreed.
        let agreed = record.relay.ready(now).filter(|_| self.told(|t| t.state.is_none()));
        let before = self.told(|t| std::mem::replace(&mut t.leaving, agreed));
        if agreed == before {
            return;
        }
        match agreed {
            Some(Switch::At(index)) => self.send(Command::HandOver(Some(record.segments().begin(index)))).await,
            Some(Switch::Paused) => self.send(Command::HandOver(Some(0))).await,
            None => self.send(Command::Stay).await,
        }
    }

    /// A successor's side.
    pub(super) async fn accompany(&self, record: &TaskRecord, renew: bool) -> Result<(), ChangeError> {
        if record.status > Status::Paused {
            self.stop().await;
            return Ok(());
        }
        let now = self.office.platform.clock.now();
        if record.lease.as_ref().is_none_or(|lease| lease.expires <= now) {
            return self.take_over(record).await;
        }
        self.align(record);
        let ready = self.told(|t| t.ready);
        let said = match &record.relay.state {
            RelayState::Ready { switch, .. } => Some(*switch),
            RelayState::Idle | RelayState::Failed { .. } | RelayState::Called { .. } | RelayState::Warming { .. } => {
                None
            }
        };
        if !renew && said == ready.map(|r| r.switch) {
            return Ok(());
        }
        let edit = |record: &mut TaskRecord, owner: &str, now| match ready {
            Some(ready) => record.ready(owner, ready.switch, ready.from, now, LEASE_MS),
            None => record.relay(RelayEvent::Moved, now, LEASE_MS),
        };
        match self.office.holder.edit_relay(edit).await {
            Ok(_) => Ok(()),
            // The recorder hears of it with the next look, and says anew what it is ready for.
            Err(ChangeError::Refused(crate::task::record::Refused::Moved)) => {
                let moved = |record: &mut TaskRecord, _: &str, now| record.relay(RelayEvent::Moved, now, LEASE_MS);
                self.office.holder.edit_relay(moved).await.map(drop)
            }
            Err(error) => Err(error),
        }
    }

    /// Tells the recorder where the holder is.
    fn align(&self, record: &TaskRecord) {
        let reload = self.told(|t| std::mem::replace(&mut t.refreshed, record.refreshed) != record.refreshed);
        if reload {
            let _ = self.office.commands.try_send(Command::Reload);
        }
        if let Some(alignment) = alignment(record) {
            // One that finds no room is followed by another in a moment.
            let _ = self.office.commands.try_send(Command::Align(alignment));
        }
    }

    /// The holder is lost: goes on after the last segment that is kept.
    async fn take_over(&self, record: &TaskRecord) -> Result<(), ChangeError> {
        let keys = self.office.chunks.list(&prefix(&record.id)).await?;
        let first = record.seams.next_index(&keys);
        tracing::warn!(first, "the holder is lost; taking over");
        self.office.holder.edit_relay(|record, owner, now| record.take_over(owner, first, now, LEASE_MS)).await?;
        Ok(())
    }

    /// The task is this recorder's own.
    pub(super) async fn inherit(&self, record: &TaskRecord) {
        self.told(|t| t.successor = false);
        let first = record.seams.list().last().map_or(0, |s| s.first);
        self.send(Command::Own(Own { first, segments: record.segments(), paused: record.paused })).await;
    }
}

/// What a successor is told of the holder.
pub(in crate::generation) fn alignment(record: &TaskRecord) -> Option<Alignment> {
    let agreed = match &record.relay.state {
        RelayState::Ready { switch, .. } => Some(*switch),
        RelayState::Idle | RelayState::Failed { .. } | RelayState::Called { .. } | RelayState::Warming { .. } => None,
    };
    Some(Alignment { anchor: record.anchor?, segments: record.segments(), agreed })
}
