//! The grid and the timeline.
//!
//! Everything is counted in *samples* (48 kHz). A video slot is `48000 / fps` samples, an AAC frame 1024, and a
//! segment a convenient span in which both end together: 76,800 samples (1.6 s), at 24 fps 128,000 (2.6667 s). What a
//! crash loses is a segment and its way to the store; shorter ones cost more keyframes and requests.
//!
//! Two scales of the same unit: *wall* (samples since the media clock's anchor, never stops) and *recorded* (position
//! in the file). A [`Gate`] maps one to the other: spans of wall time are let through one after the other, so a pause
//! is a jump of the wall scale and no jump at all of the recorded one, for picture and sound at the same sample.

use serde::{Deserialize, Serialize};

/// Samples per second of every audio track and of the media clock.
pub const SAMPLE_RATE: u64 = 48_000;
/// Samples in one AAC-LC frame.
pub const AAC_FRAME: u64 = 1024;
/// Video time scale: 90 kHz, in which every slot of every supported rate is whole.
pub const VIDEO_TIMESCALE: u32 = 90_000;

/// A frame rate on the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct FrameRate(u32);

impl FrameRate {
    /// The rates that have a segment grid.
    pub const ALLOWED: [u32; 9] = [5, 10, 15, 20, 24, 25, 30, 50, 60];

    /// Frames per second.
    pub fn per_second(self) -> u32 {
        self.0
    }
    /// Samples in one slot.
    pub fn slot(self) -> u64 {
        SAMPLE_RATE / u64::from(self.0)
    }
    /// Samples in one segment.
    pub fn segment(self) -> u64 {
        match self.0 {
            24 => 128_000,
            _ => 76_800,
        }
    }
    /// Slots in one segment.
    pub fn slots_per_segment(self) -> u64 {
        self.segment() / self.slot()
    }
}

impl Default for FrameRate {
    fn default() -> Self {
        Self(30)
    }
}

impl From<FrameRate> for u32 {
    fn from(rate: FrameRate) -> u32 {
        rate.0
    }
}

impl TryFrom<u32> for FrameRate {
    type Error = String;
    fn try_from(fps: u32) -> Result<Self, String> {
        if Self::ALLOWED.contains(&fps) {
            Ok(Self(fps))
        } else {
            Err(format!("frame rate {fps} is not one of {:?}", Self::ALLOWED))
        }
    }
}

/// Samples to 90 kHz ticks. Exact for every multiple of 8 samples, so for every slot.
pub fn ticks(samples: u64) -> u64 {
    samples * 15 / 8
}

/// Samples to seconds.
pub fn seconds(samples: u64) -> f64 {
    samples as f64 / SAMPLE_RATE as f64
}

/// One span of wall time that is in the recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    wall: u64,
    end: Option<u64>,
    recorded: u64,
}

/// Which wall samples are recorded, and where. Spans only ever get appended and start and end on slots.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    spans: Vec<Span>,
}

impl Gate {
    /// A gate with nothing let through yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets wall time through from `wall` on. No effect while open.
    pub fn open(&mut self, wall: u64) {
        if self.is_open() {
            return;
        }
        let recorded = self.recorded_until_close();
        let wall = wall.max(self.spans.last().and_then(|s| s.end).unwrap_or(0));
        self.spans.push(Span { wall, end: None, recorded });
    }

    /// Stops letting wall time through at `wall`. No effect while closed.
    pub fn close(&mut self, wall: u64) {
        if let Some(span) = self.spans.last_mut()
            && span.end.is_none()
        {
            span.end = Some(wall.max(span.wall));
        }
    }

    /// Whether the last span has no end yet.
    pub fn is_open(&self) -> bool {
        self.spans.last().is_some_and(|s| s.end.is_none())
    }

    /// Recorded position of a wall sample, `None` outside every span.
    pub fn recorded(&self, wall: u64) -> Option<u64> {
        let span = self.spans.iter().rev().find(|s| s.wall <= wall)?;
        match span.end {
            Some(end) if wall >= end => None,
            _ => Some(span.recorded + (wall - span.wall)),
        }
    }

    /// Wall sample at which the last span begins, if there is one.
    pub fn opened_at(&self) -> Option<u64> {
        self.spans.last().map(|s| s.wall)
    }

    /// Wall sample at which the last span ends, if it is closed.
    pub fn closed_at(&self) -> Option<u64> {
        self.spans.last().and_then(|s| s.end)
    }

    /// Length of all closed spans: the end of the recording once the gate is closed for good.
    pub fn recorded_until_close(&self) -> u64 {
        self.spans.last().map_or(0, |s| s.recorded + s.end.map_or(0, |e| e - s.wall))
    }

    /// The parts of the wall span `[start, start + len)` that are recorded: (offset into the span, length, recorded position).
    pub fn cut(&self, start: u64, len: u64) -> Vec<(u64, u64, u64)> {
        let end = start + len;
        self.spans
            .iter()
            .filter_map(|s| {
                let from = s.wall.max(start);
                let to = s.end.unwrap_or(u64::MAX).min(end);
                (from < to).then(|| (from - start, to - from, s.recorded + (from - s.wall)))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_aac_frames_and_segments_meet_at_every_rate() {
        for fps in FrameRate::ALLOWED {
            let rate = FrameRate::try_from(fps).unwrap();
            assert_eq!(SAMPLE_RATE % u64::from(fps), 0, "{fps}");
            assert_eq!(rate.segment() % AAC_FRAME, 0, "{fps}");
            assert_eq!(rate.segment() % rate.slot(), 0, "{fps}");
            assert_eq!(rate.slot() % 8, 0, "a slot is whole in 90 kHz ticks at {fps}");
        }
    }

    #[test]
    fn a_pause_is_no_jump_in_recorded_time() {
        let mut gate = Gate::new();
        gate.open(1600);
        gate.close(4800);
        gate.open(16_000);
        assert_eq!(gate.recorded(1599), None);
        assert_eq!(gate.recorded(4799), Some(3199));
        assert_eq!(gate.recorded(4800), None);
        assert_eq!(gate.recorded(16_000), Some(3200));
        assert_eq!(gate.cut(4000, 13_000), vec![(0, 800, 2400), (12_000, 1000, 3200)]);
        gate.close(16_100);
        assert_eq!(gate.recorded_until_close(), 3300);
    }

    #[test]
    fn a_second_open_or_close_changes_nothing() {
        let mut gate = Gate::new();
        gate.close(10);
        gate.open(100);
        gate.open(200);
        gate.close(300);
        gate.close(400);
        assert_eq!(gate.recorded_until_close(), 200);
        gate.open(250);
        assert_eq!(gate.opened_at(), Some(300), "a span never begins before the last one ended");
    }
}
