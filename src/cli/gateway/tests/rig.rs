//! A running gateway with a handler that echoes, and a client that sends what it is told, byte by byte.

use super::super::*;
use crate::platform::clock::SystemClock;
use serde_json::{Value, json};
use std::collections::HashMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

/// Longer than anything here takes; a test that needs it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Answers with the event; the path says what else.
pub struct Echo {
    pub release: Semaphore,
}

#[async_trait]
impl Handler for Echo {
    async fn handle(&self, event: Value, request_id: &str) -> Value {
        assert_eq!(event["requestContext"]["requestId"], request_id);
        match event["rawPath"].as_str().unwrap() {
            "/panic" => panic!("as asked"),
            "/malformed" => json!({"statusCode": 200, "body": 7}),
            "/wait" => {
                let _permit = self.release.acquire().await.unwrap();
                json!({"statusCode": 200, "body": "waited"})
            }
            "/full" => json!({
                "statusCode": 201, "headers": {"X-Own": "v"}, "cookies": ["a=1", "b=2"],
                "body": "AAEC", "isBase64Encoded": true,
            }),
            _ => event,
        }
    }
}

/// A running gateway, ended with the test.
pub struct Rig {
    pub address: SocketAddr,
    pub echo: Arc<Echo>,
    pub dir: tempfile::TempDir,
    end: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<io::Result<()>>,
}

pub async fn rig(token: Option<&str>, limits: Limits) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let echo = Arc::new(Echo { release: Semaphore::new(0) });
    let recordings = dir.path().join("recordings");
    let made = Gateway::new(echo.clone(), Arc::new(SystemClock), &recordings, token.map(Into::into));
    let gateway = Gateway { limits, ..made.unwrap() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = oneshot::channel();
    let served = tokio::spawn(serve(listener, gateway, async { drop(ended.await) }));
    Rig { address, echo, dir, end: Some(end), served }
}

pub async fn usual() -> Rig {
    rig(None, Limits::default()).await
}

pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Everything until the other side closes.
pub async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    read.expect("the gateway closes the connection").unwrap();
    all
}

pub fn parse(all: &[u8]) -> Answer {
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer has a head");
    let head = std::str::from_utf8(&all[..end]).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers: HashMap<String, String> = HashMap::new();
    for (name, value) in lines.map(|l| l.split_once(": ").unwrap()) {
        headers.entry(name.to_lowercase()).and_modify(|v| *v += &format!("|{value}")).or_insert(value.into());
    }
    let mut body = all[end + 4..].to_vec();
    if headers.get("transfer-encoding").is_some_and(|t| t == "chunked") {
        body = unchunked(&body);
    }
    Answer { status, headers, body }
}

pub fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return all;
        }
        all.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 2 + size + 2..];
    }
}

impl Rig {
    /// Sends a request line with headers and a body, each line as it is, and reads the answer.
    pub async fn send(&self, line: &str, headers: &str, body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let host = if headers.to_lowercase().contains("host:") { "" } else { "Host: localhost\r\n" };
        let head =
            format!("{line} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
        stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        parse(&rest(&mut stream).await)
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), "", b"").await
    }

    pub fn keep(&self, key: &str, content: &[u8]) {
        let path = self.dir.path().join("recordings").join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Ends the gateway as a signal would.
    pub async fn end(mut self) {
        drop(self.end.take());
        tokio::time::timeout(PATIENCE, self.served).await.expect("it ends").unwrap().unwrap();
    }
}
