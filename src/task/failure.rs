//! Why a recording ended otherwise than asked: the codes of `Result.ErrorCode`.

use serde::{Deserialize, Serialize};

/// `Result.ErrorCode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureCode {
    /// The page cannot be opened, or something of ours broke.
    InternalErr,
    /// `startRecord` was not called in time.
    PageNotReady,
    /// The page crashed and relaunching it failed.
    PageCrashed,
    /// Storage or output refused what was recorded.
    UploadFailed,
    /// The video-on-demand service did not take the file; what was recorded is kept.
    VodFailed,
    /// The recorder ended without warning, and nobody could go on.
    RetriesExhausted,
    /// The result could not be announced; what was recorded is there.
    CallbackFailed,
}

/// A code with its explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The code.
    #[serde(rename = "ErrorCode")]
    pub code: FailureCode,
    /// What happened and what to do, for a person.
    #[serde(rename = "ErrorMessage")]
    pub message: String,
}
