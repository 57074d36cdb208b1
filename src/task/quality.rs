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
    /// The same of a recording that begins `by` seconds into the file.
    pub fn shifted(mut self, by: f64) -> Self {
        self.gaps.iter_mut().for_each(|g| g.start += by);
        self.silent.iter_mut().chain(&mut self.blank).for_each(|s| s.start += by);
        self
    }
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
