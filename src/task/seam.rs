//! Seams: which generation a segment of the file is of. They decide, and nothing else does: not which chunk is there, nor
//! which is newer. A chunk that a generation stored after it had lost the task lies outside its seam and is not in the file.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::segment::{ChunkName, parse_chunk_key};

/// From `first` on, segments are those of `generation`, up to the next seam.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seam {
    /// Index of the first segment.
    pub first: u64,
    /// Whose.
    pub generation: u32,
}

/// Seams in the order of the file. Each begins after the one before; a generation that kept nothing leaves none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seams(Vec<Seam>);

impl Seams {
    /// From segment `first` on, segments are those of `generation`.
    pub fn cut(&mut self, first: u64, generation: u32) {
        self.0.retain(|s| s.first < first);
        self.0.push(Seam { first, generation });
    }

    /// None yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The seams.
    pub fn list(&self) -> &[Seam] {
        &self.0
    }

    /// Those of the segments before one.
    pub fn before(&self, index: u64) -> Self {
        Self(self.0.iter().filter(|s| s.first < index).copied().collect())
    }

    /// Whether any of the segments `from..to` is of this generation.
    pub fn is_of(&self, generation: u32, from: u64, to: u64) -> bool {
        let ends = self.0.iter().skip(1).map(|s| s.first).chain([u64::MAX]);
        let mut spans = self.0.iter().zip(ends);
        spans.any(|(s, end)| s.generation == generation && s.first.max(from) < end.min(to))
    }

    /// Whose a segment is.
    pub fn generation_of(&self, index: u64) -> Option<u32> {
        self.0.iter().rev().find(|s| s.first <= index).map(|s| s.generation)
    }

    /// Whether a chunk belongs to the file.
    pub fn covers(&self, generation: u32, name: ChunkName) -> bool {
        match name {
            ChunkName::Init => self.0.iter().any(|s| s.generation == generation),
            ChunkName::Segment(index) => self.generation_of(index) == Some(generation),
        }
    }

    /// Keys of the chunks that belong to the file.
    pub fn select(&self, keys: impl IntoIterator<Item = String>) -> Vec<String> {
        let ours = |key: &String| parse_chunk_key(key).is_some_and(|(generation, name)| self.covers(generation, name));
        keys.into_iter().filter(ours).collect()
    }

    /// Index of the segment that follows those that are there without a hole: what is kept ends before it.
    pub fn next_index(&self, keys: &[String]) -> u64 {
        let there: BTreeSet<u64> = keys
            .iter()
            .filter_map(|key| match parse_chunk_key(key)? {
                (generation, ChunkName::Segment(index)) => {
                    (self.generation_of(index) == Some(generation)).then_some(index)
                }
                (_, ChunkName::Init) => None,
            })
            .collect();
        (0..).zip(&there).take_while(|(expected, index)| expected == *index).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::segment::chunk_key;
    use proptest::prelude::*;

    fn seams(cuts: &[(u64, u32)]) -> Seams {
        let mut seams = Seams::default();
        cuts.iter().for_each(|(first, generation)| seams.cut(*first, *generation));
        seams
    }

    fn keys(chunks: &[(u32, u64)]) -> Vec<String> {
        chunks.iter().map(|(g, i)| chunk_key("t", *g, ChunkName::Segment(*i))).collect()
    }

    #[test]
    fn what_a_generation_stores_beyond_its_seam_is_not_in_the_file() {
        let seams = seams(&[(0, 1), (3, 2)]);
        let there = keys(&[(1, 0), (1, 1), (1, 2), (1, 3), (2, 3), (2, 4), (3, 5)]);
        assert_eq!(seams.select(there.clone()), keys(&[(1, 0), (1, 1), (1, 2), (2, 3), (2, 4)]));
        assert_eq!(seams.next_index(&there), 5);
        assert!(seams.covers(2, ChunkName::Init) && !seams.covers(3, ChunkName::Init));
    }

    #[test]
    fn what_is_kept_ends_at_the_first_hole() {
        let seams = seams(&[(0, 1)]);
        assert_eq!(seams.next_index(&keys(&[(1, 0), (1, 1), (1, 3)])), 2);
        assert_eq!(seams.next_index(&keys(&[(1, 1)])), 0);
        assert_eq!(Seams::default().next_index(&keys(&[(1, 0)])), 0);
    }

    #[test]
    fn a_generation_that_kept_nothing_leaves_no_seam() {
        assert_eq!(seams(&[(0, 1), (4, 2), (4, 3), (4, 5)]).list(), seams(&[(0, 1), (4, 5)]).list());
        assert_eq!(seams(&[(0, 1), (0, 2)]).list(), [Seam { first: 0, generation: 2 }]);
    }

    proptest! {
        #[test]
        fn each_segment_is_of_one_generation_whatever_was_stored(
            cuts in prop::collection::vec((0u64..20, 0u32..6), 1..12),
            stored in prop::collection::vec((0u32..6, 0u64..24), 0..80),
        ) {
            let seams = seams(&cuts);
            prop_assert!(seams.list().windows(2).all(|w| w[0].first < w[1].first));
            let chosen = seams.select(keys(&stored).into_iter().collect::<BTreeSet<_>>());
            let indexes: Vec<_> = chosen.iter().filter_map(|k| match parse_chunk_key(k)?.1 {
                ChunkName::Segment(index) => Some(index),
                ChunkName::Init => None,
            }).collect();
            prop_assert_eq!(indexes.iter().collect::<BTreeSet<_>>().len(), indexes.len());
        }
    }
}
