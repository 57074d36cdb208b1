//! Movie fragments (`moof` + `mdat`) to sample runs: what the recorder's splitter and recovery from stored segments have
//! in common. Pure: bytes in, runs out, on the raw time scale of each track.
//!
//! It accepts what a recording holds and refuses the rest by name instead of guessing: offsets relative to the `moof`,
//! durations, sizes and flags in the fragment itself (not in the init's `trex`), no reordering. Every sample is
//! checked to lie inside an `mdat`, so that what uses the runs need not check again. Garbage gives an error, never a
//! panic, and never an allocation larger than a few times the bytes that were given.

use crate::task::boxes::{BoxError, BoxRef, Boxes, FourCc};
use crate::task::segment::Sample;
use thiserror::Error;

/// A fragment that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FragmentError {
    /// The box structure is broken.
    #[error(transparent)]
    Box(#[from] BoxError),
    /// Well-formed, but not what our encoder writes.
    #[error("track {track}: {what} is not supported in a recording's fragments")]
    Unsupported {
        /// Track ID.
        track: u32,
        /// The feature.
        what: &'static str,
    },
    /// A value that neither `trun` nor `tfhd` gives.
    #[error("track {track}: neither `trun` nor `tfhd` gives the sample {field}")]
    Unspecified {
        /// Track ID.
        track: u32,
        /// The value.
        field: &'static str,
    },
    /// A sample that is not inside an `mdat` of these bytes.
    #[error("track {track}: sample {sample} at byte {at}, {size} bytes long, is not inside an `mdat`")]
    Outside {
        /// Track ID.
        track: u32,
        /// Position in its run.
        sample: usize,
        /// First byte.
        at: i64,
        /// Length.
        size: u32,
    },
    /// Two fragments of one track do not follow each other.
    #[error("track {track}: a fragment starts at {found}, the one before it ends at {expected}")]
    Discontinuous {
        /// Track ID.
        track: u32,
        /// End of what came before, in the track's time scale.
        expected: u64,
        /// Start of what follows.
        found: u64,
    },
}

/// The samples of one track, contiguous in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Track ID.
    pub track: u32,
    /// `tfdt`: decode time of the first sample in the track's time scale.
    pub start: u64,
    /// Where the samples are: (offset of the first byte in the bytes read, number of samples that lie back to back).
    pub chunks: Vec<(u32, u32)>,
    /// The samples.
    pub samples: Vec<Sample>,
}

impl Run {
    /// Sum of the durations.
    pub fn duration(&self) -> u64 {
        self.samples.iter().map(|s| u64::from(s.duration)).sum()
    }
    /// Time at which the last sample ends.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.duration())
    }
}

/// What one or more `moof` + `mdat` pairs hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragment {
    /// One run for each track that has samples, in the order in which the tracks appear.
    pub runs: Vec<Run>,
}

impl Fragment {
    /// The run of a track.
    pub fn run(&self, track: u32) -> Option<&Run> {
        self.runs.iter().find(|r| r.track == track)
    }
}

/// Reads a segment: one `moof` + `mdat` or several in sequence, whose runs of the same track are joined (they must
/// follow each other without a gap). Other top-level boxes (`styp`, `sidx`, `mfra`…) are passed over.
pub fn read_fragment(bytes: &[u8]) -> Result<Fragment, FragmentError> {
    let mut moofs = Vec::new();
    let mut payloads = Payloads::default();
    for found in Boxes::new(bytes) {
        let found = found?;
        match &found.kind.0 {
            b"moof" => moofs.push(found),
            b"mdat" => payloads.add(found.body_at(), found.body.len()),
            _ => {}
        }
    }
    if moofs.is_empty() {
        return Err(BoxError::Missing { kind: FourCc(*b"moof"), parent: FourCc(*b"file") }.into());
    }
    let mut fragment = Fragment::default();
    for moof in moofs {
        for traf in Boxes::new(moof.body) {
            let traf = traf?;
            if &traf.kind.0 == b"traf"
                && let Some(run) = read_traf(&traf, moof.at, &mut payloads)?
            {
                join(&mut fragment.runs, run)?;
            }
        }
    }
    Ok(fragment)
}

fn join(runs: &mut Vec<Run>, run: Run) -> Result<(), FragmentError> {
    let Some(before) = runs.iter_mut().find(|r| r.track == run.track) else {
        runs.push(run);
        return Ok(());
    };
    if before.end() != run.start {
        return Err(FragmentError::Discontinuous { track: run.track, expected: before.end(), found: run.start });
    }
    before.chunks.extend(run.chunks);
    before.samples.extend(run.samples);
    Ok(())
}

/// What `tfhd` says of every sample that `trun` does not.
struct Defaults {
    track: u32,
    duration: Option<u32>,
    size: Option<u32>,
    flags: Option<u32>,
}

