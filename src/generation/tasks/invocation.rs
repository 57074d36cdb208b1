//! The invocation that a task is worked on in, and its time.

use std::time::Duration;

use tokio::time::Instant;

use crate::task::budget::{Budget, lead, max_hops};
use crate::task::record::TaskRecord;

/// The invocation that all this happens in.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Its id.
    pub id: String,
    /// When it began.
    pub began: Instant,
    /// When it is killed.
    pub deadline: Option<Instant>,
}

impl Invocation {
    /// One that begins now and is killed after `limit`.
    pub fn new(id: impl Into<String>, limit: Option<Duration>) -> Self {
        let began = Instant::now();
        Self { id: id.into(), began, deadline: limit.map(|limit| began + limit) }
    }

    fn time(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline - self.began)
    }

    /// When it asks for the next one, and when it leaves at the latest. `wanted`: how long before that it asks, if somebody
    /// has decided that.
    pub(super) fn budget(&self, record: &TaskRecord, wanted: Option<Duration>) -> Option<(Instant, Instant)> {
        let lead = wanted.unwrap_or_else(|| lead(record.start_up_ms.map(Duration::from_millis), record.order.rate));
        let budget = Budget::of(self.time()?, lead);
        Some((self.began + budget.call, self.began + budget.leave))
    }

    /// When it leaves what takes long to another one; `None`: nothing ends it.
    pub(super) fn leave(&self, record: &TaskRecord) -> Option<Instant> {
        self.budget(record, None).map(|(_, leave)| leave)
    }

    /// The task has been handed on more often than recording it can need: something hands it round.
    pub(super) fn too_many_hops(&self, record: &TaskRecord) -> bool {
        let limit = Duration::from_secs(record.order.limit_seconds.into());
        self.time().is_some_and(|time| record.generation.saturating_sub(record.crashes) > max_hops(limit, time))
    }
}
