//! A request as the event that HTTP API makes of it, payload format 2.0.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::http::request::Parts;
use serde_json::{Map, Value, json};

/// The account of nobody.
const ACCOUNT: &str = "000000000000";
/// The name of the interface.
const API: &str = "panorec";

/// How a request came.
pub(super) struct Arrival<'a> {
    /// Who sent it.
    pub peer: SocketAddr,
    /// Where it arrived.
    pub own: SocketAddr,
    /// Its number.
    pub id: &'a str,
    /// Unix milliseconds.
    pub now: u64,
}

/// The event.
pub(super) fn event(head: &Parts, body: &[u8], arrival: Arrival<'_>) -> Value {
    let Arrival { peer, own, id, now } = arrival;
    let text = |name: HeaderName| head.headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let host = text(header::HOST).unwrap_or_else(|| own.to_string());
    let domain = without_port(&host);
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    let mut event = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers(&head.headers, peer, own),
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": API,
            "domainName": domain,
            "domainPrefix": domain.split('.').next(),
            "http": {
                "method": head.method.as_str(),
                "path": path,
                "protocol": format!("{:?}", head.version),
                "sourceIp": peer.ip().to_string(),
                "userAgent": text(header::USER_AGENT).unwrap_or_default(),
            },
            "requestId": id,
            "routeKey": "$default",
            "stage": "$default",
            "time": common_log_time(now),
            "timeEpoch": now,
        },
        "isBase64Encoded": false,
    });
    // What the request does not have, the event does not have either.
    let cookies = cookies(&head.headers);
    if !cookies.is_empty() {
        event["cookies"] = cookies.into();
    }
    if !query.is_empty() {
        event["queryStringParameters"] = parameters(query).into();
    }
    if !body.is_empty() {
        let plain = std::str::from_utf8(body);
        event["isBase64Encoded"] = plain.is_err().into();
        event["body"] = plain.map_or_else(|_| STANDARD.encode(body), str::to_owned).into();
    }
    event
}

/// A host without its port.
pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

/// Adds a value to those of a name, with a comma between them.
fn join(all: &mut Map<String, Value>, name: &str, value: &str) {
    match all.get_mut(name) {
        Some(Value::String(values)) => {
            values.push(',');
            values.push_str(value);
        }
        _ => drop(all.insert(name.to_owned(), value.into())),
    }
}

/// Headers without cookies, which have their own place, and with what a gateway says about the connection.
fn headers(given: &HeaderMap, peer: SocketAddr, own: SocketAddr) -> Map<String, Value> {
    let mut all = Map::new();
    for (name, value) in given.iter().filter(|(name, _)| *name != header::COOKIE) {
        join(&mut all, name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
    }
    join(&mut all, "x-forwarded-for", &peer.ip().to_string());
    all.insert("x-forwarded-port".into(), own.port().to_string().into());
    all.insert("x-forwarded-proto".into(), "http".into());
    all
}

fn cookies(given: &HeaderMap) -> Vec<String> {
    let lines = given.get_all(header::COOKIE).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    let of_line = |line: std::borrow::Cow<'_, str>| line.split(';').map(|c| c.trim().to_owned()).collect::<Vec<_>>();
    lines.flat_map(of_line).filter(|cookie| !cookie.is_empty()).collect()
}

fn parameters(query: &str) -> Map<String, Value> {
    let mut all = Map::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        join(&mut all, &name, &value);
    }
    all
}

/// `24/Nov/2026:10:17:00 +0000`.
fn common_log_time(unix_ms: u64) -> String {
    const MONTHS: [(&str, u64); 12] = [
        ("Jan", 31),
        ("Feb", 28),
        ("Mar", 31),
        ("Apr", 30),
        ("May", 31),
        ("Jun", 30),
        ("Jul", 31),
        ("Aug", 31),
        ("Sep", 30),
        ("Oct", 31),
        ("Nov", 30),
        ("Dec", 31),
    ];
    let seconds = unix_ms / 1000;
    let (mut year, mut day, mut month) = (1970, seconds / 86_400, 0);
    let leap = |y: u64| u64::from(y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400)));
    // A clock that is centuries off is no reason to count for long.
    while day >= 365 + leap(year) && year < 9999 {
        day -= 365 + leap(year);
        year += 1;
    }
    let length = |m: usize| MONTHS[m].1 + if m == 1 { leap(year) } else { 0 };
    while month < 11 && day >= length(month) {
        day -= length(month);
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{:02}/{}/{year}:{hour:02}:{minute:02}:{second:02} +0000", day + 1, MONTHS[month].0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "01/Jan/1970:00:00:00 +0000"),
            (951_782_399, "28/Feb/2000:23:59:59 +0000"),
            (951_782_400, "29/Feb/2000:00:00:00 +0000"),
            (1_583_348_638, "04/Mar/2020:19:03:58 +0000"),
            (1_735_689_599, "31/Dec/2024:23:59:59 +0000"),
            (4_107_542_400, "01/Mar/2100:00:00:00 +0000"),
        ] {
            assert_eq!(common_log_time(seconds * 1000 + 999), text);
        }
        assert!(common_log_time(u64::MAX).contains("/9999:"));
    }

    #[test]
    fn ports_are_no_part_of_a_name() {
        for (host, name) in [("h:80", "h"), ("h", "h"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), (":80", ":80")] {
            assert_eq!(without_port(host), name);
        }
    }
}
