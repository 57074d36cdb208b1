//! Calls that a caller's server is owed: the result, and each status that it asked to hear of. In order, one at a time. How
//! often one was tried and when the next try is due are part of the record, so that a crash goes on counting.

use serde::{Deserialize, Serialize};

use super::status::Status;

/// Waits after a call that did not arrive, milliseconds, of which each event has one more try than there are: seven within
/// five minutes. A server that restarts is back within the first, one that is deployed anew within the last.
pub const WAITS_MS: [u64; 6] = [1_000, 2_000, 4_000, 15_000, 60_000, 240_000];
/// A last try that nothing is heard of for so long was cut off, milliseconds: more than a call may take.
const LAST_MS: u64 = 15_000;
/// Calls that may wait at once. More wait only where nobody answers; then the oldest goes.
pub const MAX_WAITING_CALLS: usize = 64;
/// Longest text that is kept of what the last try met, characters.
const MAX_ERROR: usize = 300;

/// A call that is owed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Counts up over the whole task: its part of `webhook-id`.
    pub seq: u32,
    /// The status that it is about; `callback` is the result.
    pub event: Status,
    /// When the task came to it, unix milliseconds.
    pub at: u64,
    /// Tries so far; one is counted before it is made.
    #[serde(default)]
    pub tries: u32,
    /// When the next try is due, unix milliseconds.
    pub next: u64,
    /// What the last try was answered with, if it was answered: an HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<u16>,
    /// Why the last try did not arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A call that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastCall {
    /// The call.
    pub call: Call,
    /// It arrived.
    pub delivered: bool,
}

/// The calls of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// Oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    waiting: Vec<Call>,
    /// The last one that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<PastCall>,
    /// Calls so far.
    #[serde(default)]
    seq: u32,
    /// Calls that never arrived.
    #[serde(default)]
    lost: u32,
    /// One was given up, and none has arrived since: statuses get one try each, the result all of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    dead: bool,
}

impl Calls {
    /// Nobody was ever to be called.
    pub fn is_idle(&self) -> bool {
        self.seq == 0
    }

    /// The call that comes next.
    pub fn head(&self) -> Option<&Call> {
        self.waiting.first()
    }

    /// The last one that is over.
    pub fn last(&self) -> Option<&PastCall> {
        self.last.as_ref()
    }

    /// Calls that never arrived.
    pub fn lost(&self) -> u32 {
        self.lost
    }

    /// A call more is owed.
    pub fn owe(&mut self, event: Status, at: u64) {
        if self.waiting.len() >= MAX_WAITING_CALLS {
            let call = self.waiting.remove(0);
            self.over(call, false);
        }
        self.seq += 1;
        self.waiting.push(Call { seq: self.seq, event, at, tries: 0, next: at, answer: None, error: None });
    }

    /// A try of the next call begins, if one is due: it counts from here on, whatever becomes of whoever makes it.
    pub fn begin(&mut self, now: u64) -> Option<Call> {
        let tried_out = |c: &Call| c.tries > WAITS_MS.len() as u32;
        let call = self.waiting.first_mut().filter(|c| c.next <= now && !tried_out(c))?;
        let wait = WAITS_MS.get(call.tries as usize).copied().unwrap_or(LAST_MS);
        call.tries += 1;
        call.next = now + wait;
        Some(call.clone())
    }

    /// A try has come to an end at `now`: well, or with an answer of no success, or with none. Returns the call if that was
    /// its last try. One that is not waiting any more changes nothing.
    pub fn tried(&mut self, seq: u32, now: u64, came: Result<u16, (Option<u16>, String)>) -> Option<PastCall> {
        let dead = self.dead;
        let call = self.waiting.first_mut().filter(|c| c.seq == seq)?;
        // The wait counts from the end of the try.
        call.next = now + (call.tries as usize).checked_sub(1).and_then(|n| WAITS_MS.get(n)).copied().unwrap_or(0);
        let delivered = came.is_ok();
        (call.answer, call.error) = match came {
            Ok(status) => (Some(status), None),
            Err((status, error)) => (status, Some(error.chars().take(MAX_ERROR).collect())),
        };
        let patience = if dead && call.event != Status::Callback { 1 } else { 1 + WAITS_MS.len() as u32 };
        if !delivered && call.tries < patience {
            return None;
        }
        let call = self.waiting.remove(0);
        self.dead = !delivered;
        self.over(call, delivered);
        self.last.clone()
    }

