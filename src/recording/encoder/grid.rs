//! Frames to segments.
//!
//! A frame belongs to the segment in which its time lies, whatever fragment it came in: FFmpeg's interleaving is not
//! relied on. A segment leaves when both tracks have passed its end; the last one is cut where the recording ends.
//!
//! The segments' `moof` is written here. Its times are on the recorded scale, with one shift: a decode time cannot be
//! negative, so sound is stored 1024 samples late, and the edit list in the init segment takes them off again.

use super::Tail;
use super::boxes::{self, Malformed, put};
use super::demux::{AUDIO_TRACK, Frame, VIDEO_TRACK};
use crate::task::segment::{Sample, Segment, TrackKind, TrackRun};
use crate::task::timeline::{AAC_FRAME, FrameRate, ticks};
use std::collections::VecDeque;
use std::iter;

/// Bytes of frames that wait for their segment to be complete. A segment has less than 7 MB at the highest bit rate;
/// more than this means that one track has stopped coming.
const MAX_PENDING_BYTES: usize = 128 << 20;

/// Collects frames and cuts them on the grid.
pub(super) struct Grid {
    rate: FrameRate,
    next: u64,
    video: Track,
    audio: Track,
}

/// The frames of one track that wait.
struct Track {
    kind: TrackKind,
    /// Recorded time of the first frame, and the time it came with.
    first: i64,
    origin: Option<u64>,
    frames: VecDeque<(i64, Frame)>,
    bytes: usize,
    last: Option<i64>,
}

impl Grid {
    /// A grid whose first picture and sound are at recorded sample `start`, a multiple of the segment length.
    pub(super) fn new(rate: FrameRate, start: u64) -> Self {
        let track = |kind, first| Track { kind, first, origin: None, frames: VecDeque::new(), bytes: 0, last: None };
        Self {
            rate,
            next: start / rate.segment(),
            video: track(TrackKind::Video, ticks(start) as i64),
            audio: track(TrackKind::Audio, start as i64 - AAC_FRAME as i64),
        }
    }

    /// Takes the next frame of its track.
    pub(super) fn push(&mut self, frame: Frame) -> Result<(), Malformed> {
        match frame.kind {
            TrackKind::Video => self.video.push(frame)?,
            TrackKind::Audio => self.audio.push(frame)?,
        }
        let pending = self.video.bytes + self.audio.bytes;
        if pending > MAX_PENDING_BYTES {
            let text = format!("{pending} bytes wait for the end of segment {}; one track has stopped", self.next);
            return Err(Malformed::new(text));
        }
        Ok(())
    }

    /// The next segment that is complete.
    pub(super) fn next(&mut self) -> Result<Option<Segment>, Malformed> {
        let end = (self.next + 1) * self.rate.segment();
        let passed =
            self.video.last.is_some_and(|t| t >= ticks(end) as i64) && self.audio.last.is_some_and(|t| t >= end as i64);
        if passed { self.cut(end, Tail::Cut).map(Some) } else { Ok(None) }
    }

    /// The rest, for a recording that ends at recorded sample `end`. A tail that has no picture is no segment.
    pub(super) fn finish(mut self, end: u64, tail: Tail) -> Result<Vec<Segment>, Malformed> {
        let mut segments = Vec::new();
        while self.video.frames.front().is_some_and(|(t, _)| *t < ticks(end) as i64) {
            let segment_end = (self.next + 1) * self.rate.segment();
            segments.push(self.cut(end.min(segment_end), tail)?);
        }
        Ok(segments)
    }

    /// Where the frames at hand end: what can still be kept when the encoder has died.
    pub(super) fn reach(&self) -> u64 {
        let picture = self.video.last.map_or(0, |t| t as u64 * 8 / 15 + self.rate.slot());
        let sound = self.audio.last.map_or(0, |t| (t + AAC_FRAME as i64).max(0) as u64);
        picture.max(sound)
    }

    /// Cuts segment `next`, which covers recorded time up to `end`.
    fn cut(&mut self, end: u64, tail: Tail) -> Result<Segment, Malformed> {
        let index = self.next;
        let start = index * self.rate.segment();
        let video = self.video.take_before(ticks(end) as i64);
        let audio = self.audio.take_before(end as i64);
        match video.first() {
            Some((at, picture)) if picture.sync && *at == ticks(start) as i64 => {}
            _ => return Err(Malformed::new(format!("segment {index} does not open with a keyframe"))),
        }
        self.next += 1;
        let tracks = [
            (self.video.kind, ticks(start) as i64, ticks(end) as i64, video),
            (self.audio.kind, start as i64, end as i64, audio),
        ];
        Ok(assemble(index, end - start, &tracks, tail))
    }
}

