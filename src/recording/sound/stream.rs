//! One playback stream: its queue, and when it may be heard.
//!
//! A stream fills until it has its target, then plays; when it runs dry it is starved and fills again. Corked, nothing
//! moves and nothing is asked for (else Chromium would prefill with silence). Lengths are in frames unless the name says
//! bytes; the wire counts bytes of the client's own format.

use super::cushion::Cushion;
use super::format::Format;
use pulseaudio::protocol::stream::BufferAttr;
use std::collections::VecDeque;
use std::time::Duration;

/// Frames accepted beyond the target: Chromium answers with whole buffers, and after a flush with what it still owes.
const OVERSHOOT: usize = 24_000;

/// Why a stream is or is not heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not enough queued yet, at the beginning or after a flush.
    Filling,
    /// Heard.
    Playing,
    /// Ran dry while playing; fills again.
    Starved,
}

/// What happened while a stream was played.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Played {
    /// It ran dry just now.
    pub underrun: bool,
    /// Frames it should have had and did not.
    pub starved: usize,
}

/// Read and write positions as the client is told them, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Positions {
    /// Played so far.
    pub read: u64,
    /// Received so far.
    pub written: u64,
    /// Played since it last began to play.
    pub playing_for: u64,
    /// Passed without playing since it last stopped.
    pub underrun_for: u64,
}

/// One playback stream.
#[derive(Debug)]
pub(super) struct Stream {
    format: Format,
    cushion: Cushion,
    queue: VecDeque<f32>,
    /// Bytes of a frame that has not arrived whole.
    partial: Vec<u8>,
    corked: bool,
    phase: Phase,
    /// Bytes asked for and not yet received: an exact mirror of the client library's own counter, which goes below zero
    /// when more is delivered than was asked for.
    owed_bytes: i64,
    /// The client may have let a request pass while it was stopping: wake it even if nothing more is needed.
    nudge: bool,
    at: Positions,
}

impl Stream {
    /// A stream with its buffer sizes settled.
    pub(super) fn new(format: Format, wish: &BufferAttr, corked: bool) -> Self {
        Self {
            format,
            cushion: Cushion::new(format, wish),
            queue: VecDeque::new(),
            partial: Vec::new(),
            corked,
            phase: Phase::Filling,
            owed_bytes: 0,
            nudge: false,
            at: Positions { read: 0, written: 0, playing_for: 0, underrun_for: 0 },
        }
    }

    /// The buffer sizes as the client is told them.
    pub(super) fn attr(&self) -> BufferAttr {
        let bytes = |frames: usize| (frames * self.format.frame_bytes()) as u32;
        BufferAttr {
            max_length: bytes(self.cushion.target + OVERSHOOT),
            target_length: bytes(self.cushion.target),
            pre_buffering: bytes(self.cushion.target),
            minimum_request_length: bytes(self.cushion.min_request),
            ..Default::default()
        }
    }

    /// Frames waiting to be played.
    pub(super) fn queued(&self) -> usize {
        self.queue.len() / self.format.channels
    }

    /// Whether the stream is heard.
    pub(super) fn is_playing(&self) -> bool {
        !self.corked && self.phase == Phase::Playing
    }

    /// Latency that the client is told beyond what is queued.
    pub(super) fn lead(&self) -> Duration {
        self.cushion.lead
    }

    /// Positions for a latency reply.
    pub(super) fn positions(&self) -> Positions {
        self.at
    }

