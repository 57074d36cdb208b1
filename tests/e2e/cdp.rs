//! A second DevTools client beside panorec's own, for what no page can do to itself: crash, or act with a user's gesture or click.
//!
//! One request, one answer, over a WebSocket written here: text frames of one piece, which is all that Chromium sends for these.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// Chromium answers at once or, having crashed, never.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A page of the browser under test.
pub struct Page {
    stream: BufReader<TcpStream>,
}

/// Chromium's port, from the command line of its main process: it writes it into its profile.
pub fn port(browser: u32) -> Option<u16> {
    let line = std::fs::read(format!("/proc/{browser}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    let dir = line.split_whitespace().find_map(|a| a.strip_prefix("--user-data-dir="))?;
    let text = std::fs::read_to_string(Path::new(dir).join("DevToolsActivePort")).ok()?;
    text.lines().next()?.parse().ok()
}

impl Page {
    /// Attaches to the page whose address contains `part`.
    pub fn attach(port: u16, part: &str) -> Option<Self> {
        let list = get(port, "/json/list")?;
        let pages: Value = serde_json::from_str(&list).ok()?;
        let page = pages
            .as_array()?
            .iter()
            .find(|p| p["type"] == "page" && p["url"].as_str().is_some_and(|u| u.contains(part)))?;
        let address = page["webSocketDebuggerUrl"].as_str()?;
        let path = &address[address.find("/devtools")?..];
        let mut stream = BufReader::new(connect(port)?);
        write!(
            stream.get_mut(),
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        .ok()?;
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        if !line.contains(" 101 ") {
            return None;
        }
        while line.trim() != "" {
            line.clear();
            stream.read_line(&mut line).ok()?;
        }
        Some(Self { stream })
    }

    /// Runs JavaScript as if the user had just clicked.
    pub fn gesture(&mut self, script: &str) -> Option<Value> {
        let params = json!({"expression": script, "userGesture": true, "awaitPromise": true, "returnByValue": true});
        self.send("Runtime.evaluate", params)?;
        self.answer()
    }

    /// Clicks with the left button.
    pub fn click(&mut self, (x, y): (u32, u32)) -> Option<()> {
        for kind in ["mousePressed", "mouseReleased"] {
            let params = json!({"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1});
            self.send("Input.dispatchMouseEvent", params)?;
            self.answer()?;
        }
        Some(())
    }

    /// Crashes the tab. There is no answer.
    pub fn crash(&mut self) {
        self.send("Page.crash", json!({}));
    }

    fn send(&mut self, method: &str, params: Value) -> Option<()> {
        let text = json!({"id": 1, "method": method, "params": params}).to_string();
        let n = text.len();
        // A client's frames are masked; a mask of zeros changes nothing.
        let mut frame = vec![0x81, 0x80 | 126, (n >> 8) as u8, n as u8, 0, 0, 0, 0];
        if n < 126 {
            frame = vec![0x81, 0x80 | n as u8, 0, 0, 0, 0];
        }
        frame.extend(text.as_bytes());
        self.stream.get_mut().write_all(&frame).ok()
    }

    fn answer(&mut self) -> Option<Value> {
        loop {
            let mut head = [0; 2];
            self.stream.read_exact(&mut head).ok()?;
            let n = match head[1] & 0x7f {
                126 => {
                    let mut b = [0; 2];
                    self.stream.read_exact(&mut b).ok()?;
                    usize::from(u16::from_be_bytes(b))
                }
                127 => {
                    let mut b = [0; 8];
                    self.stream.read_exact(&mut b).ok()?;
                    u64::from_be_bytes(b) as usize
                }
                n => usize::from(n),
            };
            let mut body = vec![0; n];
            self.stream.read_exact(&mut body).ok()?;
            let message: Value = serde_json::from_slice(&body).ok()?;
            if message["id"] == 1 {
                return Some(message["result"].clone());
            }
        }
    }
}

fn connect(port: u16) -> Option<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(ANSWER_WITHIN)).ok()?;
    Some(stream)
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = connect(port)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n").ok()?;
    let mut reader = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}
