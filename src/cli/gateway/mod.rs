//! The HTTP front of a laptop: what API Gateway is in the cloud. Every request becomes an event of payload format 2.0 for
//! the handler, and its answer an HTTP answer; files under `/recordings/` are served as an object store would. It decides
//! nothing about tasks.
//!
//! Who may call: with a token, who sends it; without one, who is on this machine, and then under a name of this machine
//! only, so that no web page can reach us through a name of its own that it points here.

mod answer;
mod event;
mod files;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::platform::Clock;

/// Largest body of a request: HTTP API's bound.
const MAX_BODY_BYTES: usize = 10 << 20;
/// Bytes of a body that is too large which are read for nothing, so that its sender sees the answer instead of a reset.
const MAX_WASTED_BYTES: usize = 4 * MAX_BODY_BYTES;
/// Bodies beyond this are read few at a time; those of the contract have some hundred bytes.
const LARGE_BODY_BYTES: u64 = 1 << 20;
/// Large bodies in memory at once.
const LARGE_BODIES: usize = 4;
/// Longest request line and headers: API Gateway takes 10 KB; more is for those who test its limits.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// Pause after a connection could not be taken, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a host that are believed to be one: names have at most 253.
const MAX_HOST_BYTES: usize = 260;

/// What is bounded, and where.
#[derive(Debug, Clone)]
struct Limits {
    /// Connections at once; more wait in the system's queue. Half of the usual limit of file descriptors. When half of
    /// them are in use, each is closed after its answer, so that those who wait get their turn.
    connections: usize,
    /// For the head of a request, and for the next request on an idle connection.
    head_wait: Duration,
    /// For the body of a request and for the handler, each: HTTP API's bound for the latter. The handler goes on.
    answer_wait: Duration,
    /// For answers under way at the end.
    end_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connections: 512, head_wait: seconds(10), answer_wait: seconds(30), end_wait: seconds(10) }
    }
}

/// What answers events.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Answers one. A panic is answered with 500 and ends nothing else.
    async fn handle(&self, event: serde_json::Value, request_id: &str) -> serde_json::Value;
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The front, before it listens.
pub struct Gateway {
    handler: Arc<dyn Handler>,
    clock: Arc<dyn Clock>,
    recordings: PathBuf,
    token: Option<String>,
    /// Pages of this origin may read recordings.
    origin: Option<HeaderValue>,
    limits: Limits,
    large_bodies: Semaphore,
    /// Handlers at work, those included whose callers have gone.
    working: Arc<Semaphore>,
}

impl Gateway {
    /// A front of `handler`, with the files below `recordings`, which is created if it is not there.
    pub fn new(
        handler: Arc<dyn Handler>,
        clock: Arc<dyn Clock>,
        recordings: &Path,
        token: Option<String>,
    ) -> io::Result<Self> {
        std::fs::create_dir_all(recordings)?;
        let limits = Limits::default();
        Ok(Self {
            handler,
            clock,
            recordings: recordings.canonicalize()?,
            token,
            origin: None,
            large_bodies: Semaphore::new(LARGE_BODIES),
            working: Arc::new(Semaphore::new(limits.connections)),
            limits,
        })
    }

    /// Pages of `origin` (or `*`: of any) may read recordings.
    pub fn with_origin(self, origin: Option<&str>) -> Self {
        Self { origin: origin.and_then(|o| HeaderValue::from_str(o).ok()), ..self }
    }
}

