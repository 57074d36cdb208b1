//! Picture and sound of one browser into segments: display and sound card on one side, the encoder on the other.
//!
//! Threads: the display and the sound sink each hand over on their own thread and never block; a feed thread each
//! writes to FFmpeg's pipes, which may block. What may pile up between is bounded: pictures by the display's pool (it
//! then skips slots), sound by [`MAX_SOUND_BACKLOG`] (the encoder is then stuck, and says so).
//!
//! [`Capture::open`] and [`Capture::close`] choose one wall sample for both, so that every pause cuts picture and sound
//! at the same place.

mod feed;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::clock::MediaClock;
use super::display::{self, Display, Frame};
use super::encoder::{Encoder, EncoderConfig, EncoderError, EncoderOutput, Tail};
use super::process::Guard;
use super::sound::{Sound, SoundConfig, SoundStats};
use super::stills::Stills;
use crate::task::quality::{Stretch, StretchMeter};
use crate::task::spec::RecordingSpec;
use crate::task::timeline::{FrameRate, Gate, SAMPLE_RATE};
use feed::{Meters, SoundOrder, feed_pictures, feed_sound};

/// Sound on its way to the encoder: longer than any hiccup, 4 MB.
const MAX_SOUND_BACKLOG: u64 = 10 * SAMPLE_RATE;
/// Pictures on their way to the encoder; the display's pool is the tighter bound.
const MAX_FRAMES: usize = 64;
/// Time for the last picture and the last sound to arrive after a closing: some slots and the sound sink's longest sleep.
const CLOSING: Duration = Duration::from_secs(2);
/// By how much sound is stamped later than it was played, as a share of a slot. A picture is stamped with the slot after
/// the one it was drawn in, which is 0.85 slots after its commit on average. Measured by flashes and beeps at 30 frames
/// a second without this: −33 ms for pages that schedule WebAudio, −22 to +4 ms for `<video>`. Half a slot puts both within
/// 20 ms.
const SOUND_SHIFT: (u64, u64) = (1, 2);

/// Name of the display's socket in the run directory (`WAYLAND_DISPLAY`).
pub const DISPLAY: &str = "wayland-0";

/// Where a capture keeps its sockets and what it is of.
#[derive(Debug, Clone)]
pub struct CaptureConfig {
    /// Private directory for the sockets.
    pub run_dir: PathBuf,
    /// FFmpeg.
    pub ffmpeg: PathBuf,
    /// Recorded sample at which this capture starts; on the segment grid.
    pub start: u64,
    /// Unix microseconds at which a slot begins; any, if nobody else's slots matter.
    pub in_step_with: Option<u64>,
}

/// What a capture has done so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct CaptureCounts {
    /// Of the display.
    pub pictures: display::Counts,
    /// Of the sound sink.
    pub sound: SoundStats,
    /// Longest time by which the display woke late since the last look, µs.
    pub display_lateness_us: u64,
    /// Highest level since the last look, 0 to 1.
    pub peak: f32,
    /// Stamp delay of the newest pictures, ms.
    pub stamp_delay_ms: Option<f64>,
}

/// What a finished capture leaves.
#[derive(Debug)]
pub struct CaptureEnd {
    /// Recorded sample of the end.
    pub end: u64,
    /// When that was, unix microseconds.
    pub end_us: u64,
    /// The last counts.
    pub counts: CaptureCounts,
    /// By how much sound is stamped later than it was played.
    pub sound_shift_ms: f64,
    /// Silent stretches.
    pub silent: Vec<Stretch>,
    /// Blank stretches.
    pub blank: Vec<Stretch>,
}

/// A running capture. Dropping it ends everything at once and loses what is in flight.
pub struct Capture {
    clock: MediaClock,
    rate: FrameRate,
    gate: Gate,
    display: Display,
    sound: Sound,
    sound_orders: Sender<SoundOrder>,
    frames: Arc<Mutex<Option<SyncSender<Frame>>>>,
    stills: Arc<OnceLock<Stills>>,
    feeds: Vec<JoinHandle<()>>,
    encoder: Encoder,
    meters: Arc<Meters>,
}

