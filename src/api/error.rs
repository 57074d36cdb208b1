//! The error catalogue and its one map to HTTP. What a caller reads names the field, the bound and the way out; what went
//! wrong inside goes to the log, under the request's id.

use crate::generation::{ChangeError, chain};
use crate::platform::{StoreError, StoreErrorKind};
use crate::task::record::Refused;
use crate::task::spec::InvalidParam;

/// `ErrorCode` of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The request cannot be understood, or a value is outside its bound.
    InvalidParam,
    /// No task has this id.
    UnknownTask,
    /// Not a POST.
    WrongMethod,
    /// The state does not allow the action.
    InvalidStatus,
    /// A `ClientToken` came again with other parameters.
    TokenConflict,
    /// Ours.
    InternalError,
    /// Store or invocation is throttled.
    Throttled,
}

impl Code {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::InvalidParam | Self::UnknownTask | Self::WrongMethod => "InvalidParam",
            Self::InvalidStatus => "InvalidStatus",
            Self::TokenConflict => "TokenConflict",
            Self::InternalError => "InternalError",
            Self::Throttled => "Throttled",
        }
    }

    /// The HTTP status.
    pub fn http(self) -> u16 {
        match self {
            Self::InvalidParam => 400,
            Self::UnknownTask => 404,
            Self::WrongMethod => 405,
            Self::InvalidStatus | Self::TokenConflict => 409,
            Self::InternalError => 500,
            Self::Throttled => 429,
        }
    }
}

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// Its class.
    pub code: Code,
    /// For the caller.
    pub message: String,
}

impl ApiError {
    /// An error with a message for the caller.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A value that is not acceptable.
    pub fn param(field: &str, reason: impl std::fmt::Display) -> Self {
        Self::new(Code::InvalidParam, format!("{field}: {reason}"))
    }

    /// No task has this id.
    pub fn unknown_task(id: &str) -> Self {
        let id = id.escape_debug();
        Self::new(Code::UnknownTask, format!("Data.TaskID: no task `{id}`; use the TaskID that Start answered"))
    }

    fn internal(detail: &str) -> Self {
        tracing::error!(detail, "request failed");
        Self::new(Code::InternalError, "something went wrong on our side; the log has it under this RequestID")
    }
}

impl From<InvalidParam> for ApiError {
    fn from(error: InvalidParam) -> Self {
        Self::new(Code::InvalidParam, format!("Data.{error}"))
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error.kind {
            StoreErrorKind::Throttled => {
                tracing::warn!(error = %chain(&error), "throttled");
                Self::new(Code::Throttled, "too many requests at once; try again in a few seconds")
            }
            StoreErrorKind::NotFound | StoreErrorKind::Full | StoreErrorKind::Refused | StoreErrorKind::Unavailable => {
                Self::internal(&chain(&error))
            }
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Status(_) => Self::new(Code::InvalidStatus, format!("{refused}; Describe tells its status")),
            Refused::TooManyCommands => Self::new(Code::InvalidStatus, refused.to_string()),
            // Only recorders meet these.
            Refused::Leased | Refused::Fenced | Refused::Moved => Self::internal(&refused.to_string()),
        }
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Unknown(id) => Self::unknown_task(&id),
            ChangeError::Refused(refused) => refused.into(),
            ChangeError::Store(error) => error.into(),
            ChangeError::Contended(_) => {
                tracing::warn!(%error, "too many writers");
                Self::new(Code::Throttled, "too many requests for this task at once; try again in a second")
            }
        }
    }
}
