//! Pages for the tests, served on loopback.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

/// A server that lives as long as its test's runtime.
pub struct Server {
    port: u16,
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, port));
            }
        });
        Self { port }
    }

    pub fn url(&self, path: &str) -> Url {
        format!("http://127.0.0.1:{}{path}", self.port).parse().unwrap()
    }
}

async fn serve(mut stream: TcpStream, port: u16) {
    let mut request = Vec::new();
    let mut block = [0; 4096];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut block).await {
            Ok(1..) if block[0] == 0x16 => return drop(stream.write_all(b"no TLS here").await),
            Ok(n @ 1..) => request.extend(&block[..n]),
            _ => return,
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or("/").split('?').next().unwrap_or("/").to_owned();
    if path == "/never" {
        let _ = stream.read(&mut block).await; // until the browser gives up
        return;
    }
    let (status, headers, body) = page(&path, port);
    let answer =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

const HTML: &str = "Content-Type: text/html; charset=utf-8\r\n";

fn page(path: &str, port: u16) -> (&'static str, String, String) {
    let html = |body: &str| ("200 OK", HTML.to_owned(), format!("<!doctype html>{body}"));
    let to = |address: String| ("302 Found", format!("Location: {address}\r\n"), String::new());
    match path {
        "/ok" => html(
            "<title>ok</title><h1>ok</h1><script>var frames = 0;
             (function tick() { frames++; requestAnimationFrame(tick); })()</script>",
        ),
        "/500" => ("500 Internal Server Error", HTML.into(), "<h1>broken</h1>".into()),
        "/500-empty" => ("500 Internal Server Error", HTML.into(), String::new()),
        "/401" => ("401 Unauthorized", format!("{HTML}WWW-Authenticate: Basic realm=\"r\"\r\n"), "<h1>who?</h1>".into()),
        "/204" => ("204 No Content", String::new(), String::new()),
        "/download" => ("200 OK", "Content-Type: application/octet-stream\r\n".into(), "data".into()),
        "/redirect-inside" => to(format!("http://127.0.0.2:{port}/ok")),
        "/redirect" => to("/ok".into()),
        "/script-redirect" => html("<script>location.replace('/ok')</script>"),
        "/hanging" => html("<h1>hanging</h1><img src=/never>"),
        "/late" => html(
            "<script>addEventListener('load', () => setTimeout(() => {
               document.body.innerHTML = '<h1>late</h1>'; window.late = true; }, 300))</script>",
        ),
        "/dialogs" => html(
            "<h1>dialogs</h1><script>var answers = [alert('a'), confirm('b'), prompt('c', 'default')];
             addEventListener('beforeunload', (e) => e.preventDefault())</script>",
        ),
        "/functions" => html(
            "<script>var early = ['startRecord', 'pauseRecord', 'resumeRecord', 'refreshPage', 'stopRecord']
               .map((name) => typeof window[name] + Object.keys(window).includes(name)).join();
             var log = [];
             var returned = startRecord(() => log.push('started'));
             pauseRecord(); resumeRecord('no function'); refreshPage(() => log.push('refreshed'));
             </script><h1>functions</h1><iframe src=/inner></iframe>",
        ),
        "/inner" => html("<script>var inner = typeof startRecord</script>inner"),
        "/own-names" => html(
            "<script>function startRecord() { return 'own' } let pauseRecord = 1; var stopRecord = 2;
             const refreshPage = 3; var mine = [startRecord(), pauseRecord, stopRecord, refreshPage].join()</script>own",
        ),
        "/flood" => html(
            "<h1>flood</h1><script>for (let i = 0; i < 100000; i++) pauseRecord(() => {}); stopRecord()</script>",
        ),
        _ => ("404 Not Found", HTML.into(), "<h1>not here</h1>".into()),
    }
}
