//! The web server of the pages: loopback only, one thread a connection, as good or as bad as a test wants it.
//!
//! `/NAME` a file of the directory · `/media/NAME` a test video (with ranges) · `/tools/NAME` what set-up fetched · `/slow/MS/NAME` the same file after a while · `/never` takes the
//! request and says nothing · `/half` begins a page and does not end it · `/status/N` an error page · `/count/NAME` how often this was asked ·
//! `/redirect?URL` leads there · `/note?TEXT` is kept for the test, and so is every path that was asked for.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often a held connection looks whether the server is gone.
const HOLD_STEP: Duration = Duration::from_millis(50);
/// A client that sends no whole request within this is dropped.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// A running server; it ends when dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    pages: PathBuf,
    media: PathBuf,
    notes: Mutex<Vec<(Instant, String)>>,
    asked: Mutex<Vec<String>>,
    counts: Mutex<HashMap<String, u32>>,
    ended: AtomicBool,
}

impl Server {
    /// Serves a directory of pages on `port` of the loopback interface, 0 for any free one.
    pub fn start(pages: &Path, media: &Path, port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            pages: pages.to_path_buf(),
            media: media.to_path_buf(),
            notes: Mutex::default(),
            asked: Mutex::default(),
            counts: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let for_accept = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if for_accept.ended.load(Ordering::Relaxed) {
                    break;
                }
                let shared = for_accept.clone();
                if let Ok(stream) = stream {
                    // A client that goes away in the middle is not the server's concern.
                    thread::spawn(move || shared.answer(stream).ok());
                }
            }
        });
        Ok(Self { address, shared })
    }

    /// Address of a page.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// What pages have told so far.
    pub fn notes(&self) -> Vec<(Instant, String)> {
        let notes = self.shared.notes.lock();
        notes.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        let asked = self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|p| *p == path).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        TcpStream::connect(self.address).ok(); // wakes `accept`
    }
}

