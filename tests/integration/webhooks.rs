//! What panorec signs is verified by the Standard Webhooks project's own library.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use panorec::delivery::callback::Callback;

const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Reads the raw request from standard input, as a server has it before any framework touches it.
const VERIFY: &str = r#"
import sys
sys.path.insert(0, sys.argv[1])
from standardwebhooks import Webhook, WebhookVerificationError
head, body = sys.stdin.buffer.read().split(b"\r\n\r\n", 1)
headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
try:
    print(Webhook(sys.argv[2]).verify(body, headers)["Title"])
except WebhookVerificationError as error:
    print("refused:", error)
"#;

/// One call, as it arrives.
fn called(now: u64) -> Vec<u8> {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/done", server.local_addr().unwrap()).parse().unwrap();
    let listener = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let mut all = Vec::new();
        let mut block = [0; 4096];
        while !all.ends_with(b"}") {
            let n = stream.read(&mut block).unwrap();
            assert!(n > 0, "cut off: {}", String::from_utf8_lossy(&all));
            all.extend(&block[..n]);
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        all
    });
    let callback = Callback::new(Some(STANDARD.decode(SECRET).unwrap()));
    let body = serde_json::json!({"Title": "Algebra, 7b: ½ + ⅓"}).to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(callback.post(&url, "7c1f-result", now, &body, &|_| true)).unwrap();
    listener.join().unwrap()
}

fn verified(call: &[u8], secret: &str) -> String {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/webhooks");
    assert!(library.exists(), "{} is missing; fetch it with: scripts/setup.sh test", library.display());
    let mut python = Command::new("python3")
        .args(["-X", "utf8", "-c", VERIFY])
        .arg(library)
        .arg(secret)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(call).unwrap();
    let said = python.wait_with_output().unwrap();
    assert!(said.status.success(), "{}", said.status);
    String::from_utf8(said.stdout).unwrap().trim().to_string()
}

#[test]
fn callbacks_pass_another_librarys_check_and_forged_ones_do_not() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let secret = format!("whsec_{SECRET}");
    let call = called(now);
    assert_eq!(verified(&call, &secret), "Algebra, 7b: ½ + ⅓");
    let forged = String::from_utf8(call.clone()).unwrap().replace("7b", "7c");
    assert_eq!(verified(forged.as_bytes(), &secret), "refused: No matching signature found");
    let other = format!("whsec_{}", STANDARD.encode([7; 24]));
    assert_eq!(verified(&call, &other), "refused: No matching signature found");
    assert_eq!(verified(&called(now - 3600), &secret), "refused: Message timestamp too old");
}
