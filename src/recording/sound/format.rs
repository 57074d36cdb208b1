//! How a client's bytes become samples.

use pulseaudio::protocol::{SampleFormat, SampleSpec};

/// Samples beyond this are cut on arrival, so that no sum of streams can become infinite. Far above what is heard: the
/// mix is clipped to ±1.
const SAMPLE_LIMIT: f32 = 16.0;

/// Sample rate of every stream; nothing is resampled.
pub(super) const RATE: u32 = crate::task::timeline::SAMPLE_RATE as u32;

/// How a client's bytes are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    float: bool,
    /// 1 or 2.
    pub(super) channels: usize,
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

    /// The samples in whole frames of bytes; what is no number becomes silence.
    pub(super) fn samples(self, frames: &[u8]) -> impl Iterator<Item = f32> {
        frames.chunks_exact(self.sample_bytes()).map(|bytes| match *bytes {
            [a, b, c, d] => {
                let x = f32::from_le_bytes([a, b, c, d]);
                if x.is_nan() { 0.0 } else { x.clamp(-SAMPLE_LIMIT, SAMPLE_LIMIT) }
            }
            [a, b] => f32::from(i16::from_le_bytes([a, b])) / 32_768.0,
            _ => 0.0,
        })
    }
}