impl Shared {
    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(REQUEST_LIMIT))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let mut range = None;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("range")
            {
                range = parse_range(value.trim());
            }
        }
        let target = first.split_whitespace().nth(1).unwrap_or("/");
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(path.trim_start_matches('/').to_string());
        self.route(stream, path.trim_start_matches('/'), query, range)
    }

    fn route(
        &self,
        mut out: TcpStream,
        path: &str,
        query: &str,
        range: Option<(u64, Option<u64>)>,
    ) -> std::io::Result<()> {
        let (head, rest) = path.split_once('/').unwrap_or((path, ""));
        match (head, rest) {
            ("never", _) => self.hold(&out),
            ("half", _) => {
                out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 100000\r\n\r\n<!doctype html><body>half a page")?;
                self.hold(&out)
            }
            ("status", code) => {
                let body = format!("<!doctype html><h1>{code}</h1>");
                text(&mut out, &format!("{code} As Asked"), "text/html", &body)
            }
            ("redirect", _) => {
                write!(out, "HTTP/1.1 302 Found\r\nLocation: {query}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            }
            ("count", name) => {
                let n = {
                    let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
                    let n = counts.entry(name.to_string()).or_default();
                    *n += 1;
                    *n
                };
                text(&mut out, "200 OK", "text/plain", &n.to_string())
            }
            ("note", _) => {
                let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
                notes.push((Instant::now(), query.to_string()));
                drop(notes);
                text(&mut out, "200 OK", "text/plain", "")
            }
            ("slow", rest) => {
                let (ms, name) = rest.split_once('/').unwrap_or(("0", rest));
                thread::sleep(Duration::from_millis(ms.parse().unwrap_or(0)));
                file(&mut out, &self.pages, name, range)
            }
            ("media", name) if self.media.join(name).exists() => file(&mut out, &self.media, name, range),
            ("tools", name) => file(&mut out, Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.tools")), name, range),
            ("", _) => file(&mut out, &self.pages, "index.html", range),
            _ => file(&mut out, &self.pages, path, range),
        }
    }

    /// Keeps a connection open until the client or the server goes.
    fn hold(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(HOLD_STEP))?;
        let mut byte = [0];
        while !self.ended.load(Ordering::Relaxed) {
            match (&*stream).read(&mut byte) {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn text(out: &mut TcpStream, status: &str, kind: &str, body: &str) -> std::io::Result<()> {
    write!(
        out,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// `bytes=A-` or `bytes=A-B`; other forms are answered with the whole file, which is allowed.
fn parse_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (from, to) = value.strip_prefix("bytes=")?.split_once('-')?;
    Some((from.parse().ok()?, to.parse().ok()))
}

fn file(out: &mut TcpStream, dir: &Path, name: &str, range: Option<(u64, Option<u64>)>) -> std::io::Result<()> {
    let path = dir.join(name);
    let inside = !name.split('/').any(|part| part == "..") && path.is_file();
    if !inside {
        return text(out, "404 Not Found", "text/plain", "no such page");
    }
    let mut file = std::fs::File::open(&path)?;
    let size = file.metadata()?.len();
    let (status, from, to) = match range {
        Some((from, _)) if from >= size => {
            return text(out, "416 Range Not Satisfiable", "text/plain", "");
        }
        Some((from, to)) => ("206 Partial Content", from, to.unwrap_or(size - 1).min(size - 1)),
        None => ("200 OK", 0, size.saturating_sub(1)),
    };
    let length = if size == 0 { 0 } else { to + 1 - from };
    write!(
        out,
        "HTTP/1.1 {status}\r\nContent-Type: {}\r\nContent-Length: {length}\r\nAccept-Ranges: bytes\r\nCache-Control: no-store\r\nConnection: close\r\n",
        kind(name)
    )?;
    if range.is_some() {
        write!(out, "Content-Range: bytes {from}-{to}/{size}\r\n")?;
    }
    out.write_all(b"\r\n")?;
    file.seek(SeekFrom::Start(from))?;
    std::io::copy(&mut file.take(length), out)?;
    Ok(())
}

fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("mp4") => "video/mp4",
        Some("m4a") => "audio/mp4",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(server: &Server, target: &str, header: &str) -> String {
        let mut stream = TcpStream::connect(server.address).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\n{header}\r\n").unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        all
    }

    fn server(dir: &Path) -> Server {
        std::fs::write(dir.join("a.html"), "0123456789").unwrap();
        Server::start(dir, dir, 0).unwrap()
    }

    #[test]
    fn files_ranges_and_errors_are_served() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path());
        assert!(ask(&server, "/a.html?x", "").ends_with("\r\n\r\n0123456789"));
        let part = ask(&server, "/media/a.html", "Range: bytes=2-4\r\n");
        assert!(part.starts_with("HTTP/1.1 206") && part.ends_with("\r\n\r\n234"));
        assert!(part.contains("Content-Range: bytes 2-4/10"));
        assert!(ask(&server, "/a.html", "Range: bytes=10-\r\n").starts_with("HTTP/1.1 416"));
        assert!(ask(&server, "/../etc/passwd", "").starts_with("HTTP/1.1 404"));
        assert!(ask(&server, "/status/500", "").starts_with("HTTP/1.1 500"));
        assert!(ask(&server, "/count/x", "").ends_with("1"));
        assert!(ask(&server, "/count/x", "").ends_with("2"));
        ask(&server, "/note?hello", "");
        assert_eq!(server.notes()[0].1, "hello");
    }

    #[test]
    fn a_held_request_ends_with_the_server() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path());
        let mut stream = TcpStream::connect(server.address).unwrap();
        write!(stream, "GET /never HTTP/1.1\r\n\r\n").unwrap();
        stream.set_read_timeout(Some(HOLD_STEP * 4)).unwrap();
        assert!(stream.read(&mut [0]).is_err(), "answered, or was closed");
        drop(server);
        stream.set_read_timeout(Some(REQUEST_LIMIT)).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "still open");
    }
}
