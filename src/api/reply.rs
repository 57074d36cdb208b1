//! Answers as gateways take them: one shape for payload 1.0 and 2.0.

use serde_json::{Map, Value, json};

use super::error::ApiError;

/// Which origins a browser may call from: `None` leaves CORS to the gateway.
pub type Cors = Option<String>;

fn headers(cors: &Cors, preflight: bool) -> Value {
    let mut headers = Map::new();
    headers.insert("content-type".into(), "application/json; charset=utf-8".into());
    headers.insert("cache-control".into(), "no-store".into());
    if let Some(origin) = cors {
        headers.insert("access-control-allow-origin".into(), origin.as_str().into());
        if origin != "*" {
            headers.insert("vary".into(), "origin".into());
        }
        if preflight {
            headers.insert("access-control-allow-methods".into(), "POST, OPTIONS".into());
            headers.insert("access-control-allow-headers".into(), "content-type, authorization".into());
            headers.insert("access-control-max-age".into(), "86400".into());
        }
    }
    headers.into()
}

fn envelope(status: u16, headers: Value, body: String) -> Value {
    json!({"statusCode": status, "headers": headers, "body": body, "isBase64Encoded": false})
}

/// A good answer.
pub fn ok(mut body: Map<String, Value>, request: &str, cors: &Cors) -> Value {
    body.insert("RequestID".into(), request.into());
    envelope(200, headers(cors, false), Value::Object(body).to_string())
}

/// A refusal.
pub fn error(error: &ApiError, request: &str, cors: &Cors) -> Value {
    let body = json!({"ErrorCode": error.code.word(), "ErrorMessage": error.message, "RequestID": request});
    envelope(error.code.http(), headers(cors, false), body.to_string())
}

/// What other origins may do.
pub fn preflight(cors: &Cors) -> Value {
    envelope(204, headers(cors, true), String::new())
}
