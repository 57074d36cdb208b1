//! FFmpeg's command line.

use super::EncoderConfig;
use crate::task::timeline::{SAMPLE_RATE, VIDEO_TIMESCALE};
use std::ffi::OsString;

/// The descriptor on which the child reads sound.
pub(super) const SOUND_FD: i32 = 3;

/// Arguments of the child.
pub(super) fn arguments(config: &EncoderConfig) -> Vec<OsString> {
    let rate = config.rate;
    let fps = rate.per_second();
    // Half a slot of slack: the comparison is in floating point.
    let keyframes = format!("expr:gte(t+{},n_forced*{}/{SAMPLE_RATE})", 0.5 / f64::from(fps), rate.segment());
    let video_kbit = config.bitrates.video_kbit;
    let x264 = format!("fps={fps}:keyint=infinite");
    let words = [
        "-hide_banner -nostdin -nostats -loglevel error",
        // Sizes and formats are known: nothing is probed. As input options the colours are labels; as output
        // options they would make FFmpeg convert every picture through RGB.
        "-probesize 32 -fpsprobesize 0 -analyzeduration 0",
        "-color_range tv -colorspace bt709 -color_primaries bt709 -color_trc bt709",
        "-f ivf -i pipe:0",
        &format!("-f s16le -ar {SAMPLE_RATE} -ch_layout stereo -i pipe:{SOUND_FD}"),
        "-map 0:v -map 1:a -map_metadata -1",
        &format!("-fps_mode passthrough -enc_time_base:v 1:{VIDEO_TIMESCALE}"),
        "-c:v libx264 -preset ultrafast -threads 1 -bf 0 -sc_threshold 0 -forced-idr 1",
        &format!("-crf 23 -maxrate {video_kbit}k -bufsize {}k", 2 * video_kbit),
        &format!("-x264-params {x264} -force_key_frames {keyframes}"),
        &format!("-c:a aac -b:a {}k", config.bitrates.audio_kbit),
        &format!("-video_track_timescale {VIDEO_TIMESCALE}"),
        "-movflags +delay_moov+default_base_moof -frag_duration 500000 -f mp4 pipe:1",
    ];
    words.iter().flat_map(|w| w.split(' ')).map(OsString::from).collect()
}
