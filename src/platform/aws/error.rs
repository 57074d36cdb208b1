//! What a failed call means to a caller of the ports: its kind, and words that say what to do.

use std::error::Error;
use std::io;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::platform::{StoreError, StoreErrorKind};

/// Codes that refuse a call because of too many others: nothing happened.
const THROTTLES: [&str; 13] = [
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "Throttling",
    "ThrottledException",
    "ThrottlingException",
    "TooManyRequests",
    "TooManyRequestsException",
];
/// Codes that blame the request although it was damaged or cut off on its way.
const DAMAGED: [&str; 4] = ["BadDigest", "IncompleteBody", "RequestTimeout", "XAmzContentSHA256Mismatch"];

/// Whether a code says that nothing happened because of too many other calls.
pub(super) fn is_throttle(code: &str) -> bool {
    THROTTLES.contains(&code)
}

/// A failed call on an object.
pub(super) fn failed<E>(op: &'static str, key: &str, error: SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let kind = kind_of(&error);
    StoreError { op, key: key.to_owned(), kind, source: io::Error::other(words(&error, kind)) }
}

/// A failure that we found ourselves.
pub(super) fn own(op: &'static str, key: &str, kind: StoreErrorKind, reason: impl Into<String>) -> StoreError {
    StoreError { op, key: key.escape_debug().to_string(), kind, source: io::Error::other(reason.into()) }
}

/// The kind of a failed call.
pub(super) fn kind_of<E: ProvideErrorMetadata>(error: &SdkError<E>) -> StoreErrorKind {
    match error {
        // Before anything is sent: a parameter that the service's own rules refuse.
        SdkError::ConstructionFailure(_) => StoreErrorKind::Refused,
        SdkError::ServiceError(_) => match (status(error), error.code()) {
            (_, Some(code)) if is_throttle(code) => StoreErrorKind::Throttled,
            (429, _) => StoreErrorKind::Throttled,
            (_, Some(code)) if DAMAGED.contains(&code) => StoreErrorKind::Unavailable,
            // It is the configuration that names what is not there.
            (_, Some("NoSuchBucket")) => StoreErrorKind::Refused,
            (404, _) => StoreErrorKind::NotFound,
            (408 | 409, _) => StoreErrorKind::Unavailable,
            // A redirection means another region than the configured one.
            (300..500, _) => StoreErrorKind::Refused,
            _ => StoreErrorKind::Unavailable,
        },
        // Credentials that cannot be had, connections, limits of time, answers that make no sense.
        _ => StoreErrorKind::Unavailable,
    }
}

/// The answer's HTTP status; 0 where there was none.
pub(super) fn status<E>(error: &SdkError<E>) -> u16 {
    error.raw_response().map_or(0, |r| r.status().as_u16())
}

fn words<E>(error: &SdkError<E>, kind: StoreErrorKind) -> String
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let SdkError::ServiceError(service) = error else { return chain(error) };
    let headers = service.raw().headers();
    let request = headers.get("x-amz-request-id").or_else(|| headers.get("x-amzn-requestid")).unwrap_or("unknown");
    let advice = match (kind, status(error)) {
        _ if error.code() == Some("RecursiveInvocationException") => "; set the function's RecursiveLoop to Allow",
        (StoreErrorKind::Throttled, _) => "; try again later",
        (StoreErrorKind::Refused, 401 | 403) => "; check the credentials and what their role permits",
        (StoreErrorKind::Refused, _) => "; check the configuration",
        _ => "",
    };
    format!(
        "{}: {} (HTTP {}, request {request}){advice}",
        error.code().unwrap_or("no code"),
        error.message().unwrap_or("no message"),
        status(error),
    )
}

/// An error and what it came from, without the SDK's inner structure.
fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        words.push_str(": ");
        words.push_str(&cause.to_string());
        next = cause.source();
    }
    words
}
