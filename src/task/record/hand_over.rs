//! From one generation to the next: by arrangement, or because one was lost.

use super::super::quality::{Gap, GapReason, MAX_GAPS, Quality};
use super::super::relay::{Relay, RelayEvent, Switch};
use super::super::timeline::{SAMPLE_RATE, seconds};
use super::{Anchor, Lease, Refused, TaskRecord, holds};

/// As what an invocation that was asked for may work on a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// It holds it.
    Holder,
    /// It gets ready to.
    Successor,
}

impl TaskRecord {
    /// A generation begins, and holds the task.
    pub(super) fn begin(&mut self, lease: Lease) {
        self.generation += 1;
        self.lease = Some(lease);
        self.relay = Relay::default();
    }

    /// A generation ended without warning, even if it had only just been handed the task.
    pub(super) fn lost(&mut self) {
        self.crashes += 1;
        self.handed_over = false;
    }

    /// From segment `first` on the file is this generation's.
    pub fn goes_on(&mut self, first: u64) {
        self.settle(first);
        self.seams.cut(first, self.generation);
    }

    /// Of a generation that was lost, the segments before `first` are kept: what it measured in them counts.
    pub fn settle(&mut self, first: u64) {
        if let Some(last) = self.measuring.take() {
            let kept = last.kept(self.segments().begin(first));
            self.measured.get_or_insert_default().absorb(kept);
        }
    }

    /// Somebody who was asked for as `generation`. Events come twice, and late: while somebody works on the task, only the first
    /// finds anything to do.
    pub fn join(&mut self, owner: &str, generation: u32, now: u64, lease_ms: u64) -> Result<Joined, Refused> {
        let ours = |lease: &Option<Lease>| lease.as_ref().is_some_and(|l| l.owner == owner);
        if ours(&self.lease) {
            return Ok(Joined::Holder);
        }
        if self.generation >= generation {
            // Unless that one was lost: the platform delivers its event again then, as it does after a kill at the deadline.
            return self.claim(owner, now, lease_ms).map(|()| Joined::Holder);
        }
        match &self.lease {
            Some(lease) if holds(lease.expires, now) => {
                self.relay(RelayEvent::Join(owner), now, lease_ms)?;
                Ok(Joined::Successor)
            }
            Some(_) | None => self.claim(owner, now, lease_ms).map(|()| Joined::Holder),
        }
    }

    /// Something happens to the relay.
    pub fn relay(&mut self, event: RelayEvent<'_>, now: u64, lease_ms: u64) -> Result<(), Refused> {
        self.relay = self.relay.next(event, now, lease_ms)?;
        Ok(())
    }

    /// The successor can go on from `switch`, which it worked out from `from`: refused if the recording has moved meanwhile.
    pub fn ready(&mut self, owner: &str, switch: Switch, from: Anchor, now: u64, lease_ms: u64) -> Result<(), Refused> {
        let slot = self.order.rate.slot();
        let still = |a: &Anchor| {
            a.paused == from.paused
                && from.ahead(a.recorded.cast_signed(), a.wall_us).unsigned_abs() <= slot
                && a.paused == (switch == Switch::Paused)
        };
        match &self.anchor {
            Some(anchor) if still(anchor) => self.relay(RelayEvent::Ready(owner, switch), now, lease_ms),
            Some(_) | None => Err(Refused::Moved),
        }
    }

    /// What a successor got ready for is not so any more.
    pub(super) fn moved(&mut self) {
        if let Ok(relay) = self.relay.next(RelayEvent::Moved, 0, 0) {
            self.relay = relay;
        }
    }

    /// Capture ended at `end` so that another generation can go on from segment `first`. The successor holds the task if it
    /// is there, otherwise nobody does. `short`: see the field. `measured`: by this generation. Says whether somebody holds it.
    pub fn hand_over(&mut self, end: Anchor, first: u64, short: u64, measured: Quality, now: u64) -> bool {
        self.anchor = Some(end);
        self.measuring = None;
        self.measured.get_or_insert_default().absorb(measured);
        self.short += short;
        self.handed_over = true;
        self.lease = None;
        let successor = self.relay.alive(now).map(|(owner, expires)| Lease { owner: owner.into(), expires });
        match successor {
            Some(lease) => {
                self.begin(lease);
                self.seams.cut(first, self.generation);
                true
            }
            None => false,
        }
    }