    /// A call whose last try was cut off is over: nobody knows whether it arrived.
    pub fn cut_off(&mut self, now: u64) -> Option<PastCall> {
        let last = self.waiting.first().filter(|c| c.tries > WAITS_MS.len() as u32 && c.next <= now)?;
        let (seq, answer) = (last.seq, last.answer);
        self.tried(seq, now, Err((answer, "the last call was cut off before an answer came".into())))
    }

    fn over(&mut self, call: Call, delivered: bool) {
        self.lost += u32::from(!delivered);
        self.last = Some(PastCall { call, delivered });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused() -> Result<u16, (Option<u16>, String)> {
        Err((Some(503), "busy".into()))
    }

    #[test]
    fn a_call_is_tried_seven_times_further_and_further_apart_and_then_given_up() {
        let mut calls = Calls::default();
        calls.owe(Status::Callback, 1_000);
        let (mut now, mut at) = (1_000, Vec::new());
        loop {
            let call = calls.begin(now).unwrap();
            assert_eq!(calls.begin(now), None, "a try that is under way is not made twice");
            at.push(now - 1_000);
            if let Some(past) = calls.tried(call.seq, now, refused()) {
                assert_eq!((past.delivered, past.call.tries, past.call.answer), (false, 7, Some(503)));
                break;
            }
            now = calls.head().unwrap().next;
        }
        assert_eq!(at, [0, 1_000, 3_000, 7_000, 22_000, 82_000, 322_000]);
        assert_eq!((calls.head(), calls.lost()), (None, 1));
    }

    #[test]
    fn one_that_is_cut_off_counts_and_comes_again_after_its_wait() {
        let mut calls = Calls::default();
        calls.owe(Status::Recording, 0);
        let mut now = 0;
        for tries in 1..=7 {
            assert_eq!(calls.cut_off(now), None);
            assert_eq!(calls.begin(now).unwrap().tries, tries);
            now = calls.head().unwrap().next;
        }
        assert_eq!(calls.cut_off(now).map(|p| p.delivered), Some(false));
    }

    #[test]
    fn statuses_wait_for_the_dead_once_and_the_result_waits_all_the_same() {
        let mut calls = Calls::default();
        for event in [Status::Normal, Status::Recording, Status::Callback] {
            calls.owe(event, 0);
        }
        let (mut now, mut tries) = (0, Vec::new());
        while let Some(call) = calls.begin(now) {
            if let Some(past) = calls.tried(call.seq, now, refused()) {
                tries.push((past.call.event, past.call.tries));
            }
            now = calls.head().map_or(now, |c| c.next.max(now));
        }
        assert_eq!(tries, [(Status::Normal, 7), (Status::Recording, 1), (Status::Callback, 7)]);
    }

    proptest! {
        #[test]
        fn calls_stay_in_order_and_bounded_and_none_vanishes(steps in prop::collection::vec((0u8..4, 0u64..5_000), 1..400)) {
            let mut calls = Calls::default();
            let (mut now, mut owed, mut arrived) = (0, 0, Vec::new());
            for (what, wait) in steps {
                now += wait;
                match what {
                    0 => { calls.owe(Status::Paused, now); owed += 1; }
                    1 => { calls.begin(now); }
                    _ => if let Some(call) = calls.begin(now) {
                        let came = if what == 2 { Ok(204) } else { refused() };
                        arrived.extend(calls.tried(call.seq, now, came).filter(|p| p.delivered).map(|p| p.call.seq));
                    },
                }
                calls.cut_off(now);
                prop_assert!(calls.waiting.len() <= MAX_WAITING_CALLS);
                prop_assert!(calls.waiting.is_sorted_by_key(|c| c.seq) && arrived.is_sorted());
                prop_assert_eq!(owed, arrived.len() + calls.waiting.len() + calls.lost() as usize);
            }
        }
    }
}
