//! What the caller asked for, validated once.

use crate::task::timeline::FrameRate;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use thiserror::Error;

/// A value outside its bound. The message names the field, the bound and the way out.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{field}: {reason}")]
pub struct InvalidParam {
    /// Name of the field as the caller wrote it.
    pub field: &'static str,
    /// What is wrong, the bound, and what to do.
    pub reason: String,
}

impl InvalidParam {
    /// A refusal.
    pub fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self { field, reason: reason.into() }
    }
}

/// Default width in pixels.
pub const DEFAULT_WIDTH: u32 = 1280;
/// Default height in pixels.
pub const DEFAULT_HEIGHT: u32 = 720;
/// Largest width or height in pixels.
pub const MAX_SIDE: u32 = 2560;
/// Smallest width or height that Chromium lays a window out in.
pub const MIN_SIDE: u32 = 64;

/// Picture size in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Even.
    pub width: u32,
    /// Even.
    pub height: u32,
}

impl Size {
    /// Checks both sides; 0 means the default.
    pub fn new(width: u32, height: u32) -> Result<Self, InvalidParam> {
        Ok(Self { width: side("Width", width, DEFAULT_WIDTH)?, height: side("Height", height, DEFAULT_HEIGHT)? })
    }
}

fn side(field: &'static str, value: u32, default: u32) -> Result<u32, InvalidParam> {
    match value {
        0 => Ok(default),
        v if v % 2 == 1 => Err(InvalidParam::new(
            field,
            format!("{v} is odd; 4:2:0 video needs even sizes, use {} or {}", v - 1, v + 1),
        )),
        v if !(MIN_SIDE..=MAX_SIDE).contains(&v) => Err(InvalidParam::new(
            field,
            format!("{v} is outside {MIN_SIDE}..={MAX_SIDE}; use 0 for the default of {default}"),
        )),
        v => Ok(v),
    }
}

impl Default for Size {
    fn default() -> Self {
        Self { width: DEFAULT_WIDTH, height: DEFAULT_HEIGHT }
    }
}

/// Bit rates in kbit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bitrates {
    /// Ceiling of the video rate control.
    pub video_kbit: u32,
    /// AAC rate.
    pub audio_kbit: u32,
}

impl Bitrates {
    /// The defaults: 2500 at 1280×720 and 30 fps scaled by pixels and rate, and 128.
    pub fn fitting(size: Size, rate: FrameRate) -> Self {
        let scaled =
            2500.0 * f64::from(size.width * size.height) / (1280.0 * 720.0) * f64::from(rate.per_second()) / 30.0;
        Self { video_kbit: (scaled.round() as u32).clamp(100, 20_000), audio_kbit: 128 }
    }

    /// Checks both; `None` means the default.
    pub fn new(video: Option<u32>, audio: Option<u32>, size: Size, rate: FrameRate) -> Result<Self, InvalidParam> {
        let fitting = Self::fitting(size, rate);
        let video_kbit = video.unwrap_or(fitting.video_kbit);
        let audio_kbit = audio.unwrap_or(fitting.audio_kbit);
        if !(100..=20_000).contains(&video_kbit) {
            return Err(InvalidParam::new(
                "Bitrate",
                format!("{video_kbit} kbit/s is outside 100..=20000; leave it out for a rate that fits the size"),
            ));
        }
        if !(32..=320).contains(&audio_kbit) {
            return Err(InvalidParam::new(
                "AudioBitrate",
                format!("{audio_kbit} kbit/s is outside 32..=320; leave it out for 128"),
            ));
        }
        Ok(Self { video_kbit, audio_kbit })
    }
}

/// Parses a page address: absolute, `http` or `https`, with a host and without credentials in it.
pub fn record_url(text: &str) -> Result<url::Url, InvalidParam> {
    const FIELD: &str = "RecordURL";
    let url = url::Url::parse(text)
        .map_err(|e| InvalidParam::new(FIELD, format!("not an absolute URL ({e}); write it as https://host/path")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(InvalidParam::new(
            FIELD,
            format!("scheme `{}` cannot be opened; only http and https can", url.scheme()),
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(InvalidParam::new(
            FIELD,
            "credentials in the address are not sent by browsers; put a token into the query instead",
        ));
    }
    Ok(url)
}

/// A recording, ready to be made.
#[derive(Debug, Clone)]
pub struct RecordingSpec {
    /// Page to record.
    pub url: url::Url,
    /// Picture size.
    pub size: Size,
    /// Frame rate of the grid.
    pub rate: FrameRate,
    /// Bit rates.
    pub bitrates: Bitrates,
    /// Wait for the page's `startRecord()`.
    pub manual_start: bool,
    /// With `manual_start`: give up after this long.
    pub ready_timeout: Option<Duration>,
    /// Recorded time at which the recording ends as if stopped.
    pub max_duration: Option<Duration>,
    /// User agent override.
    pub user_agent: Option<String>,
    /// Addresses that may be reached although they are not public.
    pub allow_addresses: Vec<ipnet::IpNet>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_name_the_field_the_bound_and_the_way_out() {
        assert_eq!(Size::new(0, 0).unwrap(), Size { width: 1280, height: 720 });
        let odd = Size::new(1281, 0).unwrap_err().to_string();
        assert!(odd.contains("Width") && odd.contains("1280 or 1282"), "{odd}");
        let large = Size::new(0, 2562).unwrap_err().to_string();
        assert!(large.contains("Height") && large.contains("2560"), "{large}");
        assert!(Size::new(2, 720).is_err());
    }

    #[test]
    fn default_bit_rate_scales_with_pixels_and_rate() {
        let rate = FrameRate::try_from(60).unwrap();
        let b = Bitrates::new(None, None, Size::new(0, 0).unwrap(), rate).unwrap();
        assert_eq!((b.video_kbit, b.audio_kbit), (5000, 128));
        let huge = Bitrates::new(None, None, Size::new(2560, 2560).unwrap(), rate).unwrap();
        assert_eq!(huge.video_kbit, 20_000, "the default never leaves the allowed range");
        assert!(Bitrates::new(Some(99), None, Size::new(0, 0).unwrap(), rate).is_err());
    }

    #[test]
    fn only_http_pages_are_recorded() {
        assert!(record_url("https://example.com/a?b=c").is_ok());
        for bad in
            ["file:///etc/passwd", "chrome://version", "example.com", "http://u:p@example.com", "javascript:1", ""]
        {
            assert!(record_url(bad).is_err(), "{bad}");
        }
    }
}