impl Capture {
    /// Starts display, sound and encoder. Nothing is recorded before [`open`](Self::open). `out` gets the encoder's
    /// output on a thread of its own.
    pub fn start(
        config: &CaptureConfig,
        spec: &RecordingSpec,
        guard: &Arc<Guard>,
        out: impl FnMut(EncoderOutput) + Send + 'static,
    ) -> Result<Self, CaptureError> {
        let in_step = |unix_us| MediaClock::in_step(unix_us, spec.rate.slot());
        let clock = config.in_step_with.map_or_else(MediaClock::start, in_step);
        let encoder = EncoderConfig {
            ffmpeg: config.ffmpeg.clone(),
            size: spec.size,
            rate: spec.rate,
            bitrates: spec.bitrates,
            start: config.start,
        };
        let (encoder, pictures, sounds) = Encoder::start(&encoder, guard, out)?;
        let meters = Arc::new(Meters::default());
        let stills = Arc::<OnceLock<Stills>>::default();
        let (frame_sender, frames) = mpsc::sync_channel(MAX_FRAMES);
        let (sound_orders, orders) = mpsc::channel();
        let shift = sound_shift(spec.rate);
        let feeds = vec![
            spawn("picture-feed", {
                let (meters, stills, size) = (Arc::clone(&meters), Arc::clone(&stills), spec.size);
                move || feed_pictures(&frames, pictures, &meters, &stills, size)
            })?,
            spawn("sound-feed", {
                let meters = Arc::clone(&meters);
                move || feed_sound(&orders, sounds, shift, &meters)
            })?,
        ];
        let frame_sender = Arc::new(Mutex::new(Some(frame_sender)));
        let display =
            display::Config { socket: display_socket(&config.run_dir), size: spec.size, rate: spec.rate, clock };
        let frames_out = Arc::clone(&frame_sender);
        let display = Display::start(display, move |frame| {
            let sender = frames_out.lock().unwrap_or_else(PoisonError::into_inner);
            sender.as_ref().is_some_and(|s| s.try_send(frame).is_ok())
        })
        .map_err(|source| CaptureError::Start { what: "display", source })?;
        let sink = SoundConfig { socket: sound_socket(&config.run_dir), clock };
        let (sound_out, backlog) = (sound_orders.clone(), Arc::clone(&meters));
        let sound = Sound::start(sink, move |block| {
            // A sound feed that hangs for long is noticed by `check`; until then memory is bounded by dropping.
            if backlog.sound_backlog.fetch_add(block.frames(), Relaxed) < MAX_SOUND_BACKLOG {
                let _ = sound_out.send(SoundOrder::Block(block));
            }
        })
        .map_err(|source| CaptureError::Start { what: "sound", source })?;
        let gate = Gate::new();
        let rate = spec.rate;
        Ok(Self {
            clock,
            rate,
            gate,
            display,
            sound,
            sound_orders,
            frames: frame_sender,
            stills,
            feeds,
            encoder,
            meters,
        })
    }

    /// Somebody wants a picture now and then; to be said before it is first opened.
    pub fn show(&self, stills: Stills) {
        let _ = self.stills.set(stills);
    }

    /// The clock of picture and sound.
    pub fn clock(&self) -> MediaClock {
        self.clock
    }

    /// Records from the next slot on. Returns its wall sample.
    pub fn open(&mut self) -> u64 {
        self.open_at(self.boundary());
        self.gate.opened_at().unwrap_or_default()
    }

    /// Records from a slot on that is yet to come: not before [`boundary`](Self::boundary).
    pub fn open_at(&mut self, wall: u64) {
        self.gate.open(wall);
        self.display.open(wall);
        let _ = self.sound_orders.send(SoundOrder::Open(wall));
    }

    /// Records nothing from the next slot on. Returns its wall sample.
    pub fn close(&mut self) -> u64 {
        let wall = self.boundary();
        self.close_at(wall);
        wall
    }

    /// Records nothing from a slot on that is yet to come.
    pub fn close_at(&mut self, wall: u64) -> (Receiver<u64>, Receiver<()>) {
        self.gate.close(wall);
        let (told, sound) = mpsc::channel();
        let _ = self.sound_orders.send(SoundOrder::Close(wall, told));
        (self.display.close(wall), sound)
    }

    /// Whether anything is recorded now.
    pub fn is_open(&self) -> bool {
        self.gate.is_open()
    }

    /// Length recorded so far, in samples.
    pub fn recorded(&self) -> u64 {
        self.gate.recorded(self.clock.now()).unwrap_or_else(|| self.gate.recorded_until_close())
    }

