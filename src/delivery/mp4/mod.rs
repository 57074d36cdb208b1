//! A faststart, unfragmented, seekable MP4, assembled from segments while they arrive.
//!
//! [`Movie`] keeps the sample tables; the media itself passes through once, as the payload that is to be appended after
//! what came before. When the recording ends, [`Movie::head`] is everything that goes in front of the payload (`ftyp`,
//! `moov` with sizes and places now known, `mdat` header), so that nothing is read back and nothing is encoded again. How
//! the head gets in front is the store's business (multipart part 1, or an inserted range).
//!
//! Time. Recorded time has no gaps at this level: segments come in order, index after index from 0, each track's run
//! begins where the last one ended. The movie's time scale is 48 kHz, so edit lists end the tracks at the very sample.
//! AAC frame *k* covers the recorded samples from 1024·*k*; only the very first encoder's priming frame (at −1024) is in
//! the file, cut off by the audio track's edit list. A later encoder (relaunch, hand-over) begins with its own priming
//! frame 1024 samples early: that one is dropped, and its next frame follows the last of its predecessor on the grid.
//! Where the two meet, the decoder overlaps halves of unlike frames for 21 ms. A hand-over in a pause may lie between two
//! frames of sound: then the frame there is that encoder's which has more of it, and what follows lies up to half a frame off
//! the picture, each time measured from the file's beginning. Sound has no other steps than whole frames anywhere but at
//! its end.
//!
//! Encoders whose sample entries are alike (bit-rate statistics aside) share a description; one with other parameter
//! sets gets its own, and the chunks say which they use.

mod moov;
mod payload;
mod taken;
mod track;
pub mod validate;

use crate::task::fragment::FragmentError;
use crate::task::init::Init;
use crate::task::segment::{Segment, TrackKind};
use crate::task::timeline::{AAC_FRAME, SAMPLE_RATE, seconds};
use bytes::Bytes;
use payload::{Kept, Piece};
pub use taken::Taken;
use thiserror::Error;
use track::Track;

/// Longest segment that is taken, in samples: an hour. The grid's longest is 2.67 s, a keyframe interval gone wrong may be
/// longer and still be saved; a damaged length must not make the recorder work through years.
const LONGEST_SEGMENT: u64 = 3600 * SAMPLE_RATE;

/// Why a movie cannot be made of what was given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Mp4Error {
    /// The init segment is not that of a recording.
    #[error("the init segment cannot be used")]
    Init(#[from] FragmentError),
    /// Segments must come in order and none may be left out.
    #[error("segment {found} was given where segment {expected} follows")]
    Order {
        /// The index that follows.
        expected: u64,
        /// The index that was given.
        found: u64,
    },
    /// A segment longer than any that is cut.
    #[error("segment {index} says it is {:.0} s long; at most {} s are taken", seconds(*.samples), LONGEST_SEGMENT / SAMPLE_RATE)]
    Long {
        /// The segment.
        index: u64,
        /// What it says.
        samples: u64,
    },
    /// A run does not begin where the track ends.
    #[error("segment {index}: {track:?} begins at {found}, but the track ends at {expected} (in its own time scale)")]
    Discontinuous {
        /// The segment.
        index: u64,
        /// The track.
        track: TrackKind,
        /// End of the track.
        expected: i64,
        /// Start of the run.
        found: i64,
    },
    /// A run's samples are not inside the segment's bytes, or chunks and samples differ in number.
    #[error("segment {index}: {track:?} has samples outside the segment's bytes")]
    Outside {
        /// The segment.
        index: u64,
        /// The track.
        track: TrackKind,
    },
    /// A segment must have one run of pictures, and of sound one at most.
    #[error("segment {index} has {count} runs of {track:?}")]
    Runs {
        /// The segment.
        index: u64,
        /// The track.
        track: TrackKind,
        /// How many there are.
        count: usize,
    },
    /// No init segment described this track.
    #[error("segment {index} has {track:?}, of which the init segment knows nothing")]
    Undescribed {
        /// The segment.
        index: u64,
        /// The track.
        track: TrackKind,
    },
    /// Nothing was recorded.
    #[error("there is no picture before the end of the recording ({end} samples): nothing to write")]
    Empty {
        /// The end that was asked for.
        end: u64,
    },
    /// The end is so far behind the last segment that the last picture's duration has no room in the format.
    #[error("the end ({:.1} s) is too far behind the last segment ({:.1} s)", seconds(*.end), seconds(*.recorded))]
    End {
        /// The end that was asked for.
        end: u64,
        /// What the segments cover.
        recorded: u64,
    },
}

