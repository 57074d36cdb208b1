//! Telling the caller's server what it asked to hear: statuses while there is a recorder, the result when it is there.
//!
//! What is owed is in the task's record ([`Calls`](crate::task::calls::Calls)); here it is worked off, by the holder of the
//! task alone. A try is counted before it is made, so that one that is cut off counts too.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::change::ChangeError;
use super::lease::Holder;
use crate::delivery::callback::{Callback, LIMIT};
use crate::platform::Clock;
use crate::recording::browser::address::is_permitted;
use crate::task::calls::{Call, PastCall};
use crate::task::failure::{Failure, FailureCode};
use crate::task::record::{Joined, TaskRecord};
use crate::task::status::Status;

/// How often a recorder looks for statuses to tell.
const POLL: Duration = Duration::from_secs(1);
/// Longest time that an invocation is held for calls once all else is done, waits included.
const HELD: Duration = Duration::from_secs(30);
/// Longest wait between two tries that it is held for.
const HELD_WAIT_MS: u64 = 5_000;
/// How long the record of a call that was made waits for a store that cannot be reached.
const PATIENCE: Duration = Duration::from_secs(60);

/// A try that did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unheard {
    /// The HTTP status of the answer, if there was one.
    pub status: Option<u16>,
    /// Why, for a person.
    pub reason: String,
}

/// Who makes calls.
#[async_trait]
pub trait Announcer: Send + Sync {
    /// Makes one try of a call; gives the HTTP status that it was taken with.
    async fn call(&self, task: &TaskRecord, call: &Call) -> Result<u16, Unheard>;
}

/// Announces with a POST to the order's `CallbackURL`.
pub struct WebAnnouncer {
    /// Makes the calls.
    pub callback: Callback,
    /// For their time stamps.
    pub clock: Arc<dyn Clock>,
    /// Addresses that may be called although they are not public.
    pub allow_addresses: Vec<ipnet::IpNet>,
    /// The task as callers see it.
    pub describe: fn(&TaskRecord) -> Value,
}

#[async_trait]
impl Announcer for WebAnnouncer {
    async fn call(&self, task: &TaskRecord, call: &Call) -> Result<u16, Unheard> {
        let url = task.order.callback_url.as_deref().and_then(|u| Url::parse(u).ok());
        let url = url.ok_or_else(|| Unheard { status: None, reason: "the address cannot be called".into() })?;
        let body = (self.describe)(&task.as_of(call.event, call.at)).to_string();
        let permitted = |address| is_permitted(address, &self.allow_addresses);
        let done =
            self.callback.post(&url, &webhook_id(&task.id, call), self.clock.now() / 1000, &body, &permitted).await;
        done.map_err(|error| Unheard { status: error.status(), reason: super::chain(&error) })
    }
}

/// The same for every try of a call, so that a server that hears twice knows it.
fn webhook_id(task: &str, call: &Call) -> String {
    match call.event {
        Status::Callback => format!("{task}-result"),
        event => format!("{task}-{}-{}", call.seq, event.word()),
    }
}

/// Works off what is owed, as the holder of a task.
pub(super) struct Courier<'a> {
    announcer: &'a dyn Announcer,
    holder: &'a Holder,
    clock: &'a dyn Clock,
}

impl<'a> Courier<'a> {
    pub fn new(announcer: &'a dyn Announcer, holder: &'a Holder, clock: &'a dyn Clock) -> Self {
        Self { announcer, holder, clock }
    }

    /// Tells statuses while a recorder is at work beside it. Never ends; it may be dropped at any point.
    pub async fn accompany(&self, record: &TaskRecord) {
        if record.order.callback_url.is_some() && !record.order.callback_events.is_empty() {
            self.tell().await;
        }
        std::future::pending().await
    }

    /// Tells statuses until the task is lost to somebody else.
    async fn tell(&self) {
        loop {
            match self.round().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(ChangeError::Refused(_) | ChangeError::Unknown(_)) => return,
                Err(error) => tracing::warn!(error = %super::chain(&error), "calls not looked for"),
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Makes the call that is due, if this is the holder and one is.
    async fn round(&self) -> Result<bool, ChangeError> {
        let (record, joined) = self.holder.look().await?;
        let due = record.calls.head().is_some_and(|call| call.next <= self.clock.now());
        if joined == Joined::Successor || !due {
            return Ok(false);
        }
        self.make().await?;
        Ok(true)
    }

    /// Makes every call that is owed; false when the rest has to wait longer than this invocation should.
    pub async fn work_off(&self, deadline: Option<Instant>) -> Result<bool, ChangeError> {
        let held = Instant::now() + HELD;
        let until = deadline.and_then(|d| d.checked_sub(LIMIT)).map_or(held, |d| d.min(held));
        loop {
            let record = self.holder.look().await?.0;
            let Some(next) = record.calls.head().map(|c| c.next) else { return Ok(true) };
            let wait = next.saturating_sub(self.clock.now());
            let at = Instant::now() + Duration::from_millis(wait);
            if wait > HELD_WAIT_MS || at >= until {
                return Ok(false);
            }
            self.holder.holding(tokio::time::sleep_until(at)).await?;
            self.make().await?;
        }
    }

    /// One try of the next call, written down before and after.
    async fn make(&self) -> Result<(), ChangeError> {
        let mut begun = None;
        let edit = |task: &mut TaskRecord, now| {
            let over = task.calls.cut_off(now);
            note(task, over);
            begun = task.calls.begin(now);
            Ok(())
        };
        let record = self.holder.persist(PATIENCE, edit).await?;
        let Some(call) = begun else { return Ok(()) };
        let told = self.holder.holding(self.announcer.call(&record, &call)).await?;
        if let Err(unheard) = &told {
            tracing::warn!(
                event = call.event.word(),
                tries = call.tries,
                reason = unheard.reason,
                "callback did not arrive"
            );
        }
        let came = told.map_err(|unheard| (unheard.status, unheard.reason));
        let edit = |task: &mut TaskRecord, now| {
            let over = task.calls.tried(call.seq, now, came.clone());
            note(task, over);
            Ok(())
        };
        self.holder.persist(PATIENCE, edit).await.map(drop)
    }
}

/// A result that nobody took is a failure; what went wrong before is what the caller has to know.
fn note(task: &mut TaskRecord, over: Option<PastCall>) {
    let Some(past) = over.filter(|past| !past.delivered && past.call.event == Status::Callback) else { return };
    let reason = past.call.error.unwrap_or_default();
    let message = format!("{} calls: {reason}", past.call.tries);
    tracing::error!(reason = message, "callback failed");
    task.result.failure.get_or_insert(Failure { code: FailureCode::CallbackFailed, message });
}
