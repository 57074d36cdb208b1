//! HTTP requests as payload 2.0 events, and answers as responses (Amazon API Gateway developer guide, "Working with AWS
//! Lambda proxy integrations for HTTP APIs").

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// The event of a request.
pub fn of(parts: &Parts, body: &[u8], peer: Option<SocketAddr>, id: &str) -> Value {
    let mut headers: Map<String, Value> = Map::new();
    let mut cookies = Vec::new();
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        if *name == header::COOKIE {
            cookies.extend(value.split(';').map(|c| c.trim().to_string()));
            continue;
        }
        match headers.get_mut(name.as_str()) {
            // Several of one name are joined.
            Some(Value::String(before)) => *before = format!("{before},{value}"),
            _ => drop(headers.insert(name.as_str().into(), value.into())),
        }
    }
    let query = parts.uri.query().unwrap_or_default();
    let mut parameters: Map<String, Value> = Map::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match parameters.get_mut(&*name) {
            Some(Value::String(before)) => *before = format!("{before},{value}"),
            _ => drop(parameters.insert(name.into_owned(), value.into_owned().into())),
        }
    }
    let host = headers.get("host").and_then(Value::as_str).unwrap_or_default().to_string();
    let agent = headers.get("user-agent").and_then(Value::as_str).unwrap_or_default().to_string();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (text, encoded) = match std::str::from_utf8(body) {
        Ok(text) => (text.to_string(), false),
        Err(_) => (STANDARD.encode(body), true),
    };
    let mut event = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": parts.uri.path(),
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "local",
            "domainName": host.clone(),
            "domainPrefix": host.split(['.', ':']).next().unwrap_or_default(),
            "http": {
                "method": parts.method.as_str(),
                "path": parts.uri.path(),
                "protocol": format!("{:?}", parts.version),
                "sourceIp": peer.map(|p| p.ip().to_string()).unwrap_or_default(),
                "userAgent": agent,
            },
            "requestId": id,
            "routeKey": "$default",
            "stage": "$default",
            "time": time(now.as_secs()),
            "timeEpoch": now.as_millis() as u64,
        },
        "isBase64Encoded": encoded,
    });
    if !cookies.is_empty() {
        event["cookies"] = cookies.into();
    }
    if !parameters.is_empty() {
        event["queryStringParameters"] = parameters.into();
    }
    if !text.is_empty() {
        event["body"] = text.into();
    }
    event
}

/// `12/Mar/2020:19:03:58 +0000`. Days into dates by H. Hinnant's "chrono-Compatible Low-Level Date Algorithms",
/// `civil_from_days`, for days from 1970 on.
fn time(unix: u64) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let days = unix / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = (shifted + 2) % 12;
    let year = year_of_era + era * 400 + u64::from(month < 2);
    let (hour, minute, second) = (unix / 3600 % 24, unix / 60 % 60, unix % 60);
    format!("{day:02}/{}/{year}:{hour:02}:{minute:02}:{second:02} +0000", MONTHS[month as usize])
}

/// The response that an answer asks for. One without a status code is the body itself.
pub fn response(answer: Value) -> Result<Response, String> {
    let Some(status) = answer.get("statusCode") else {
        return build(StatusCode::OK, &json!({"content-type": "application/json"}), answer.to_string().into_bytes());
    };
    let status = status.as_u64().and_then(|s| u16::try_from(s).ok()).and_then(|s| StatusCode::from_u16(s).ok());
    let status = status.ok_or_else(|| format!("statusCode {} is none", answer["statusCode"]))?;
    let text = answer.get("body").and_then(Value::as_str).unwrap_or_default();
    let body = match answer.get("isBase64Encoded").and_then(Value::as_bool) {
        Some(true) => STANDARD.decode(text).map_err(|e| format!("body is not base64: {e}"))?,
        Some(false) | None => text.as_bytes().to_vec(),
    };
    build(status, &answer["headers"], body)
}

fn build(status: StatusCode, headers: &Value, body: Vec<u8>) -> Result<Response, String> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    for (name, value) in headers.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        let name: HeaderName = name.parse().map_err(|_| format!("`{name}` is no header name"))?;
        let value = HeaderValue::from_str(&text).map_err(|_| format!("`{text}` is no header value"))?;
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_become_the_events_of_an_http_api() {
        let request = axum::http::Request::post("/record?a=1&a=2&b=%20")
            .header("Host", "id.example.com")
            .header("X-Many", "1")
            .header("X-Many", "2")
            .header("Cookie", "one=1; two=2")
            .body(())
            .unwrap();
        let (parts, ()) = request.into_parts();
        let event = of(&parts, b"{}", Some("127.0.0.1:5".parse().unwrap()), "id");
        assert_eq!(event["headers"]["x-many"], "1,2");
        assert_eq!(event["cookies"], json!(["one=1", "two=2"]));
        assert_eq!(event["queryStringParameters"], json!({"a": "1,2", "b": " "}));
        assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("{}"), &json!(false)));
        assert_eq!(event["requestContext"]["http"]["sourceIp"], "127.0.0.1");
        let binary = of(&parts, &[0xff, 0xfe], None, "id");
        assert_eq!((&binary["body"], &binary["isBase64Encoded"]), (&json!("//4="), &json!(true)));
    }

    #[test]
    fn times_are_written_as_the_gateway_writes_them() {
        assert_eq!(time(1_584_039_838), "12/Mar/2020:19:03:58 +0000");
        assert_eq!(time(951_782_400), "29/Feb/2000:00:00:00 +0000");
        assert_eq!(time(1_798_675_199), "30/Dec/2026:23:59:59 +0000");
    }

    #[test]
    fn answers_without_a_status_are_bodies() {
        assert_eq!(response(json!({"TaskID": "x"})).unwrap().status(), 200);
        assert_eq!(response(json!({"statusCode": 404, "body": ""})).unwrap().status(), 404);
        assert!(response(json!({"statusCode": 4})).is_err());
        assert!(response(json!({"statusCode": 200, "isBase64Encoded": true, "body": "%"})).is_err());
    }
}
