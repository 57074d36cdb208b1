//! The thread: waits, plays every stream to now, mixes, and hands out blocks.
//!
//! There is no free-running tick. While something plays, the next deadline is the sample at which a stream next needs to
//! be asked for a buffer (so one wake-up per buffer, and no request in vain), but at most 20 ms away; while nothing plays
//! it is 100 ms away. Each wake-up first plays to now, so a late thread is late with its answers, never with its samples.

use super::client::{Client, Gone};
use super::{Shared, SoundBlock};
use crate::recording::clock::{MediaClock, monotonic_ns};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Shortest block handed out, frames: 10 ms, so that a burst of messages does not become a burst of tiny blocks.
const MIN_BLOCK: u64 = 480;
/// Longest block, frames: 1 s, which bounds memory when the process was stopped for long.
const MAX_BLOCK: u64 = 48_000;
/// Longest wait while a stream is heard, samples: 20 ms.
const PLAYING_WAIT: u64 = 960;
/// Longest wait while nothing is heard, samples: 100 ms.
const IDLE_WAIT: u64 = 4800;
/// Connections at once: Chromium opens at most 50 output streams, each with its own, and one for devices.
const MAX_CLIENTS: usize = 64;

/// Bytes read from a connection at once: the largest block the client library writes.
const READ_CHUNK: usize = 64 * 1024;

/// Everything the thread owns.
pub(super) struct Server<F> {
    listener: UnixListener,
    clock: MediaClock,
    shared: Arc<Shared>,
    out: F,
    clients: Vec<Client>,
    next_id: u32,
    /// Wall sample up to which everything has been played.
    played: u64,
    /// What was played and not handed out yet; ends at `played`.
    mix: Vec<f32>,
    /// Accepting failed (no descriptors left): not again before this sample.
    accept_from: u64,
}

/// What `poll` found.
#[derive(Default)]
struct Ready {
    accept: bool,
    readable: Vec<usize>,
}

impl<F: FnMut(SoundBlock)> Server<F> {
    pub(super) fn new(listener: UnixListener, clock: MediaClock, shared: Arc<Shared>, out: F) -> Self {
        Self {
            listener,
            clock,
            shared,
            out,
            clients: Vec::new(),
            next_id: 0,
            played: clock.now(),
            mix: Vec::new(),
            accept_from: 0,
        }
    }

    /// Runs until told to stop.
    pub(super) fn run(mut self, realtime: bool) {
        self.shared.counters.realtime.store(realtime, Relaxed);
        let mut scratch = vec![0; READ_CHUNK];
        loop {
            let ready = self.wait();
            self.play();
            if self.shared.stop.load(Relaxed) {
                self.hand_out(1);
                return;
            }
            let mut gone = Vec::new();
            for index in ready.readable {
                self.play();
                let result = self.clients[index].receive(&mut scratch, &self.shared.counters);
                gone.extend(result.err().map(|why| (index, why)));
            }
            for (index, client) in self.clients.iter_mut().enumerate() {
                let result = client.ask().and_then(|()| client.send());
                gone.extend(result.err().map(|why| (index, why)));
            }
            self.remove(gone);
            if ready.accept {
                self.accept();
            }
            self.hand_out(MIN_BLOCK);
        }
    }

