//! What a recorder at work has measured so far, for the case that it is never heard of again. Which of its segments are kept
//! shows only then: so it counts at the ends of segments, and the last end that is kept decides. Pure.

use serde::{Deserialize, Serialize};

use super::quality::{Gap, Quality, Stretch};
use super::timeline::seconds;

/// Entries of each list: a stretch is longer than 5 s, and so is what parts two of them from being one, so an invocation of a
/// quarter of an hour has no more.
const MAX_LISTED: usize = 90;
/// Ends of segments: those that wait for a store that is away, and more.
const MAX_ENDS: usize = 20;

/// What was counted up to the end of a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Position in the file of that end, samples.
    pub end: u64,
    /// As in [`Quality`].
    pub frames_delivered: u64,
    /// As in [`Quality`].
    pub frames_dropped: u64,
    /// As in [`Quality`].
    pub underruns: u64,
    /// As in [`Quality`].
    pub reduced_rate_seconds: f64,
}

/// See above.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measuring {
    /// Oldest first.
    ends: Vec<Counted>,
    gaps: Vec<Gap>,
    silent: Vec<Stretch>,
    blank: Vec<Stretch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    av_offset_ms: Option<f64>,
}

impl Measuring {
    /// Another segment has ended at `end`; `so_far` was measured by then. Segments up to `stored` are kept for certain.
    pub fn note(&mut self, end: u64, so_far: Quality, stored: u64) {
        self.ends.push(Counted {
            end,
            frames_delivered: so_far.frames_delivered,
            frames_dropped: so_far.frames_dropped,
            underruns: so_far.underruns,
            reduced_rate_seconds: so_far.reduced_rate_seconds,
        });
        let certain = self.ends.iter().filter(|e| e.end <= stored).count();
        self.ends.drain(..certain.saturating_sub(1));
        // The oldest stays: it is what is kept for certain, however long a store is away.
        if self.ends.len() > MAX_ENDS {
            self.ends.remove(1);
        }
        (self.gaps, self.silent, self.blank) = (so_far.gaps, so_far.silent, so_far.blank);
        self.gaps.truncate(MAX_LISTED);
        self.silent.truncate(MAX_LISTED);
        self.blank.truncate(MAX_LISTED);
        self.av_offset_ms = so_far.av_offset_ms;
    }

    /// What of it is in a file that holds this recorder's segments up to `end`.
    pub fn kept(self, end: u64) -> Quality {
        let counted = self.ends.iter().rfind(|e| e.end <= end).copied().unwrap_or_default();
        Quality {
            frames_delivered: counted.frames_delivered,
            frames_dropped: counted.frames_dropped,
            underruns: counted.underruns,
            reduced_rate_seconds: counted.reduced_rate_seconds,
            gaps: self.gaps,
            silent: self.silent,
            blank: self.blank,
            av_offset_ms: self.av_offset_ms,
            frame_rate: 0.0,
        }
        .until(seconds(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::quality::GapReason;

    const S: u64 = 76_800;

    fn so_far(frames: u64) -> Quality {
        Quality { frames_delivered: frames, frames_dropped: frames / 10, ..Quality::default() }
    }

    #[test]
    fn what_was_in_a_segment_that_is_lost_does_not_count() {
        let mut measuring = Measuring::default();
        for index in 1..=5 {
            measuring.note(index * S, so_far(index * 60), 0);
        }
        for kept in 0..=5 {
            let quality = measuring.clone().kept(kept * S + S / 2);
            assert_eq!((quality.frames_delivered, quality.frames_dropped), (kept * 60, kept * 6));
        }
    }

    #[test]
    fn no_more_is_remembered_than_may_be_asked_for() {
        let mut measuring = Measuring::default();
        for index in 1..=100 {
            measuring.note(index * S, so_far(index), index.saturating_sub(3) * S);
        }
        assert_eq!(measuring.ends.iter().map(|e| e.end / S).collect::<Vec<_>>(), [97, 98, 99, 100]);
        for index in 101..=200 {
            measuring.note(index * S, so_far(index), 0);
        }
        assert_eq!(measuring.ends.len(), MAX_ENDS);
        let delivered = |end: u64| measuring.clone().kept(end * S).frames_delivered;
        assert_eq!((delivered(97), delivered(150), delivered(199)), (97, 97, 199), "no count is worse than an old one");
    }

    #[test]
    fn stretches_and_gaps_end_with_what_is_kept() {
        let stretch = |start, duration| Stretch { start, duration };
        let gap = |start| Gap { start, duration: 1.0, reason: GapReason::PageCrash };
        let lists = Quality {
            silent: vec![stretch(2.0, 9.0), stretch(15.0, 9.0), stretch(24.5, 7.0)],
            blank: vec![stretch(2.0, 40.0)],
            gaps: vec![gap(3.0), gap(30.0)],
            ..Quality::default()
        };
        let mut measuring = Measuring::default();
        measuring.note(20 * 48_000, lists, 0);
        let kept = measuring.kept(21 * 48_000);
        assert_eq!(kept.silent, [stretch(2.0, 9.0), stretch(15.0, 6.0)]);
        assert_eq!(kept.blank, [stretch(2.0, 19.0)]);
        // What the page lost in lost segments is missing at the end of those that are kept.
        assert_eq!(kept.gaps, [gap(3.0), gap(21.0)]);
    }
}
