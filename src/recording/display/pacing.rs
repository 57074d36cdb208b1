//! Which picture belongs to which slot, and when the page may draw the next one. Pure: time comes in as wall samples.
//!
//! Slot `j` begins at wall sample `j · slot`. A commit belongs to the slot that begins next: its window is the whole
//! slot before. The page draws when a slot begins and is done some milliseconds later, so it may take nearly a slot to
//! draw and still never change its distance to the time stamp. (A window that closes later, say 0.4 slots after its
//! slot's begin, has two stable distances one slot apart, and every late picture tips it into the other: seen as 33 ms
//! of jitter and of A/V offset.) A second commit in one window waits for the next, where later ones paint over it.
//!
//! A queue that is never empty is a delay that never ends, and pictures may queue in two places. In Chromium: whoever is
//! told to draw only when the next slot begins already has the next picture ready, and hands it over a slot after it was
//! drawn; so the page may go on at once after the first commit of a window, and is held to the rate by the time of its
//! presentation. Here: after one window with two commits each picture waits for the next window, although each window
//! has one; when that lasts ([`LAGGING`]), the waiting picture is let go.
//! Time stamps are the slot's: render time would show as jitter. Slots that must have a picture although nothing
//! changed (the first after an opening, a segment's first, one a second, the last before a closing) are given the
//! current one when their window closes.

use crate::task::timeline::{FrameRate, Gate, SAMPLE_RATE};

/// Commits in a row, one a window, that waited for the next window all the same, until one is let go. A page whose
/// commits fall now before and now after a slot's begin needs the waiting, and does not get here.
const LAGGING: u32 = 15;
/// The last part of a frame, in which a commit may as well have fallen into the next window: an eighth.
const LATE_EDGE: u64 = 8;
/// The first part, in which it may as well have fallen into the one before. Much shorter: a page that draws when it is told
/// commits 2 to 5 ms after the slot's begin and never before it.
const EARLY_EDGE: u64 = 32;

/// Where a commit was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its slot.
    pub slot: u64,
    /// It is the first of its window: the page may draw the next one at once, otherwise when the slot begins.
    pub first: bool,
}

/// A picture to be handed to the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Emission {
    /// Wall slot.
    pub slot: u64,
    /// Recorded sample of the slot.
    pub recorded: u64,
    /// The page drew something since the last one.
    pub fresh: bool,
}

/// The slot algorithm.
#[derive(Debug)]
pub struct Pacer {
    rate: FrameRate,
    gate: Gate,
    divisor: u64,
    /// Slot of the newest commit that was given one, emitted or not recorded.
    last: Option<u64>,
    /// Newest slot that was recorded.
    last_recorded: Option<u64>,
    /// A commit waits for this slot's window.
    held: Option<u64>,
    /// Commits in a row that waited though their window had no other.
    lagging: u32,
    /// What is held may be painted over by the commit that its window belongs to.
    letting_go: bool,
    painted_over: u64,
}

impl Pacer {
    /// Nothing is recorded until [`gate_mut`](Self::gate_mut) opens it.
    pub fn new(rate: FrameRate) -> Self {
        Self {
            rate,
            gate: Gate::new(),
            divisor: 1,
            last: None,
            last_recorded: None,
            held: None,
            lagging: 0,
            letting_go: false,
            painted_over: 0,
        }
    }

    /// The gate.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Opens or closes the gate; positions are wall samples on slots.
    pub fn gate_mut(&mut self) -> &mut Gate {
        &mut self.gate
    }

    /// Pictures that were drawn in recorded time and painted over before their slot came.
    pub fn painted_over(&self) -> u64 {
        self.painted_over
    }

    /// Every `divisor`-th slot is used from now on.
    pub fn set_divisor(&mut self, divisor: u64) {
        self.divisor = divisor.max(1);
    }

    /// Length of a frame in samples now.
    pub fn frame(&self) -> u64 {
        self.rate.slot() * self.divisor
    }

    /// Wall sample at which a slot begins.
    pub fn begin(&self, slot: u64) -> u64 {
        slot * self.rate.slot()
    }

    /// First frame slot that begins after `now`.
    pub fn next_slot(&self, now: u64) -> u64 {
        (now / self.frame() + 1) * self.divisor
    }

    /// Takes note of a commit at `now`; [`due`](Self::due) gives its picture when the time has come.
    pub fn commit(&mut self, now: u64) -> Placed {
        let frame = self.frame();
        let own = now.div_ceil(frame) * self.divisor;
        if let Some(slot) = self.held {
            if self.gate.recorded(self.begin(slot)).is_some() {
                self.painted_over += 1;
            }
            let first = std::mem::take(&mut self.letting_go) && slot == own;
            return Placed { slot, first };
        }
        let slot = self.last.map_or(own, |last| own.max((last / self.divisor + 1) * self.divisor));
        self.held = Some(slot);
        let inside = (frame / EARLY_EDGE..frame - frame / LATE_EDGE).contains(&(now % frame));
        self.lagging = if slot > own && inside { self.lagging + 1 } else { 0 };
        self.letting_go = self.lagging >= LAGGING;
        if self.letting_go {
            self.lagging = 0;
        }
        Placed { slot, first: slot == own }
    }

