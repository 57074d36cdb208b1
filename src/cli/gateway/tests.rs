mod rig;

use super::*;
use crate::platform::clock::SystemClock;
use rig::{PATIENCE, parse, rest, rig, usual};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn a_request_becomes_an_event_of_payload_format_2() {
    let rig = usual().await;
    let headers = "Host: 127.0.0.1:1\r\nX-Many: a\r\nx-many: b\r\nCookie: c=1; d=2\r\nCookie: e=3\r\n\
        User-Agent: probe/1\r\nX-Forwarded-For: 203.0.113.9\r\n";
    let answer = rig.send("POST /stage/re%20cord?a=1&b=x%2Cy&a=2&flag", headers, b"{\"Action\":\"List\"}").await;
    assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, "application/json"));
    let mut event = answer.json();
    let context = event["requestContext"].take();
    let now = SystemClock.now();
    assert_eq!(
        event,
        json!({
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": "/stage/re%20cord",
            "rawQueryString": "a=1&b=x%2Cy&a=2&flag",
            "cookies": ["c=1", "d=2", "e=3"],
            "headers": {
                "host": "127.0.0.1:1", "connection": "close", "content-length": "17", "x-many": "a,b",
                "user-agent": "probe/1", "x-forwarded-for": "203.0.113.9,127.0.0.1",
                "x-forwarded-port": rig.address.port().to_string(), "x-forwarded-proto": "http",
            },
            "queryStringParameters": {"a": "1,2", "b": "x,y", "flag": ""},
            "requestContext": null,
            "body": "{\"Action\":\"List\"}",
            "isBase64Encoded": false,
        })
    );
    assert_eq!(
        context["http"],
        json!({"method": "POST", "path": "/stage/re%20cord", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1",
            "userAgent": "probe/1"})
    );
    for (name, value) in [("routeKey", "$default"), ("stage", "$default"), ("domainName", "127.0.0.1")] {
        assert_eq!(context[name], value);
    }
    assert_eq!(context["requestId"], answer.headers["apigw-requestid"]);
    assert!(now - context["timeEpoch"].as_u64().unwrap() < PATIENCE.as_millis() as u64);
    assert!(context["time"].as_str().unwrap().ends_with(" +0000"));
    for name in ["accountId", "apiId", "domainPrefix"] {
        assert!(context[name].is_string(), "{name}");
    }
}

#[tokio::test]
async fn what_a_request_does_not_have_its_event_does_not_have() {
    let event = usual().await.get("/").await.json();
    let names: Vec<_> = event.as_object().unwrap().keys().map(String::as_str).collect();
    for absent in ["body", "cookies", "queryStringParameters"] {
        assert!(!names.contains(&absent), "{names:?}");
    }
    assert_eq!((&event["rawQueryString"], &event["isBase64Encoded"]), (&json!(""), &json!(false)));
}

#[tokio::test]
async fn a_body_that_is_no_text_arrives_as_base64() {
    let rig = usual().await;
    let event = rig.send("PUT /", "", &[0, 0xFF, 1]).await.json();
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("AP8B"), &json!(true)));
    let event = rig.send("PUT /", "", "名前\0".as_bytes()).await.json();
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("名前\0"), &json!(false)));
}

#[tokio::test]
async fn an_answer_is_sent_as_the_handler_gave_it() {
    let rig = usual().await;
    let answer = rig.get("/full").await;
    assert_eq!((answer.status, answer.body), (201, vec![0, 1, 2]));
    assert_eq!((answer.headers["x-own"].as_str(), answer.headers["set-cookie"].as_str()), ("v", "a=1|b=2"));
    for path in ["/panic", "/malformed"] {
        let answer = rig.get(path).await;
        assert_eq!((answer.status, answer.json()), (500, json!({"message": "Internal Server Error"})), "{path}");
    }
    assert_eq!(rig.get("/still").await.status, 200);
    rig.end().await;
}

