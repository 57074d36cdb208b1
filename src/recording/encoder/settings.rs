//! FFmpeg's command line, and why it is what it is.
//!
//! Picture: quality-targeted under the ceiling, with the least CPU whose SSIM stays within 0.003 of the recipe that
//! others use (x264 veryfast at a fixed 2500 kbit/s). One run of `tests/bench/encoder.py` (three rounds, FFmpeg n8.1.2,
//! a busy 2-core machine) on one capture of 10 s per page, 1280×720 at 30 fps; CPU of FFmpeg as a ratio to veryfast,
//! and the difference in SSIM:
//!
//! | settings | class | noisy camera | animation | three videos | zoom and blur | scrolling text |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | these | 0.44, −.0006 | 0.52, −.0026 | 0.42, −.0002 | 0.39, −.0004 | 0.37, −.0020 | 0.42, −.0002 |
//! | ultrafast, same ceiling | 0.42, −.0007 | 0.40, **−.0062** | 0.39, −.0002 | 0.39, −.0005 | 0.34, **−.0038** | 0.38, −.0009 |
//! | superfast, 2500 kbit/s | 0.70, −.0001 | 0.64, **−.0034** | 0.65, −.0000 | 0.60, −.0002 | 0.55, −.0012 | 0.62, −.0021 |
//!
//! What ultrafast lacks where the ceiling is met is bits. CABAC (+.0027 on the noise for a quarter more CPU there, much
//! less elsewhere) and 4×4 intra blocks (+.0006) give them back, and so do smaller QP steps (+.0002); `dct-decimate=0`
//! saves a little CPU. Tried and left out because what they gave on one page they took on another, or cost more than they
//! gave: deblocking (+.001 on the zoom, −.001 on the noise, 5 to 8 % CPU), half-pixel motion (20 to 25 % CPU), 8×8
//! transforms, weighted prediction, adaptive quantisation, chroma offsets, more references, a target rate with a least QP.
//! Look-ahead (and with it macroblock trees) would hold pictures back, for seconds on a still page. A constant QP saves
//! a fifth but has no ceiling.
//!
//! Sound: the default coder, from [`PLAIN_STEREO_KBIT`] on without M/S stereo, whose search is half of its CPU: 0.020 instead of
//! 0.035 core on the class's voice at 128 kbit/s (FFmpeg 7.0.2, best of three). Silence costs 0.003 to 0.004 core. The coder
//! `fast` costs as much on that tone and a third on recorded speech (0.010 core instead of 0.033) and music, and is as good on the
//! speech (ViSQOL 4.73 and 4.70 at 128 kbit/s, 4.72 and 4.64 at 64), but not on music: 4.25 and 4.55 instead of 4.57 and 4.57 on two
//! pieces at 128 kbit/s, 2.1 and 2.8 instead of 3.3 and 3.8 at 64.

use super::EncoderConfig;
use crate::task::timeline::{SAMPLE_RATE, VIDEO_TIMESCALE};
use std::ffi::OsString;

/// The descriptor on which the child reads sound.
pub(super) const SOUND_FD: i32 = 3;

/// From here on each channel has 64 kbit/s of its own, enough for AAC-LC without what M/S stereo would save.
const PLAIN_STEREO_KBIT: u32 = 128;

/// Arguments of the child.
pub(super) fn arguments(config: &EncoderConfig) -> Vec<OsString> {
    let rate = config.rate;
    let fps = rate.per_second();
    // Half a slot of slack: the comparison is in floating point.
    let keyframes = format!("expr:gte(t+{},n_forced*{}/{SAMPLE_RATE})", 0.5 / f64::from(fps), rate.segment());
    let (ceiling, sound) = (config.bitrates.video_kbit, config.bitrates.audio_kbit);
    let x264 = "keyint=infinite:vbv-init=0.6:qpstep=3:cabac=1:analyse=i4x4:dct-decimate=0:sliced-threads=1";
    let words = [
        "-hide_banner -nostdin -nostats -loglevel error",
        // Sizes and formats are known: nothing is probed. As input options the colours are labels; as output
        // options they would make FFmpeg convert every picture through RGB.
        "-probesize 32 -fpsprobesize 0 -analyzeduration 0",
        "-color_range tv -colorspace bt709 -color_primaries bt709 -color_trc bt709",
        "-f ivf -i pipe:0",
        &format!("-probesize 32 -analyzeduration 0 -f s16le -ar {SAMPLE_RATE} -ch_layout stereo -i pipe:{SOUND_FD}"),
        "-map 0:v -map 1:a -map_metadata -1",
        &format!("-fps_mode passthrough -enc_time_base:v 1:{VIDEO_TIMESCALE}"),
        "-c:v libx264 -preset ultrafast -bf 0 -sc_threshold 0 -forced-idr 1",
        &format!("-threads {}", threads(config)),
        &format!("-crf 24 -maxrate {ceiling}k -bufsize {}k", 3 * ceiling),
        &format!("-x264-params fps={fps}:{x264} -force_key_frames {keyframes}"),
        &format!("-c:a aac -b:a {sound}k{}", if sound >= PLAIN_STEREO_KBIT { " -aac_ms 0" } else { "" }),
        &format!("-video_track_timescale {VIDEO_TIMESCALE}"),
        // A segment can be stored once the fragment behind its end is out: until then a crash takes all of it.
        "-movflags +delay_moov+default_base_moof -frag_duration 100000 -f mp4 pipe:1",
    ];
    words.iter().flat_map(|w| w.split(' ')).map(OsString::from).collect()
}

/// One thread per 110 million pixels a second (2560×1440 at 30), which keeps one core half busy. Slices, not whole
/// pictures, are shared out: a picture that is kept until the next one comes would wait for a second on a still page.
fn threads(config: &EncoderConfig) -> u64 {
    const PIXELS_PER_THREAD: u64 = 110_592_000;
    let pixels = u64::from(config.size.width) * u64::from(config.size.height) * u64::from(config.rate.per_second());
    pixels.div_ceil(PIXELS_PER_THREAD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::spec::{Bitrates, Size};
    use crate::task::timeline::FrameRate;

    fn config(width: u32, height: u32, fps: u32) -> EncoderConfig {
        let (size, rate) = (Size::new(width, height).unwrap(), FrameRate::try_from(fps).unwrap());
        let bitrates = Bitrates::new(Some(2500), Some(96), size, rate).unwrap();
        EncoderConfig { ffmpeg: "ffmpeg".into(), size, rate, bitrates, start: 0 }
    }

    #[test]
    fn threads_follow_the_pixels() {
        for (width, height, fps, expected) in
            [(1280, 720, 30, 1), (1280, 720, 60, 1), (1920, 1080, 60, 2), (2560, 2560, 30, 2), (2560, 2560, 60, 4)]
        {
            assert_eq!(threads(&config(width, height, fps)), expected, "{width}x{height} at {fps}");
        }
    }

    #[test]
    fn the_ceiling_and_the_grid_reach_ffmpeg() {
        let words: Vec<String> =
            arguments(&config(1280, 720, 25)).into_iter().map(|w| w.into_string().unwrap()).collect();
        let after = |name: &str| &words[words.iter().position(|w| w == name).unwrap() + 1];
        assert_eq!(
            (after("-maxrate"), after("-bufsize"), after("-b:a")),
            (&"2500k".into(), &"7500k".into(), &"96k".into())
        );
        assert_eq!(after("-force_key_frames"), "expr:gte(t+0.02,n_forced*76800/48000)");
        assert!(words.iter().all(|w| !w.is_empty()));
    }
}
