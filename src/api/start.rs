//! `Start`: the parameters of the wire contract into an [`Order`].

use url::Url;

use super::error::ApiError;
use super::fields::Fields;
use super::vod;
use crate::platform::key;
use crate::task::order::{DEFAULT_LIMIT_SECONDS, MAX_LIMIT_SECONDS, Order, StorageType, Target, VodOrder};
use crate::task::output::Pictures;
use crate::task::spec::{Bitrates, MAX_SIDE, Size, record_url};
use crate::task::status::Status;
use crate::task::timeline::FrameRate;

/// Longest address that is taken: browsers and proxies take no more.
const MAX_URL: usize = 8192;
/// Longest free text.
const MAX_TEXT: usize = 512;
/// Longest `ClientToken`.
pub const MAX_TOKEN: usize = 64;
/// Longest `ReadyTimeout`, seconds: nothing waits longer than a recording may last.
const MAX_READY_SECONDS: u32 = MAX_LIMIT_SECONDS;

/// `ThumbnailInterval`, seconds: a segment at least, as nobody finds more places to seek to.
const MIN_THUMBNAIL_SECONDS: u32 = 2;
const MAX_THUMBNAIL_SECONDS: u32 = 3600;

/// What this deployment adds to the contract's bounds.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// Largest `MaxDurationLimit`, seconds.
    pub max_limit_seconds: u32,
    /// A file system is mounted.
    pub mounted: bool,
    /// There are keys of the video-on-demand service.
    pub vod: bool,
}

/// The order in a Start's `Data`.
pub fn order(data: &Fields, defaults: Defaults) -> Result<Order, ApiError> {
    data.only(&[
        "RecordURL",
        "ManualStart",
        "ReadyTimeout",
        "Width",
        "Height",
        "CallbackURL",
        "CallbackEvents",
        "MaxDurationLimit",
        "StorageType",
        "Output",
        "ClientToken",
        "Headers",
        "PageTitle",
    ])?;
    let url = data.needed("RecordURL", "the page to record, like https://example.com/class")?;
    let output = data.object("Output")?;
    output.only(&["Cos", "Vod", "Video"])?;
    let size = Size::new(side(data, "Width")?, side(data, "Height")?)?;
    let video_fields = output.object("Video")?;
    let (rate, bitrates) = video(&video_fields, size)?;
    let (muxer, encryption) = super::encryption::output(&video_fields)?;
    let vod = vod::order(&output, defaults.vod)?;
    let pictures = pictures(&video_fields, vod.as_ref())?;
    let manual_start = data.flag("ManualStart")?;
    let headers = data.object("Headers")?;
    Ok(Order {
        url: address(data, "RecordURL", url)?,
        manual_start,
        ready_timeout_seconds: data.integer("ReadyTimeout", 0..=MAX_READY_SECONDS)?.unwrap_or(0),
        size,
        rate,
        bitrates,
        limit_seconds: limit(data, defaults)?,
        storage: storage(data, defaults)?,
        target: target(&output.object("Cos")?)?,
        vod,
        muxer,
        encryption,
        pictures,
        callback_url: match data.string("CallbackURL")? {
            Some(url) => Some(address(data, "CallbackURL", url)?),
            None => None,
        },
        callback_events: events(data)?,
        user_agent: headers.text("UserAgent", MAX_TEXT)?.map(Into::into),
        page_title: data.text("PageTitle", MAX_TEXT)?.map(Into::into),
    })
}

fn side(data: &Fields, field: &str) -> Result<u32, ApiError> {
    Ok(data.integer(field, 0..=MAX_SIDE)?.unwrap_or(0))
}

pub(super) fn address(data: &Fields, field: &str, text: &str) -> Result<String, ApiError> {
    if text.len() > MAX_URL {
        return Err(data.refuse(field, format!("{} bytes; at most {MAX_URL} are allowed", text.len())));
    }
    // The same rules for every address of the caller's; the name of the field is the one that was asked about.
    match record_url(text) {
        Ok(url) => Ok(Url::into(url)),
        Err(error) => Err(data.refuse(field, error.reason)),
    }
}

fn limit(data: &Fields, defaults: Defaults) -> Result<u32, ApiError> {
    let max = defaults.max_limit_seconds.min(MAX_LIMIT_SECONDS);
    Ok(match data.integer("MaxDurationLimit", 0..=max)? {
        None | Some(0) => DEFAULT_LIMIT_SECONDS.min(max),
        Some(seconds) => seconds,
    })
}