    /// Takes in what the client wrote; what exceeds the bound is dropped.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.at.written += bytes.len() as u64;
        self.owed_bytes = self.owed_bytes.saturating_sub(bytes.len() as i64);
        let frame = self.format.frame_bytes();
        let mut rest = bytes;
        if !self.partial.is_empty() {
            let missing = (frame - self.partial.len()).min(rest.len());
            let (head, tail) = rest.split_at(missing);
            self.partial.extend_from_slice(head);
            rest = tail;
            if self.partial.len() == frame {
                let whole = std::mem::take(&mut self.partial);
                self.enqueue(&whole);
            }
        }
        let whole = rest.len() / frame * frame;
        self.enqueue(&rest[..whole]);
        self.partial.extend_from_slice(&rest[whole..]);
    }

    fn enqueue(&mut self, frames: &[u8]) {
        let free = (self.cushion.target + OVERSHOOT).saturating_sub(self.queued());
        let (kept, dropped) = frames.split_at(frames.len().min(free * self.format.frame_bytes()));
        self.queue.extend(self.format.samples(kept));
        // Dropped frames count as played, so that written − read stays what is queued.
        self.at.read += dropped.len() as u64;
    }

    /// Begins to play if enough is queued; says whether it began.
    pub(super) fn begin_if_full(&mut self) -> bool {
        if self.corked || self.phase == Phase::Playing || self.queued() < self.cushion.target {
            return false;
        }
        self.phase = Phase::Playing;
        self.at.playing_for = 0;
        true
    }

    /// Adds the next `mix.len() / 2` frames to `mix`.
    pub(super) fn play(&mut self, mix: &mut [f32]) -> Played {
        let frames = mix.len() / 2;
        let bytes = |frames: usize| (frames * self.format.frame_bytes()) as u64;
        if self.corked || frames == 0 {
            return Played::default();
        }
        if self.phase != Phase::Playing {
            self.at.underrun_for += bytes(frames);
            let starved = usize::from(self.phase == Phase::Starved) * frames;
            return Played { underrun: false, starved };
        }
        let heard = frames.min(self.queued());
        self.at.read += bytes(heard);
        self.at.playing_for += bytes(heard);
        let starved = frames - heard;
        self.cushion.played(heard);
        if starved > 0 {
            self.cushion.ran_dry();
            self.phase = Phase::Starved;
            self.at.underrun_for = bytes(starved);
        }
        if self.format.channels == 1 {
            for (pair, x) in mix.chunks_exact_mut(2).zip(self.queue.drain(..heard)) {
                pair[0] += x;
                pair[1] += x;
            }
        } else {
            for (sum, x) in mix.iter_mut().zip(self.queue.drain(..heard * 2)) {
                *sum += x;
            }
        }
        Played { underrun: starved > 0, starved }
    }

    /// Frames that fit up to the target, and frames the client has been asked for and not delivered (below zero: it has
    /// delivered more).
    fn space_and_owed(&self) -> (i64, i64) {
        let space = self.cushion.target as i64 - self.queued() as i64;
        (space.max(0), self.owed_bytes.div_euclid(self.format.frame_bytes() as i64))
    }

    /// Bytes to ask the client for now, if any.
    pub(super) fn request(&mut self) -> Option<u32> {
        if self.corked {
            return None;
        }
        let (space, owed) = self.space_and_owed();
        let want = match self.phase {
            // Whole buffers, or the client would round up and the queue would creep above its target.
            Phase::Playing => space - space % self.cushion.chunk as i64,
            // While filling, the last few frames must be asked for too or it would never be full.
            Phase::Filling | Phase::Starved => space,
        };
        let nudge = std::mem::take(&mut self.nudge);
        if want <= owed.max(0) && !nudge {
            return None;
        }
        let bytes = (want - owed).max(0) * self.format.frame_bytes() as i64;
        self.owed_bytes += bytes;
        Some(bytes as u32)
    }

    /// Frames until this stream needs the thread: to be asked for more, or because it runs dry. `None`: it does not.
    pub(super) fn frames_until_due(&self) -> Option<usize> {
        if !self.is_playing() {
            return None;
        }
        let (space, owed) = self.space_and_owed();
        let chunk = self.cushion.chunk as i64;
        let next_want = (owed.max(0) / chunk + 1) * chunk;
        Some(((next_want - space).max(1) as usize).min(self.queued() + 1))
    }

    /// Stops or goes on.
    pub(super) fn cork(&mut self, corked: bool) {
        self.nudge = self.corked && !corked;
        self.corked = corked;
    }

    /// Throws away what is queued and fills again.
    pub(super) fn flush(&mut self) {
        self.queue.clear();
        self.partial.clear();
        self.at.read = self.at.written;
        self.phase = Phase::Filling;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulseaudio::protocol::{SampleFormat, SampleSpec};

    fn stream(target: u32, min_request: u32, corked: bool) -> Stream {
        let wish =
            BufferAttr { target_length: target * 8, minimum_request_length: min_request * 8, ..Default::default() };
        let spec = SampleSpec { format: SampleFormat::Float32Le, channels: 2, sample_rate: 48_000 };
        Stream::new(Format::new(&spec).unwrap(), &wish, corked)
    }

    fn write(stream: &mut Stream, frames: usize) {
        stream.write(&[0.5f32.to_le_bytes(); 2].concat().repeat(frames));
    }

    fn play(stream: &mut Stream, frames: usize) -> Played {
        stream.play(&mut vec![0.0; frames * 2])
    }

    #[test]
    fn while_playing_whole_buffers_are_asked_for_at_the_announced_frame() {
        let mut stream = stream(1536, 256, false);
        assert_eq!(stream.request(), Some(1536 * 8));
        write(&mut stream, 1536);
        assert!(stream.begin_if_full());
        for _ in 0..100 {
            let due = stream.frames_until_due().unwrap();
            play(&mut stream, due - 1);
            assert_eq!(stream.request(), None, "one frame early");
            // Late by a few frames: the next one is due that much earlier.
            play(&mut stream, 1 + 7);
            assert_eq!(stream.request(), Some(512 * 8));
            assert_eq!(stream.request(), None, "asked once");
            write(&mut stream, 512);
        }
        assert!(stream.queued() <= 1536);
    }

    #[test]
    fn a_client_that_let_a_request_pass_is_woken_after_uncorking() {
        let mut stream = stream(1536, 256, false);
        assert_eq!(stream.request(), Some(1536 * 8));
        // The client stops just now: it ignores the request, but its library still counts it.
        stream.flush();
        stream.cork(true);
        assert_eq!(stream.request(), None);
        stream.cork(false);
        assert_eq!(stream.request(), Some(0), "its library calls it for what it counted");
        assert_eq!(stream.request(), None);
    }

    #[test]
    fn what_a_flooding_client_writes_is_bounded_and_positions_stay_true() {
        let mut stream = stream(1536, 256, true);
        write(&mut stream, 100_000);
        assert_eq!(stream.queued(), 1536 + OVERSHOOT);
        let at = stream.positions();
        assert_eq!(at.written - at.read, stream.queued() as u64 * 8);
    }

    #[test]
    fn a_stream_that_ran_dry_begins_again_only_when_full() {
        let mut stream = stream(1536, 256, false);
        write(&mut stream, 1536);
        assert!(stream.begin_if_full());
        assert_eq!(play(&mut stream, 1600), Played { underrun: true, starved: 64 });
        assert_eq!(play(&mut stream, 100), Played { underrun: false, starved: 100 });
        assert_eq!(stream.positions().underrun_for, 164 * 8);
        write(&mut stream, 1535);
        assert!(!stream.begin_if_full());
        write(&mut stream, 1);
        assert!(stream.begin_if_full());
        assert_eq!(stream.positions().playing_for, 0);
    }
}
