//! Between a task's record and its recorder: commands one way, states the other, and the lease kept meanwhile; and
//! between two generations ([`relay`]).
//!
//! A store that cannot be reached costs nothing but late commands: recording goes on.

mod relay;

pub(super) use relay::{alignment, prefix};

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::change::ChangeError;
use super::lease::Holder;
use super::outcome::Stopped;
use super::preview::Showing;
use super::publish::Course;
use super::record::Watcher;
use super::run::{Command, Progress, Readiness};
use crate::platform::{ChunkStore, Platform};
use crate::task::measuring::Measuring;
use crate::task::record::{Anchor, CommandKind, Joined, Refused, TaskRecord};
use crate::task::relay::Switch;
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
    /// Last command that was handed on, last one that was obeyed, and those between.
    forwarded: u64,
    obeyed: u64,
    on_their_way: VecDeque<u64>,
    /// Stop was handed on.
    stopping: bool,
    /// The invocation's time is over.
    out_of_time: bool,
    /// Somebody else has the task.
    fenced: bool,
    /// Capture is over.
    finishing: bool,
    /// Capture ended so that another invocation can go on.
    handing_over: bool,
    /// The page came up this long after the claim, which is not written down yet.
    start_up: Option<Duration>,
    /// Where the recording stood when it was last looked at.
    mark: Option<Anchor>,
    /// What was measured by the end of the last segment, and that the record does not say so yet.
    measuring: Option<Measuring>,
    measured: bool,
    /// As a holder: the seam that the recorder was told to end at.
    leaving: Option<Switch>,
    /// As a successor: the task is somebody else's.
    successor: bool,
    /// As a successor: what the recorder is ready for, and how often the holder's page was loaded again.
    ready: Option<Readiness>,
    refreshed: u32,
}

/// What a desk is set up with.
pub(super) struct Office<'a> {
    pub holder: &'a Holder,
    pub platform: &'a Platform,
    /// Where the task's segments are.
    pub chunks: Arc<dyn ChunkStore>,
    pub commands: mpsc::Sender<Command>,
    /// When another invocation is asked for, and when capture has to end, before this one is killed.
    pub call_at: Option<Instant>,
    pub leave_at: Option<Instant>,
    /// Another recorder was there before.
    pub goes_on: bool,
    /// It is a successor, which was told this when it joined.
    pub successor: Option<TaskRecord>,
    /// Who else wants to know where the recording stands.
    pub course: Course,
    /// What there is to see of it while it runs.
    pub showing: Showing,
}

/// The desk of one recording.
pub(super) struct Desk<'a> {
    office: Office<'a>,
    opened: Instant,
    told: Mutex<Told>,
    news: Notify,
}

impl<'a> Desk<'a> {
    pub fn new(office: Office<'a>) -> Self {
        let told = Told {
            successor: office.successor.is_some(),
            refreshed: office.successor.as_ref().map_or(0, |r| r.refreshed),
            ..Told::default()
        };
        Self { office, opened: Instant::now(), told: Mutex::new(told), news: Notify::new() }
    }

