//! The file of a recording whose recorder was killed, from the chunks that it left.
//!
//! Nothing but the chunks is needed: the init segment says what the tracks are, each segment's own `moof` what it holds,
//! and its index where it belongs. The caller lists and reads, [`Recovery`] decides:
//!
//! ```text
//! for chunk in recovery::order(keys)          // those of the file's seams, if they are known; each once, in the order of the recording
//!     match recovery.take(chunk, bytes)?      // bytes of chunk.key
//!         Some(payload) => append payload
//!         None => {}                          // an init segment, or one that a later generation delivered again
//! put recovery.head(alignment)? in front
//! ```
//!
//! An error ends the recording there: what was taken before it is whole, and [`Recovery::head`] makes a file of it. One
//! segment that is missing or damaged cannot be passed over, since recorded time has no gaps.

use crate::delivery::mp4::{Movie, Mp4Error};
use crate::task::fragment::FragmentError;
use crate::task::init::Init;
use crate::task::segment::{ChunkName, Segment, parse_chunk_key};
use bytes::Bytes;
use thiserror::Error;

/// Why recovery ends at a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecoveryError {
    /// The chunk's bytes are damaged.
    #[error("`{key}` is damaged")]
    Damaged {
        /// The chunk.
        key: String,
        /// What is wrong.
        #[source]
        source: FragmentError,
    },
    /// A segment whose generation has no init segment before it.
    #[error("`{key}` has no init segment; nothing can be made of it")]
    NoInit {
        /// The segment.
        key: String,
    },
    /// The chunk does not follow what came before.
    #[error("`{key}` does not follow")]
    Unfit {
        /// The chunk.
        key: String,
        /// Why.
        #[source]
        source: Mp4Error,
    },
    /// There is not one whole segment.
    #[error("nothing was recorded that could be made into a file")]
    Nothing,
}

/// A chunk to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its key in the store.
    pub key: String,
    /// The invocation that made it.
    pub generation: u32,
    /// What it is.
    pub name: ChunkName,
}

/// The chunks among some keys, generation after generation, each with its init segment first. Other keys are passed over.
pub fn order(keys: impl IntoIterator<Item = String>) -> Vec<Chunk> {
    let chunk = |key: String| parse_chunk_key(&key).map(|(generation, name)| Chunk { key, generation, name });
    let mut chunks: Vec<_> = keys.into_iter().filter_map(chunk).collect();
    chunks.sort_by_key(|c| (c.generation, c.name));
    chunks
}

/// A movie growing from stored chunks.
#[derive(Debug, Default)]
pub struct Recovery {
    movie: Option<Movie>,
    init: Option<(u32, Init)>,
    next: u64,
}

impl Recovery {
    /// Nothing taken yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next chunk of [`order`]; returns the payload to append, if it has any.
    pub fn take(&mut self, chunk: &Chunk, bytes: Bytes) -> Result<Option<Bytes>, RecoveryError> {
        let key = || chunk.key.clone();
        let damaged = |source| RecoveryError::Damaged { key: key(), source };
        let unfit = |source| RecoveryError::Unfit { key: key(), source };
        let index = match chunk.name {
            ChunkName::Init => {
                self.init = Some((chunk.generation, Init::read(&bytes).map_err(damaged)?));
                match &mut self.movie {
                    Some(movie) => movie.init(&bytes).map_err(unfit)?,
                    none => *none = Some(Movie::new(&bytes).map_err(unfit)?),
                }
                return Ok(None);
            }
            ChunkName::Segment(index) => index,
        };
        let (Some((generation, init)), Some(movie)) = (&self.init, &mut self.movie) else {
            return Err(RecoveryError::NoInit { key: key() });
        };
        if *generation != chunk.generation {
            return Err(RecoveryError::NoInit { key: key() });
        }
        if index < self.next {
            return Ok(None);
        }
        let start = movie.recorded();
        let segment: Segment = init.segment(bytes, index, start).map_err(damaged)?;
        let step = movie.prepare(&segment).map_err(unfit)?;
        let payload = step.payload();
        step.commit();
        self.next = index + 1;
        Ok(Some(payload))
    }

