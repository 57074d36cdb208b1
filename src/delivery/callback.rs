//! Telling a caller's server what came of a task: one POST with a JSON body.
//!
//! The address that is connected to is checked, not only the name; redirects are not followed, since they would lead
//! elsewhere; the answer counts by its status alone and is not read. With a secret the call is signed as Standard Webhooks
//! says (standardwebhooks.com, "Standard Webhooks specification", section "Signature scheme", symmetric).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use url::Url;

/// One call, from the name to the answer's status. Servers that take longer are taken for ones that are not there.
const LIMIT: Duration = Duration::from_secs(10);

/// Why a call did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum CallbackError {
    /// The name has no address, or none that may be called.
    #[error("{host} has no address that may be called; public ones may, and those that PANOREC_ALLOW_ADDRESS names")]
    Address {
        /// Its name.
        host: String,
    },
    /// No connection.
    #[error("{host} cannot be reached")]
    Connect {
        /// Its name.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Connected, and no answer.
    #[error("{host} did not answer")]
    Exchange {
        /// Its name.
        host: String,
        /// Why.
        #[source]
        source: hyper::Error,
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

/// The caller of callbacks.
pub struct Callback {
    secret: Option<Vec<u8>>,
    roots: Arc<RootCertStore>,
}

impl Callback {
    /// A caller that signs with `secret`, and trusts whom the system trusts.
    pub fn new(secret: Option<Vec<u8>>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self { secret, roots: Arc::new(roots) }
    }

    /// Makes one call. `id` is the same for every try of the same message, `now` is in unix seconds.
    pub async fn post(
        &self,
        url: &Url,
        id: &str,
        now: u64,
        body: &str,
        permitted: &(dyn Fn(IpAddr) -> bool + Sync),
    ) -> Result<(), CallbackError> {
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
    ) -> Result<(), CallbackError> {
        let failed = |source| CallbackError::Connect { host: host.into(), source };
        let port = url.port_or_known_default().ok_or(CallbackError::Unfit)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found: Vec<SocketAddr> = tokio::net::lookup_host((bare, port)).await.map_err(failed)?.collect();
        let address = found.into_iter().find(|a| permitted(a.ip()));
        let address = address.ok_or_else(|| CallbackError::Address { host: host.into() })?;
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        let request = self.request(url, id, now, body)?;
        let status = if url.scheme() == "https" {
            let config = ClientConfig::builder().with_root_certificates(Arc::clone(&self.roots)).with_no_client_auth();
            let name = ServerName::try_from(bare.to_string()).map_err(|_| CallbackError::Unfit)?;
            let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(failed)?;
            exchange(stream, request).await
        } else {
            exchange(stream, request).await
        };
        match status.map_err(|source| CallbackError::Exchange { host: host.into(), source })? {
            status if status.is_success() => Ok(()),
            status => Err(CallbackError::Status { host: host.into(), status }),
        }
    }

    fn request(&self, url: &Url, id: &str, now: u64, body: &str) -> Result<Request<Full<Bytes>>, CallbackError> {
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let mut request = Request::post(target)
            .header("host", &url[url::Position::BeforeHost..url::Position::AfterPort])
            .header("content-type", "application/json; charset=utf-8")
            .header("user-agent", concat!("panorec/", env!("CARGO_PKG_VERSION")))
            .header("connection", "close")
            .header("webhook-id", id)
            .header("webhook-timestamp", now);
        if let Some(secret) = &self.secret {
            request = request.header("webhook-signature", sign(secret, id, now, body));
        }
        request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).map_err(|_| CallbackError::Unfit)
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<StatusCode, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::select! {
        answer = sender.send_request(request) => answer.map(|a| a.status()),
        Err(error) = connection => Err(error),
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