impl Track {
    fn push(&mut self, frame: Frame) -> Result<(), Malformed> {
        let origin = *self.origin.get_or_insert(frame.time);
        let at = i64::try_from(frame.time)
            .ok()
            .and_then(|t| t.checked_sub_unsigned(origin)?.checked_add(self.first))
            .ok_or_else(|| Malformed::new(format!("{:?} frame has an impossible time", self.kind)))?;
        let in_order = match (self.last, self.kind) {
            (None, _) => true,
            (Some(last), TrackKind::Video) => at > last,
            (Some(last), TrackKind::Audio) => at == last + AAC_FRAME as i64,
        };
        if !in_order {
            return Err(Malformed::new(format!("{:?} frame at {at} does not follow {:?}", self.kind, self.last)));
        }
        self.last = Some(at);
        self.bytes += frame.data.len();
        self.frames.push_back((at, frame));
        Ok(())
    }

    fn take_before(&mut self, end: i64) -> Vec<(i64, Frame)> {
        let count = self.frames.partition_point(|(at, _)| *at < end);
        let taken: Vec<_> = self.frames.drain(..count).collect();
        self.bytes -= taken.iter().map(|(_, f)| f.data.len()).sum::<usize>();
        taken
    }
}

/// A track's share of a segment: kind, the segment's start and end in the track's scale, frames.
type Share = (TrackKind, i64, i64, Vec<(i64, Frame)>);

fn run(share: &Share, tail: Tail) -> TrackRun {
    let (kind, start, end, frames) = share;
    let ends = frames.iter().skip(1).map(|(at, _)| *at).chain(iter::once(*end));
    let samples = iter::zip(frames, ends).map(|((at, frame), end)| {
        let duration = match (kind, tail) {
            (TrackKind::Video, _) => (end - at) as u32,
            // Sound lasts a whole frame except where the recording ends inside it.
            (TrackKind::Audio, Tail::Cut) => (end - at).min(AAC_FRAME as i64) as u32,
            (TrackKind::Audio, Tail::Whole) => AAC_FRAME as u32,
        };
        Sample { duration, size: frame.data.len() as u32, sync: frame.sync }
    });
    let start = frames.first().map_or(*start, |(at, _)| *at);
    TrackRun { kind: *kind, start, chunks: Vec::new(), samples: samples.collect() }
}

fn assemble(index: u64, samples: u64, shares: &[Share; 2], tail: Tail) -> Segment {
    let mut runs: Vec<TrackRun> = shares.iter().map(|share| run(share, tail)).collect();
    let payload: usize = runs.iter().flat_map(|r| &r.samples).map(|s| s.size as usize).sum();
    // The `moof` says where the media lies, which depends on the length of the `moof`: write it twice.
    let head = moof(index, &runs, 0).len() as u32 + 8;
    let mut bytes = moof(index, &runs, head);
    bytes.reserve_exact(payload + 8);
    boxes::write(&mut bytes, b"mdat", |out| {
        for (run, (.., frames)) in runs.iter_mut().zip(shares) {
            if !frames.is_empty() {
                run.chunks.push((out.len() as u32, frames.len() as u32));
            }
            frames.iter().for_each(|(_, f)| out.extend_from_slice(&f.data));
        }
    });
    Segment { index, bytes: bytes.into(), runs, samples }
}

