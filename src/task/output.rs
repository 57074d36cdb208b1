//! `Output.Video`: what is made of a recording.

use serde::{Deserialize, Serialize};

/// `Muxer`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Muxer {
    /// One MP4 file.
    #[default]
    #[serde(rename = "mp4")]
    Mp4,
    /// HLS: a playlist and segments.
    #[serde(rename = "hls")]
    Hls,
    /// Both, of one encoding.
    #[serde(rename = "mp4,hls")]
    Both,
}

impl Muxer {
    /// There is an MP4.
    pub fn mp4(self) -> bool {
        self != Self::Hls
    }

    /// There is HLS.
    pub fn hls(self) -> bool {
        self != Self::Mp4
    }
}

/// `Poster` and `ThumbnailInterval`: pictures beside the recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pictures {
    /// Seconds from one thumbnail to the next; only the poster if absent.
    #[serde(default)]
    pub interval_seconds: Option<u32>,
}

/// What there is to see of a task while it runs: keys of objects beside the recording.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// The growing playlist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub playlist: Option<String>,
    /// The newest picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
}

impl Preview {
    /// There is nothing to see.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An AES-128 key. It is never shown.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub [u8; 16]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// `EncryptKey`, `EncryptIv` and `AuthUrl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// `EncryptKey`.
    pub key: Key,
    /// `EncryptIv`; the media sequence number if absent.
    #[serde(default)]
    pub iv: Option<[u8; 16]>,
    /// `AuthUrl`: where players find the key.
    pub auth_url: String,
}
