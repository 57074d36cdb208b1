//! Which segments of a recorder are kept, and as which of the file: decided between the recorder, whose own segments count
//! from 0, and the writer, through which they pass.
//!
//! A successor that gets ready drops its segments. Once it has said from which one on it can go on, those from there on wait
//! at the writer, in memory: nothing is stored before the task is its own, so nothing has to be undone.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What becomes of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// They are dropped; those from this one on wait.
    Warm(Option<u64>),
    /// Those from `first` on are kept; the file's index is `base` more.
    Owned { first: u64, base: i64 },
    /// They are dropped.
    Closed,
}

#[derive(Debug)]
struct State {
    /// The recorder's own index of the segment that comes next to the writer, or waits there.
    next: u64,
    rule: Rule,
}

/// See above.
#[derive(Debug)]
pub struct Admission {
    state: Mutex<State>,
    changed: Notify,
}

impl Admission {
    /// Everything is kept; the first segment is the file's segment `first`.
    pub fn owned(first: u64) -> Self {
        Self::of(Rule::Owned { first: 0, base: first.cast_signed() })
    }

    /// Nothing is kept yet.
    pub fn warm() -> Self {
        Self::of(Rule::Warm(None))
    }

    fn of(rule: Rule) -> Self {
        Self { state: Mutex::new(State { next: 0, rule }), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer has this segment. Gives the file's index of it, once it is known to be kept.
    pub async fn admit(&self, own: u64) -> Option<u64> {
        loop {
            // Asked for before the rule is read, so that no change is missed.
            let changed = self.changed.notified();
            {
                let mut state = self.state();
                let kept = match state.rule {
                    Rule::Warm(Some(first)) if own >= first => None,
                    Rule::Owned { first, base } if own >= first => Some(Some(own.wrapping_add_signed(base))),
                    Rule::Warm(_) | Rule::Owned { .. } | Rule::Closed => Some(None),
                };
                match kept {
                    Some(kept) => {
                        state.next = own + 1;
                        return kept;
                    }
                    None => state.next = own,
                }
            }
            changed.await;
        }
    }

    /// Own index of the segment that comes next, or waits.
    pub fn next(&self) -> u64 {
        self.state().next
    }

    /// What became of an own segment, once it has passed the writer: the file's index of it, if it is kept.
    pub fn passed(&self, own: u64) -> Option<Option<u64>> {
        let state = self.state();
        (own < state.next).then(|| match state.rule {
            Rule::Owned { first, base } if own >= first => Some(own.wrapping_add_signed(base)),
            Rule::Warm(_) | Rule::Owned { .. } | Rule::Closed => None,
        })
    }

    /// The recorder can go on from its own segment `first`, or cannot any more.
    pub fn pledge(&self, first: Option<u64>) {
        let mut state = self.state();
        if let Rule::Warm(_) = state.rule {
            state.rule = Rule::Warm(first);
            self.changed.notify_waiters();
        }
    }

    /// The task is the recorder's own from the file's segment `file` on: with the own segment `wanted`, or the first one from
    /// `clean` on that is still there. Returns which.
    pub fn own(&self, file: u64, wanted: Option<u64>, clean: u64) -> u64 {
        let mut state = self.state();
        let soonest = state.next.max(clean);
        let first = wanted.filter(|w| *w >= soonest).unwrap_or(soonest);
        state.rule = Rule::Owned { first, base: file.wrapping_sub(first).cast_signed() };
        self.changed.notify_waiters();
        first
    }

    /// Nothing more is kept of a recorder that the task never belonged to.
    pub fn close(&self) {
        let mut state = self.state();
        if let Rule::Warm(_) = state.rule {
            state.rule = Rule::Closed;
            self.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_successor_keeps_nothing_before_the_task_is_its_own() {
        let admission = Arc::new(Admission::warm());
        assert_eq!((admission.admit(0).await, admission.next()), (None, 1));
        admission.pledge(Some(2));
        assert_eq!(admission.admit(1).await, None);
        let waiting = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { (admission.admit(2).await, admission.admit(3).await) }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished());
        assert_eq!(admission.own(40, Some(2), 0), 2);
        assert_eq!(waiting.await.unwrap(), (Some(40), Some(41)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_waited_is_dropped_when_the_pledge_is_taken_back() {
        let admission = Arc::new(Admission::warm());
        admission.pledge(Some(0));
        let waiting = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { admission.admit(0).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        admission.pledge(None);
        assert_eq!(waiting.await.unwrap(), None);
        // The one that was wanted is gone: the next that is clean takes its place.
        assert_eq!(admission.own(7, Some(0), 3), 3);
        assert_eq!((admission.admit(2).await, admission.admit(3).await), (None, Some(7)));
        assert_eq!([1, 2, 3, 4].map(|own| admission.passed(own)), [Some(None), Some(None), Some(Some(7)), None]);
        admission.close();
        assert_eq!(admission.admit(4).await, Some(8), "what is owned stays so");
    }
}
