//! A successor before the task is its own: it records along with the holder, on the same grid, and keeps nothing yet.
//!
//! Its own segments count from 0, and it opens and closes its gate at their ends only. So each of them is either one of the
//! file's or none at all, and which one may be chosen late: `base` more than its own index. When the holder pauses or
//! resumes, the successor closes and opens anew; when the holder is lost, the next whole segment becomes the one that
//! follows those that are kept.

use std::time::Duration;

use super::{Run, sleep};
use crate::recording::capture::CaptureCounts;
use crate::task::course::{Anchor, Segments};
use crate::task::relay::Switch;
use crate::task::timeline::{SAMPLE_RATE, seconds};

/// How far ahead a seam is chosen at least: the holder looks five times a second, and has to order its end half a second
/// before it.
const AHEAD: u64 = SAMPLE_RATE * 3 / 2;

/// Where the holder records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alignment {
    /// Where it stood when it was last heard of.
    pub anchor: Anchor,
    /// The file's segments.
    pub segments: Segments,
    /// The seam that holder and successor have agreed on so far.
    pub agreed: Option<Switch>,
}

/// The task is the recorder's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// From this segment on.
    pub first: u64,
    /// The file's segments.
    pub segments: Segments,
    /// It is paused.
    pub paused: bool,
}

/// From where a successor can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// From there.
    pub switch: Switch,
    /// As long as the holder records as this says.
    pub from: Anchor,
}

/// What a successor knows.
pub(super) struct Warm {
    alignment: Alignment,
    /// The first of its own segments that may be kept.
    clean: u64,
    /// By how much a segment's index in the file is larger than its own, while both record alike.
    base: Option<i64>,
    /// What it has said last, and its own segment of that.
    said: Option<(Readiness, u64)>,
    /// What was counted when that segment began.
    before: Option<CaptureCounts>,
}

impl Warm {
    pub fn new(alignment: Alignment) -> Self {
        Self { alignment, clean: 0, base: None, said: None, before: None }
    }
}

