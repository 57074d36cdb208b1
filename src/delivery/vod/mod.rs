//! The video-on-demand service's API: permission for an upload, and the upload's end. The upload itself, between the two, is
//! a matter of stores.
//!
//! Format: Tencent Cloud VOD, server API 2018-07-17, actions `ApplyUpload` and `CommitUpload`; requests are JSON, replies
//! `{"Response": {… | "Error": {Code, Message}, "RequestId"}}`.

pub mod tc3;

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::{Position, Url};

use super::web::{Web, WebError};
use crate::task::order::VodOrder;
use tc3::{Keys, Signing};

/// Where the service is if nothing else is said.
pub const ENDPOINT: &str = "https://vod.tencentcloudapi.com/";
const VERSION: &str = "2018-07-17";
const CONTENT_TYPE: &str = "application/json; charset=utf-8";
/// One call.
const LIMIT: Duration = Duration::from_secs(15);
/// Longest answer that is read: real ones have 2 KB.
const MAX_ANSWER: usize = 64 * 1024;
/// Longest text of the service's that is passed on, characters.
const MAX_MESSAGE: usize = 500;

/// Why the service did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum VodError {
    /// No answer.
    #[error("the VOD service was not reached ({action})")]
    Web {
        /// What was asked.
        action: &'static str,
        /// Why.
        #[source]
        source: WebError,
    },
    /// No answer in time.
    #[error("the VOD service did not answer within {LIMIT:?} ({action})")]
    Late {
        /// What was asked.
        action: &'static str,
    },
    /// An answer that is none of the service's.
    #[error("the VOD service answered {status} and nothing that can be read ({action})")]
    Unreadable {
        /// What was asked.
        action: &'static str,
        /// HTTP status.
        status: u16,
    },
    /// It refuses.
    #[error("{code}: {message} ({action})")]
    Refused {
        /// What was asked.
        action: &'static str,
        /// Its code.
        code: String,
        /// Its words.
        message: String,
    },
}

impl VodError {
    /// The same call may go well a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Web { source, .. } => !matches!(source, WebError::Unfit),
            Self::Late { .. } => true,
            Self::Unreadable { status, .. } => *status >= 500 || *status == 429,
            Self::Refused { code, .. } => {
                let class = code.split('.').next().unwrap_or_default();
                matches!(class, "InternalError" | "RequestLimitExceeded" | "ServiceUnavailable")
            }
        }
    }
}

/// Permission for one upload.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Grant {
    /// Bucket to put to.
    pub storage_bucket: String,
    /// Its region.
    pub storage_region: String,
    /// Key to put to; with a slash before it or without.
    pub media_storage_path: String,
    /// What the end of the upload is said with.
    pub vod_session_key: String,
    /// Who puts.
    pub temp_certificate: Certificate,
}

/// Credentials for one upload.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Certificate {
    /// Name of the key.
    pub secret_id: String,
    /// The key.
    pub secret_key: String,
    /// Its proof.
    pub token: String,
    /// Until when, unix seconds.
    pub expired_time: u64,
}

/// What became of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Asset {
    /// Its id.
    pub file_id: String,
    /// Where it plays.
    pub media_url: String,
}

/// A client of the service.
pub struct VodClient {
    web: Web,
    endpoint: Url,
    keys: Keys,
}

impl VodClient {
    /// A client that signs with `keys`.
    pub fn new(endpoint: Url, keys: Keys) -> Self {
        Self { web: Web::default(), endpoint, keys }
    }

    /// Asks for permission to upload one file of a type like `mp4`. `now`: unix seconds.
    pub async fn apply(&self, order: &VodOrder, media_type: &str, now: u64) -> Result<Grant, VodError> {
        let mut body = json!({ "MediaType": media_type });
        let texts = [
            ("MediaName", &order.media_name),
            ("ExpireTime", &order.expire_time),
            ("StorageRegion", &order.storage_region),
            ("SourceContext", &order.source_context),
            ("Procedure", &order.procedure),
            ("SessionContext", &order.session_context),
        ];
        for (name, text) in texts.into_iter().filter_map(|(n, t)| Some((n, t.as_ref()?))) {
            body[name] = text.as_str().into();
        }
        if let Some(class) = order.class_id {
            body["ClassId"] = class.into();
        }
        self.call("ApplyUpload", body, order.sub_app_id, now).await
    }

    /// Says that the file is there.
    pub async fn commit(&self, session: &str, sub_app_id: Option<u64>, now: u64) -> Result<Asset, VodError> {
        self.call("CommitUpload", json!({ "VodSessionKey": session }), sub_app_id, now).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        action: &'static str,
        mut body: Value,
        sub_app_id: Option<u64>,
        now: u64,
    ) -> Result<T, VodError> {
        if let Some(id) = sub_app_id {
            body["SubAppId"] = id.into();
        }
        let body = body.to_string();
        let host = &self.endpoint[Position::BeforeHost..Position::AfterPort];
        let timestamp = now.cast_signed();
        let signing = Signing { service: "vod", host, content_type: CONTENT_TYPE, timestamp, body: &body };
        let headers = [
            ("content-type", CONTENT_TYPE.to_string()),
            ("x-tc-action", action.to_string()),
            ("x-tc-version", VERSION.to_string()),
            ("x-tc-timestamp", timestamp.to_string()),
            ("authorization", signing.authorization(&self.keys)),
        ];
        // Whoever runs this has named the endpoint: no address is refused.
        let answer = self.web.post(&self.endpoint, &headers, &body, &|_| true, MAX_ANSWER);
        let answer = tokio::time::timeout(LIMIT, answer).await.map_err(|_| VodError::Late { action })?;
        let (status, bytes) = answer.map_err(|source| VodError::Web { action, source })?;
        read(action, status.as_u16(), &bytes)
    }
}

fn read<T: DeserializeOwned>(action: &'static str, status: u16, bytes: &[u8]) -> Result<T, VodError> {
    let unreadable = || VodError::Unreadable { action, status };
    let mut answer: Value = serde_json::from_slice(bytes).map_err(|_| unreadable())?;
    let response = answer["Response"].take();
    if let Some(error) = response.get("Error") {
        let text =
            |name: &str| -> String { error[name].as_str().unwrap_or("unknown").chars().take(MAX_MESSAGE).collect() };
        return Err(VodError::Refused { action, code: text("Code"), message: text("Message") });
    }
    serde_json::from_value(response).map_err(|_| unreadable())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_keep_the_services_code_and_only_some_are_worth_another_try() {
        for (code, transient) in [
            ("InternalError.Time", true),
            ("RequestLimitExceeded", true),
            ("AuthFailure.SignatureFailure", false),
            ("InvalidParameterValue.ClassId", false),
        ] {
            let body = json!({"Response": {"Error": {"Code": code, "Message": "no"}, "RequestId": "r"}}).to_string();
            let error = read::<Asset>("CommitUpload", 200, body.as_bytes()).unwrap_err();
            assert_eq!((error.to_string(), error.is_transient()), (format!("{code}: no (CommitUpload)"), transient));
        }
        let proxy = read::<Asset>("CommitUpload", 502, b"<html>").unwrap_err();
        assert!(proxy.is_transient() && proxy.to_string().contains("502"), "{proxy}");
        let short = read::<Asset>("CommitUpload", 200, br#"{"Response": {"FileId": "7"}}"#).unwrap_err();
        assert!(!short.is_transient(), "{short}");
    }
}
