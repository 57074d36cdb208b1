//! The hold of one invocation on a task: every write goes through it, and finds out when somebody else took over.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::change::{ChangeError, change};
use crate::platform::{Platform, RecorderEvent};
use crate::task::record::{Joined, Refused, TaskRecord};
use crate::task::relay::RelayEvent;

/// How long a lease lasts without being renewed. Whoever comes later may claim it at once; whoever comes sooner looks whether
/// its holder is alive ([`watch`](super::watch)). A recorder that cannot reach the store for longer goes on recording and
/// holds the lease until somebody else claims it.
pub const LEASE: Duration = Duration::from_secs(5);
/// How often it is renewed, whatever its holder does. Each segment's end is written down and renews it too, so one renewal
/// lies between two segments, as with half a segment more.
pub const RENEW: Duration = Duration::from_millis(1_100);
/// First wait after a failed write that must not be lost; it doubles up to the second.
const BACK_OFF: Duration = Duration::from_millis(200);
const MAX_BACK_OFF: Duration = Duration::from_secs(5);

/// When the hold was renewed.
struct Renewals {
    last: Instant,
    /// Longest time between two.
    longest: Duration,
}

/// The hold.
pub struct Holder {
    platform: Platform,
    task: String,
    owner: String,
    renewals: Mutex<Renewals>,
}

impl Holder {
    fn new(platform: &Platform, task: &str) -> Self {
        let owner = uuid::Uuid::new_v4().to_string();
        let renewals = Mutex::new(Renewals { last: Instant::now(), longest: Duration::ZERO });
        Self { platform: platform.clone(), task: task.into(), owner, renewals }
    }

    /// Takes the task of an event as what the event asks for.
    pub async fn take(platform: &Platform, event: &RecorderEvent) -> Result<(Self, TaskRecord, Joined), ChangeError> {
        match event.generation {
            Some(generation) => Self::join(platform, &event.task, generation).await,
            None => Self::claim(platform, &event.task).await.map(|(holder, record)| (holder, record, Joined::Holder)),
        }
    }

    /// Takes a task that nobody works on.
    async fn claim(platform: &Platform, task: &str) -> Result<(Self, TaskRecord), ChangeError> {
        let holder = Self::new(platform, task);
        let record = change(platform, task, |record| {
            let now = holder.platform.clock.now();
            // A claim whose answer was lost is held already.
            if record.held_by(&holder.owner).is_ok() {
                return Ok(());
            }
            record.claim(&holder.owner, now, LEASE.as_millis() as u64)
        });
        let record = record.await?;
        Ok((holder, record))
    }

    /// Takes a task as the generation that was asked for: one that nobody works on, or the relay of one that somebody does.
    async fn join(platform: &Platform, task: &str, generation: u32) -> Result<(Self, TaskRecord, Joined), ChangeError> {
        let holder = Self::new(platform, task);
        let mut joined = Joined::Holder;
        let record = change(platform, task, |record| {
            joined = record.join(&holder.owner, generation, holder.platform.clock.now(), LEASE.as_millis() as u64)?;
            Ok(())
        });
        let record = record.await?;
        Ok((holder, record, joined))
    }

    fn renewals<T>(&self, with: impl FnOnce(&mut Renewals) -> T) -> T {
        with(&mut self.renewals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Time until the hold is to be renewed.
    pub fn due(&self) -> Duration {
        RENEW.saturating_sub(self.renewals(|r| r.last.elapsed()))
    }

    /// Longest time between two renewals.
    pub fn longest(&self) -> Duration {
        self.renewals(|r| r.longest)
    }

    /// It was renewed as of `at`.
    fn renewed(&self, at: Instant) {
        self.renewals(|r| (r.longest, r.last) = (r.longest.max(at - r.last), at));
    }

    /// The record as it stands, and as what this is its holder; an error when the hold is lost.
    pub async fn look(&self) -> Result<(TaskRecord, Joined), ChangeError> {
        let found = self.platform.tasks.load(&self.task, self.platform.clock.now()).await?;
        let record = found.ok_or_else(|| ChangeError::Unknown(self.task.clone()))?.record;
        let joined = self.hold_on(&record)?;
        Ok((record, joined))
    }

    fn hold_on(&self, record: &TaskRecord) -> Result<Joined, Refused> {
        match record.relay.owner() == Some(&self.owner) {
            true => Ok(Joined::Successor),
            false => record.held_by(&self.owner).map(|()| Joined::Holder),
        }
    }

    /// The same as `edit` for a successor: changes its side of the relay and renews its claim. Nothing happens once the task
    /// is its own.
    pub async fn edit_relay(
        &self,
        mut edit: impl FnMut(&mut TaskRecord, &str, u64) -> Result<(), Refused> + Send,
    ) -> Result<TaskRecord, ChangeError> {
        let mut at = None;
        let record = change(&self.platform, &self.task, |record| {
            at = None;
            if self.hold_on(record)? == Joined::Holder {
                return Ok(());
            }
            let (now, lease) = (self.platform.clock.now(), LEASE.as_millis() as u64);
            at = Some(Instant::now());
            record.relay(RelayEvent::Renew(&self.owner), now, lease)?;
            edit(record, &self.owner, now)
        });
        let record = record.await?;
        at.into_iter().for_each(|at| self.renewed(at));
        Ok(record)
    }

    /// Changes the record and renews the lease, if it is still ours. `edit` gets the time.
    pub async fn edit(
        &self,
        mut edit: impl FnMut(&mut TaskRecord, u64) -> Result<(), Refused> + Send,
    ) -> Result<TaskRecord, ChangeError> {
        let mut at = Instant::now();
        let record = change(&self.platform, &self.task, |record| {
            record.held_by(&self.owner)?;
            let now = self.platform.clock.now();
            at = Instant::now();
            record.renew(now, LEASE.as_millis() as u64);
            edit(record, now)
        });
        let record = record.await?;
        self.renewed(at);
        Ok(record)
    }

    /// Does work that takes long while it keeps the lease, and drops it when somebody else takes over.
    pub async fn holding<T>(&self, work: impl Future<Output = T>) -> Result<T, ChangeError> {
        let lost = async {
            loop {
                tokio::time::sleep(self.due().max(BACK_OFF)).await;
                match self.edit(|_, _| Ok(())).await {
                    Ok(_) => {}
                    Err(lost @ (ChangeError::Refused(_) | ChangeError::Unknown(_))) => return lost,
                    Err(error) => tracing::warn!(error = %super::chain(&error), "lease not renewed"),
                }
            }
        };
        tokio::select! {
            done = work => Ok(done),
            lost = lost => Err(lost),
        }
    }

    /// The same as `edit` for what must not be lost: a store that cannot be reached is tried again for as long as `patience`.
    pub async fn persist(
        &self,
        patience: Duration,
        mut edit: impl FnMut(&mut TaskRecord, u64) -> Result<(), Refused> + Send,
    ) -> Result<TaskRecord, ChangeError> {
        let until = tokio::time::Instant::now() + patience;
        let mut wait = BACK_OFF;
        loop {
            match self.edit(&mut edit).await {
                Err(error @ (ChangeError::Store(_) | ChangeError::Contended(_))) => {
                    if tokio::time::Instant::now() + wait > until {
                        return Err(error);
                    }
                    tracing::warn!(task_id = self.task, error = %super::chain(&error), "task record not reached");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(MAX_BACK_OFF);
                }
                other => return other,
            }
        }
    }
}