impl Run<'_> {
    /// The holder was looked at.
    pub(super) fn align(&mut self, alignment: Alignment) {
        if let Some(warm) = &mut self.warm {
            warm.alignment = alignment;
            self.steer();
        }
    }

    /// Does what is due next to record as the holder does.
    pub(super) fn steer(&mut self) {
        let (Some(_), Some(warm)) = (&self.page, &self.warm) else { return };
        let gate = self.capture.gate();
        match (warm.alignment.anchor.paused, gate.is_open()) {
            (true, true) => self.part(),
            (true, false) => {
                if gate.closed_at().is_none_or(|closed| closed <= self.capture.clock().now()) {
                    self.say(Switch::Paused, warm.clean);
                }
            }
            (false, true) if self.adrift() => self.part(),
            (false, true) => self.choose(),
            (false, false) => self.join(),
        }
    }

    /// Opens where the file's next segment begins.
    fn join(&mut self) {
        let segment = self.spec.rate.segment();
        let gate = self.capture.gate();
        let soonest = self.capture.boundary().max(gate.closed_at().unwrap_or(0));
        let own = gate.recorded_until_close() / segment;
        let Some(warm) = &mut self.warm else { return };
        let Alignment { anchor, segments, .. } = warm.alignment;
        let (index, wait) = segments.next(anchor.position(self.capture.clock().unix_us(soonest)));
        warm.clean = own;
        warm.base = Some(index.wrapping_sub(own).cast_signed());
        self.capture.open_at(soonest + wait);
        self.unsay();
        tracing::debug!(index, own, "recording along");
    }

    /// Closes at the end of its own segment: it records other than the holder.
    pub(super) fn part(&mut self) {
        let segment = self.spec.rate.segment();
        let soonest = self.capture.boundary();
        let mut end = self.capture.recorded().next_multiple_of(segment);
        while self.capture.wall_at(end).is_some_and(|wall| wall < soonest) {
            end += segment;
        }
        if let Some(wall) = self.capture.wall_at(end) {
            self.capture.close_at(wall);
        }
        if let Some(warm) = &mut self.warm {
            warm.clean = end / segment;
            warm.base = None;
        }
        self.unsay();
    }

    /// Own sample at a wall sample, were the gate open for ever.
    fn own_at(&self, wall: u64) -> Option<i64> {
        let opened = self.capture.gate().opened_at()?;
        let before = self.capture.gate().recorded(opened)?;
        Some(before.cast_signed() + wall.wrapping_sub(opened).cast_signed())
    }

    /// Whether holder and successor disagree by more than a picture: one of them has paused, or a clock was set.
    fn adrift(&self) -> bool {
        let wall = self.capture.boundary();
        let Some(warm) = &self.warm else { return false };
        let (Some(base), Some(own)) = (warm.base, self.own_at(wall)) else { return true };
        let Alignment { anchor, segments, .. } = warm.alignment;
        let position = own + base * self.spec.rate.segment().cast_signed() - segments.short.cast_signed();
        anchor.ahead(position, self.capture.clock().unix_us(wall)).unsigned_abs() > self.spec.rate.slot()
    }

    /// Chooses the seam, once a whole segment has come out.
    fn choose(&mut self) {
        let segment = self.spec.rate.segment();
        let Some(warm) = &self.warm else { return };
        let (Some(base), Some(now)) = (warm.base, self.own_at(self.capture.boundary())) else { return };
        if self.admission.next() <= warm.clean {
            return;
        }
        let soonest = now.max(0).cast_unsigned() + AHEAD;
        let still = warm.said.is_some_and(|(said, own)| {
            Some(said.switch) == warm.alignment.agreed || own * segment + AHEAD / 2 > soonest
        });
        if !still {
            let own = soonest.div_ceil(segment);
            self.admission.pledge(Some(own));
            self.say(Switch::At(own.wrapping_add_signed(base)), own);
            // Recorded along with another page on one machine, a page may have fallen behind since it was opened, and would
            // stay so. Nobody sees it stand still before the seam.
            if let Some(page) = &mut self.page {
                page.catch_up();
            }
        }
    }

    fn say(&mut self, switch: Switch, own: u64) {
        let Some(warm) = &mut self.warm else { return };
        let readiness = Readiness { switch, from: warm.alignment.anchor };
        if warm.said.is_none_or(|(said, _)| said.switch != switch) {
            warm.before = None;
            tracing::debug!(?switch, own, "ready to go on");
        }
        warm.said = Some((readiness, own));
        self.watcher.ready(Some(readiness));
    }

    fn unsay(&mut self) {
        self.admission.pledge(None);
        if let Some(warm) = &mut self.warm
            && warm.said.take().is_some()
        {
            warm.before = None;
            self.watcher.ready(None);
        }
    }

    /// Time until the seam that was said, if its counts are to be taken then.
    pub(super) fn seam(&self) -> impl Future<Output = ()> + use<> {
        let left = self.warm.as_ref().and_then(|warm| {
            let (_, own) = warm.said.filter(|(said, _)| warm.before.is_none() && said.switch != Switch::Paused)?;
            let left = own * self.spec.rate.segment() - self.capture.recorded().min(own * self.spec.rate.segment());
            Some(Duration::from_secs_f64(seconds(left)))
        });
        sleep(left)
    }

    /// It is the turn of the seam that was said.
    pub(super) fn at_seam(&mut self) {
        let counts = self.capture.counts();
        if let Some(warm) = &mut self.warm {
            warm.before = Some(counts);
        }
    }

    /// The task is the recorder's own: keeps what it has from the seam on, and is a recorder like any other.
    pub(super) fn own(&mut self, own: Own) {
        let segment = self.spec.rate.segment();
        let along = self.capture.is_open() && !own.paused;
        if self.capture.is_open() && own.paused {
            self.part();
        }
        let Some(warm) = self.warm.take() else { return };
        let wanted = warm.base.filter(|_| along).and_then(|base| own.first.checked_add_signed(-base));
        let first = self.admission.own(own.first, wanted, warm.clean);
        self.first = first * segment;
        self.offset = own.segments.begin(own.first).cast_signed() - self.first.cast_signed();
        self.before = Some(warm.before.filter(|_| wanted == Some(first)).unwrap_or_else(|| self.capture.counts()));
        self.paused = own.paused;
        tracing::info!(segment = own.first, own = first, along, "going on");
        if self.page.is_none() {
            return; // whoever brings it up begins
        }
        self.begun = true;
        let seam = self.capture.wall_at(self.first).filter(|_| along);
        if !along && !self.paused {
            self.capture.open();
        }
        let at = seam.map(|wall| Anchor {
            recorded: own.segments.begin(own.first),
            wall_us: self.capture.clock().unix_us(wall),
            paused: false,
        });
        if let Some(at) = at.or_else(|| self.anchor()) {
            self.watcher.state(at);
        }
    }
}