    /// Everything that has become due by `now`, oldest first. Call until `None`.
    pub fn due(&mut self, now: u64) -> Option<Emission> {
        loop {
            let held = self.held.filter(|h| self.held_until(*h) <= now);
            // A slot that must have a picture gets it at the latest when a later slot does.
            let must = self.must().filter(|m| self.closes(*m) <= now || held.is_some_and(|h| *m < h));
            let emission = match (held, must) {
                (Some(h), Some(m)) if m < h => self.emit(m, false),
                (Some(h), _) => {
                    self.held = None;
                    self.letting_go = false;
                    self.emit(h, true)
                }
                (None, Some(m)) => self.emit(m, false),
                (None, None) => return None,
            };
            if emission.is_some() {
                return emission;
            }
        }
    }

    /// Wall sample at which [`due`](Self::due) has something, if nothing else happens.
    pub fn deadline(&self) -> Option<u64> {
        let held = self.held.map(|h| self.held_until(h));
        let must = self.must().map(|m| self.closes(m));
        held.into_iter().chain(must).min()
    }

    /// The emission could not be handed over: its picture waits for the next slot.
    pub fn refused(&mut self, emission: Emission) {
        self.held = self.held.or(Some((emission.slot / self.divisor + 1) * self.divisor));
    }

    fn emit(&mut self, slot: u64, fresh: bool) -> Option<Emission> {
        self.last = Some(self.last.map_or(slot, |l| l.max(slot)));
        let recorded = self.gate.recorded(self.begin(slot))?;
        self.last_recorded = Some(slot);
        Some(Emission { slot, recorded, fresh })
    }

    /// A picture is given out when its slot's window opens, unless it may be painted over until that closes.
    fn held_until(&self, slot: u64) -> u64 {
        if self.letting_go { self.closes(slot) } else { self.begin(slot).saturating_sub(self.frame()) }
    }

    fn closes(&self, slot: u64) -> u64 {
        self.begin(slot)
    }

