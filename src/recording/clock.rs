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

    /// A clock that has just begun, on which a slot begins at the moment `unix_us`: as on another recorder's clock.
    pub fn in_step(unix_us: u64, slot: u64) -> Self {
        let passed = i128::from(unix_ns()) - i128::from(unix_us) * 1000;
        let slots = (passed * i128::from(SAMPLE_RATE)).div_euclid(NANOS as i128 * i128::from(slot));
        let begun = slots * i128::from(slot) * NANOS as i128 / i128::from(SAMPLE_RATE);
        Self { anchor_ns: monotonic_ns().saturating_sub(u64::try_from(passed - begun).unwrap_or(0)) }
    }

    /// Unix microseconds at which a wall sample begins, as the system's clock has it now.
    pub fn unix_us(self, sample: u64) -> u64 {
        let ahead = i128::from(self.ns_at(sample)) - i128::from(monotonic_ns());
        u64::try_from((i128::from(unix_ns()) + ahead) / 1000).unwrap_or(0)
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

/// CLOCK_REALTIME in nanoseconds.
fn unix_ns() -> u64 {
    let t = clock_gettime(ClockId::Realtime);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// CLOCK_MONOTONIC in nanoseconds.
pub fn monotonic_ns() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What may pass between two readings of the system's clocks on a busy machine, µs.
    const READING_US: u64 = 2_000;

    #[test]
    fn two_clocks_in_step_have_the_same_slots() {
        let (one, slot) = (MediaClock::start(), 1600);
        for ahead in [0, 5, 1000] {
            let phase = one.unix_us(ahead * slot);
            let other = MediaClock::in_step(phase, slot);
            let slot_us = 1_000_000 * slot / 48_000;
            let off = other.unix_us(7 * slot).abs_diff(phase) % slot_us;
            assert!(off.min(slot_us - off) < READING_US, "{off} µs off");
            assert!(other.now() < 2 * slot, "it has just begun: {}", other.now());
        }
    }

    #[test]
    fn samples_survive_the_round_trip() {
        let clock = MediaClock::start();
        for sample in [0, 1, 479, 1600, 76_800, 48_000 * 36_000 + 7] {
            assert_eq!(clock.sample_at(clock.ns_at(sample)), sample);
        }
    }
}
