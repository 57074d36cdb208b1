//! What a caller ordered with Start: every parameter of the wire contract, validated, as it is stored with the task.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::output::{Encryption, Muxer, Pictures};
use super::spec::{Bitrates, RecordingSpec, Size, record_url};
use super::status::Status;
use super::timeline::FrameRate;

/// `MaxDurationLimit` if none is given, seconds.
pub const DEFAULT_LIMIT_SECONDS: u32 = 21_600;
/// Largest `MaxDurationLimit`, seconds.
pub const MAX_LIMIT_SECONDS: u32 = 36_000;

/// Where intermediate chunks go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageType {
    /// The object store.
    Cos,
    /// A mounted file system.
    Cfs,
}

/// `Output.Cos`: where the file goes. What is absent follows from settings and task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Target {
    /// Playback domain in `FileURL`.
    pub domain: Option<String>,
    /// Bucket.
    pub bucket: Option<String>,
    /// Its region.
    pub region: Option<String>,
    /// Directory; the task's id if absent.
    pub dir: Option<String>,
    /// File name without directories; the stop time in unix milliseconds if absent.
    pub name: Option<String>,
}

impl Target {
    /// The name without an extension of ours: each kind of file gets its own.
    pub fn stem(&self) -> Option<&str> {
        let name = self.name.as_deref()?;
        [".mp4", ".m3u8"].iter().find_map(|end| name.strip_suffix(end)).or(Some(name))
    }
}

/// `Output.Vod`: an asset of the video-on-demand service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VodOrder {
    /// `MediaName`.
    pub media_name: Option<String>,
    /// `ExpireTime`, ISO 8601.
    pub expire_time: Option<String>,
    /// `StorageRegion`.
    pub storage_region: Option<String>,
    /// `ClassId`.
    pub class_id: Option<u32>,
    /// `SourceContext`.
    pub source_context: Option<String>,
    /// `Procedure`.
    pub procedure: Option<String>,
    /// `SessionContext`.
    pub session_context: Option<String>,
    /// `SubAppId`.
    pub sub_app_id: Option<u64>,
    /// The bucket gets the file too: `Output.Cos` was given as well.
    pub bucket_too: bool,
}

/// What was ordered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// `RecordURL`.
    pub url: String,
    /// `ManualStart`.
    #[serde(default)]
    pub manual_start: bool,
    /// `ReadyTimeout`, seconds; 0 is none.
    #[serde(default)]
    pub ready_timeout_seconds: u32,
    /// `Width` and `Height`.
    pub size: Size,
    /// `Video.FrameRate`.
    pub rate: FrameRate,
    /// `Video.Bitrate` and `AudioBitrate`.
    pub bitrates: Bitrates,
    /// `MaxDurationLimit`, seconds.
    pub limit_seconds: u32,
    /// `StorageType`; what is configured if absent.
    #[serde(default)]
    pub storage: Option<StorageType>,
    /// `Output.Cos`.
    #[serde(default)]
    pub target: Target,
    /// `Output.Vod`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vod: Option<VodOrder>,
    /// `Video.Muxer`.
    #[serde(default)]
    pub muxer: Muxer,
    /// `Video.EncryptKey` and what belongs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// `Video.Poster` and `ThumbnailInterval`; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pictures: Option<Pictures>,
    /// `CallbackURL`.
    #[serde(default)]
    pub callback_url: Option<String>,
    /// `CallbackEvents`: statuses that are announced beside the result.
    #[serde(default)]
    pub callback_events: Vec<Status>,
    /// `Headers.UserAgent`.
    #[serde(default)]
    pub user_agent: Option<String>,
    /// `PageTitle`, informational.
    #[serde(default)]
    pub page_title: Option<String>,
}

impl Order {
    /// A page with every other parameter left out.
    pub fn of(url: &str) -> Self {
        let (size, rate) = (Size::default(), FrameRate::default());
        Self {
            url: url.into(),
            manual_start: false,
            ready_timeout_seconds: 0,
            size,
            rate,
            bitrates: Bitrates::fitting(size, rate),
            limit_seconds: DEFAULT_LIMIT_SECONDS,
            storage: None,
            target: Target::default(),
            vod: None,
            muxer: Muxer::default(),
            encryption: None,
            pictures: None,
            callback_url: None,
            callback_events: Vec::new(),
            user_agent: None,
            page_title: None,
        }
    }

    /// An MP4 belongs into the bucket.
    pub fn in_bucket(&self) -> bool {
        self.muxer.mp4() && self.has_bucket()
    }

    /// HLS belongs into the bucket.
    pub fn hls_in_bucket(&self) -> bool {
        self.muxer.hls() && self.has_bucket()
    }

    fn has_bucket(&self) -> bool {
        self.vod.as_ref().is_none_or(|vod| vod.bucket_too)
    }

    /// What the recorder has to do, with the addresses that this deployment allows.
    pub fn recording(&self, allow_addresses: &[ipnet::IpNet]) -> Result<RecordingSpec, super::spec::InvalidParam> {
        Ok(RecordingSpec {
            url: record_url(&self.url)?,
            size: self.size,
            rate: self.rate,
            bitrates: self.bitrates,
            manual_start: self.manual_start,
            ready_timeout: (self.ready_timeout_seconds > 0)
                .then(|| Duration::from_secs(self.ready_timeout_seconds.into())),
            max_duration: Some(Duration::from_secs(self.limit_seconds.into())),
            user_agent: self.user_agent.clone(),
            allow_addresses: allow_addresses.to_vec(),
        })
    }
}
