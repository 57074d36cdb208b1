//! Between a task's record and its recorder: commands one way, states the other, and the lease kept meanwhile.
//!
//! A store that cannot be reached costs nothing but late commands: recording goes on.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::change::ChangeError;
use super::lease::{Holder, RENEW};
use super::outcome::Stopped;
use super::record::Watcher;
use super::run::{Command, Progress};
use crate::platform::Clock;
use crate::task::record::{CommandKind, Refused, TaskRecord};
use crate::task::status::{Status, StatusEvent};

/// How often the record is read: a command waits for half of this on average, and 500 ms are promised.
const POLL: Duration = Duration::from_millis(200);
/// How long the end of capture waits for a store that cannot be reached before the file is made without its consent.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the recorder has reported and the record does not say yet.
#[derive(Default)]
struct Told {
    /// Recording (`false`) or paused (`true`).
    state: Option<bool>,
    /// Last command that was handed on.
    forwarded: u64,
    /// Stop was handed on.
    stopping: bool,
    /// The invocation's time is over.
    out_of_time: bool,
    /// Somebody else has the task.
    fenced: bool,
    /// Longest time between two renewals of the lease.
    lease_age: Duration,
}

/// The desk of one recording.
pub(super) struct Desk<'a> {
    holder: &'a Holder,
    clock: &'a dyn Clock,
    commands: mpsc::Sender<Command>,
    told: Mutex<Told>,
    news: Notify,
    /// When the recording has to end, so that the file can be made before the invocation is killed.
    leave_at: Option<Instant>,
}

impl<'a> Desk<'a> {
    pub fn new(
        holder: &'a Holder,
        clock: &'a dyn Clock,
        commands: mpsc::Sender<Command>,
        leave_at: Option<Instant>,
    ) -> Self {
        Self { holder, clock, commands, told: Mutex::default(), news: Notify::new(), leave_at }
    }

    fn told<T>(&self, with: impl FnOnce(&mut Told) -> T) -> T {
        with(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The recording ended because the invocation's time was over.
    pub fn out_of_time(&self) -> bool {
        self.told(|t| t.out_of_time)
    }

    /// Longest time between two renewals of the lease.
    pub fn lease_age(&self) -> Duration {
        self.told(|t| t.lease_age)
    }

    /// Works until the recording is over, and for ever if that is how long it takes.
    pub async fn work_for_ever(&self) {
        self.work().await;
        std::future::pending().await
    }

    /// Works until the task is lost to somebody else.
    async fn work(&self) {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = self.news.notified() => {}
            }
            if self.leave_at.is_some_and(|at| Instant::now() >= at)
                && !self.told(|t| std::mem::replace(&mut t.out_of_time, true))
            {
                self.stop().await;
            }
            match self.round(renewed.elapsed() >= RENEW).await {
                Ok(true) => {
                    self.told(|t| t.lease_age = t.lease_age.max(renewed.elapsed()));
                    renewed = Instant::now();
                }
                Ok(false) => {}
                Err(ChangeError::Refused(Refused::Fenced) | ChangeError::Unknown(_)) => {
                    tracing::warn!("the task was taken over; this invocation ends");
                    self.told(|t| t.fenced = true);
                    self.stop().await;
                    return;
                }
                Err(error) => tracing::warn!(error = %super::chain(&error), "task record not reached"),
            }
        }
    }

    /// Reads the record, hands commands on, writes what is new. Says whether it wrote.
    async fn round(&self, renew: bool) -> Result<bool, ChangeError> {
        let record = self.holder.look().await?;
        self.hand_on(&record).await;
        let (state, forwarded) = self.told(|t| (t.state, t.forwarded));
        let applied = record.waiting.iter().any(|c| c.seq <= forwarded);
        if state.is_none() && !applied && !renew {
            return Ok(false);
        }
        self.holder
            .edit(|record, now| {
                record.applied(forwarded);
                match state {
                    // Delivery has begun: the report is old news.
                    Some(paused) if record.status <= Status::Canceled => record.capturing(paused, now),
                    Some(_) | None => Ok(()),
                }
            })
            .await?;
        self.told(|t| {
            if t.state == state {
                t.state = None;
            }
        });
        Ok(true)
    }

    async fn hand_on(&self, record: &TaskRecord) {
        let forwarded = self.told(|t| t.forwarded);
        for command in record.waiting.iter().filter(|c| c.seq > forwarded) {
            let kind = match command.kind {
                CommandKind::Pause => Command::Pause,
                CommandKind::Resume => Command::Resume,
                CommandKind::Refresh => Command::Refresh,
            };
            // A recorder that has ended needs no commands any more.
            let _ = self.commands.send(kind).await;
            self.told(|t| t.forwarded = command.seq);
        }
        if record.status > Status::Paused || self.clock.now() >= record.ends_at() {
            self.stop().await;
        }
    }

    async fn stop(&self) {
        if !self.told(|t| std::mem::replace(&mut t.stopping, true)) {
            let _ = self.commands.send(Command::Stop).await;
        }
    }
}

#[async_trait]
impl Watcher for Desk<'_> {
    fn progress(&self, _progress: &Progress) {}

    fn state(&self, paused: bool) {
        self.told(|t| t.state = Some(paused));
        self.news.notify_one();
    }

    async fn finishing(&self, _stopped: Stopped) -> Option<String> {
        if self.told(|t| t.fenced) {
            return None;
        }
        let state = self.told(|t| t.state);
        let written = self.holder.persist(PATIENCE, |record, now| {
            // A recording shorter than the desk's round was recording all the same.
            if let Some(paused) = state.filter(|_| record.status <= Status::Canceled) {
                record.capturing(paused, now)?;
            }
            record.stop(now)?;
            record.deliver(StatusEvent::Assembling, now)
        });
        match written.await {
            Ok(record) => Some(name(record.stopped.unwrap_or_else(|| self.clock.now()))),
            Err(ChangeError::Refused(Refused::Fenced) | ChangeError::Unknown(_)) => None,
            // The file is worth more than the record of it.
            Err(error) => {
                tracing::error!(error = %super::chain(&error), "task record not reached; the file is made all the same");
                Some(name(self.clock.now()))
            }
        }
    }
}

/// Default name of a file: the stop time.
pub(super) fn name(stopped: u64) -> String {
    format!("{stopped}.mp4")
}