/// Answers requests until `shutdown`, then those under way. Refuses to listen to other machines without a token.
pub async fn serve(listener: TcpListener, gateway: Gateway, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let own = listener.local_addr()?;
    if gateway.token.is_none() && !own.ip().is_loopback() {
        let reason = format!("{own} can be reached from other machines; set a token, or listen on 127.0.0.1");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    let gateway = Arc::new(gateway);
    let permits = Arc::new(Semaphore::new(gateway.limits.connections));
    let (closing, closed) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async { (permits.clone().acquire_owned().await, listener.accept().await) };
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (permit, accepted) = next => match accepted {
                Ok((stream, peer)) => {
                    let (gateway, permits, closed) = (gateway.clone(), permits.clone(), closed.clone());
                    connections.spawn(async move {
                        let _permit = permit;
                        connection(gateway, stream, peer, own, &permits, closed).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "connection cannot be taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    closing.send_replace(true);
    // What is not over by then is dropped with the set.
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(gateway.limits.end_wait, all).await;
    Ok(())
}

async fn connection(
    gateway: Arc<Gateway>,
    stream: TcpStream,
    peer: SocketAddr,
    own: SocketAddr,
    permits: &Semaphore,
    mut closed: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let (limits, answering) = (&gateway.limits, &gateway);
    let service = service_fn(move |request| async move {
        let mut response = answering.respond(request, peer, own).await;
        if permits.available_permits() < answering.limits.connections / 2 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok::<_, Infallible>(response)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head_wait).max_header_size(MAX_HEAD_BYTES);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { drop(closed.wait_for(|closed| *closed).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "connection broken");
    }
}

impl Gateway {
    async fn respond(&self, mut request: Request<Incoming>, peer: SocketAddr, own: SocketAddr) -> Response<Body> {
        let id = uuid::Uuid::new_v4().to_string();
        let mut response = match self.admit(request.headers_mut()) {
            Err(status) => answer::failure(status),
            Ok(()) => match request.uri().path().strip_prefix("/recordings/").map(str::to_owned) {
                Some(path) => files::recording(&self.recordings, &path, request, self.origin.as_ref()).await,
                None => self.invoke(request, peer, own, &id).await.unwrap_or_else(answer::failure),
            },
        };
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("apigw-requestid", id);
        }
        response
    }

    /// Says whether the request may come in, and takes from it what only we are told.
    fn admit(&self, headers: &mut HeaderMap) -> Result<(), StatusCode> {
        match &self.token {
            Some(token) => {
                let given = headers.remove(header::AUTHORIZATION);
                let given = given.as_ref().and_then(|v| v.to_str().ok()).and_then(|v| v.split_once(' '));
                let right = given.is_some_and(|(scheme, given)| {
                    scheme.eq_ignore_ascii_case("bearer") && same(given.trim().as_bytes(), token.as_bytes())
                });
                if right { Ok(()) } else { Err(StatusCode::UNAUTHORIZED) }
            }
            None if headers.get(header::HOST).is_none_or(is_this_machine) => Ok(()),
            None => Err(StatusCode::FORBIDDEN),
        }
    }

    async fn invoke(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        own: SocketAddr,
        id: &str,
    ) -> Result<Response<Body>, StatusCode> {
        let (head, body) = request.into_parts();
        let read = tokio::time::timeout(self.limits.answer_wait, self.read(&head.headers, body)).await;
        let body = read.map_err(|_| StatusCode::REQUEST_TIMEOUT)??;
        let event = event::event(&head, &body, event::Arrival { peer, own, id, now: self.clock.now() });
        let working = self.working.clone().try_acquire_owned().map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        let (handler, own_id) = (self.handler.clone(), id.to_owned());
        // On its own, so that a caller who goes away does not stop half-way what it asked for.
        let answer = tokio::spawn(async move {
            let _working = working;
            handler.handle(event, &own_id).await
        });
        match tokio::time::timeout(self.limits.answer_wait, answer).await {
            Ok(Ok(reply)) => answer::response(reply).map_err(|reason| {
                tracing::error!(request_id = id, reason, "answer is not one that a gateway takes");
                StatusCode::INTERNAL_SERVER_ERROR
            }),
            Ok(Err(error)) => {
                tracing::error!(request_id = id, %error, "handler failed");
                Err(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Err(_) => Err(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    async fn read(&self, headers: &HeaderMap, mut body: Incoming) -> Result<Bytes, StatusCode> {
        let size = body.size_hint().upper();
        // Who asks first whether to send it at all is told at once.
        if headers.contains_key(header::EXPECT) && size.is_some_and(|size| size > MAX_BODY_BYTES as u64) {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let _permit = match size {
            Some(size) if size <= LARGE_BODY_BYTES => None,
            Some(_) | None => Some(self.large_bodies.acquire().await),
        };
        let (mut kept, mut seen) = (BytesMut::new(), 0);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| StatusCode::BAD_REQUEST)?.into_data() else { continue };
            seen += data.len();
            if seen > MAX_WASTED_BYTES {
                break;
            }
            if seen <= MAX_BODY_BYTES {
                kept.extend_from_slice(&data);
            }
        }
        if seen > MAX_BODY_BYTES { Err(StatusCode::PAYLOAD_TOO_LARGE) } else { Ok(kept.freeze()) }
    }
}

/// Compares in a time that does not tell how much of it is right.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differing) == 0
}

/// Whether a `Host` is a name of this machine, with or without a port.
fn is_this_machine(host: &HeaderValue) -> bool {
    let Some(name) = host.to_str().ok().filter(|host| host.len() <= MAX_HOST_BYTES).map(event::without_port) else {
        return false;
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or_else(|_| name == "localhost" || name.ends_with(".localhost"), |a| a.is_loopback())
}
