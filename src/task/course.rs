//! Where a recording stands in time: the position in the file that belongs to a moment, for whoever has to know it without
//! having recorded it. Pure.
//!
//! Positions are samples in the file; segment *i* begins at `i · S − short`, where `short` is what earlier generations
//! that ended inside a segment left out of it (they did so only while the task was paused). Moments are unix microseconds,
//! the one scale that two invocations share: on one machine exactly, on two as well as their clocks agree.

use serde::{Deserialize, Serialize};

use super::timeline::{FrameRate, SAMPLE_RATE};

/// Where recorded time stood at a moment: with it, whoever comes later knows what is missing, and where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Position in the file, samples; on a slot.
    pub recorded: u64,
    /// Unix microseconds at which it was the turn of that sample.
    pub wall_us: u64,
    /// From then on nothing was recorded.
    pub paused: bool,
}

/// Samples in so many microseconds.
pub fn samples(us: i64) -> i64 {
    (i128::from(us) * i128::from(SAMPLE_RATE) / 1_000_000) as i64
}

/// Microseconds in so many samples.
pub fn micros(samples: u64) -> u64 {
    (u128::from(samples) * 1_000_000 / u128::from(SAMPLE_RATE)) as u64
}

impl Anchor {
    /// Position in the file at a moment; where it stands still if the task is paused.
    pub fn position(&self, wall_us: u64) -> i64 {
        let passed = if self.paused { 0 } else { samples(wall_us.wrapping_sub(self.wall_us).cast_signed()) };
        self.recorded.cast_signed() + passed
    }

    /// By how many samples somebody is ahead who takes `position` for that of a moment.
    pub fn ahead(&self, position: i64, wall_us: u64) -> i64 {
        position - self.position(wall_us)
    }
}

/// The segments of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    /// Its grid.
    pub rate: FrameRate,
    /// See above.
    pub short: u64,
}

impl Segments {
    /// Position at which a segment begins.
    pub fn begin(&self, index: u64) -> u64 {
        (index * self.rate.segment()).saturating_sub(self.short)
    }

    /// The first segment that begins at or after a position: its index, and how far it is, rounded to slots.
    pub fn next(&self, position: i64) -> (u64, u64) {
        let (segment, slot) = (self.rate.segment().cast_signed(), self.rate.slot().cast_signed());
        // A position that is off the slots by what two clocks disagree is meant to be on them.
        let on_slot = (position + self.short.cast_signed() + slot / 2).div_euclid(slot) * slot;
        let index = on_slot.max(0).div_euclid(segment) + i64::from(on_slot.max(0).rem_euclid(segment) > 0);
        (index.cast_unsigned(), (index * segment - on_slot).cast_unsigned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 76_800;

    fn segments(short: u64) -> Segments {
        Segments { rate: FrameRate::default(), short }
    }

    #[test]
    fn a_moment_has_a_position_before_and_after_the_anchor_and_none_of_its_own_in_a_pause() {
        let anchor = Anchor { recorded: 48_000, wall_us: 5_000_000, paused: false };
        assert_eq!([4_000_000, 5_000_000, 5_500_000].map(|t| anchor.position(t)), [0, 48_000, 72_000]);
        assert_eq!(anchor.ahead(48_000, 5_010_000), -480);
        assert_eq!(Anchor { paused: true, ..anchor }.position(9_000_000), 48_000);
    }

    #[test]
    fn the_next_segment_is_counted_in_slots_from_the_position() {
        for (short, position, expected) in [
            (0, 0, (0, 0)),
            (0, 1, (0, 0)), // less than half a slot is what clocks disagree by
            (0, 1600, (1, 47 * 1600)),
            (0, 76_799, (1, 0)),
            (0, 76_800, (1, 0)),
            (0, 78_400, (2, 47 * 1600)),
            (1024, 76_800 - 1024, (1, 0)),
            (1024, 76_800, (2, 47 * 1600)),
            (0, -700, (0, 0)),
            (0, -3200, (0, 3200)),
        ] {
            assert_eq!(segments(short).next(position), expected, "{position} with {short} less");
        }
        assert_eq!((segments(1024).begin(2), segments(1024).begin(0)), (2 * S - 1024, 0));
    }
}
