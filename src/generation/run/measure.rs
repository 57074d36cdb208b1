//! What is measured while it runs, segment by segment: a recorder that is lost says nothing at its end.

use std::time::Duration;

use super::Run;
use crate::generation::outcome::{counted, listed};
use crate::recording::capture::sound_shift_ms;
use crate::task::quality::Quality;
use crate::task::timeline::seconds;

impl Run<'_> {
    /// Time until the segment at work ends, and its counts are to be taken.
    pub(super) fn segment_end(&self) -> Option<Duration> {
        if self.warm.is_some() || !self.begun {
            return None;
        }
        let left = (self.measured.max(self.first) + self.spec.rate.segment()).saturating_sub(self.capture.recorded());
        (self.capture.is_open() || left == 0).then(|| Duration::from_secs_f64(seconds(left)))
    }

    /// A segment has ended.
    pub(super) fn at_segment_end(&mut self) {
        let segment = self.spec.rate.segment();
        self.measured = self.capture.recorded() / segment * segment;
        let stretches = listed(self.capture.stretches(), self.offset, self.first);
        let so_far = Quality {
            gaps: self.gaps.clone(),
            reduced_rate_seconds: self.cadence.reduced_looks() as f64,
            silent: stretches.silent,
            blank: stretches.blank,
            ..counted(self.capture.counts(), self.before, sound_shift_ms(self.spec.rate))
        };
        // The one that the writer has in hand may not be stored yet.
        let stored = self.admission.next().saturating_sub(1) * segment;
        let in_file = |own: u64| self.offset.wrapping_add_unsigned(own).max(0).cast_unsigned();
        self.measuring.note(in_file(self.measured), so_far, in_file(stored));
        self.watcher.measured(&self.measuring);
    }
}
