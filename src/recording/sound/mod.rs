//! The sound card: a PulseAudio-protocol sink inside our own process, which Chromium plays into.
//!
//! One thread owns everything: it listens on a private socket, speaks the native protocol (crate `pulseaudio` for the
//! wire format, no daemon), and consumes every stream at the rate of the [`MediaClock`], the clock that also stamps
//! pictures. What a stream plays at a moment *is* the wall sample of that moment, so sound needs no time stamps and
//! cannot drift. On every deadline and before every message the thread plays all streams up to *now* and hands the mix
//! out as contiguous blocks; silence is produced where nothing plays.
//!
//! * `stream`: one stream's queue and life: filling, playing, starved; corked or not. `cushion`: how long the queue is.
//!   `format`: bytes to samples. Pure.
//! * `wire`: frames in and out of byte buffers, and what of a hostile message may be given to the decoder. Pure.
//! * `client`: one connection: its streams, the commands it may send, the bounds it is held to.
//! * `server`: the thread: waiting, playing to now, mixing.
//!
//! It never decides what is recorded (the gate does), never resamples, and never records: there is no source.
//! Start it before the browser and keep it until the browser is gone: Chromium does not reconnect a stream.

mod client;
mod cushion;
mod format;
mod server;
mod stream;
#[cfg(test)]
mod tests;
mod wire;

use crate::recording::clock::MediaClock;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Mode, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use server::Server;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

/// Connections that may wait to be accepted: more than Chromium ever opens at once (one per output stream).
const BACKLOG: i32 = 64;

/// Where the sink listens and which clock it plays by.
#[derive(Debug, Clone)]
pub struct SoundConfig {
    /// Path of the socket (`PULSE_SERVER=unix:<path>`); must not exist yet.
    pub socket: PathBuf,
    /// Sample *n* of the sink is wall sample *n* of this clock.
    pub clock: MediaClock,
}

/// Stereo sound from a wall sample on. Blocks are contiguous: each starts where the last one ended, silence included.
#[derive(Debug, Clone, PartialEq)]
pub struct SoundBlock {
    /// Wall sample of the first frame.
    pub start: u64,
    /// Left and right in turn, within ±1.
    pub samples: Vec<f32>,
    /// Every sample is zero.
    pub silent: bool,
}

impl SoundBlock {
    /// Frames (samples per channel) in the block.
    pub fn frames(&self) -> u64 {
        self.samples.len() as u64 / 2
    }

    /// Wall sample just after the block: where the next one starts.
    pub fn end(&self) -> u64 {
        self.start + self.frames()
    }
}

/// What the sink has seen since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SoundStats {
    /// Times a playing stream ran out of samples.
    pub underruns: u64,
    /// Frames that a stream should have had and did not, summed over streams.
    pub starved_frames: u64,
    /// Streams ever opened.
    pub streams_opened: u64,
    /// Streams that are sounding now (their samples may be zero).
    pub streams_playing: u64,
    /// Frames handed out in blocks that are all zero.
    pub silent_frames: u64,
    /// Longest time from a deadline to the thread running, microseconds.
    pub worst_lateness_us: u64,
    /// Most frames that ever waited in one stream.
    pub peak_queued_frames: u64,
    /// Connections ended by us: protocol violations, bounds reached.
    pub clients_dropped: u64,
    /// The thread runs at real-time priority.
    pub realtime: bool,
}

/// The counters behind [`SoundStats`], written by the thread only.
#[derive(Debug, Default)]
struct Counters {
    underruns: AtomicU64,
    starved_frames: AtomicU64,
    streams_opened: AtomicU64,
    streams_playing: AtomicU64,
    silent_frames: AtomicU64,
    worst_lateness_us: AtomicU64,
    peak_queued_frames: AtomicU64,
    clients_dropped: AtomicU64,
    realtime: AtomicBool,
}

/// What the handle and the thread share.
#[derive(Debug)]
struct Shared {
    counters: Counters,
    stop: AtomicBool,
    wake: OwnedFd,
}

/// The running sink. Dropping it stops the thread and removes the socket.
#[derive(Debug)]
pub struct Sound {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    socket: PathBuf,
}

impl Sound {
    /// Binds the socket (mode 0600) and starts the thread. `out` is called on that thread and must not block; its first
    /// block starts at the wall sample of this call.
    pub fn start(config: SoundConfig, out: impl FnMut(SoundBlock) + Send + 'static) -> io::Result<Self> {
        let listener = bind_private(&config.socket)?;
        let shared = Arc::new(Shared {
            counters: Counters::default(),
            stop: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let mut sound = Self { shared: Arc::clone(&shared), thread: None, socket: config.socket };
        let server = Server::new(listener, config.clock, shared, out);
        sound.thread = Some(std::thread::Builder::new().name("sound".into()).spawn(move || {
            let realtime = crate::recording::priority::raise_thread();
            server.run(realtime);
        })?);
        Ok(sound)
    }

    /// What has been counted so far.
    pub fn stats(&self) -> SoundStats {
        let c = &self.shared.counters;
        SoundStats {
            underruns: c.underruns.load(Relaxed),
            starved_frames: c.starved_frames.load(Relaxed),
            streams_opened: c.streams_opened.load(Relaxed),
            streams_playing: c.streams_playing.load(Relaxed),
            silent_frames: c.silent_frames.load(Relaxed),
            worst_lateness_us: c.worst_lateness_us.load(Relaxed),
            peak_queued_frames: c.peak_queued_frames.load(Relaxed),
            clients_dropped: c.clients_dropped.load(Relaxed),
            realtime: c.realtime.load(Relaxed),
        }
    }

    /// Hands out what was played up to now, ends every connection, joins the thread and removes the socket.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.shared.stop.store(true, Relaxed);
        // An eventfd write fails only when the counter is full, and then the thread is awake anyway.
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
        if thread.join().is_err() {
            tracing::error!("the sound thread panicked");
        }
        if let Err(error) = std::fs::remove_file(&self.socket) {
            tracing::debug!(%error, "the sound socket was already gone");
        }
    }
}

impl Drop for Sound {
    fn drop(&mut self) {
        self.end();
    }
}

/// A listening socket that nobody else can connect to, at any moment: the mode is set before the name exists.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
    let name = |e: rustix::io::Errno| {
        let e = io::Error::from(e);
        io::Error::new(e.kind(), format!("sound socket {}: {e}", path.display()))
    };
    bind(&fd, &SocketAddrUnix::new(path).map_err(name)?).map_err(name)?;
    listen(&fd, BACKLOG)?;
    Ok(UnixListener::from(fd))
}
