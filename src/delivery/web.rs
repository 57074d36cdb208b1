//! One HTTP request to somebody else's server: the address that is connected to is checked, not only the name; redirects are
//! not followed, since they would lead elsewhere; what is read of the answer is bounded.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use url::{Position, Url};

/// Longest head of an answer, bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The name has no address, or none that may be called.
    #[error("no address that may be called")]
    Address,
    /// No connection.
    #[error("cannot be reached")]
    Connect(#[from] std::io::Error),
    /// Connected, and no answer.
    #[error("did not answer")]
    Exchange(#[from] hyper::Error),
    /// An answer whose body is longer than what is read, or was cut off.
    #[error("the answer is too long, or was cut off")]
    Body,
    /// Not an address that can be called.
    #[error("the address cannot be called")]
    Unfit,
}

/// Makes requests, and trusts whom the system trusts.
pub struct Web {
    roots: Arc<RootCertStore>,
}

impl Default for Web {
    fn default() -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self { roots: Arc::new(roots) }
    }
}

impl Web {
    /// Posts `body` and reads at most `max_body` bytes of the answer's body; 0: none of it, whatever its length.
    pub async fn post(
        &self,
        url: &Url,
        headers: &[(&str, String)],
        body: &str,
        permitted: &(dyn Fn(IpAddr) -> bool + Sync),
        max_body: usize,
    ) -> Result<(StatusCode, Bytes), WebError> {
        let host = url.host_str().ok_or(WebError::Unfit)?;
        let port = url.port_or_known_default().ok_or(WebError::Unfit)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found: Vec<SocketAddr> = tokio::net::lookup_host((bare, port)).await?.collect();
        let address = found.into_iter().find(|a| permitted(a.ip())).ok_or(WebError::Address)?;
        let stream = TcpStream::connect(address).await?;
        let request = request(url, headers, body)?;
        if url.scheme() != "https" {
            return exchange(stream, request, max_body).await;
        }
        let config = ClientConfig::builder().with_root_certificates(Arc::clone(&self.roots)).with_no_client_auth();
        let name = ServerName::try_from(bare.to_string()).map_err(|_| WebError::Unfit)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        exchange(stream, request, max_body).await
    }
}

fn request(url: &Url, headers: &[(&str, String)], body: &str) -> Result<Request<Full<Bytes>>, WebError> {
    let mut request = Request::post(&url[Position::BeforePath..Position::AfterQuery])
        .header("host", &url[Position::BeforeHost..Position::AfterPort])
        .header("user-agent", concat!("panorec/", env!("CARGO_PKG_VERSION")))
        .header("connection", "close");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).map_err(|_| WebError::Unfit)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
    max_body: usize,
) -> Result<(StatusCode, Bytes), WebError> {
    let (mut sender, connection) = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await?;
    let mut connection = std::pin::pin!(connection);
    let mut over = false;
    let answer = {
        let mut answer = std::pin::pin!(sender.send_request(request));
        loop {
            tokio::select! {
                answer = &mut answer => break answer?,
                ended = &mut connection, if !over => {
                    ended?;
                    over = true;
                }
            }
        }
    };
    let status = answer.status();
    if max_body == 0 {
        return Ok((status, Bytes::new()));
    }
    let body = Limited::new(answer.into_body(), max_body).collect();
    let mut body = std::pin::pin!(body);
    loop {
        tokio::select! {
            body = &mut body => return body.map(|b| (status, b.to_bytes())).map_err(|_| WebError::Body),
            _ = &mut connection, if !over => over = true,
        }
    }
}
