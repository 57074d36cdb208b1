//! Telling a caller's server what came of a task: one POST with a JSON body.
//!
//! The answer counts by its status alone and is not read. With a secret the call is signed as Standard Webhooks
//! says (standardwebhooks.com, "Standard Webhooks specification", section "Signature scheme", symmetric).

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use hyper::StatusCode;
use sha2::Sha256;
use url::Url;

use super::web::{Web, WebError};

/// One call, from the name to the answer's status. Servers that take longer are taken for ones that are not there.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Why a call did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum CallbackError {
    /// The name has no address, or none that may be called.
    #[error("{host} has no address that may be called; public ones may, and those that PANOREC_ALLOW_ADDRESS names")]
    Address {
        /// Its name.
        host: String,
    },
    /// No connection, or no answer.
    #[error("{host} was not reached")]
    Web {
        /// Its name.
        host: String,
        /// Why.
        #[source]
        source: WebError,
    },
    /// An answer that is none of success.
    #[error("{host} answered {status}; 200 to 299 are taken as received, redirects are not followed")]
    Status {
        /// Its name.
        host: String,
        /// What it answered.
        status: StatusCode,
    },
    /// It took too long.
    #[error("{host} did not answer within {LIMIT:?}")]
    Late {
        /// Its name.
        host: String,
    },
    /// Not an address that can be called.
    #[error("the address cannot be called")]
    Unfit,
}

impl CallbackError {
    /// The HTTP status of an answer that is none of success.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(status.as_u16()),
            Self::Address { .. } | Self::Web { .. } | Self::Late { .. } | Self::Unfit => None,
        }
    }
}

/// The caller of callbacks.
pub struct Callback {
    secret: Option<Vec<u8>>,
    web: Web,
}

impl Callback {
    /// A caller that signs with `secret`, and trusts whom the system trusts.
    pub fn new(secret: Option<Vec<u8>>) -> Self {
        Self { secret, web: Web::default() }
    }

    /// Makes one call; gives the status that it was taken with. `id` is the same for every try of the same message,
    /// `now` is in unix seconds.
    pub async fn post(
        &self,
        url: &Url,
        id: &str,
        now: u64,
        body: &str,
        permitted: &(dyn Fn(IpAddr) -> bool + Sync),
    ) -> Result<u16, CallbackError> {
        let host = url.host_str().ok_or(CallbackError::Unfit)?.to_string();
        let late = CallbackError::Late { host: host.clone() };
        tokio::time::timeout(LIMIT, self.call(url, &host, id, now, body, permitted)).await.unwrap_or(Err(late))
    }

    async fn call(
        &self,
        url: &Url,
        host: &str,
        id: &str,
        now: u64,
        body: &str,
        permitted: &(dyn Fn(IpAddr) -> bool + Sync),
    ) -> Result<u16, CallbackError> {
        let mut headers = vec![
            ("content-type", "application/json; charset=utf-8".to_string()),
            ("webhook-id", id.to_string()),
            ("webhook-timestamp", now.to_string()),
        ];
        if let Some(secret) = &self.secret {
            headers.push(("webhook-signature", sign(secret, id, now, body)));
        }
        let host = || host.to_string();
        match self.web.post(url, &headers, body, permitted, 0).await {
            Ok((status, _)) if status.is_success() => Ok(status.as_u16()),
            Ok((status, _)) => Err(CallbackError::Status { host: host(), status }),
            Err(WebError::Address) => Err(CallbackError::Address { host: host() }),
            Err(WebError::Unfit) => Err(CallbackError::Unfit),
            Err(source @ (WebError::Connect(_) | WebError::Exchange(_) | WebError::Body)) => {
                Err(CallbackError::Web { host: host(), source })
            }
        }
    }
}

/// `webhook-signature`: `v1,` and base64 of HMAC-SHA256 over id, time stamp and body, joined by dots.
fn sign(secret: &[u8], id: &str, now: u64, body: &str) -> String {
    // Keys of any length will do.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(format!("{id}.{now}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_specification() {
        // The example of the specification's reference libraries.
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