/// Grows with each segment; knows the file's whole head once the recording ends.
#[derive(Debug)]
pub struct Movie {
    tracks: Vec<Track>,
    next: u64,
    recorded: u64,
    payload: u64,
}

impl Movie {
    /// A movie of what the encoder with this init segment (`ftyp` + `moov` of the fragmented stream) writes.
    pub fn new(init: &[u8]) -> Result<Self, Mp4Error> {
        let mut movie = Self { tracks: Vec::new(), next: 0, recorded: 0, payload: 0 };
        movie.init(init)?;
        Ok(movie)
    }

    /// The segments that follow are another encoder's. Call it for each new encoder, like ones included: it lets that
    /// encoder's priming frame be told from a gap.
    pub fn init(&mut self, init: &[u8]) -> Result<(), Mp4Error> {
        let init = Init::read(init)?;
        let entries = init
            .tracks
            .iter()
            .map(|t| moov::without_btrt(&t.entry).map_err(FragmentError::from))
            .collect::<Result<Vec<_>, _>>()?;
        for (new, entry) in init.tracks.iter().zip(entries) {
            let track = match self.tracks.iter_mut().position(|t| t.kind == new.kind) {
                Some(at) => &mut self.tracks[at],
                None => {
                    self.tracks.push(Track::new(new.kind, new.width, new.height));
                    self.tracks.sort_by_key(|t| t.kind == TrackKind::Audio);
                    let at = self.tracks.iter().position(|t| t.kind == new.kind);
                    &mut self.tracks[at.unwrap_or(0)]
                }
            };
            let known = track.descriptions.iter().position(|d| *d == entry);
            let at = known.unwrap_or(track.descriptions.len());
            if known.is_none() {
                track.descriptions.push(entry);
            }
            track.description = at as u32 + 1;
            track.priming_expected = true;
        }
        Ok(())
    }

    /// Takes the next segment and returns the payload to append. After an error the movie is as it was.
    ///
    /// Where appending may fail, use [`prepare`](Self::prepare): a head must not speak of payload that is not there.
    pub fn push(&mut self, segment: &Segment) -> Result<Bytes, Mp4Error> {
        let step = self.prepare(segment)?;
        let payload = step.payload();
        step.commit();
        Ok(payload)
    }

    /// Checks the next segment and lays its payload out, but takes it only when the step is committed.
    pub fn prepare<'a>(&'a mut self, segment: &'a Segment) -> Result<Step<'a>, Mp4Error> {
        if segment.index != self.next {
            return Err(Mp4Error::Order { expected: self.next, found: segment.index });
        }
        if segment.samples > LONGEST_SEGMENT {
            return Err(Mp4Error::Long { index: segment.index, samples: segment.samples });
        }
        let mut kept = Vec::with_capacity(2);
        for kind in [TrackKind::Video, TrackKind::Audio] {
            let runs: Vec<_> = segment.runs.iter().filter(|r| r.kind == kind).collect();
            match (runs.as_slice(), kind) {
                ([run], _) => kept.push(self.follow(Kept::new(run, segment)?, segment)?),
                ([], TrackKind::Audio) => {}
                (runs, _) => {
                    return Err(Mp4Error::Runs { index: segment.index, track: kind, count: runs.len() });
                }
            }
        }
        let (payload, pieces) = payload::lay_out(segment, self.recorded, &kept);
        Ok(Step { movie: self, samples: segment.samples, kept, payload: payload.into(), pieces })
    }