/// The fragment header; `media` is the offset of the first frame from the header's start.
fn moof(index: u64, runs: &[TrackRun], media: u32) -> Vec<u8> {
    const DEFAULT_BASE_IS_MOOF: u32 = 0x02_0000;
    const DEFAULT_FLAGS: u32 = 0x20;
    const OFFSET_DURATION_SIZE_FLAGS: u32 = 0x701;
    const SYNC: u32 = 0x0200_0000; // depends on no other sample
    const NOT_SYNC: u32 = 0x0101_0000;
    let mut media = media;
    let mut out = Vec::new();
    boxes::write(&mut out, b"moof", |out| {
        boxes::write(out, b"mfhd", |out| {
            put(out, 0);
            put(out, index as u32 + 1);
        });
        for run in runs.iter().filter(|r| !r.samples.is_empty()) {
            let (id, shift) = match run.kind {
                TrackKind::Video => (VIDEO_TRACK, 0),
                TrackKind::Audio => (AUDIO_TRACK, AAC_FRAME as i64),
            };
            boxes::write(out, b"traf", |out| {
                boxes::write(out, b"tfhd", |out| {
                    put(out, DEFAULT_BASE_IS_MOOF | DEFAULT_FLAGS);
                    put(out, id);
                    put(out, if run.kind == TrackKind::Audio { SYNC } else { NOT_SYNC });
                });
                boxes::write(out, b"tfdt", |out| {
                    put(out, 1 << 24);
                    out.extend_from_slice(&(run.start + shift).to_be_bytes());
                });
                boxes::write(out, b"trun", |out| {
                    put(out, OFFSET_DURATION_SIZE_FLAGS);
                    put(out, run.samples.len() as u32);
                    put(out, media);
                    for sample in &run.samples {
                        put(out, sample.duration);
                        put(out, sample.size);
                        put(out, if sample.sync { SYNC } else { NOT_SYNC });
                    }
                });
            });
            media += run.samples.iter().map(|s| s.size).sum::<u32>();
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn frame(kind: TrackKind, time: u64) -> Frame {
        let sync = kind == TrackKind::Audio || time.is_multiple_of(144_000);
        Frame { kind, time, sync, data: Bytes::from_static(b"frame") }
    }

    fn grid() -> Grid {
        Grid::new(FrameRate::default(), 0)
    }

    fn sound(grid: &mut Grid, frames: std::ops::Range<u64>) {
        frames.for_each(|n| grid.push(frame(TrackKind::Audio, n * AAC_FRAME)).unwrap());
    }

    #[test]
    fn a_segment_waits_for_both_tracks_in_either_order() {
        let mut grid = grid();
        sound(&mut grid, 0..150);
        assert!(grid.next().unwrap().is_none(), "no picture yet");
        grid.push(frame(TrackKind::Video, 0)).unwrap();
        grid.push(frame(TrackKind::Video, 144_000)).unwrap();
        let segment = grid.next().unwrap().unwrap();
        assert_eq!(segment.runs.iter().map(|r| r.samples.len()).collect::<Vec<_>>(), [1, 76]);
        grid.push(frame(TrackKind::Video, 288_000)).unwrap();
        assert!(grid.next().unwrap().is_none(), "sound has not come so far");
        sound(&mut grid, 150..202);
        assert_eq!(grid.next().unwrap().unwrap().index, 1);
    }

    #[test]
    fn the_end_may_lie_anywhere() {
        for (end, segments, last_sound) in
            [(1600, 1, 576), (76_800, 1, 1024), (76_801, 2, 1), (153_599, 2, 1023), (0, 0, 0)]
        {
            let mut grid = grid();
            sound(&mut grid, 0..203);
            grid.push(frame(TrackKind::Video, 0)).unwrap();
            grid.push(frame(TrackKind::Video, 144_000)).unwrap();
            let cut = grid.finish(end, Tail::Cut).unwrap();
            assert_eq!(cut.len(), segments, "{end}");
            assert_eq!(cut.iter().map(|s| s.samples).sum::<u64>(), end);
            if let Some(last) = cut.last() {
                assert_eq!(last.runs[1].samples.last().unwrap().duration, last_sound, "{end}");
            }
        }
    }

    #[test]
    fn whoever_goes_on_finds_whole_frames_of_sound() {
        for (end, frames) in [(1600, 3), (76_800, 76), (153_599, 151)] {
            let mut grid = grid();
            sound(&mut grid, 0..203);
            grid.push(frame(TrackKind::Video, 0)).unwrap();
            grid.push(frame(TrackKind::Video, 144_000)).unwrap();
            let cut = grid.finish(end, Tail::Whole).unwrap();
            assert_eq!(cut.iter().map(|s| s.samples).sum::<u64>(), end, "the picture ends where it ends");
            let lengths: Vec<_> = cut.iter().flat_map(|s| &s.runs[1].samples).map(|s| s.duration).collect();
            assert_eq!(lengths, vec![1024; frames], "{end}");
        }
    }

    #[test]
    fn a_tail_without_a_picture_is_left_out() {
        let mut grid = grid();
        sound(&mut grid, 0..150);
        grid.push(frame(TrackKind::Video, 0)).unwrap();
        let cut = grid.finish(110_000, Tail::Cut).unwrap();
        assert_eq!(cut.iter().map(|s| s.samples).collect::<Vec<_>>(), [76_800]);
    }

    #[test]
    fn frames_that_break_the_timeline_are_refused() {
        let mut grid = grid();
        sound(&mut grid, 0..2);
        assert!(grid.push(frame(TrackKind::Audio, 3 * AAC_FRAME)).is_err(), "a frame of sound is missing");
        grid.push(frame(TrackKind::Video, 3000)).unwrap();
        assert!(grid.push(frame(TrackKind::Video, 3000)).is_err(), "two pictures at once");
        assert!(grid.push(frame(TrackKind::Video, u64::MAX)).is_err());
        assert!(grid.finish(1600, Tail::Cut).is_err(), "no keyframe");
    }

    #[test]
    fn a_track_that_stops_is_noticed_within_bounds() {
        let mut grid = grid();
        let data = Bytes::from(vec![0; 1 << 20]);
        let refused = (0..1000).find(|n| {
            let picture = Frame { kind: TrackKind::Video, time: n * 3000, sync: *n == 0, data: data.clone() };
            grid.push(picture).is_err()
        });
        assert_eq!(refused, Some(MAX_PENDING_BYTES as u64 >> 20));
    }
}
