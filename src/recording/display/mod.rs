//! The display: a Wayland compositor inside our own process, whose only screen is the recording.
//!
//! Chromium connects to a socket in a private directory and draws into shared memory. Every commit of the first window
//! is taken over at once (only what it damaged), given the slot of the recording's grid it belongs to, and handed to
//! the encoder; the page may draw its next picture when the slot begins, so it draws none that is not recorded. A
//! page that does not change costs nothing but a repeated picture a second.
//!
//! Owned here: the thread, the socket, the picture. Never here: what happens to a frame afterwards.

mod globals;
mod pacing;
mod picture;
mod planes;
mod rect;
mod server;
mod shell;
mod shm;
mod surface;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use wayland_server::ListeningSocket;

use crate::recording::clock::MediaClock;
use crate::task::spec::Size;
use crate::task::timeline::{FrameRate, SAMPLE_RATE};
pub use picture::Copy as PictureCopy;
pub use planes::is_plain;

/// What the display shows and when.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the socket is made.
    pub socket: PathBuf,
    /// Size of the screen and of every picture.
    pub size: Size,
    /// Rate of the grid.
    pub rate: FrameRate,
    /// Shared with the sound.
    pub clock: MediaClock,
}

/// One picture of the recording.
#[derive(Debug)]
pub struct Frame {
    /// Recorded sample of its slot.
    pub recorded: u64,
    /// The page drew something since the one before.
    pub fresh: bool,
    /// At the last look (once a second) it was of one colour.
    pub blank: bool,
    /// The picture.
    pub picture: PictureCopy,
}

/// Told the recorded length once the last picture before a closing is out.
type Closed = Sender<u64>;

enum Control {
    Open(u64),
    Close(u64, Closed),
    Divide(u64),
}

/// Delays kept for the median: the newest seconds of any rate.
const DELAYS_KEPT: usize = 512;

/// Counted by the display's thread, read by anybody.
#[derive(Debug, Default)]
pub struct Stats {
    commits: AtomicU64,
    fresh: AtomicU64,
    repeated: AtomicU64,
    refused: AtomicU64,
    painted_over: AtomicU64,
    blank: AtomicBool,
    lateness_us: AtomicU64,
    delays: Mutex<Vec<i32>>,
}

/// A reading of [`Stats`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pictures that the page drew, recorded or not.
    pub commits: u64,
    /// Recorded pictures that the page drew.
    pub fresh: u64,
    /// Recorded repetitions.
    pub repeated: u64,
    /// Emissions that waited because the encoder held every copy.
    pub refused: u64,
    /// Pictures painted over before their slot.
    pub painted_over: u64,
}

impl Stats {
    fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Relaxed);
    }
    fn set(counter: &AtomicU64, n: u64) {
        counter.store(n, Relaxed);
    }
    fn set_blank(&self, blank: bool) {
        self.blank.store(blank, Relaxed);
    }
    fn blank(&self) -> bool {
        self.blank.load(Relaxed)
    }
    fn note_lateness(&self, us: u64) {
        self.lateness_us.fetch_max(us, Relaxed);
    }
    fn note_delay(&self, slot_begin: u64, commit: u64) {
        let mut delays = self.delays.lock().unwrap_or_else(PoisonError::into_inner);
        if delays.len() == DELAYS_KEPT {
            delays.remove(0);
        }
        delays.push((slot_begin as i64 - commit as i64) as i32);
    }

    /// The counters.
    pub fn counts(&self) -> Counts {
        Counts {
            commits: self.commits.load(Relaxed),
            fresh: self.fresh.load(Relaxed),
            repeated: self.repeated.load(Relaxed),
            refused: self.refused.load(Relaxed),
            painted_over: self.painted_over.load(Relaxed),
        }
    }

    /// Longest time by which the thread woke late since the last call, µs.
    pub fn take_lateness_us(&self) -> u64 {
        self.lateness_us.swap(0, Relaxed)
    }

    /// Median of time stamp minus hand-over of the newest pictures, ms; `None` without any.
    pub fn stamp_delay_ms(&self) -> Option<f64> {
        let mut delays = self.delays.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let middle = delays.len() / 2;
        (!delays.is_empty()).then(|| f64::from(*delays.select_nth_unstable(middle).1) * 1000.0 / SAMPLE_RATE as f64)
    }
}

/// A running display. Dropping it closes the socket and disconnects its clients.
pub struct Display {
    controls: Option<Sender<Control>>,
    wake: Arc<OwnedFd>,
    stats: Arc<Stats>,
    thread: Option<JoinHandle<io::Result<()>>>,
    socket: PathBuf,
}

impl Display {
    /// Opens the socket and starts the thread. `out` is called on it and must not block; it returns whether it could
    /// take the frame.
    pub fn start(config: Config, out: impl FnMut(Frame) -> bool + Send + 'static) -> io::Result<Self> {
        let socket_path = config.socket.clone();
        let socket = ListeningSocket::bind_absolute(config.socket.clone()).map_err(io::Error::other)?;
        let wake = Arc::new(server::waker()?);
        let stats = Arc::new(Stats::default());
        let (controls, orders) = channel();
        let (thread_wake, thread_stats) = (Arc::clone(&wake), Arc::clone(&stats));
        let thread = std::thread::Builder::new().name("display".into()).spawn(move || {
            crate::recording::priority::raise_thread();
            server::run(config, &socket, &*thread_wake, &orders, thread_stats, Box::new(out))
        })?;
        Ok(Self { controls: Some(controls), wake, stats, thread: Some(thread), socket: socket_path })
    }

    /// Records from wall sample `wall` (on a slot) on.
    pub fn open(&self, wall: u64) {
        self.send(Control::Open(wall));
    }

    /// Records nothing from wall sample `wall` (on a slot) on. The recorded length comes when the last picture is out.
    pub fn close(&self, wall: u64) -> std::sync::mpsc::Receiver<u64> {
        let (closed, told) = channel();
        self.send(Control::Close(wall, closed));
        told
    }

    /// Uses every `divisor`-th slot only.
    pub fn divide(&self, divisor: u64) {
        self.send(Control::Divide(divisor));
    }

    /// The counters.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Whether the thread is still there.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|t| !t.is_finished())
    }

    fn send(&self, control: Control) {
        if let Some(controls) = &self.controls {
            let _ = controls.send(control);
            let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.controls = None;
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "display ended"),
                Err(_) => tracing::error!("display panicked"),
            }
        }
        let _ = std::fs::remove_file(&self.socket);
        let mut lock = self.socket.clone().into_os_string();
        lock.push(".lock");
        let _ = std::fs::remove_file(lock);
    }
}