    /// Waits for a message, the stop signal or the next deadline.
    fn wait(&mut self) -> Ready {
        let heard = self.clients.iter_mut().flat_map(Client::streams).filter_map(|(_, s)| s.frames_until_due());
        let (playing, due) =
            heard.fold((0, IDLE_WAIT), |(n, due), frames| (n + 1, due.min(frames as u64).min(PLAYING_WAIT)));
        self.shared.counters.streams_playing.store(playing, Relaxed);
        let deadline_ns = self.clock.ns_at(self.played + due);
        let timeout_ns = deadline_ns.saturating_sub(monotonic_ns());
        let timeout =
            Timespec { tv_sec: (timeout_ns / 1_000_000_000) as i64, tv_nsec: (timeout_ns % 1_000_000_000) as i64 };
        let listening = self.clients.len() < MAX_CLIENTS && self.played >= self.accept_from;
        let polled: Vec<usize> =
            (0..self.clients.len()).filter(|&i| self.clients[i].within_budget(self.played)).collect();
        let mut fds = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
        let interest = if listening { PollFlags::IN } else { PollFlags::empty() };
        fds.push(PollFd::new(&self.listener, interest));
        fds.extend(polled.iter().map(|&i| {
            let output = if self.clients[i].has_output() { PollFlags::OUT } else { PollFlags::empty() };
            PollFd::new(&self.clients[i].socket, PollFlags::IN | output)
        }));
        // An interrupted wait is a wait that found nothing.
        let found = poll(&mut fds, Some(&timeout)).unwrap_or(0);
        if found == 0 {
            let late_us = monotonic_ns().saturating_sub(deadline_ns) / 1000;
            self.shared.counters.worst_lateness_us.fetch_max(late_us, Relaxed);
            return Ready::default();
        }
        let woken = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        Ready {
            accept: listening && fds[1].revents().intersects(woken),
            readable: polled
                .iter()
                .zip(&fds[2..])
                .filter_map(|(&i, fd)| fd.revents().intersects(woken).then_some(i))
                .collect(),
        }
    }

    /// Plays every stream up to now.
    fn play(&mut self) {
        let now = self.clock.now();
        while self.played < now {
            let frames = (now - self.played).min(MAX_BLOCK - self.mix.len() as u64 / 2);
            self.play_frames(frames as usize);
            self.hand_out(MAX_BLOCK);
        }
    }

    fn play_frames(&mut self, frames: usize) {
        let have = self.mix.len();
        self.mix.resize(have + frames * 2, 0.0);
        let counters = &self.shared.counters;
        for client in &mut self.clients {
            let mut dry = Vec::new();
            for (channel, stream) in client.streams() {
                let result = stream.play(&mut self.mix[have..]);
                counters.starved_frames.fetch_add(result.starved as u64, Relaxed);
                if result.underrun {
                    counters.underruns.fetch_add(1, Relaxed);
                    dry.push((channel, stream.positions().read));
                }
            }
            for (channel, offset) in dry {
                // A client with a full outbox is found when it is asked next.
                let _ = client.tell_underflow(channel, offset);
            }
        }
        self.played += frames as u64;
    }

    /// Hands out what has been played, if it is at least `min` frames.
    fn hand_out(&mut self, min: u64) {
        let frames = self.mix.len() as u64 / 2;
        if frames < min {
            return;
        }
        let mut samples = std::mem::take(&mut self.mix);
        let mut silent = true;
        for sample in &mut samples {
            *sample = sample.clamp(-1.0, 1.0);
            silent &= *sample == 0.0;
        }
        if silent {
            self.shared.counters.silent_frames.fetch_add(frames, Relaxed);
        }
        (self.out)(SoundBlock { start: self.played - frames, samples, silent });
    }

    fn accept(&mut self) {
        while self.clients.len() < MAX_CLIENTS {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, "sound connection not accepted");
                    self.accept_from = self.played + IDLE_WAIT;
                    return;
                }
            };
            if socket.set_nonblocking(true).is_ok() {
                self.clients.push(Client::new(socket, self.next_id));
                self.next_id = self.next_id.wrapping_add(1);
            }
        }
    }

    fn remove(&mut self, mut gone: Vec<(usize, Gone)>) {
        // From the back, so that indices stay right; once each, for the first reason.
        gone.sort_by_key(|(index, _)| std::cmp::Reverse(*index));
        gone.dedup_by_key(|(index, _)| *index);
        for (index, why) in gone {
            self.clients.remove(index);
            if matches!(why, Gone::Violation(_) | Gone::NotReading) {
                self.shared.counters.clients_dropped.fetch_add(1, Relaxed);
                tracing::warn!(%why, "sound connection ended");
            }
        }
    }
}
