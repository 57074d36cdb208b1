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
use crate::task::record::{Anchor, CommandKind, Refused, TaskRecord};
use crate::task::status::{Status, StatusEvent};

/// How often the record is read: a command waits for half of this on average, and 500 ms are promised.
const POLL: Duration = Duration::from_millis(200);
/// How long the end of capture waits for a store that cannot be reached before the file is made without its consent.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the recorder has reported and the record does not say yet.
#[derive(Default)]
struct Told {
    /// Since when it records, or is paused.
    state: Option<Anchor>,
    /// A report was written down.
    reported: bool,
    /// Last command that was handed on.
    forwarded: u64,
    /// Stop was handed on.
    stopping: bool,
    /// The invocation's time is over.
    out_of_time: bool,
    /// Somebody else has the task.
    fenced: bool,
    /// Capture ended so that another invocation can go on.
    handing_over: bool,
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
    /// When capture has to end, so that another invocation can go on before this one is killed.
    leave_at: Option<Instant>,
    /// Samples in the file before the first one of this invocation; `None` for the first recorder.
    kept: Option<u64>,
}

impl<'a> Desk<'a> {
    pub fn new(
        holder: &'a Holder,
        clock: &'a dyn Clock,
        commands: mpsc::Sender<Command>,
        leave_at: Option<Instant>,
        kept: Option<u64>,
    ) -> Self {
        Self { holder, clock, commands, told: Mutex::default(), news: Notify::new(), leave_at, kept }
    }

    fn told<T>(&self, with: impl FnOnce(&mut Told) -> T) -> T {
        with(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Capture ended so that another invocation can go on.
    pub fn handing_over(&self) -> bool {
        self.told(|t| t.handing_over)
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
                let _ = self.commands.send(Command::HandOver).await;
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
            .edit(|record, _| {
                record.applied(forwarded);
                self.report(record, state)
            })
            .await?;
        self.told(|t| {
            t.reported |= state.is_some();
            if t.state == state {
                t.state = None;
            }
        });
        Ok(true)
    }

    /// Writes the recorder's state down, unless delivery has begun and it is old news.
    fn report(&self, record: &mut TaskRecord, state: Option<Anchor>) -> Result<(), Refused> {
        match state.filter(|_| record.status <= Status::Canceled) {
            Some(at) if self.kept.is_some() && !self.told(|t| t.reported) => record.resumed(at),
            Some(at) => record.capturing(at),
            None => Ok(()),
        }
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

    fn state(&self, paused: bool, recorded: u64) {
        let recorded = self.kept.unwrap_or(0) + recorded;
        let at = Anchor { recorded, wall: self.clock.now(), paused };
        self.told(|t| t.state = Some(at));
        self.news.notify_one();
    }

    async fn finishing(&self, stopped: Stopped) -> Option<String> {
        if self.told(|t| t.fenced) {
            return None;
        }
        let state = self.told(|t| t.state);
        let mut handing_over = false;
        let written = self.holder.persist(PATIENCE, |record, now| {
            // A recording shorter than the desk's round was recording all the same.
            self.report(record, state)?;
            handing_over = stopped == Stopped::HandOver && record.status <= Status::Paused;
            if handing_over {
                return Ok(());
            }
            record.stop(now)?;
            record.deliver(StatusEvent::Assembling, now)
        });
        match written.await {
            Ok(_) if handing_over => {
                self.told(|t| t.handing_over = true);
                None
            }
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
