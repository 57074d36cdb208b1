//! The threads between display, sound card and encoder: they write to FFmpeg's pipes, which may block, and look at what they
//! write.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::recording::display::Frame;
use crate::recording::encoder::{PictureInput, SharedPicture, SoundInput};
use crate::recording::sound::SoundBlock;
use crate::recording::stills::{Stills, Taker};
use crate::task::quality::StretchMeter;
use crate::task::spec::Size;
use crate::task::timeline::Gate;

/// Peak below which nobody hears anything: −66 dBFS.
const SILENCE_PEAK: f32 = 0.0005;

/// What the sound's feed is told, in order.
pub(super) enum SoundOrder {
    Block(SoundBlock),
    Open(u64),
    Close(u64, Sender<()>),
}

/// Levels and stretches, written by the feeds.
#[derive(Debug, Default)]
pub(super) struct Meters {
    /// Highest absolute sample since the last look, in millionths.
    pub peak_millionths: AtomicU64,
    /// Samples on their way.
    pub sound_backlog: AtomicU64,
    pub silent: Mutex<StretchMeter>,
    pub blank: Mutex<StretchMeter>,
}

/// Until the display is gone or the encoder has ended.
pub(super) fn feed_pictures(
    frames: &Receiver<Frame>,
    mut encoder: PictureInput,
    meters: &Meters,
    stills: &OnceLock<Stills>,
    size: Size,
) {
    let (mut before, mut taker): (Option<SharedPicture>, Option<Taker>) = (None, None);
    for Frame { recorded, blank, picture, .. } in frames {
        meters.blank.lock().unwrap_or_else(PoisonError::into_inner).note(recorded, blank);
        // A slow encoder had the display skip a segment's first slot: what was shown there is the picture before.
        while let Some((slot, shown)) = encoder.owed(recorded).zip(before.as_ref()) {
            if encoder.write(slot, shown).is_err() {
                return;
            }
        }
        let picture: SharedPicture = Arc::new(picture);
        if encoder.write(recorded, &picture).is_err() {
            return; // the encoder has ended, and says why
        }
        if let Some(stills) = stills.get() {
            let taker = taker.get_or_insert_with(|| Taker::new(stills.clone(), size));
            taker.look(recorded, (*picture).as_ref());
        }
        before = Some(picture);
    }
}

/// Until nobody orders any more.
pub(super) fn feed_sound(orders: &Receiver<SoundOrder>, encoder: SoundInput, shift: u64, meters: &Meters) {
    let mut feed = SoundFeed { shift, gate: Gate::new(), encoder: Some(encoder), reached: 0, closing: None };
    for order in orders {
        match order {
            SoundOrder::Block(block) => {
                meters.sound_backlog.fetch_sub(block.frames(), Relaxed);
                feed.block(&block, meters);
            }
            SoundOrder::Open(wall) => feed.gate.open(wall),
            SoundOrder::Close(wall, told) => {
                feed.gate.close(wall);
                feed.closing = Some((wall, told));
            }
        }
        feed.closed();
    }
}

struct SoundFeed {
    shift: u64,
    gate: Gate,
    encoder: Option<SoundInput>,
    /// Wall sample up to which sound has come, shifted.
    reached: u64,
    closing: Option<(u64, Sender<()>)>,
}

impl SoundFeed {
    fn block(&mut self, block: &SoundBlock, meters: &Meters) {
        let start = block.start + self.shift;
        for (offset, len, recorded) in self.gate.cut(start, block.frames()) {
            let samples = &block.samples[offset as usize * 2..(offset + len) as usize * 2];
            let peak = if block.silent { 0.0 } else { samples.iter().fold(0.0_f32, |p, s| p.max(s.abs())) };
            meters.peak_millionths.fetch_max((peak * 1e6) as u64, Relaxed);
            meters.silent.lock().unwrap_or_else(PoisonError::into_inner).note(recorded, peak < SILENCE_PEAK);
            if self.encoder.as_mut().is_some_and(|e| e.write(samples).is_err()) {
                self.encoder = None; // it has ended, and says why
            }
        }
        self.reached = start + block.frames();
    }

    fn closed(&mut self) {
        if let Some((wall, told)) = self.closing.take_if(|(wall, _)| *wall <= self.reached) {
            let _ = (wall, told.send(()));
        }
    }
}