    /// Checks that a run begins where its track ends, and marks what is left out: of sound, a later encoder's priming frame, and
    /// what two encoders have of one frame where they meet between two.
    fn follow<'a>(&self, mut kept: Kept<'a>, segment: &Segment) -> Result<Kept<'a>, Mp4Error> {
        let run = kept.run;
        let track = self.tracks.iter().find(|t| t.kind == run.kind);
        let track = track.ok_or(Mp4Error::Undescribed { index: segment.index, track: run.kind })?;
        let frame = AAC_FRAME.cast_signed();
        let is_audio = run.kind == TrackKind::Audio;
        // A frame in which sound ended, and was to end for good, is heard as a whole if it goes on after all.
        let end = track.end().map(|end| if is_audio { end + (-end).rem_euclid(frame) } else { end });
        let fits = match end {
            _ if run.samples.is_empty() => true,
            Some(end) if is_audio && track.priming_expected => {
                let early = end - run.start;
                let most = if track.end() == Some(end) { 1 } else { 2 };
                kept.skipped = early.div_euclid(frame).max(0) as usize;
                let whole = run.samples.iter().take(kept.skipped).all(|s| u64::from(s.duration) == AAC_FRAME);
                early.rem_euclid(frame) == 0 && (0..=most * frame).contains(&early) && whole
            }
            Some(end) => run.start == end,
            None => run.start == 0 || (is_audio && run.start == -frame),
        };
        if !fits || kept.skipped > kept.upto {
            return Err(Mp4Error::Discontinuous {
                index: segment.index,
                track: run.kind,
                expected: track.end().unwrap_or(if is_audio { -frame } else { 0 }),
                found: run.start,
            });
        }
        if is_audio {
            self.leave_to_the_next(&mut kept, segment);
        }
        Ok(kept)
    }

    /// A last frame of sound that is whole although the segment ends in it belongs to whoever has more of it: this encoder,
    /// or the one that goes on. That one's frames lie on the grid, too, rounded to it.
    fn leave_to_the_next(&self, kept: &mut Kept<'_>, segment: &Segment) {
        let Some(last) = kept.run.samples.last().filter(|_| kept.upto > kept.skipped) else { return };
        let end = kept.run.start + kept.run.samples.iter().map(|s| i64::from(s.duration)).sum::<i64>();
        let grid = (self.recorded + segment.samples + AAC_FRAME / 2) / AAC_FRAME * AAC_FRAME;
        if u64::from(last.duration) == AAC_FRAME && end > grid.cast_signed() {
            kept.upto -= 1;
        }
    }

    /// Recorded samples that the segments cover so far.
    pub fn recorded(&self) -> u64 {
        self.recorded
    }

    /// Index of the segment that follows.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Bytes of payload so far.
    pub fn payload(&self) -> u64 {
        self.payload
    }

    /// Everything in front of the payload: `ftyp`, `moov`, padding to a multiple of `alignment`, `mdat` header.
    ///
    /// `end` is the end of the recording in recorded samples. The last picture is shown up to it, both tracks end with it.
    pub fn head(&self, end: u64, alignment: u64) -> Result<Bytes, Mp4Error> {
        moov::head(self, end, alignment.max(1))
    }
}

/// A segment that fits, not yet taken. Dropped, it has not happened.
#[must_use = "the segment is taken only by `commit`"]
pub struct Step<'a> {
    movie: &'a mut Movie,
    samples: u64,
    kept: Vec<Kept<'a>>,
    payload: Bytes,
    pieces: Vec<Piece>,
}

impl Step<'_> {
    /// What is to be appended to the payload so far.
    pub fn payload(&self) -> Bytes {
        self.payload.clone()
    }

    /// Takes the segment: its payload has been appended. What it adds to the tables can be kept; see [`Movie::take`].
    pub fn commit(self) -> Taken {
        let taken = Taken::of(self.samples, self.payload.len() as u64, &self.kept, &self.pieces);
        self.movie.apply(&taken);
        taken
    }
}

#[cfg(test)]
mod tests;
