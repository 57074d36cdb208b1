//! The media clock: CLOCK_MONOTONIC counted in samples since an anchor, shared by display and sound.

use crate::task::timeline::SAMPLE_RATE;
use rustix::time::{ClockId, clock_gettime};

const NANOS: u128 = 1_000_000_000;

/// Maps CLOCK_MONOTONIC to wall samples. Copies share the anchor.
#[derive(Debug, Clone, Copy)]
pub struct MediaClock {
    anchor_ns: u64,
}

impl MediaClock {
    /// A clock whose sample 0 is now.
    pub fn start() -> Self {
        Self { anchor_ns: monotonic_ns() }
    }

    /// Wall samples since the anchor, rounded down.
    pub fn now(self) -> u64 {
        self.sample_at(monotonic_ns())
    }

    /// Wall sample that is playing at a CLOCK_MONOTONIC time.
    pub fn sample_at(self, ns: u64) -> u64 {
        (u128::from(ns.saturating_sub(self.anchor_ns)) * u128::from(SAMPLE_RATE) / NANOS) as u64
    }

    /// CLOCK_MONOTONIC time at which a wall sample begins, rounded up so that `sample_at` gives it back.
    pub fn ns_at(self, sample: u64) -> u64 {
        self.anchor_ns + (u128::from(sample) * NANOS).div_ceil(u128::from(SAMPLE_RATE)) as u64
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
pub fn monotonic_ns() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_survive_the_round_trip() {
        let clock = MediaClock::start();
        for sample in [0, 1, 479, 1600, 102_400, 48_000 * 36_000 + 7] {
            assert_eq!(clock.sample_at(clock.ns_at(sample)), sample);
        }
    }
}