    /// Uses every `divisor`-th slot only.
    pub fn divide(&self, divisor: u64) {
        self.display.divide(divisor);
    }

    /// What has been counted.
    pub fn counts(&self) -> CaptureCounts {
        let display = self.display.stats();
        CaptureCounts {
            pictures: display.counts(),
            sound: self.sound.stats(),
            display_lateness_us: display.take_lateness_us(),
            peak: self.meters.peak_millionths.swap(0, Relaxed) as f32 / 1e6,
            stamp_delay_ms: display.stamp_delay_ms(),
        }
    }

    /// Silent and blank stretches so far, positions being recorded samples' seconds.
    pub fn stretches(&self) -> [Vec<Stretch>; 2] {
        [&self.meters.silent, &self.meters.blank]
            .map(|meter| meter.lock().unwrap_or_else(PoisonError::into_inner).so_far())
    }

    /// Says when something has died or hangs that a recording needs.
    pub fn check(&self) -> Result<(), CaptureError> {
        if !self.display.is_running() {
            return Err(CaptureError::Lost { what: "display" });
        }
        if self.meters.sound_backlog.load(Relaxed) >= MAX_SOUND_BACKLOG {
            return Err(CaptureError::Lost { what: "sound feed" });
        }
        Ok(())
    }

    /// The gate.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Wall sample at which the open span will have recorded `limit`, on a slot.
    pub fn wall_at(&self, limit: u64) -> Option<u64> {
        let opened = self.gate.opened_at().filter(|_| self.gate.is_open())?;
        let before = self.gate.recorded(opened)?;
        Some((opened + limit.saturating_sub(before)).next_multiple_of(self.rate.slot()))
    }

    /// Ends the recording, at recorded sample `limit` if that has not passed: the last picture and sound go to the encoder, its last output comes, nothing is left running.
    /// Blocks for a bounded time.
    pub fn finish(mut self, limit: Option<u64>, tail: Tail) -> CaptureEnd {
        let soonest = self.boundary();
        let wall = match self.gate.closed_at() {
            Some(closed) => closed,
            None => limit
                .and_then(|l| self.wall_at(l))
                .filter(|w| (soonest..soonest + SAMPLE_RATE).contains(w))
                .unwrap_or(soonest),
        };
        let (pictures, sound) = self.close_at(wall);
        // Without an answer the feed has died with the encoder, which says so itself.
        let _ = sound.recv_timeout(CLOSING);
        let _ = pictures.recv_timeout(CLOSING);
        let end = self.gate.recorded_until_close();
        let counts = self.counts();
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(self.display);
        self.sound.stop();
        drop(self.sound_orders);
        self.encoder.finish(end, tail);
        for feed in self.feeds {
            let _ = feed.join();
        }
        let stretches = |meter: &Mutex<StretchMeter>| {
            std::mem::take(&mut *meter.lock().unwrap_or_else(PoisonError::into_inner)).finish(end)
        };
        CaptureEnd {
            end,
            end_us: self.clock.unix_us(wall),
            counts,
            sound_shift_ms: sound_shift_ms(self.rate),
            silent: stretches(&self.meters.silent),
            blank: stretches(&self.meters.blank),
        }
    }

    /// The first slot that neither display nor sound has handed over: their hand-overs lie in the past.
    pub fn boundary(&self) -> u64 {
        (self.clock.now() / self.rate.slot() + 2) * self.rate.slot()
    }
}

/// Socket of the display in a run directory.
pub fn display_socket(run_dir: &Path) -> PathBuf {
    run_dir.join(DISPLAY)
}

/// Socket of the sound sink in a run directory.
pub fn sound_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("pulse")
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, CaptureError> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(run);
    thread.map_err(|source| CaptureError::Start { what: "feed", source })
}

fn sound_shift(rate: FrameRate) -> u64 {
    rate.slot() * SOUND_SHIFT.0 / SOUND_SHIFT.1
}

/// By how much sound is stamped later than it was played.
pub fn sound_shift_ms(rate: FrameRate) -> f64 {
    sound_shift(rate) as f64 * 1000.0 / SAMPLE_RATE as f64
}

/// Why a capture cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A part cannot be started.
    #[error("{what} cannot be started")]
    Start {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A part has ended or hangs.
    #[error("{what} is lost")]
    Lost {
        /// Which.
        what: &'static str,
    },
    /// The encoder.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
}