    /// The next slot that must have a picture.
    fn must(&self) -> Option<u64> {
        let slot = self.rate.slot();
        let opened = self.gate.opened_at()? / slot;
        let last_closed = self.gate.closed_at().map(|c| c / slot);
        if last_closed.is_some_and(|c| c <= opened) {
            return None; // an empty span
        }
        let next = match self.last_recorded.filter(|l| *l >= opened) {
            None => opened,
            Some(last) => {
                let per_second = SAMPLE_RATE / slot;
                let position = self.gate.recorded(self.begin(last))? / slot;
                let segment = self.rate.slots_per_segment();
                let to_segment = (position / segment + 1) * segment - position;
                last + per_second.min(to_segment)
            }
        };
        match last_closed {
            Some(closed) if self.last_recorded == Some(closed - 1) => None,
            Some(closed) => Some(next.min(closed - 1)),
            None => Some(next),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: u64 = 1600;

    fn pacer() -> Pacer {
        let mut pacer = Pacer::new(FrameRate::default());
        pacer.gate_mut().open(10 * SLOT);
        pacer
    }

    fn drain(pacer: &mut Pacer, now: u64) -> Vec<(u64, bool)> {
        std::iter::from_fn(|| pacer.due(now)).map(|e| (e.recorded / SLOT, e.fresh)).collect()
    }

    #[test]
    fn a_steady_page_gets_one_picture_in_every_slot() {
        let mut pacer = pacer();
        let mut out = Vec::new();
        for begin in 8..40 {
            let now = begin * SLOT + 300;
            assert_eq!(pacer.commit(now), Placed { slot: begin + 1, first: true });
            out.extend(drain(&mut pacer, now));
            out.extend(drain(&mut pacer, now + SLOT - 400));
        }
        assert!(out.iter().all(|(_, fresh)| *fresh), "{out:?}");
        assert!(out.iter().zip(0..).all(|((slot, _), expected)| *slot == expected), "{out:?}");
        assert_eq!(pacer.painted_over(), 0);
    }

    #[test]
    fn late_and_doubled_pictures_leave_the_distance_to_the_time_stamp_as_it_was() {
        let mut pacer = pacer();
        for (late, expected) in [(300, 13), (1500, 14), (300, 15)] {
            let begin = expected - 1;
            assert_eq!(pacer.commit(begin * SLOT + late).slot, expected, "nearly a slot late is not late");
            drain(&mut pacer, begin * SLOT + late);
        }
        assert_eq!(pacer.commit(15 * SLOT + 100), Placed { slot: 16, first: true });
        drain(&mut pacer, 15 * SLOT + 100);
        assert_eq!(pacer.commit(15 * SLOT + 200), Placed { slot: 17, first: false }, "a second one waits");
        drain(&mut pacer, 17 * SLOT);
        assert_eq!(pacer.commit(17 * SLOT + 300).slot, 18, "and the next, drawn when told, is in its own slot again");
    }

    /// One commit a window from slot `from` on, after one window with two. Returns how many came until one was in its own slot.
    fn lag(pacer: &mut Pacer, phase: impl Fn(u64) -> u64) -> Option<u64> {
        pacer.commit(19 * SLOT + 100);
        drain(pacer, 19 * SLOT + 100);
        (0..60).find(|k| {
            let now = (19 + k) * SLOT + phase(*k);
            drain(pacer, now);
            let placed = pacer.commit(now);
            drain(pacer, now);
            placed.first
        })
    }

    #[test]
    fn a_queue_that_does_not_empty_itself_is_emptied_at_the_cost_of_one_picture() {
        // The second as on a fast machine: 2.3 to 6 ms.
        for phase in [|_| 400, |k| 110 + k * 53 % 180] {
            let mut pacer = pacer();
            assert_eq!(lag(&mut pacer, phase), Some(u64::from(LAGGING)));
            assert_eq!(pacer.painted_over(), 1);
            let now = 40 * SLOT + 400;
            assert_eq!(pacer.commit(now), Placed { slot: 41, first: true }, "and it stays empty");
        }
    }

    #[test]
    fn a_page_that_draws_about_when_slots_begin_keeps_its_queue() {
        for (before, after) in [(1580, 20), (1450, 150)] {
            let mut pacer = pacer();
            assert_eq!(lag(&mut pacer, |k| if k % 2 == 0 { before } else { after }), None);
            assert_eq!(pacer.painted_over(), 0);
        }
    }

    #[test]
    fn the_first_slot_after_an_opening_has_a_picture_and_a_still_page_one_a_second_and_one_a_segment() {
        let mut pacer = pacer();
        assert_eq!(drain(&mut pacer, 10 * SLOT - 1), vec![], "its window is still open");
        assert_eq!(drain(&mut pacer, (10 + 200) * SLOT), [0, 30, 48, 78, 96, 126, 144, 174, 192].map(|s| (s, false)));
    }

    #[test]
    fn closing_gives_the_slot_before_it_a_picture_and_ends() {
        let mut pacer = pacer();
        pacer.gate_mut().close(35 * SLOT);
        assert_eq!(drain(&mut pacer, 100 * SLOT), [(0, false), (24, false)]);
        assert_eq!(pacer.deadline(), None);
        pacer.gate_mut().open(200 * SLOT);
        assert_eq!(drain(&mut pacer, 201 * SLOT), [(25, false)], "resumed without a gap, with the picture of now");
    }

    #[test]
    fn commits_while_closed_keep_the_page_going_and_are_not_recorded() {
        let mut pacer = Pacer::new(FrameRate::default());
        assert_eq!(pacer.commit(5 * SLOT + 10).slot, 6);
        assert_eq!(drain(&mut pacer, 5 * SLOT + 10), vec![]);
        assert_eq!(pacer.commit(5 * SLOT + 700).slot, 7);
        assert_eq!(drain(&mut pacer, 9 * SLOT), vec![]);
        assert_eq!(pacer.deadline(), None);
    }

    #[test]
    fn a_picture_painted_over_in_recorded_time_is_counted() {
        let mut pacer = pacer();
        for (offset, painted_over) in [(10, 0), (20, 0), (30, 1)] {
            pacer.commit(12 * SLOT + offset);
            drain(&mut pacer, 12 * SLOT + offset);
            assert_eq!(pacer.painted_over(), painted_over);
        }
        assert_eq!(drain(&mut pacer, 13 * SLOT).last(), Some(&(4, true)));
    }

    #[test]
    fn a_divided_rate_uses_every_third_slot_and_segments_still_open_with_a_picture() {
        let mut pacer = pacer();
        pacer.set_divisor(3);
        let mut slots = Vec::new();
        for now in (10 * SLOT..90 * SLOT).step_by(500) {
            pacer.commit(now);
            slots.extend(drain(&mut pacer, now).iter().map(|(s, _)| *s));
        }
        assert!(slots.contains(&48), "{slots:?}");
        assert!(slots.windows(2).all(|w| w[0] < w[1]), "{slots:?}");
        assert!(slots.iter().all(|s| (s + 10) % 3 == 0 || [0, 48].contains(s)), "{slots:?}");
    }

    #[test]
    fn a_refused_picture_waits_for_the_next_slot() {
        let mut pacer = pacer();
        pacer.commit(12 * SLOT + 10);
        assert_eq!(pacer.due(12 * SLOT + 10).map(|e| e.recorded), Some(0));
        let emission = pacer.due(12 * SLOT + 10).unwrap();
        assert_eq!((emission.recorded, emission.fresh), (3 * SLOT, true));
        pacer.refused(emission);
        assert_eq!(drain(&mut pacer, 14 * SLOT), [(4, true)]);
    }
}
