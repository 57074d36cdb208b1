//! What comes of a task.

use serde::{Deserialize, Serialize};

use crate::task::failure::Failure;
use crate::task::loan::Lent;
use crate::task::quality::Quality;

/// A file that is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Video {
    /// Its name without directories.
    pub filename: String,
    /// Bytes.
    pub file_size: u64,
    /// Where it can be fetched.
    #[serde(rename = "FileURL")]
    pub file_url: String,
    /// Seconds.
    pub file_duration: f64,
    /// Its id, where it is an asset of the video-on-demand service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_id: Option<String>,
    /// Its poster, if there is one.
    #[serde(default, rename = "PosterURL", skip_serializing_if = "Option::is_none")]
    pub poster_url: Option<String>,
    /// The index of its thumbnails, if there are any.
    #[serde(default, rename = "ThumbnailsURL", skip_serializing_if = "Option::is_none")]
    pub thumbnails_url: Option<String>,
}

/// Uploads to the video-on-demand service: one asset after the other.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VodUpload {
    /// Assets that there are.
    #[serde(default)]
    pub done: u32,
    /// Invocations in a row that left the next one to another with nothing more of it there than before.
    #[serde(default)]
    pub idle: u32,
    /// Where the files of the next one are being put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lent: Option<Lent>,
    /// They are all there, and the service is to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploaded: Option<Uploaded>,
}

/// What is where the service wanted it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Uploaded {
    /// `VodSessionKey`.
    pub session: String,
    /// Until when it is good, unix milliseconds.
    pub expires: u64,
    /// The file's name without directories.
    pub filename: String,
    /// Bytes.
    pub size: u64,
    /// Seconds.
    pub duration: f64,
}

impl std::fmt::Debug for Uploaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uploaded").field("filename", &self.filename).field("size", &self.size).finish_non_exhaustive()
    }
}

/// What came out so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The files.
    #[serde(default)]
    pub videos: Vec<Video>,
    /// What was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
    /// Memory of the function times the time of its recorder invocations, GB·s; 0 where no memory is set.
    #[serde(default)]
    pub billed_gb_seconds: f64,
}
