//! Its side as a successor.

use super::{MS, Player, SEGMENT};
use crate::generation::run::{Alignment, Own, Readiness};
use crate::task::course::{Anchor, Segments};
use crate::task::relay::Switch;

/// As for the real recorder: how far ahead a seam is chosen, and by how much two may disagree.
const AHEAD: u64 = 72_000;
const SLOT: u64 = 1600;

pub(super) struct Warm {
    alignment: Alignment,
    clean: u64,
    base: Option<i64>,
    said: Option<(Switch, u64)>,
}

impl Warm {
    pub(super) fn new(alignment: Alignment) -> Self {
        Self { alignment, clean: 0, base: None, said: None }
    }

    pub(super) fn align(&mut self, alignment: Alignment) {
        self.alignment = alignment;
    }
}

impl Player<'_> {
    /// What the real recorder's `steer` does, with segments that end at once.
    pub(super) fn steer(&mut self) {
        if !self.up {
            return;
        }
        let (now, position, now_us) = (self.clock.now(), self.position(), self.now_us());
        let Some(warm) = &mut self.warm else { return };
        let Alignment { anchor, segments, agreed } = warm.alignment;
        let adrift = self.open.is_some_and(|(since, from)| {
            let ahead = now.cast_signed() - since.cast_signed();
            let own = from.cast_signed() + ahead * MS.cast_signed() + warm.base.unwrap_or(0) * SEGMENT.cast_signed();
            anchor.ahead(own - segments.short.cast_signed(), now_us).unsigned_abs() > SLOT
        });
        if self.open.is_some() && (anchor.paused || adrift) {
            let end = position.next_multiple_of(SEGMENT);
            (warm.clean, warm.base, warm.said) = (end / SEGMENT, None, None);
            (self.open, self.recorded) = (None, end);
            self.admission.pledge(None);
            self.watcher.ready(None);
        } else if anchor.paused {
            warm.said = Some((Switch::Paused, warm.clean));
            self.watcher.ready(Some(Readiness { switch: Switch::Paused, from: anchor }));
        } else if self.open.is_none() {
            let (index, wait) = segments.next(anchor.position(now_us));
            let own = self.recorded / SEGMENT;
            (warm.clean, warm.base, warm.said) = (own, Some(index.wrapping_sub(own).cast_signed()), None);
            self.open = Some((now + wait / MS, self.recorded));
            self.admission.pledge(None);
            self.watcher.ready(None);
        } else if self.admission.next() > warm.clean {
            let soonest = position + AHEAD;
            let still = warm.said.filter(|(said, own)| Some(*said) == agreed || own * SEGMENT + AHEAD / 2 > soonest);
            let own = still.map_or(soonest.div_ceil(SEGMENT), |(_, own)| own);
            let switch = Switch::At(own.wrapping_add_signed(warm.base.unwrap_or(0)));
            warm.said = Some((switch, own));
            self.admission.pledge(Some(own));
            self.watcher.ready(Some(Readiness { switch, from: anchor }));
        }
    }

    pub(super) fn own(&mut self, own: Own) {
        let Some(mut warm) = self.warm.take() else { return };
        let Segments { .. } = own.segments;
        if own.paused && self.open.is_some() {
            self.recorded = self.position().next_multiple_of(SEGMENT);
            warm.clean = self.recorded / SEGMENT;
            self.open = None;
        }
        let wanted = warm.base.filter(|_| self.open.is_some()).and_then(|base| own.first.checked_add_signed(-base));
        let first = self.admission.own(own.first, wanted, warm.clean);
        self.first = first * SEGMENT;
        self.offset = own.segments.begin(own.first).cast_signed() - self.first.cast_signed();
        self.paused = own.paused;
        if !self.up {
            return;
        }
        match self.open {
            None => self.begin(),
            Some((since, from)) => {
                self.begun = true;
                let wall_us = self.unix_us(since + self.first.saturating_sub(from) / MS);
                let recorded = own.segments.begin(own.first);
                self.watcher.state(Anchor { recorded, wall_us, paused: false });
                self.mark();
            }
        }
    }
}
