//! What may start an invocation: a request through a gateway (payload 2.0 of HTTP APIs and function URLs, payload 1.0 of
//! REST APIs), the recorder event we send ourselves, a schedule. Anything else is told what would be right.
//!
//! Formats: Amazon API Gateway developer guide, "Working with AWS Lambda proxy integrations for HTTP APIs" (payload
//! versions), and Amazon EventBridge user guide, "Events" (schedule).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::error::{ApiError, Code};
use crate::platform::RecorderEvent;

/// Longest body that is read: far above any request of the contract, far below what gateways let through.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// An HTTP request through a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The gateway's id of the request.
    pub id: String,
    /// Whether it asks what other origins may do.
    pub preflight: bool,
    /// The body, or why it is not there.
    pub body: Result<Vec<u8>, ApiError>,
}

/// What an invocation is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A request to be answered.
    Request(Request),
    /// A task to be recorded.
    Record(RecorderEvent),
    /// Time to look for tasks that nobody works on.
    Sweep,
}

/// Says what an event is for. `fallback_id` stands in for a request id that the gateway left out.
pub fn parse(event: &Value, fallback_id: &str) -> Result<Incoming, ApiError> {
    let Value::Object(event) = event else { return Err(unknown()) };
    if let Some(recorder) = event.get("Recorder") {
        let task = recorder.get("TaskID").and_then(Value::as_str).filter(|t| !t.is_empty());
        let task = task.ok_or_else(|| ApiError::param("Recorder.TaskID", "missing; name the task to record"))?;
        let generation = recorder.get("Generation").and_then(Value::as_u64).and_then(|g| u32::try_from(g).ok());
        return Ok(Incoming::Record(RecorderEvent { task: task.to_string(), generation }));
    }
    let source = event.get("source").and_then(Value::as_str);
    if event.contains_key("Sweep") || matches!(source, Some("aws.events" | "aws.scheduler")) {
        return Ok(Incoming::Sweep);
    }
    let context = event.get("requestContext").and_then(Value::as_object);
    let http = context.and_then(|c| c.get("http")).and_then(Value::as_object);
    let method = match (http, event.get("httpMethod").and_then(Value::as_str)) {
        (Some(http), _) => http.get("method").and_then(Value::as_str).unwrap_or_default(),
        (None, Some(method)) => method,
        (None, None) => return Err(unknown()),
    };
    let id = context.and_then(|c| c.get("requestId")).and_then(Value::as_str).filter(|id| !id.is_empty());
    Ok(Incoming::Request(Request {
        id: id.unwrap_or(fallback_id).to_string(),
        preflight: method.eq_ignore_ascii_case("OPTIONS"),
        body: posted(method).and_then(|()| body(event)),
    }))
}

fn unknown() -> ApiError {
    ApiError::new(
        Code::InvalidParam,
        "this event is neither an API Gateway request (payload 1.0 or 2.0), nor {\"Recorder\": {\"TaskID\": …}}, nor a \
         schedule; send POST /record through the gateway",
    )
}

/// The path is the gateway's affair: it knows its stages, prefixes and routes, and sends us what is ours.
fn posted(method: &str) -> Result<(), ApiError> {
    if method.eq_ignore_ascii_case("POST") {
        return Ok(());
    }
    let method = method.escape_debug();
    Err(ApiError::new(Code::WrongMethod, format!("`{method}` is not possible here; send POST /record")))
}

fn body(event: &Map<String, Value>) -> Result<Vec<u8>, ApiError> {
    let text = match event.get("body") {
        None | Some(Value::Null) => "",
        Some(Value::String(text)) => text,
        Some(_) => return Err(ApiError::param("body", "not a string; send it as the gateway does")),
    };
    if text.len() > MAX_BODY_BYTES * 4 / 3 + 4 {
        return Err(too_large());
    }
    let encoded = event.get("isBase64Encoded").and_then(Value::as_bool).unwrap_or(false);
    let bytes = match encoded {
        true => STANDARD.decode(text).map_err(|e| ApiError::param("body", format!("not base64 ({e})")))?,
        false => text.as_bytes().to_vec(),
    };
    if bytes.len() > MAX_BODY_BYTES { Err(too_large()) } else { Ok(bytes) }
}

fn too_large() -> ApiError {
    ApiError::param("body", format!("longer than {MAX_BODY_BYTES} bytes; no request needs that"))
}
