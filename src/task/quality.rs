//! `Quality`: what was delivered, measured.

use serde::{Deserialize, Serialize};

use crate::task::timeline::seconds;

/// Why wall time is missing from the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GapReason {
    /// The tab or the browser crashed and was relaunched.
    PageCrash,
    /// The encoder lost what it had in hand.
    EncoderLost,
    /// The recorder ended without warning, and another went on.
    RecorderLost,
    /// One invocation handed over to the next.
    HandOver,
}

/// A span of wall time that should be in the file and is not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Gap {
    /// Position in the file, seconds.
    pub start: f64,
    /// Missing wall time, seconds.
    pub duration: f64,
    /// Why.
    pub reason: GapReason,
}

/// A stretch of the file, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Stretch {
    /// Position in the file.
    pub start: f64,
    /// Length.
    pub duration: f64,
}

/// Shortest silent or blank stretch that is listed, seconds (the wire contract's bound).
pub const STRETCH_SECONDS: f64 = 5.0;

/// Gaps that are listed at most, and stretches of each kind. More of them would not fit a record, and nobody would read
/// them.
pub const MAX_GAPS: usize = 200;

/// What was delivered. Nothing in here is assumed: a value that was not measured is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Quality {
    /// Pictures in the file that the page drew (repeats of an unchanged picture not counted).
    pub frames_delivered: u64,
    /// Distinct pictures per recorded second.
    pub frame_rate: f64,
    /// Pictures the page drew in recorded time that are not in the file.
    pub frames_dropped: u64,
    /// Missing spans.
    pub gaps: Vec<Gap>,
    /// Time stamps of sound minus those of picture, both against their arrival; absent without either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub av_offset_ms: Option<f64>,
    /// Times a playing sound stream ran out of samples.
    pub underruns: u64,
    /// Seconds recorded at a frame rate that was stepped down for lack of CPU.
    pub reduced_rate_seconds: f64,
    /// Silent stretches longer than 5 s.
    pub silent: Vec<Stretch>,
    /// Stretches longer than 5 s in which the picture was of one colour.
    pub blank: Vec<Stretch>,
}

impl Quality {
    /// Adds what a later recorder of the same file has measured.
    pub fn absorb(&mut self, later: Self) {
        self.frames_delivered += later.frames_delivered;
        self.frames_dropped += later.frames_dropped;
        self.underruns += later.underruns;
        self.reduced_rate_seconds += later.reduced_rate_seconds;
        self.av_offset_ms = later.av_offset_ms.or(self.av_offset_ms);
        self.gaps.extend(later.gaps);
        self.silent.extend(later.silent);
        self.blank.extend(later.blank);
        self.gaps.truncate(MAX_GAPS);
        for list in [&mut self.silent, &mut self.blank] {
            *list = joined(list);
            list.truncate(MAX_GAPS);
        }
    }

    /// The same without what lies before `start` seconds: a successor that got ready there measured it, but keeps nothing.
    pub fn after(mut self, start: f64) -> Self {
        for list in [&mut self.silent, &mut self.blank] {
            list.retain(|s| s.start + s.duration - s.start.max(start) > STRETCH_SECONDS);
            for stretch in list {
                let end = stretch.start + stretch.duration;
                stretch.start = stretch.start.max(start);
                stretch.duration = end - stretch.start;
            }
        }
        self.gaps.retain(|g| g.start >= start);
        self
    }

    /// The same without what lies behind `end` seconds, where the file ends. What was missing there is missing at its end.
    pub fn until(mut self, end: f64) -> Self {
        for list in [&mut self.silent, &mut self.blank] {
            list.iter_mut().for_each(|s| s.duration = s.duration.min(end - s.start));
            list.retain(|s| s.duration > STRETCH_SECONDS);
        }
        self.gaps.iter_mut().for_each(|g| g.start = g.start.min(end));
        self
    }