    /// The holder was lost, and its successor is there already: it goes on from segment `first`, the one after those that
    /// are kept.
    pub fn take_over(&mut self, owner: &str, first: u64, now: u64, lease_ms: u64) -> Result<(), Refused> {
        if self.relay.owner() != Some(owner) {
            return self.held_by(owner);
        }
        match &self.lease {
            Some(lease) if lease.expires > now => return Err(Refused::Leased),
            Some(_) => self.lost(),
            None => {}
        }
        self.begin(Lease { owner: owner.into(), expires: now + lease_ms });
        self.goes_on(first);
        Ok(())
    }

    /// The recorder is up where another was before: what lies between is missing.
    pub fn resumed(&mut self, at: Anchor) -> Result<(), Refused> {
        let before = self.anchor;
        self.capturing(at)?;
        let handed_over = std::mem::take(&mut self.handed_over);
        let reason = if handed_over { GapReason::HandOver } else { GapReason::RecorderLost };
        if let Some(before) = before {
            // One that came up after a Stop and before it heard of it is not late for what follows the Stop.
            let until_us = self.canceled.map_or(at.wall_us, |stop| at.wall_us.min(stop * 1000));
            let wall_us = if before.paused { 0 } else { until_us.wrapping_sub(before.wall_us).cast_signed() };
            let duration = seconds(before.recorded) - seconds(at.recorded) + wall_us as f64 / 1e6;
            // Less than a picture is none: clocks of two machines may be as far apart.
            if duration > seconds(self.order.rate.slot()) {
                self.miss(Gap { start: seconds(at.recorded), duration, reason });
            }
        }
        Ok(())
    }

    /// Nothing is wanted after `now`: a recorder that goes on with a segment that would have begun later is late up to then.
    pub(super) fn wanted_until(&mut self, now: u64) {
        let (Some(at), Some(gap)) = (self.anchor, self.gaps.last()) else { return };
        self.shorten(gap.start - at.position(now * 1000) as f64 / SAMPLE_RATE as f64);
    }

    /// One that was to begin in a moment is paused before it has, and will begin where it goes on.
    pub(super) fn not_late(&mut self, paused: &Anchor) {
        let (Some(at), Some(gap)) = (self.anchor, self.gaps.last()) else { return };
        let slot = self.order.rate.slot();
        if (gap.start - seconds(paused.recorded)).abs() < seconds(slot) {
            let early = at.ahead(paused.recorded.cast_signed(), paused.wall_us).max(0).cast_unsigned();
            self.shorten(if early > slot { seconds(early) } else { 0.0 });
        }
    }

    /// The last gap is so many seconds less.
    fn shorten(&mut self, by: f64) {
        let Some(gap) = self.gaps.last_mut().filter(|_| by > 0.0) else { return };
        gap.duration -= by;
        if gap.duration <= seconds(self.order.rate.slot()) {
            self.gaps.pop();
        }
    }

    /// Nobody records any more, and `kept` samples are what there is: what was to be recorded between them and the Stop is
    /// missing. Listed once.
    pub fn cut_short(&mut self, kept: u64, now: u64) {
        let until_us = self.canceled.unwrap_or(now) * 1000;
        let Some(before) = self.anchor.take() else { return };
        let missing = before.position(until_us) - kept.cast_signed();
        if missing > self.order.rate.slot().cast_signed() {
            let duration = seconds(missing.cast_unsigned());
            self.miss(Gap { start: seconds(kept), duration, reason: GapReason::RecorderLost });
        }
    }

    /// Lists what is missing. Two recorders that were lost one after the other with nothing kept between them are one gap.
    fn miss(&mut self, gap: Gap) {
        let slot = seconds(self.order.rate.slot());
        let same = |last: &&mut Gap| last.reason == gap.reason && (last.start - gap.start).abs() < slot;
        if let Some(last) = self.gaps.last_mut().filter(same) {
            last.duration += gap.duration;
        } else if self.gaps.len() < MAX_GAPS {
            self.gaps.push(gap);
        }
    }

    /// What all generations have measured, `last` being that of the one at work, for a file of so many seconds.
    pub fn total(&self, last: Option<Quality>, length: f64) -> Option<Quality> {
        let mut total = self.measured.clone();
        if let Some(last) = last {
            total.get_or_insert_default().absorb(last);
        }
        total.map(|mut total| {
            total.gaps.extend(&self.gaps);
            total.gaps.sort_by(|a, b| a.start.total_cmp(&b.start));
            total.frame_rate = match length > 0.0 {
                true => (total.frames_delivered as f64 / length * 100.0).round() / 100.0,
                false => 0.0,
            };
            total
        })
    }
}