fn storage(data: &Fields, defaults: Defaults) -> Result<Option<StorageType>, ApiError> {
    match data.string("StorageType")? {
        None => Ok(None),
        Some("cos") => Ok(Some(StorageType::Cos)),
        Some("cfs") if defaults.mounted => Ok(Some(StorageType::Cfs)),
        Some("cfs") => {
            Err(data.refuse("StorageType", "cfs needs a mounted file system and none is configured; use cos"))
        }
        Some(other) => Err(data.refuse("StorageType", format!("`{}` is neither cos nor cfs", other.escape_debug()))),
    }
}

fn events(data: &Fields) -> Result<Vec<Status>, ApiError> {
    let words = data.strings("CallbackEvents", Status::ALL.len())?;
    if !words.is_empty() && data.string("CallbackURL")?.is_none() {
        return Err(data.refuse("CallbackEvents", "nobody to call; give CallbackURL too"));
    }
    words.iter().map(|word| status(data, word)).collect()
}

fn status(data: &Fields, word: &str) -> Result<Status, ApiError> {
    let known = || Status::ALL.map(Status::word).join(", ");
    let found = Status::ALL.into_iter().find(|s| s.word() == word);
    found.ok_or_else(|| data.refuse("CallbackEvents", format!("`{}` is not one of {}", word.escape_debug(), known())))
}

fn target(cos: &Fields) -> Result<Target, ApiError> {
    cos.only(&["Domain", "Bucket", "Region", "TargetDir", "TargetName"])?;
    let plain = |field: &str, max: usize, extra: &str| -> Result<Option<String>, ApiError> {
        let Some(text) = cos.text(field, max)? else { return Ok(None) };
        let fits = |c: char| c.is_ascii_alphanumeric() || extra.contains(c);
        if !text.chars().all(fits) || !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(cos.refuse(
                field,
                format!("only letters, digits and `{extra}` are allowed, the first a letter or digit"),
            ));
        }
        Ok(Some(text.to_string()))
    };
    let dir = match cos.string("TargetDir")?.map(|d| d.trim_matches('/')).filter(|d| !d.is_empty()) {
        Some(dir) => Some(key::check(dir).map(|()| dir.to_string()).map_err(|e| cos.refuse("TargetDir", e))?),
        None => None,
    };
    let name = match cos.string("TargetName")? {
        Some(name) if name.contains('/') => {
            return Err(cos.refuse("TargetName", "a name has no slashes; put directories into TargetDir"));
        }
        Some(name) => Some(key::check(name).map(|()| name.to_string()).map_err(|e| cos.refuse("TargetName", e))?),
        None => None,
    };
    Ok(Target {
        domain: plain("Domain", 253, ".-")?,
        bucket: plain("Bucket", 63, ".-")?,
        region: plain("Region", 32, "-")?,
        dir,
        name,
    })
}

/// Pictures lie beside the file in its bucket.
fn pictures(video: &Fields, vod: Option<&VodOrder>) -> Result<Option<Pictures>, ApiError> {
    const INTERVAL: &str = "ThumbnailInterval";
    let interval_seconds = match video.integer(INTERVAL, 0..=MAX_THUMBNAIL_SECONDS)? {
        None | Some(0) => None,
        Some(seconds) if seconds < MIN_THUMBNAIL_SECONDS => {
            let bounds = format!("{MIN_THUMBNAIL_SECONDS} to {MAX_THUMBNAIL_SECONDS}");
            return Err(video.refuse(INTERVAL, format!("{seconds} is not a whole number from {bounds}, or 0 for none")));
        }
        seconds => seconds,
    };
    let poster = video.flag("Poster")?;
    if !poster && interval_seconds.is_none() {
        return Ok(None);
    }
    if vod.is_some_and(|vod| !vod.bucket_too) {
        let field = if poster { "Poster" } else { INTERVAL };
        return Err(video.refuse(field, "pictures go to a bucket; give Output.Cos beside Output.Vod, or leave it out"));
    }
    Ok(Some(Pictures { interval_seconds }))
}

fn video(video: &Fields, size: Size) -> Result<(FrameRate, Bitrates), ApiError> {
    video.only(&[
        "Muxer",
        "EncryptKey",
        "EncryptIv",
        "AuthUrl",
        "FrameRate",
        "Bitrate",
        "AudioBitrate",
        "Poster",
        "ThumbnailInterval",
    ])?;
    let rate = match video.integer("FrameRate", 1..=60)? {
        None => FrameRate::default(),
        Some(fps) => FrameRate::try_from(fps).map_err(|e| video.refuse("FrameRate", e))?,
    };
    let fitting = Bitrates::fitting(size, rate);
    Ok((
        rate,
        Bitrates {
            video_kbit: video.integer("Bitrate", 100..=20_000)?.unwrap_or(fitting.video_kbit),
            audio_kbit: video.integer("AudioBitrate", 32..=320)?.unwrap_or(fitting.audio_kbit),
        },
    ))
}