#[tokio::test]
async fn bodies_beyond_the_limit_are_refused_and_those_at_it_are_not() {
    let rig = usual().await;
    let at = rig.send("POST /", "", &vec![b'x'; MAX_BODY_BYTES]).await;
    assert_eq!((at.status, at.json()["body"].as_str().unwrap().len()), (200, MAX_BODY_BYTES));
    let beyond = rig.send("POST /", "", &vec![b'x'; MAX_BODY_BYTES + 1]).await;
    assert_eq!((beyond.status, beyond.json()), (413, json!({"message": "Request Entity Too Large"})));
    // Who asks first is told before it sends anything; who does not say how much is stopped all the same.
    let mut asking = TcpStream::connect(rig.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n";
    asking.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(parse(&rest(&mut asking).await).status, 413);
    let mut chunked = TcpStream::connect(rig.address).await.unwrap();
    chunked.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    let chunk = [b"100000\r\n", vec![b'x'; 1 << 20].as_slice(), b"\r\n"].concat();
    for _ in 0..11 {
        chunked.write_all(&chunk).await.unwrap();
    }
    chunked.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(parse(&rest(&mut chunked).await).status, 413);
}

#[tokio::test]
async fn recordings_are_served_whole_and_by_range() {
    let rig = usual().await;
    let content: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    rig.keep("t/ü 1.mp4", &content);
    let path = "/recordings/t/%C3%BC%201.mp4";
    let whole = rig.get(path).await;
    assert_eq!((whole.status, whole.headers["content-type"].as_str()), (200, "video/mp4"));
    assert_eq!(
        (whole.headers["accept-ranges"].as_str(), whole.headers["content-length"].as_str()),
        ("bytes", "100000")
    );
    assert!(whole.body == content);
    for (range, from, to) in [("0-0", 0, 1), ("5-99", 5, 100), ("99990-", 99_990, 100_000), ("-7", 99_993, 100_000)] {
        let part = rig.send(&format!("GET {path}"), &format!("Range: bytes={range}\r\n"), b"").await;
        assert_eq!(part.status, 206, "{range}");
        assert_eq!(part.headers["content-range"], format!("bytes {from}-{}/100000", to - 1));
        assert!(part.body == content[from..to], "{range}");
    }
    let beyond = rig.send(&format!("GET {path}"), "Range: bytes=100000-\r\n", b"").await;
    assert_eq!((beyond.status, beyond.headers["content-range"].as_str()), (416, "bytes */100000"));
    let head = rig.send(&format!("HEAD {path}"), "", b"").await;
    assert_eq!((head.status, head.headers["content-length"].as_str(), head.body.len()), (200, "100000", 0));
    for method in ["POST", "PUT", "DELETE"] {
        let refused = rig.send(&format!("{method} {path}"), "", b"").await;
        assert_eq!((refused.status, refused.headers["allow"].as_str()), (405, "GET, HEAD"));
    }
}

#[tokio::test]
async fn what_grows_is_never_said_to_be_what_it_was_in_the_same_second() {
    let rig = usual().await;
    // Until the end of all days: of no file it can be said that it is newer.
    let since = "If-Modified-Since: Fri, 31 Dec 9999 23:59:59 GMT\r\n";
    rig.keep("t/live.m3u8", b"growing");
    let seen = rig.get("/recordings/t/live.m3u8").await;
    assert_eq!((seen.status, seen.headers.get("last-modified")), (200, None));
    rig.keep("t/live.m3u8", b"ended");
    let again = rig.send("GET /recordings/t/live.m3u8", since, b"").await;
    assert_eq!((again.status, &again.body[..]), (200, &b"ended"[..]));
    rig.keep("t/x.mp4", b"x");
    assert_eq!(
        rig.send("GET /recordings/t/x.mp4", since, b"").await.status,
        304,
        "a file that is whole stays what it is"
    );
}

#[tokio::test]
async fn nothing_but_recordings_by_their_keys_is_served() {
    let rig = usual().await;
    rig.keep("t/x.mp4", b"x");
    rig.keep("t/.hidden.mp4", b"secret");
    rig.keep(".part/x.mp4", b"secret");
    std::fs::write(rig.dir.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(rig.dir.path(), rig.dir.path().join("recordings/out")).unwrap();
    std::os::unix::fs::symlink(rig.dir.path().join("secret"), rig.dir.path().join("recordings/link")).unwrap();
    for path in [
        "",
        "t",
        "t/",
        "none",
        "t/x.mp4/",
        "t//x.mp4",
        "../secret",
        "t/../../secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "t/%2E%2E/%2E%2E/secret",
        "%252e%252e/secret",
        "..%5csecret",
        "/secret",
        "%2fetc%2fpasswd",
        "t/.hidden.mp4",
        "t/%2ehidden.mp4",
        ".part/x.mp4",
        "out/secret",
        "link",
        "t/x.mp4%00",
        "t/x.mp4%0a",
        "%",
        "%ff",
        "t/./x.mp4",
    ] {
        let answer = rig.get(&format!("/recordings/{path}")).await;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!((answer.status, body.as_str()), (404, "{\"message\":\"Not Found\"}"), "{path}");
    }
    assert_eq!(rig.get("/recordings/t/x.mp4").await.body, b"x");
    // What only looks like it is the handler's.
    for path in ["/recordings", "/recordingsx/t/x.mp4", "/x/../recordings/t/x.mp4"] {
        assert_eq!(rig.get(path).await.json()["rawPath"], path);
    }
}

#[tokio::test]
async fn a_token_is_demanded_everywhere_and_never_handed_on() {
    let rig = rig(Some("correct horse"), Limits::default()).await;
    rig.keep("x.mp4", b"x");
    for path in ["/record", "/recordings/x.mp4"] {
        for wrong in ["", "Bearer", "Bearer ", "Bearer correct hors", "Bearer correct horse2", "Basic correct horse"] {
            let header = if wrong.is_empty() { String::new() } else { format!("Authorization: {wrong}\r\n") };
            let answer = rig.send(&format!("GET {path}"), &header, b"").await;
            assert_eq!((answer.status, answer.json()), (401, json!({"message": "Unauthorized"})), "{wrong}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
    }
    for right in ["Bearer correct horse", "bearer  correct horse"] {
        let headers = format!("Host: recorder.example\r\nAuthorization: {right}\r\n");
        let event = rig.send("GET /record", &headers, b"").await.json();
        assert_eq!(event["headers"]["authorization"], Value::Null);
        assert_eq!(rig.send("GET /recordings/x.mp4", &headers, b"").await.body, b"x");
    }
}

#[tokio::test]
async fn without_a_token_only_this_machine_may_call_by_its_own_names() {
    let rig = usual().await;
    for (host, status) in [
        ("localhost", 200),
        ("localhost:8080", 200),
        ("app.localhost", 200),
        ("127.9.9.9:80", 200),
        ("[::1]:80", 200),
        ("rebound.example", 403),
        ("rebound.example:80", 403),
        ("127.0.0.1.example", 403),
        ("notlocalhost", 403),
        ("192.0.2.1", 403),
    ] {
        assert_eq!(rig.send("GET /", &format!("Host: {host}\r\n"), b"").await.status, status, "{host}");
    }
    let open = TcpListener::bind("0.0.0.0:0").await.unwrap(); // never accepts anything
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::new(rig.echo.clone(), Arc::new(SystemClock), dir.path(), None).unwrap();
    let refused = serve(open, gateway, std::future::pending()).await.unwrap_err();
    assert!(refused.to_string().contains("set a token"), "{refused}");
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_answered_for_and_goes_on() {
    let rig = rig(None, Limits { answer_wait: Duration::from_millis(100), ..Limits::default() }).await;
    let answer = rig.get("/wait").await;
    assert_eq!((answer.status, answer.json()), (503, json!({"message": "Service Unavailable"})));
    assert_eq!(Arc::strong_count(&rig.echo), 3, "the rig's, the gateway's, and that of the handler at work");
    rig.echo.release.add_permits(1);
    let gone = async {
        while Arc::strong_count(&rig.echo) > 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it comes to its end");
}

#[tokio::test]
async fn who_sends_no_whole_head_or_body_does_not_hold_a_connection() {
    let short = Duration::from_millis(100);
    let hasty = rig(None, Limits { head_wait: short, ..Limits::default() }).await;
    for sent in ["", "GET / HTTP/1.1\r\nHost: loc"] {
        let mut stream = TcpStream::connect(hasty.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        assert!(!rest(&mut stream).await.starts_with(b"HTTP/1.1 2"), "{sent:?}");
    }
    let hasty = rig(None, Limits { answer_wait: short, ..Limits::default() }).await;
    let mut stream = TcpStream::connect(hasty.address).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab").await.unwrap();
    assert_eq!(parse(&rest(&mut stream).await).status, 408);
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_refused() {
    let rig = usual().await;
    for (length, status) in [(MAX_HEAD_BYTES / 2, 200), (MAX_HEAD_BYTES, 431)] {
        let headers = format!("X: {}\r\n", "x".repeat(length));
        assert_eq!(rig.send("GET /", &headers, b"").await.status, status, "{length}");
    }
}

#[tokio::test]
async fn more_connections_than_allowed_wait_their_turn_and_all_are_answered() {
    let rig = rig(None, Limits { connections: 4, ..Limits::default() }).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        stream.write_all(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        held.push(stream);
    }
    let mut late = TcpStream::connect(rig.address).await.unwrap();
    late.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(200), late.peek(&mut byte)).await;
    assert!(early.is_err(), "a fifth is not answered while four are at work");
    rig.echo.release.add_permits(4);
    for stream in &mut held[..2] {
        // They did not ask for it: there are others who wait.
        assert_eq!(parse(&rest(stream).await).headers["connection"], "close");
    }
    let answered = tokio::time::timeout(PATIENCE, late.peek(&mut byte)).await;
    assert_eq!(answered.expect("it has its turn").unwrap(), 1);
}

#[tokio::test]
async fn the_end_waits_for_answers_under_way_but_not_for_idle_connections() {
    let rig = usual().await;
    let mut idle = TcpStream::connect(rig.address).await.unwrap();
    let mut working = TcpStream::connect(rig.address).await.unwrap();
    working.write_all(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let at_work = async {
        while Arc::strong_count(&rig.echo) < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, at_work).await.expect("the handler is called");
    let (echo, address) = (rig.echo.clone(), rig.address);
    let ending = tokio::spawn(rig.end());
    assert_eq!(rest(&mut idle).await, b"");
    echo.release.add_permits(1);
    let answer = parse(&rest(&mut working).await);
    assert_eq!((answer.status, answer.body), (200, b"waited".to_vec()));
    ending.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}