    /// Recorded samples that were taken.
    pub fn recorded(&self) -> u64 {
        self.movie.as_ref().map_or(0, Movie::recorded)
    }

    /// What belongs in front of the payload; see [`Movie::head`].
    pub fn head(&self, alignment: u64) -> Result<Bytes, RecoveryError> {
        let movie = self.movie.as_ref().filter(|m| m.recorded() > 0).ok_or(RecoveryError::Nothing)?;
        movie.head(movie.recorded(), alignment).map_err(|_| RecoveryError::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::mp4::validate::validate;
    use crate::task::boxes::Boxes;
    use crate::task::segment::chunk_key;

    /// FFmpeg's own output: 4 s in segments of 1.6 s.
    const TINY: &[u8] = include_bytes!("../../tests/fixtures/tiny.fmp4");

    /// What a recorder leaves: keys and bytes.
    fn left(generation: u32, first: u64) -> Vec<(String, Bytes)> {
        let cuts: Vec<usize> = Boxes::new(TINY)
            .map(Result::unwrap)
            .filter(|b| matches!(&b.kind.0, b"moof" | b"mfra"))
            .map(|b| b.at)
            .collect();
        let part = |name, bytes: &'static [u8]| (chunk_key("t", generation, name), Bytes::from_static(bytes));
        let segments = cuts.windows(2).zip(first..).map(|(w, n)| part(ChunkName::Segment(n), &TINY[w[0]..w[1]]));
        std::iter::once(part(ChunkName::Init, &TINY[..cuts[0]])).chain(segments).collect()
    }

    fn recover(left: &[(String, Bytes)]) -> (Recovery, Vec<u8>, Option<RecoveryError>) {
        let mut recovery = Recovery::new();
        let mut payload = Vec::new();
        for chunk in order(left.iter().rev().map(|l| l.0.clone())) {
            let bytes = left.iter().find(|l| l.0 == chunk.key).unwrap().1.clone();
            match recovery.take(&chunk, bytes) {
                Ok(part) => payload.extend(part.unwrap_or_default()),
                Err(error) => return (recovery, payload, Some(error)),
            }
        }
        (recovery, payload, None)
    }

    fn length(recovery: &Recovery, payload: &[u8]) -> u64 {
        let file = [&recovery.head(4096).unwrap()[..], payload].concat();
        validate(&file, file.len() as u64).unwrap().duration
    }

    #[test]
    fn everything_that_was_stored_comes_back() {
        let mut chunks = left(0, 0);
        chunks.push(("raw/t/0/index.json".into(), Bytes::new()));
        let (recovery, payload, error) = recover(&chunks);
        assert_eq!(error, None);
        assert_eq!((recovery.recorded(), length(&recovery, &payload)), (192_000, 192_000));
    }

    #[test]
    fn generations_follow_each_other_and_what_is_there_twice_counts_once() {
        let mut chunks = left(0, 0);
        chunks.pop(); // two whole segments
        chunks.extend(left(1, 1)); // the successor stored segment 1 too
        let (recovery, _, error) = recover(&chunks);
        assert_eq!(recovery.recorded(), 3 * 76_800 + 38_400);
        assert_eq!(error, None);
    }

    #[test]
    fn a_hole_or_damage_ends_the_recording_there_and_keeps_what_came_before() {
        let mut hole = left(0, 0);
        hole.remove(2);
        let mut damaged = left(0, 0);
        damaged[2].1.truncate(1000);
        let mut orphan = left(0, 0);
        orphan.extend(left(1, 3).split_off(1));
        for (chunks, recorded, expected) in [
            (hole, 76_800, "00000002.m4s` does not follow"),
            (damaged, 76_800, "00000001.m4s` is damaged"),
            (orphan, 192_000, "no init"),
        ] {
            let (recovery, payload, error) = recover(&chunks);
            let text = error.unwrap().to_string();
            assert!(text.contains(expected), "{text}");
            assert_eq!(length(&recovery, &payload), recorded);
        }
        let (nothing, ..) = recover(&left(0, 0)[..1]);
        assert_eq!(nothing.head(1).unwrap_err(), RecoveryError::Nothing);
    }
}
