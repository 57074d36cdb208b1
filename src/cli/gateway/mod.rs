//! The HTTP gateway of `panorec serve`: requests become the events that an HTTP API sends, answers become responses, and
//! finished recordings are served as files.

mod event;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get_service;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower_http::services::ServeDir;

/// Longest request body: what an HTTP API takes.
const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;
/// Requests that are worked on at once; more wait.
const MAX_AT_ONCE: usize = 256;
/// How long requests under way may take after the gateway was told to end.
const GRACE: Duration = Duration::from_secs(10);

/// What answers events.
#[async_trait]
pub trait Handler: Send + Sync {
    /// The answer to an event.
    async fn handle(&self, event: Value, request_id: &str) -> Value;
}

struct Gateway {
    handler: Arc<dyn Handler>,
    token: Option<String>,
    at_once: Semaphore,
}

/// Serves until `shutdown` is over. Recordings are the files below `recordings`. With a token, only who sends it is heard.
pub async fn serve(
    listener: TcpListener,
    handler: Arc<dyn Handler>,
    recordings: &Path,
    token: Option<String>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let gateway = Arc::new(Gateway { handler, token, at_once: Semaphore::new(MAX_AT_ONCE) });
    let files = ServeDir::new(recordings).append_index_html_on_directories(false);
    let router = Router::new()
        .nest_service("/recordings", get_service(files))
        .fallback(call)
        .layer(from_fn_with_state(Arc::clone(&gateway), guard))
        .with_state(gateway)
        .into_make_service_with_connect_info::<std::net::SocketAddr>();
    let (told, mut end) = tokio::sync::watch::channel(false);
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move {
        shutdown.await;
        let _ = told.send(true);
    });
    let overdue = async move {
        // Never told to end: never overdue.
        if end.wait_for(|told| *told).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving => served,
        () = overdue => Ok(()),
    }
}

fn refusal(status: StatusCode, message: &str) -> Response {
    let body = json!({"ErrorCode": "InvalidParam", "ErrorMessage": message}).to_string();
    (status, [(header::CONTENT_TYPE, "application/json; charset=utf-8")], body).into_response()
}

/// What every request has to pass: the token, and no names that begin with a dot (unfinished files have such names).
async fn guard(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    if let Some(token) = &gateway.token {
        let sent = request.headers().get(header::AUTHORIZATION).map(|v| v.as_bytes()).unwrap_or_default();
        if !same(sent, format!("Bearer {token}").as_bytes()) {
            return refusal(StatusCode::UNAUTHORIZED, "send the token of --token as `Authorization: Bearer TOKEN`");
        }
    }
    let path = request.uri().path().to_ascii_lowercase();
    if path.starts_with("/recordings") && (path.contains("/.") || path.contains("/%2e")) {
        return refusal(StatusCode::NOT_FOUND, "no such recording");
    }
    // The semaphore is never closed.
    let _permit = gateway.at_once.acquire().await;
    next.run(request).await
}

/// Takes as long for a wrong token as for the right one, so that it cannot be found out letter by letter.
fn same(sent: &[u8], wanted: &[u8]) -> bool {
    let differences = sent.iter().zip(wanted).fold(0, |found, (a, b)| found | (a ^ b));
    std::hint::black_box(differences) == 0 && sent.len() == wanted.len()
}

async fn call(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 10 MiB; no request needs that");
    };
    let peer = parts.extensions.get::<ConnectInfo<std::net::SocketAddr>>().map(|info| info.0);
    let id = uuid::Uuid::new_v4().to_string();
    let answer = gateway.handler.handle(event::of(&parts, &body, peer, &id), &id).await;
    event::response(answer).unwrap_or_else(|reason| {
        tracing::error!(reason, request_id = id, "the answer cannot be sent");
        (StatusCode::INTERNAL_SERVER_ERROR, Body::empty()).into_response()
    })
}
