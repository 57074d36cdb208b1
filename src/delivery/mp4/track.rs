//! Sample tables of one track while it grows, kept small: a recording of ten hours at 60 pictures a second is 2.2 million
//! pictures and 1.7 million sound frames, and the recorder must not grow by more than a few tens of megabytes for them.
//! Four bytes for each size, and run-length durations of at most three bytes more for each picture in practice.

use crate::task::segment::{Sample, TrackKind};
use crate::task::timeline::AAC_FRAME;

/// Durations in decoding order as (count, duration) runs, each number in 7-bit groups, low group first. The last run
/// is open: it is still growing, and the end of the recording decides its last duration.
#[derive(Debug, Default)]
pub(super) struct Durations {
    closed: Vec<u8>,
    count: u32,
    value: u32,
}

impl Durations {
    fn push(&mut self, duration: u32) {
        if self.count > 0 && self.value != duration {
            put(&mut self.closed, self.count);
            put(&mut self.closed, self.value);
            self.count = 0;
        }
        self.value = duration;
        self.count += 1;
    }

    /// Replaces the very last duration.
    fn replace(&mut self, last: u32) {
        match self.count {
            0 => {}
            1 => self.value = last,
            _ => {
                self.count -= 1;
                self.push(last);
            }
        }
    }

    /// The runs, with the very last duration replaced by `last`.
    pub(super) fn runs(&self, last: u32) -> impl Iterator<Item = (u32, u32)> {
        let mut rest = self.closed.as_slice();
        let closed = std::iter::from_fn(move || Some((get(&mut rest)?, get(&mut rest)?)));
        let (kept, own) = match self.count {
            0 => (0, 0),
            count if self.value == last => (count, 0),
            count => (count - 1, 1),
        };
        let open = [(kept, self.value), (own, last)];
        closed.chain(open.into_iter().filter(|run| run.0 > 0))
    }
}

fn put(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn get(bytes: &mut &[u8]) -> Option<u32> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Samples that lie back to back in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Position of the first byte in the payload.
    pub offset: u64,
    /// How many.
    pub samples: u32,
    /// Sample description, counted from 1.
    pub description: u32,
}

/// One track.
#[derive(Debug)]
pub(super) struct Track {
    pub kind: TrackKind,
    /// 16.16 fixed point, from the first init segment.
    pub width: u32,
    pub height: u32,
    /// Sample entries without their `btrt`.
    pub descriptions: Vec<Vec<u8>>,
    /// Sample description that new samples have, counted from 1.
    pub description: u32,
    /// A new encoder's first frame may be its priming, which the recording must have only once.
    pub priming_expected: bool,
    /// Time of the first sample; what of it is negative is cut off by the edit list.
    pub first: i64,
    /// Sum of all durations.
    pub media: u64,
    /// Duration of the last sample.
    pub last: u32,
    pub sizes: Vec<u32>,
    pub durations: Durations,
    /// Numbers of the samples at which decoding can start, counted from 1.
    pub sync: Vec<u32>,
    pub chunks: Vec<Chunk>,
}

impl Track {
    pub(super) fn new(kind: TrackKind, width: u32, height: u32) -> Self {
        Self {
            kind,
            width,
            height,
            descriptions: Vec::new(),
            description: 0,
            priming_expected: false,
            first: 0,
            media: 0,
            last: 0,
            sizes: Vec::new(),
            durations: Durations::default(),
            sync: Vec::new(),
            chunks: Vec::new(),
        }
    }

    /// Time at which the last sample ends, `None` before the first.
    pub(super) fn end(&self) -> Option<i64> {
        (!self.sizes.is_empty()).then(|| self.first + self.media.cast_signed())
    }

    /// Where sound goes on, the frame in which it ended is heard as a whole.
    pub(super) fn whole(&mut self) {
        let missing = (AAC_FRAME as u32).saturating_sub(self.last);
        if self.kind == TrackKind::Audio && !self.sizes.is_empty() && missing > 0 {
            self.last += missing;
            self.media += u64::from(missing);
            self.durations.replace(self.last);
        }
    }

    pub(super) fn push(&mut self, sample: &Sample) {
        self.sizes.push(sample.size);
        self.durations.push(sample.duration);
        self.media += u64::from(sample.duration);
        self.last = sample.duration;
        if sample.sync && self.kind == TrackKind::Video {
            self.sync.push(self.sizes.len() as u32);
        }
    }

    /// Sum of all sizes, and the most bytes that lie in any one second of `scale` ticks.
    pub(super) fn rates(&self, scale: u64) -> (u64, u64) {
        let mut durations =
            self.durations.runs(self.last).flat_map(|(count, value)| std::iter::repeat_n(value, count as usize));
        let mut window = std::collections::VecDeque::new();
        let (mut total, mut inside, mut span, mut most) = (0, 0, 0, 0);
        for size in self.sizes.iter().map(|s| u64::from(*s)) {
            let duration = u64::from(durations.next().unwrap_or(0));
            window.push_back((size, duration));
            total += size;
            inside += size;
            span += duration;
            while span > scale
                && let Some((size, duration)) = window.pop_front()
            {
                inside -= size;
                span -= duration;
            }
            most = most.max(inside);
        }
        (total, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn run_lengths_give_back_what_went_in(
            values in proptest::collection::vec(prop_oneof![Just(3000u32), Just(1024), any::<u32>()], 1..200),
            last in prop_oneof![Just(3000u32), any::<u32>()],
        ) {
            let mut durations = Durations::default();
            values.iter().for_each(|v| durations.push(*v));
            let mut expected = values;
            *expected.last_mut().unwrap() = last;
            let flat: Vec<u32> = durations
                .runs(last)
                .flat_map(|(count, value)| std::iter::repeat_n(value, count as usize))
                .collect();
            prop_assert_eq!(flat, expected);
        }
    }

    #[test]
    fn ten_hours_of_alternating_durations_fit_the_stated_size() {
        let mut track = Track::new(TrackKind::Video, 0, 0);
        for n in 0..100_000u32 {
            let duration = if n % 2 == 0 { 3000 } else { 6000 };
            track.push(&Sample { duration, size: 100, sync: n % 64 == 0 });
        }
        assert!(track.durations.closed.len() <= 3 * 100_000);
        assert_eq!(track.media, 450_000_000);
        assert_eq!(track.sync[1], 65);
    }

    #[test]
    fn the_highest_rate_is_that_of_any_second_not_of_aligned_ones() {
        let mut track = Track::new(TrackKind::Audio, 0, 0);
        for (n, size) in [10, 10, 500, 500, 10, 10].into_iter().enumerate() {
            track.push(&Sample { duration: 5, size, sync: n == 0 });
        }
        assert_eq!(track.rates(10), (1040, 1000));
    }
}
