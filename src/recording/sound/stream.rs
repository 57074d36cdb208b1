//! One playback stream: its queue, and when it may be heard.
//!
//! A stream fills until it has its target, then plays; when it runs dry it is starved and fills again. Corked, nothing
//! moves and nothing is asked for (else Chromium would prefill with silence). Lengths are in frames unless the name says
//! bytes; the wire counts bytes of the client's own format.

use pulseaudio::protocol::stream::BufferAttr;
use pulseaudio::protocol::{SampleFormat, SampleSpec};
use std::collections::VecDeque;

/// Target up to which a media stream's queue is raised: 256 ms, four times what Chromium asks for. Chromium delays video
/// by the reported latency, so a long queue costs no sync there and rides out a busy machine.
const MEDIA_TARGET: usize = 12_288;
/// How many times its own wish a media stream's queue may become.
const MEDIA_FACTOR: usize = 4;
/// From this request size on a stream is a media element's. AudioContext and WebRTC streams ask for 256 frames; a page
/// does not compensate there, so every queued frame is A/V error and they get exactly what they ask for.
const MEDIA_MIN_REQUEST: usize = 512;
/// Smallest target: 16 ms, below which a wake-up per request would come every few frames.
const MIN_TARGET: usize = 768;
/// Largest target: with [`OVERSHOOT`] it bounds a stream's memory to 1 MiB.
const MAX_TARGET: usize = 48_000;
/// Smallest amount asked for at once: 5.3 ms, half of Chromium's smallest buffer.
const MIN_CHUNK: usize = 256;
/// Frames accepted beyond the target: Chromium answers with whole buffers, and after a flush with what it still owes.
const OVERSHOOT: usize = 24_000;
/// Samples beyond this are cut on arrival, so that no sum of streams can become infinite. Far above anything audible as
/// the mix is clipped to ±1.
const SAMPLE_LIMIT: f32 = 16.0;

/// Sample rate of every stream; nothing is resampled.
pub(super) const RATE: u32 = crate::task::timeline::SAMPLE_RATE as u32;

/// How a client's bytes are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    float: bool,
    channels: usize,
}

impl Format {
    /// The formats Chromium uses: 48 kHz, mono or stereo, `f32le` or `s16le`.
    pub(super) fn new(spec: &SampleSpec) -> Option<Self> {
        let float = match spec.format {
            SampleFormat::Float32Le => true,
            SampleFormat::S16Le => false,
            _ => return None,
        };
        let channels = usize::from(spec.channels);
        (spec.sample_rate == RATE && (1..=2).contains(&channels)).then_some(Self { float, channels })
    }

    fn sample_bytes(self) -> usize {
        if self.float { 4 } else { 2 }
    }

    /// Bytes of one frame.
    pub(super) fn frame_bytes(self) -> usize {
        self.sample_bytes() * self.channels
    }

    /// One sample; what is no number becomes silence.
    fn sample(self, bytes: &[u8]) -> f32 {
        match *bytes {
            [a, b, c, d] => {
                let x = f32::from_le_bytes([a, b, c, d]);
                if x.is_nan() { 0.0 } else { x.clamp(-SAMPLE_LIMIT, SAMPLE_LIMIT) }
            }
            [a, b] => f32::from(i16::from_le_bytes([a, b])) / 32_768.0,
            _ => 0.0,
        }
    }
}

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
    target: usize,
    chunk: usize,
    min_request: usize,
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
        let frames = |bytes: u32, unset: usize| match bytes {
            u32::MAX => unset,
            n => n as usize / format.frame_bytes(),
        };
        let min_request = frames(wish.minimum_request_length, MEDIA_MIN_REQUEST);
        let asked = frames(wish.target_length, MEDIA_TARGET).clamp(MIN_TARGET, MAX_TARGET);
        let target =
            if min_request >= MEDIA_MIN_REQUEST { (asked * MEDIA_FACTOR).min(MEDIA_TARGET).max(asked) } else { asked };
        let min_request = min_request.clamp(1, target / 2);
        Self {
            format,
            target,
            // Twice the smallest request is one buffer of Chromium's: a request per buffer, none in vain.
            chunk: (min_request * 2).clamp(MIN_CHUNK, target / 3),
            min_request,
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
            max_length: bytes(self.target + OVERSHOOT),
            target_length: bytes(self.target),
            pre_buffering: bytes(self.target),
            minimum_request_length: bytes(self.min_request),
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
        let free = (self.target + OVERSHOOT).saturating_sub(self.queued());
        let (kept, dropped) = frames.split_at(frames.len().min(free * self.format.frame_bytes()));
        let format = self.format;
        self.queue.extend(kept.chunks_exact(format.sample_bytes()).map(|b| format.sample(b)));
        // Dropped frames count as played, so that written − read stays what is queued.
        self.at.read += dropped.len() as u64;
    }

    /// Begins to play if enough is queued; says whether it began.
    pub(super) fn begin_if_full(&mut self) -> bool {
        if self.corked || self.phase == Phase::Playing || self.queued() < self.target {
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
        if starved > 0 {
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
        let space = self.target as i64 - self.queued() as i64;
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
            Phase::Playing => space - space % self.chunk as i64,
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
        let chunk = self.chunk as i64;
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

    const STEREO: Format = Format { float: true, channels: 2 };

    fn stream(target: u32, min_request: u32, corked: bool) -> Stream {
        let wish =
            BufferAttr { target_length: target * 8, minimum_request_length: min_request * 8, ..Default::default() };
        Stream::new(STEREO, &wish, corked)
    }

    fn write(stream: &mut Stream, frames: usize) {
        stream.write(&[0.5f32.to_le_bytes(); 2].concat().repeat(frames));
    }

    fn play(stream: &mut Stream, frames: usize) -> Played {
        stream.play(&mut vec![0.0; frames * 2])
    }

    #[test]
    fn only_media_queues_are_raised_and_never_beyond_256_ms_on_our_own_account() {
        for (asked, min_request, given) in [
            (3072, 512, 12_288),    // a media element
            (1536, 256, 1536),      // an AudioContext, WebRTC
            (12_288, 2048, 12_288), // an AudioContext with latencyHint "playback"
            (24_000, 4096, 24_000), // whoever asks for more gets it
            (1, 1, MIN_TARGET),     // and nobody gets nonsense
            (500_000, 1, MAX_TARGET),
        ] {
            let stream = stream(asked, min_request, false);
            assert_eq!(stream.target, given, "{asked}/{min_request}");
            assert!(stream.chunk >= MIN_CHUNK && stream.chunk * 3 <= stream.target);
        }
        let unset = Stream::new(STEREO, &BufferAttr::default(), false);
        assert_eq!((unset.target, unset.min_request), (MEDIA_TARGET, MEDIA_MIN_REQUEST));
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