    /// The same of a recording that begins `by` seconds into the file.
    pub fn shifted(mut self, by: f64) -> Self {
        self.gaps.iter_mut().for_each(|g| g.start += by);
        self.silent.iter_mut().chain(&mut self.blank).for_each(|s| s.start += by);
        self
    }
}

/// Stretches in order, those that touch made one: a seam is no reason for two.
fn joined(stretches: &[Stretch]) -> Vec<Stretch> {
    let mut joined: Vec<Stretch> = Vec::new();
    for next in stretches {
        match joined.last_mut() {
            Some(last) if next.start - (last.start + last.duration) < 0.05 => {
                last.duration = (next.start + next.duration - last.start).max(last.duration);
            }
            _ => joined.push(*next),
        }
    }
    joined
}

/// Collects stretches of something being so, along the recorded time.
#[derive(Debug, Clone, Default)]
pub struct StretchMeter {
    since: Option<u64>,
    end: u64,
    found: Vec<Stretch>,
}

impl StretchMeter {
    /// From recorded sample `at` to the next call's it is so, or not.
    pub fn note(&mut self, at: u64, so: bool) {
        self.end = self.end.max(at);
        match (self.since, so) {
            (None, true) => self.since = Some(at),
            (Some(since), false) => {
                self.since = None;
                self.add(since, at);
            }
            _ => {}
        }
    }

    /// Those that there are so far.
    pub fn so_far(&self) -> Vec<Stretch> {
        self.clone().finish(self.end)
    }

    /// The stretches longer than [`STRETCH_SECONDS`] of a recording that ends at recorded sample `end`.
    pub fn finish(mut self, end: u64) -> Vec<Stretch> {
        if let Some(since) = self.since.take() {
            self.add(since, end.max(since));
        }
        self.found
    }

    fn add(&mut self, from: u64, to: u64) {
        let duration = seconds(to - from);
        if duration > STRETCH_SECONDS {
            self.found.push(Stretch { start: seconds(from), duration });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_recorders_measured_one_after_the_other_is_added_up() {
        let stretch = |start, duration| Stretch { start, duration };
        let gap = |start| Gap { start, duration: 1.0, reason: GapReason::PageCrash };
        let of = |frames, silent: &[Stretch], gaps: &[Gap]| Quality {
            frames_delivered: frames,
            underruns: 1,
            silent: silent.to_vec(),
            gaps: gaps.to_vec(),
            ..Quality::default()
        };
        let mut all = Quality { av_offset_ms: Some(3.0), ..of(10, &[stretch(1.0, 9.0)], &[gap(4.0)]) };
        let warm = of(20, &[stretch(2.0, 12.0), stretch(3.0, 6.0), stretch(20.0, 6.0)], &[gap(3.0), gap(15.0)]);
        all.absorb(warm.after(10.0));
        let expected = Quality {
            av_offset_ms: Some(3.0),
            ..of(30, &[stretch(1.0, 9.0), stretch(20.0, 6.0)], &[gap(4.0), gap(15.0)])
        };
        assert_eq!(all, Quality { underruns: 2, ..expected }, "4 s after the seam are no stretch");
        all.absorb(of(0, &[stretch(26.0, 7.0)], &[]));
        assert_eq!(all.silent, [stretch(1.0, 9.0), stretch(20.0, 13.0)], "a seam is no end of silence");
        for _ in 0..MAX_GAPS {
            all.absorb(of(0, &[], &[gap(40.0)]));
        }
        assert_eq!(all.gaps.len(), MAX_GAPS);
    }

    #[test]
    fn only_long_stretches_are_listed() {
        let mut meter = StretchMeter::default();
        for (second, so) in [(0, true), (5, false), (6, true), (8, true), (12, false), (13, true)] {
            meter.note(second * 48_000, so);
        }
        let found = meter.finish(20 * 48_000);
        let expected = [(6.0, 6.0), (13.0, 7.0)].map(|(start, duration)| Stretch { start, duration });
        assert_eq!(found, expected);
    }
}