fn read_tfhd(tfhd: &BoxRef<'_>) -> Result<Defaults, FragmentError> {
    const BASE_DATA_OFFSET: u32 = 0x1;
    const DESCRIPTION_INDEX: u32 = 0x2;
    const DEFAULT_BASE_IS_MOOF: u32 = 0x02_0000;
    let mut fields = tfhd.fields();
    let (_, flags) = fields.version()?;
    let track = fields.u32()?;
    if flags & BASE_DATA_OFFSET != 0 || flags & DEFAULT_BASE_IS_MOOF == 0 {
        return Err(FragmentError::Unsupported {
            track,
            what: "a data offset that is not relative to the `moof` (write with `default_base_moof`)",
        });
    }
    if flags & DESCRIPTION_INDEX != 0 && fields.u32()? != 1 {
        return Err(FragmentError::Unsupported { track, what: "a second sample description" });
    }
    let mut given = |bit: u32| (flags & bit != 0).then(|| fields.u32()).transpose();
    Ok(Defaults { track, duration: given(0x8)?, size: given(0x10)?, flags: given(0x20)? })
}

fn read_traf(traf: &BoxRef<'_>, moof_at: usize, payloads: &mut Payloads) -> Result<Option<Run>, FragmentError> {
    let defaults = read_tfhd(&traf.child(b"tfhd")?)?;
    let mut tfdt = traf.child(b"tfdt")?.fields();
    let (version, _) = tfdt.version()?;
    let mut run = Run { track: defaults.track, start: tfdt.sized(version)?, chunks: Vec::new(), samples: Vec::new() };
    // Where a `trun` without an offset goes on.
    let mut at = moof_at as i64;
    for trun in Boxes::new(traf.body) {
        let trun = trun?;
        if &trun.kind.0 == b"trun" {
            at = read_trun(&trun, &defaults, moof_at as i64, at, payloads, &mut run)?;
        }
    }
    Ok((!run.samples.is_empty()).then_some(run))
}

fn read_trun(
    trun: &BoxRef<'_>,
    defaults: &Defaults,
    moof_at: i64,
    mut at: i64,
    payloads: &mut Payloads,
    run: &mut Run,
) -> Result<i64, FragmentError> {
    const OFFSET: u32 = 0x1;
    const FIRST_FLAGS: u32 = 0x4;
    const NOT_SYNC: u32 = 0x1_0000;
    let track = defaults.track;
    let mut fields = trun.fields();
    let (_, flags) = fields.version()?;
    let count = fields.u32()?;
    if flags & OFFSET != 0 {
        at = moof_at + i64::from(fields.i32()?);
    }
    let first_flags = (flags & FIRST_FLAGS != 0).then(|| fields.u32()).transpose()?;
    let first_at = at;
    for n in 0..count {
        let mut own = |bit: u32| (flags & bit != 0).then(|| fields.u32()).transpose();
        let (duration, size) = (own(0x100)?, own(0x200)?);
        let (own_flags, reorder) = (own(0x400)?, own(0x800)?);
        if reorder.unwrap_or(0) != 0 {
            return Err(FragmentError::Unsupported { track, what: "reordering (B-frames)" });
        }
        let or = |own: Option<u32>, default: Option<u32>, field| {
            own.or(default).ok_or(FragmentError::Unspecified { track, field })
        };
        let first_flags = first_flags.filter(|_| n == 0);
        let sample = Sample {
            duration: or(duration, defaults.duration, "duration")?,
            size: or(size, defaults.size, "size")?,
            sync: or(first_flags.or(own_flags), defaults.flags, "flags")? & NOT_SYNC == 0,
        };
        if !payloads.claim(at, sample.size) {
            return Err(FragmentError::Outside { track, sample: run.samples.len(), at, size: sample.size });
        }
        at += i64::from(sample.size);
        run.samples.push(sample);
    }
    if count > 0 {
        let offset = u32::try_from(first_at)
            .map_err(|_| FragmentError::Unsupported { track, what: "a segment of 4 GiB or more" })?;
        run.chunks.push((offset, count));
    }
    Ok(at)
}

/// The contents of the `mdat`s, each byte of which may belong to one sample at most: this, and refusing empty samples
/// (an empty access unit does not exist), bounds the number of samples by the number of bytes.
#[derive(Default)]
struct Payloads {
    ranges: Vec<(usize, usize)>,
    left: u64,
}

impl Payloads {
    fn add(&mut self, at: usize, len: usize) {
        self.ranges.push((at, at + len));
        self.left += len as u64;
    }

    /// Whether a sample may be here; it is then counted.
    fn claim(&mut self, at: i64, size: u32) -> bool {
        let (Ok(at), Some(left)) = (usize::try_from(at), self.left.checked_sub(size.into())) else {
            return false;
        };
        let end = at.saturating_add(size as usize);
        let inside = size > 0 && self.ranges.iter().any(|&(from, to)| from <= at && end <= to);
        if inside {
            self.left = left;
        }
        inside
    }
}

#[cfg(test)]
mod tests;
