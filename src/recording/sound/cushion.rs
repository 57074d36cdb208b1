//! How much of a stream is kept queued: its cushion against a busy machine.
//!
//! A media element's queue costs no sync, because Chromium delays video by the latency it is told, so it gets four times
//! what it asks for. An AudioContext's or a WebRTC call's queue is A/V error that no page compensates, so it gets what it
//! asks for, and twice that only while it keeps running dry: a hole is worse than 32 ms.

use super::format::Format;
use pulseaudio::protocol::stream::BufferAttr;
use std::time::Duration;

/// Target up to which a media stream's queue is raised: 256 ms, four times what Chromium asks for.
const MEDIA_TARGET: usize = 12_288;
/// How many times its own wish a media stream's queue may become.
const MEDIA_FACTOR: usize = 4;
/// What a media element is told beyond what is queued, because Chromium sets its pictures a little before the sound by the latency
/// it is told. Means of 18 to 21 recordings of three pages with videos: sound 10 ms late without, 1 ms with 5, 7 ms early with 10.
const MEDIA_LEAD: Duration = Duration::from_millis(5);
/// From this request size on a stream is a media element's; AudioContext and WebRTC streams ask for 256 frames.
const MEDIA_MIN_REQUEST: usize = 512;
/// Smallest target: 16 ms, below which the thread would wake up every few frames.
const MIN_TARGET: usize = 768;
/// Largest target: 1 s, which bounds a stream's memory to about 1 MiB.
const MAX_TARGET: usize = 48_000;
/// Smallest amount asked for at once: 5.3 ms, half of Chromium's smallest buffer.
const MIN_CHUNK: usize = 256;
/// Underruns, each soon after the one before, that double a live stream's queue.
const GROW_AFTER: u32 = 3;
/// Frames within which an underrun is soon after another: 10 s.
const SOON: usize = 480_000;
/// Frames without an underrun after which the queue is as short again as was asked: 60 s.
const CALM: usize = 2_880_000;

/// Sizes of a stream's queue, in frames.
#[derive(Debug)]
pub(super) struct Cushion {
    /// What is kept queued, and what must be there to begin.
    pub(super) target: usize,
    /// What is asked for at once.
    pub(super) chunk: usize,
    /// The client's own smallest request, echoed.
    pub(super) min_request: usize,
    /// Latency that the client is told beyond what is queued.
    pub(super) lead: Duration,
    usual: usize,
    grown: usize,
    underruns: u32,
    calm: usize,
}

impl Cushion {
    /// Sizes for what the client wished.
    pub(super) fn new(format: Format, wish: &BufferAttr) -> Self {
        let frames = |bytes: u32, unset: usize| match bytes {
            u32::MAX => unset,
            n => n as usize / format.frame_bytes(),
        };
        let min_request = frames(wish.minimum_request_length, MEDIA_MIN_REQUEST);
        let asked = frames(wish.target_length, MEDIA_TARGET).clamp(MIN_TARGET, MAX_TARGET);
        let raised = |factor: usize| (asked * factor).min(MEDIA_TARGET).max(asked);
        let media = min_request >= MEDIA_MIN_REQUEST;
        let usual = if media { raised(MEDIA_FACTOR) } else { asked };
        // A queue that need not be raised is an AudioContext's, whose page is told when it is heard.
        let lead = if usual > asked { MEDIA_LEAD } else { Duration::ZERO };
        let min_request = min_request.clamp(1, usual / 2);
        Self {
            target: usual,
            // Twice the smallest request is one buffer of Chromium's: a request per buffer, none in vain.
            chunk: (min_request * 2).clamp(MIN_CHUNK, usual / 3),
            min_request,
            lead,
            usual,
            grown: raised(if media { MEDIA_FACTOR } else { 2 }),
            underruns: 0,
            calm: 0,
        }
    }

    /// The stream was heard for so many frames.
    pub(super) fn played(&mut self, frames: usize) {
        self.calm = self.calm.saturating_add(frames);
        if self.calm >= CALM {
            self.target = self.usual;
        }
    }

    /// The stream ran dry.
    pub(super) fn ran_dry(&mut self) {
        self.underruns = if self.calm < SOON { self.underruns + 1 } else { 1 };
        self.calm = 0;
        if self.underruns >= GROW_AFTER {
            self.target = self.grown;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulseaudio::protocol::{SampleFormat, SampleSpec};

    fn cushion(target: u32, min_request: u32) -> Cushion {
        let spec = SampleSpec { format: SampleFormat::Float32Le, channels: 2, sample_rate: 48_000 };
        let bytes = |frames: u32| frames.saturating_mul(8);
        let wish = BufferAttr {
            target_length: bytes(target),
            minimum_request_length: bytes(min_request),
            ..Default::default()
        };
        Cushion::new(Format::new(&spec).unwrap(), &wish)
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
            (u32::MAX, u32::MAX, MEDIA_TARGET), // no wish
        ] {
            let cushion = cushion(asked, min_request);
            assert_eq!(cushion.target, given, "{asked}/{min_request}");
            assert_eq!(cushion.lead, if asked == 3072 { MEDIA_LEAD } else { Duration::ZERO }, "{asked}/{min_request}");
            assert!(cushion.chunk >= MIN_CHUNK && cushion.chunk * 3 <= cushion.target);
        }
    }

    #[test]
    fn a_live_queue_that_keeps_running_dry_doubles_and_comes_back_when_all_is_calm() {
        let mut live = cushion(1536, 256);
        let mut media = cushion(3072, 512);
        for _ in 0..10 {
            live.played(SOON);
            live.ran_dry();
            assert_eq!(live.target, 1536, "an underrun now and then changes nothing");
        }
        for expected in [1536, 3072, 3072, 3072] {
            live.played(SOON - 1);
            live.ran_dry();
            media.ran_dry();
            assert_eq!((live.target, media.target), (expected, 12_288));
        }
        live.played(CALM - 1);
        assert_eq!(live.target, 3072);
        live.played(1);
        assert_eq!(live.target, 1536);
    }
}