    fn told<T>(&self, with: impl FnOnce(&mut Told) -> T) -> T {
        with(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Capture ended so that another invocation can go on.
    pub fn handing_over(&self) -> bool {
        self.told(|t| t.handing_over)
    }

    /// Works until the recording is over, and for ever if that is how long it takes.
    pub async fn work_for_ever(&self) {
        self.work().await;
        std::future::pending().await
    }

    /// Works until the task is lost to somebody else.
    async fn work(&self) {
        loop {
            // A renewal that failed waits for the next look.
            let due = Some(self.office.holder.due()).filter(|due| !due.is_zero());
            tokio::select! {
                () = tokio::time::sleep(due.map_or(POLL, |due| due.min(POLL))) => {}
                () = self.news.notified() => {}
            }
            match self.round(self.office.holder.due().is_zero()).await {
                Ok(()) => {}
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

    /// Reads the record, hands commands on, writes what is new.
    async fn round(&self, renew: bool) -> Result<(), ChangeError> {
        let (record, joined) = self.office.holder.look().await?;
        if self.told(|t| t.successor) {
            match joined {
                Joined::Successor => return self.accompany(&record, renew).await,
                Joined::Holder => self.inherit(&record).await,
            }
        }
        self.hand_on(&record).await;
        self.arrange(&record).await?;
        let (state, obeyed) = self.told(|t| (t.state, t.obeyed));
        let applied = record.waiting.iter().any(|c| c.seq <= obeyed);
        let measured = self.told(|t| std::mem::take(&mut t.measured));
        if state.is_none() && !applied && !measured && !renew {
            return Ok(());
        }
        self.office
            .holder
            .edit(|record, _| {
                record.applied(obeyed);
                self.report(record, state)
            })
            .await?;
        self.told(|t| {
            t.reported |= state.is_some();
            if t.state == state {
                t.state = None;
            }
        });
        Ok(())
    }

    /// Writes the recorder's state down, unless delivery has begun and it is old news.
    fn report(&self, record: &mut TaskRecord, state: Option<Anchor>) -> Result<(), Refused> {
        let (start_up, mark, measuring) = self.told(|t| (t.start_up, t.mark, t.measuring.clone()));
        let start_up = start_up.map(|s| s.as_millis() as u64);
        record.start_up_ms = record.start_up_ms.max(start_up);
        record.measuring = measuring.or(record.measuring.take());
        self.office.showing.tell(&mut record.preview);
        match state.filter(|_| record.status <= Status::Canceled) {
            Some(at) if self.office.goes_on && !self.told(|t| t.reported) => record.resumed(at),
            Some(at) => record.capturing(at),
            None => {
                // Only what this recorder has reported may be moved on.
                if let Some(mark) = mark.filter(|_| self.told(|t| t.reported)) {
                    record.mark(mark);
                }
                Ok(())
            }
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
            self.told(|t| {
                t.forwarded = command.seq;
                t.on_their_way.push_back(command.seq);
            });
            self.send(kind).await;
        }
        if record.status > Status::Paused || self.office.platform.clock.now() >= record.ends_at() {
            self.stop().await;
        }
    }

    async fn send(&self, command: Command) {
        // A recorder that has ended needs no commands any more.
        let _ = self.office.commands.send(command).await;
    }

    async fn stop(&self) {
        if !self.told(|t| std::mem::replace(&mut t.stopping, true)) {
            self.send(Command::Stop).await;
        }
    }
}

#[async_trait]
impl Watcher for Desk<'_> {
    fn progress(&self, progress: &Progress) {
        self.told(|t| {
            if !t.successor {
                t.mark = progress.anchor.or(t.mark);
            }
        });
    }

    fn measured(&self, so_far: &Measuring) {
        self.told(|t| {
            t.measuring = Some(so_far.clone());
            t.measured = true;
        });
        self.news.notify_one();
    }

    fn state(&self, at: Anchor) {
        self.office.course.note(at);
        self.told(|t| {
            t.state = Some(at);
            t.mark = None;
        });
        self.news.notify_one();
    }

    fn up(&self) {
        self.told(|t| t.start_up = t.start_up.or(Some(self.opened.elapsed())));
    }

    fn obeyed(&self) {
        self.told(|t| t.obeyed = t.on_their_way.pop_front().unwrap_or(t.obeyed));
        self.news.notify_one();
    }

    fn ready(&self, readiness: Option<Readiness>) {
        let before = self.told(|t| std::mem::replace(&mut t.ready, readiness));
        // It is said with every look at the holder; what is the same as before waits for the next.
        if before.map(|r| r.switch) != readiness.map(|r| r.switch) {
            self.news.notify_one();
        }
    }

    async fn finishing(&self, stopped: Stopped) -> Option<String> {
        let over = self.told(|t| {
            t.finishing = true;
            t.fenced || t.successor
        });
        if over {
            return None;
        }
        let state = self.told(|t| t.state);
        let mut handing_over = false;
        let written = self.office.holder.persist(PATIENCE, |record, now| {
            // A recording shorter than the desk's round was recording all the same.
            record.applied(self.told(|t| t.obeyed));
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
            Ok(record) => Some(name(record.stopped.unwrap_or_else(|| self.office.platform.clock.now()))),
            Err(ChangeError::Refused(Refused::Fenced) | ChangeError::Unknown(_)) => None,
            // The file is worth more than the record of it.
            Err(error) => {
                tracing::error!(error = %super::chain(&error), "task record not reached; the file is made all the same");
                Some(name(self.office.platform.clock.now()))
            }
        }
    }
}

/// Default name of a file: the stop time.
pub(super) fn name(stopped: u64) -> String {
    format!("{stopped}.mp4")
}
