//! What one segment adds to the sample tables, small enough to be kept beside the media: with it a movie is rebuilt of which
//! nobody has the segments at hand any more.

use super::payload::{Kept, Piece};
use super::track::Chunk;
use super::{Movie, Mp4Error};
use crate::task::segment::{Sample, TrackKind};
use serde::{Deserialize, Serialize};

/// Some 400 bytes for a segment of 64 pictures, as postcard writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    samples: u64,
    payload: u64,
    runs: Vec<Run>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    kind: TrackKind,
    start: i64,
    /// The run had samples, if only a priming frame that is left out.
    any: bool,
    sizes: Vec<u32>,
    /// (count, duration).
    durations: Vec<(u32, u32)>,
    /// Positions of the samples at which decoding can start.
    sync: Vec<u32>,
    /// (position in the segment's payload, number of samples).
    pieces: Vec<(u32, u32)>,
}

impl Taken {
    pub(super) fn of(samples: u64, payload: u64, kept: &[Kept<'_>], pieces: &[Piece]) -> Self {
        let run = |kept: &Kept<'_>| {
            let samples = &kept.run.samples[kept.skipped..kept.upto];
            let mut durations: Vec<(u32, u32)> = Vec::new();
            for sample in samples {
                match durations.last_mut() {
                    Some((count, duration)) if *duration == sample.duration => *count += 1,
                    _ => durations.push((1, sample.duration)),
                }
            }
            let own = pieces.iter().filter(|p| p.kind == kept.run.kind);
            Run {
                kind: kept.run.kind,
                start: kept.run.start,
                any: !kept.run.samples.is_empty(),
                sizes: samples.iter().map(|s| s.size).collect(),
                durations,
                sync: (0..).zip(samples).filter(|(_, s)| s.sync).map(|(n, _)| n).collect(),
                pieces: own.map(|p| (p.offset as u32, (p.to - p.from) as u32)).collect(),
            }
        };
        Self { samples, payload, runs: kept.iter().map(run).collect() }
    }

    /// The numbers agree with each other.
    fn sound(&self) -> bool {
        let bytes: u64 = self.runs.iter().flat_map(|r| &r.sizes).map(|s| u64::from(*s)).sum();
        let counts = |r: &Run| {
            let (runs, pieces): (u64, u64) = (sum(&r.durations, |d| d.0), sum(&r.pieces, |p| p.1));
            (runs, pieces) == (r.sizes.len() as u64, r.sizes.len() as u64)
        };
        bytes == self.payload && self.runs.iter().all(counts)
    }
}

fn sum(pairs: &[(u32, u32)], part: impl Fn(&(u32, u32)) -> u32) -> u64 {
    pairs.iter().map(|p| u64::from(part(p))).sum()
}

impl Movie {
    /// Takes a segment again whose payload is in the file. `index` counts from 0.
    pub fn take(&mut self, taken: &Taken) -> Result<(), Mp4Error> {
        let index = self.next;
        if let Some(run) = taken.runs.iter().find(|r| !self.tracks.iter().any(|t| t.kind == r.kind)) {
            return Err(Mp4Error::Undescribed { index, track: run.kind });
        }
        if !taken.sound() {
            return Err(Mp4Error::Outside { index, track: TrackKind::Video });
        }
        self.apply(taken);
        Ok(())
    }

    pub(super) fn apply(&mut self, taken: &Taken) {
        for run in &taken.runs {
            let Some(track) = self.tracks.iter_mut().find(|t| t.kind == run.kind) else { continue };
            if track.sizes.is_empty() {
                track.first = run.start;
            }
            track.priming_expected &= !run.any;
            let durations = run.durations.iter().flat_map(|(count, d)| std::iter::repeat_n(*d, *count as usize));
            if !run.sizes.is_empty() {
                track.whole();
            }
            let mut sync = run.sync.iter().copied().peekable();
            for ((n, size), duration) in (0..).zip(&run.sizes).zip(durations) {
                track.push(&Sample { duration, size: *size, sync: sync.next_if_eq(&n).is_some() });
            }
            let description = track.description;
            let chunk =
                |&(at, samples): &(u32, u32)| Chunk { offset: self.payload + u64::from(at), samples, description };
            track.chunks.extend(run.pieces.iter().map(chunk));
        }
        self.next += 1;
        self.recorded += taken.samples;
        self.payload += taken.payload;
    }
}
