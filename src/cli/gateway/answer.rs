//! What a handler returns as an HTTP answer, by HTTP API's rules for payload format 2.0.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::Body;

/// Headers that belong to the connection, which is ours.
const OURS: [HeaderName; 3] = [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| -> io::Error { match never {} }).boxed_unsync()
}

/// An answer of our own, in the words of API Gateway.
pub(super) fn failure(status: StatusCode) -> Response<Body> {
    let message = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "Request Entity Too Large".to_owned(),
        _ => status.canonical_reason().unwrap_or_default().to_owned(),
    };
    let mut response = Response::new(body(json!({ "message": message }).to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        // The rest of the request is not worth reading.
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    response
}

/// The answer, or why there can be none.
pub(super) fn response(reply: Value) -> Result<Response<Body>, &'static str> {
    let reply = match reply {
        Value::Object(reply) if reply.contains_key("statusCode") => reply,
        // Without a status, the reply is the body.
        other => {
            let mut response = Response::new(body(other.to_string()));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            return Ok(response);
        }
    };
    let mut response = Response::new(body(content(&reply)?));
    *response.status_mut() = status(&reply["statusCode"]).ok_or("statusCode is not one from 200 to 599")?;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain;charset=UTF-8"));
    for (name, value) in fields(&reply)? {
        let name: HeaderName = name.parse().map_err(|_| "headers has a name that is none")?;
        let value = scalar(value).ok_or("headers has a value that is neither text nor number")?;
        let value = HeaderValue::from_str(&value).map_err(|_| "headers has a value with forbidden characters")?;
        if !OURS.contains(&name) {
            headers.insert(name, value);
        }
    }
    match reply.get("cookies") {
        None | Some(Value::Null) => {}
        Some(Value::Array(cookies)) => {
            for cookie in cookies {
                let cookie = cookie.as_str().and_then(|c| HeaderValue::from_str(c).ok());
                headers.append(header::SET_COOKIE, cookie.ok_or("cookies has one that is none")?);
            }
        }
        Some(_) => return Err("cookies is not a list"),
    }
    Ok(response)
}

fn status(value: &Value) -> Option<StatusCode> {
    let number = scalar(value)?.parse().ok().filter(|n| (200..=599).contains(n))?;
    StatusCode::from_u16(number).ok()
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn fields(reply: &Map<String, Value>) -> Result<impl Iterator<Item = (&String, &Value)>, &'static str> {
    match reply.get("headers") {
        None | Some(Value::Null) => Ok(None.into_iter().flatten()),
        Some(Value::Object(headers)) => Ok(Some(headers).into_iter().flatten()),
        Some(_) => Err("headers is not an object"),
    }
}

fn content(reply: &Map<String, Value>) -> Result<Bytes, &'static str> {
    let text = match reply.get("body") {
        None | Some(Value::Null) => "",
        Some(Value::String(text)) => text,
        Some(_) => return Err("body is not text"),
    };
    match reply.get("isBase64Encoded") {
        Some(Value::Bool(true)) => STANDARD.decode(text).map(Bytes::from).map_err(|_| "body is not base64"),
        None | Some(Value::Null | Value::Bool(false)) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        Some(_) => Err("isBase64Encoded is neither true nor false"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(response: Response<Body>) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_reply_without_a_status_is_the_body() {
        for reply in [json!({"a": 1}), json!("text"), json!(null), json!([1])] {
            let response = response(reply.clone()).unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["content-type"], "application/json");
            assert_eq!(text(response).await, reply.to_string());
        }
    }

    #[tokio::test]
    async fn everything_that_a_reply_says_is_sent() {
        let reply = json!({
            "statusCode": 418,
            "headers": {"X-Number": 7, "x-flag": true, "Content-Length": "99", "Connection": "upgrade", "X-A": "b"},
            "cookies": ["a=1; Path=/", "b=2"],
            "body": "aGk=",
            "isBase64Encoded": true,
        });
        let response = response(reply).unwrap();
        assert_eq!(response.status(), 418);
        let headers = response.headers();
        for (name, value) in [("x-number", "7"), ("x-flag", "true"), ("x-a", "b")] {
            assert_eq!(headers[name], value);
        }
        assert_eq!(headers["content-type"], "text/plain;charset=UTF-8");
        assert!(!headers.contains_key("content-length") && !headers.contains_key("connection"));
        assert_eq!(headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1; Path=/", "b=2"]);
        assert_eq!(text(response).await, "hi");
    }

    #[test]
    fn replies_that_make_no_answer_are_errors() {
        for bad in [
            json!({"statusCode": 99}),
            json!({"statusCode": 101}),
            json!({"statusCode": "many"}),
            json!({"statusCode": null}),
            json!({"statusCode": 200, "headers": []}),
            json!({"statusCode": 200, "headers": {"a b": "c"}}),
            json!({"statusCode": 200, "headers": {"a": "b\nc: d"}}),
            json!({"statusCode": 200, "headers": {"a": {}}}),
            json!({"statusCode": 200, "cookies": "a=1"}),
            json!({"statusCode": 200, "cookies": ["a\r\nb"]}),
            json!({"statusCode": 200, "body": {}}),
            json!({"statusCode": 200, "body": "%", "isBase64Encoded": true}),
            json!({"statusCode": 200, "isBase64Encoded": "yes"}),
        ] {
            assert!(response(bad.clone()).is_err(), "{bad}");
        }
        assert_eq!(response(json!({"statusCode": "204"})).unwrap().status(), 204);
        assert!(response(json!({"statusCode": 200, "headers": null, "cookies": null, "body": null})).is_ok());
    }
}
