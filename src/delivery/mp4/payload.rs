//! A segment's media, interleaved anew.
//!
//! FFmpeg writes a fragment's pictures first and its sound after them, up to 2.67 s of each. A player that reads over a
//! network would have to keep both places at once, so the payload is laid out in slices of at most a second, pictures
//! before sound in each. It costs one copy in memory, which joining the pieces would cost anyway.

use super::Mp4Error;
use crate::task::segment::{Segment, TrackKind, TrackRun};
use crate::task::timeline::{AAC_FRAME, SAMPLE_RATE, ticks};

/// Longest stretch of one track that lies in one piece, in samples: one second, as players and streaming guides expect.
const SLICE: u64 = SAMPLE_RATE;

/// Samples of one run that go into the file.
pub(super) struct Kept<'a> {
    pub run: &'a TrackRun,
    /// Number of samples at the front that do not.
    pub skipped: usize,
    /// Those from here on do not.
    pub upto: usize,
    /// Where each sample of the run is in the segment's bytes.
    offsets: Vec<usize>,
}

/// Samples `from..to` of a run that lie back to back in the payload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub kind: TrackKind,
    /// Position of the first byte in this segment's payload.
    pub offset: usize,
    pub from: usize,
    pub to: usize,
}

impl<'a> Kept<'a> {
    /// Checks that the samples of a run are inside the segment's bytes, each counted once.
    pub(super) fn new(run: &'a TrackRun, segment: &Segment) -> Result<Self, Mp4Error> {
        let outside = || Mp4Error::Outside { index: segment.index, track: run.kind };
        let mut offsets = Vec::with_capacity(run.samples.len().min(segment.bytes.len()));
        let mut samples = run.samples.iter();
        for &(offset, count) in &run.chunks {
            let mut at = offset as usize;
            for _ in 0..count {
                let sample = samples.next().ok_or_else(outside)?;
                let end = at.checked_add(sample.size as usize).ok_or_else(outside)?;
                if end > segment.bytes.len() {
                    return Err(outside());
                }
                offsets.push(at);
                at = end;
            }
        }
        match samples.next() {
            Some(_) => Err(outside()),
            None => Ok(Self { run, skipped: 0, upto: run.samples.len(), offsets }),
        }
    }
}

/// The payload of a segment and what lies where in it.
pub(super) fn lay_out(segment: &Segment, start: u64, kept: &[Kept<'_>]) -> (Vec<u8>, Vec<Piece>) {
    let slices = segment.samples.div_ceil(SLICE).max(1); // bounded: `Movie::push` limits a segment's length
    let mut payload = Vec::with_capacity(segment.bytes.len());
    let mut pieces = Vec::new();
    let mut cursors: Vec<(usize, i64)> =
        kept.iter().map(|k| (k.skipped, k.run.start + length(&k.run.samples[..k.skipped]))).collect();
    for slice in 1..=slices {
        let until = start + segment.samples * slice / slices;
        for (kept, (at, time)) in kept.iter().zip(&mut cursors) {
            let until = match kept.run.kind {
                TrackKind::Video => ticks(until),
                // A frame belongs to the slice in which most of it is heard.
                TrackKind::Audio => until.saturating_sub(AAC_FRAME / 2),
            };
            let (from, offset) = (*at, payload.len());
            while let Some(sample) = kept.run.samples[..kept.upto].get(*at)
                && (slice == slices || *time < until.cast_signed())
            {
                let place = kept.offsets[*at];
                payload.extend_from_slice(&segment.bytes[place..place + sample.size as usize]);
                *time += i64::from(sample.duration);
                *at += 1;
            }
            if *at > from {
                pieces.push(Piece { kind: kept.run.kind, offset, from, to: *at });
            }
        }
    }
    (payload, pieces)
}

fn length(samples: &[crate::task::segment::Sample]) -> i64 {
    samples.iter().map(|s| i64::from(s.duration)).sum()
}
