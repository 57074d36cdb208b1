//! An invocation's time: when to ask for the next one, when to leave at the latest, how many there may be. Pure; all times
//! are counted from the invocation's beginning.

use std::time::Duration;

use super::order::MAX_LIMIT_SECONDS;
use super::timeline::{FrameRate, SAMPLE_RATE};

/// From the end of capture to the end of the invocation: the last segment is stored and the record written, with patience
/// for stores. A short invocation gives an eighth of its time.
const LEAVE: Duration = Duration::from_secs(10);
/// Share of it.
const LEAVE_SHARE: u32 = 8;
/// Least that is allowed for a successor to come up: a cold start of the platform, the unpacking of a browser.
const START_FLOOR: Duration = Duration::from_secs(8);
/// Times the start-up that this task was seen to take: the next may meet a busier machine.
const START_FACTOR: u32 = 3;
/// Segments between a page that is up and the seam: up to one to the next boundary, one that is warm, one for the encoder
/// to let it out, and up to two ahead, so that the holder hears of it in time.
const SEGMENTS: u32 = 5;

/// When things are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The next invocation is asked for.
    pub call: Duration,
    /// Capture ends at the latest, with a successor or without.
    pub leave: Duration,
}

/// How long before its last moment an invocation asks for the next one. `start_up`: from a recorder's claim to its first
/// recorded picture, as this task's was; `None` while nobody knows.
pub fn lead(start_up: Option<Duration>, rate: FrameRate) -> Duration {
    let start = start_up.map_or(START_FLOOR, |s| (s * START_FACTOR).max(START_FLOOR));
    start + Duration::from_millis(rate.segment() * 1000 / SAMPLE_RATE) * SEGMENTS
}

impl Budget {
    /// The budget of an invocation of `time`. It is never asked for the next one before half of it is over, lest invocations
    /// do little but hand over.
    pub fn of(time: Duration, lead: Duration) -> Self {
        let leave = time - LEAVE.min(time / LEAVE_SHARE);
        Self { call: leave.saturating_sub(lead).max(time / 2), leave }
    }
}

/// Hand-overs that a task of `limit` may need in invocations of `time`, each of which records for at least half of it; twice
/// that, since successors may come up late. It stands in for the platform's guard against functions that call themselves
/// for ever (AWS Lambda stops a chain after about 16 invocations unless the function's `RecursiveLoop` is `Allow`, as the
/// deployment has to set it): ten hours are a chain of 50.
pub fn max_hops(limit: Duration, time: Duration) -> u32 {
    let limit = limit.min(Duration::from_secs(u64::from(MAX_LIMIT_SECONDS)));
    let halves = limit.as_millis().div_ceil((time.as_millis() / 2).max(1));
    u32::try_from(halves).unwrap_or(u32::MAX).saturating_mul(2).saturating_add(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn the_lead_follows_what_starting_took() {
        let at_30 = |start_up: Option<f64>| lead(start_up.map(s), FrameRate::default()).as_secs_f64();
        for (start_up, expected) in [(None, 16.0), (Some(0.7), 16.0), (Some(4.0), 20.0), (Some(20.0), 68.0)] {
            assert!((at_30(start_up) - expected).abs() < 0.001, "{start_up:?}: {}", at_30(start_up));
        }
    }

    #[test]
    fn an_invocation_asks_in_time_and_not_before_half_of_its_own_is_over() {
        for (time, lead, call, leave) in [
            (900.0, 20.0, 870.0, 890.0),
            (900.0, 600.0, 450.0, 890.0),
            (80.0, 20.0, 50.0, 70.0),
            (60.0, 20.0, 32.5, 52.5),
            (30.0, 20.0, 15.0, 26.25),
            (20.0, 20.0, 10.0, 17.5),
            (1.0, 20.0, 0.5, 0.875),
            (0.0, 20.0, 0.0, 0.0),
        ] {
            assert_eq!(
                Budget::of(s(time), s(lead)),
                Budget { call: s(call), leave: s(leave) },
                "{time} s, {lead} s ahead"
            );
        }
    }

    #[test]
    fn ten_hours_in_a_quarter_of_an_hour_each_are_a_bounded_chain() {
        assert_eq!(max_hops(s(36_000.0), s(900.0)), 162);
        assert_eq!(max_hops(s(60.0), s(900.0)), 4);
        assert_eq!(max_hops(s(1e9), Duration::ZERO), 72_000_002);
    }

    proptest! {
        #[test]
        fn every_invocation_leaves_before_its_end_and_asks_before_it_leaves(ms in 1u64..10_000_000, lead_ms in 0u64..10_000_000) {
            let (time, lead) = (Duration::from_millis(ms), Duration::from_millis(lead_ms));
            let budget = Budget::of(time, lead);
            prop_assert!(budget.call <= budget.leave && budget.leave < time && budget.call >= time / 2);
        }
    }
}
