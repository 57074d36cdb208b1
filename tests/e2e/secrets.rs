//! What callers and settings say in confidence is in no line of the log, however much is logged, and in no message.

use crate::cloud::s3::Bucket;
use crate::cloud::tables::{TABLE, Tables};
use crate::cloud::vod::{Mishaps, SECRET_KEY, VodServer};
use crate::cloud::{KEY, REGION, SECRET};
use crate::function::runtime;
use crate::gateway::{Gateway, request};
use crate::run::Stage;
use crate::service::heard;
use crate::vod::settings;
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};

/// Recording and delivery on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const PAGE_TOKEN: &str = "page-token-5e1c";
const CALLBACK_TOKEN: &str = "callback-token-5e2c";
const AUTH_TOKEN: &str = "auth-token-5e3c";
const WEBHOOK: &str = "d2ViaG9vay1zZWNyZXQtb2YtdGVzdHMtNWU0Yw==";
const CALLER_TOKEN: &str = "caller-token-5e5c";
/// `EncryptKey` in the three ways in which it can be written, and in Rust's.
const ENCRYPT: [&str; 4] = [
    "key-of-16-b-5e6c",
    "6b65792d6f662d31362d622d35653663",
    "a2V5LW9mLTE2LWItNWU2Yw==",
    "[107, 101, 121, 45, 111, 102, 45, 49",
];
/// Nearly a key.
const TYPO: &str = "key-of-17-b-5e7c!";

/// Everything that must not be seen.
fn secrets(vod: &VodServer) -> Vec<String> {
    let fixed = [PAGE_TOKEN, CALLBACK_TOKEN, AUTH_TOKEN, WEBHOOK, CALLER_TOKEN, TYPO, SECRET, SECRET_KEY];
    let mut all: Vec<String> = fixed.into_iter().chain(ENCRYPT).map(str::to_owned).collect();
    for lent in vod.lent() {
        all.extend([lent.secret, lent.token]);
    }
    all
}

/// Every store and service there is, each with keys of its own, and the most talkative log.
fn environment(vod: &VodServer, bucket: &Bucket, tables: &Tables) -> Vec<(String, String)> {
    let more = [
        ("PANOREC_LOG", "trace"),
        ("PANOREC_WEBHOOK_SECRET", WEBHOOK),
        ("PANOREC_TABLE", TABLE),
        ("COS_BUCKET", &bucket.name),
        ("AWS_ENDPOINT_URL_S3", &bucket.endpoint),
        ("AWS_ENDPOINT_URL_DYNAMODB", &tables.endpoint),
        ("AWS_REGION", REGION),
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
    ];
    let more = more.map(|(name, value)| (name.to_string(), value.to_string()));
    settings(vod).into_iter().chain(more).collect()
}

/// Orders that are refused: what is nearly a secret is one.
fn typos(order: &Value) -> Vec<Value> {
    let changes = [
        ("/RecordURL", format!("ftp://example.com/?token={PAGE_TOKEN}")),
        ("/CallbackURL", format!("http://u:{CALLBACK_TOKEN}@example.com/")),
        ("/Output/Video/EncryptKey", TYPO.to_string()),
        ("/Output/Video/AuthUrl", format!("keys.example.com/{AUTH_TOKEN}")),
    ];
    let changed = changes.map(|(pointer, value)| {
        let mut order = order.clone();
        *order.pointer_mut(pointer).unwrap() = value.into();
        order
    });
    changed.into()
}

/// A caller that remembers what it was told.
struct Caller<'a> {
    gateway: &'a Gateway<'a>,
    told: Vec<String>,
}

impl Caller<'_> {
    fn act(&mut self, action: &str, data: &Value) -> Value {
        let body = json!({"Action": action, "Data": data}).to_string();
        let bearer = format!("authorization: Bearer {CALLER_TOKEN}");
        let answer = request(&self.gateway.address, "POST", "/record", &[&bearer], body.as_bytes());
        self.told.push(String::from_utf8(answer.body.clone()).unwrap());
        answer.json()
    }

    fn start(&mut self, order: &Value) -> String {
        self.act("Start", order)["TaskID"].as_str().unwrap().to_string()
    }

    /// Waits for a task's end. Returns the result.
    fn result(&mut self, task: &str) -> Value {
        let since = Instant::now();
        loop {
            let now = self.act("Describe", &json!({"TaskID": task}));
            if now["Status"] == "finished" {
                return now["Result"].clone();
            }
            assert!(since.elapsed() < PATIENCE, "never finished: {now}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn no_secret_is_in_any_log_line_or_message() {
    let stage = Stage::shared();
    let runtime = runtime();
    let mishaps = Mishaps { ended: 1, refusal: Some("FailedOperation.ClassLevelLimitExceeded"), ..Mishaps::default() };
    let (vod, bucket, tables) = runtime.block_on(async {
        (VodServer::new(Bucket::new().await, mishaps).await, Bucket::new().await, Tables::new().await)
    });
    let gateway = Gateway::start(&stage, &["--token", CALLER_TOKEN], &environment(&vod, &bucket, &tables));
    let mut caller = Caller { gateway: &gateway, told: Vec::new() };
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let callback = format!("http://{}/done?token={CALLBACK_TOKEN}", server.local_addr().unwrap());
    let called = thread::spawn(move || heard(&server, "204 No Content").1.to_string());
    let page = stage.server.url(&format!("clock.html?token={PAGE_TOKEN}"));
    let auth = format!("https://keys.example.com/key?token={AUTH_TOKEN}");
    let video = json!({"Muxer": "mp4,hls", "EncryptKey": ENCRYPT[0], "AuthUrl": auth});
    let output = json!({"Cos": {"TargetName": "lesson"}, "Vod": {}, "Video": video});
    let order = json!({"RecordURL": page, "MaxDurationLimit": 1, "CallbackURL": callback, "Output": output});
    for typo in typos(&order) {
        assert_eq!(caller.act("Start", &typo)["ErrorCode"], "InvalidParam");
    }
    let broken = json!({"RecordURL": stage.server.url(&format!("status/500?token={PAGE_TOKEN}"))});
    let (broken, task) = (caller.start(&broken), caller.start(&order));
    assert_eq!(caller.result(&broken)["ErrorCode"], "InternalErr");
    let result = caller.result(&task);
    assert_eq!(result["ErrorCode"], "VodFailed", "{result}");
    let message = result["ErrorMessage"].as_str().unwrap();
    assert!(message.starts_with("FailedOperation.ClassLevelLimitExceeded: not this one"), "{message}");
    assert_eq!(result["Videos"].as_array().unwrap().len(), 2, "the bucket has its own: {result}");
    caller.act("List", &json!({}));
    let called = called.join().unwrap();
    let log = gateway.log();
    // It was talkative, and of all of this.
    for word in ["DEBUG", "task taken", "child reaped", "not delivered to the VOD service", "refused"] {
        assert!(log.contains(word), "`{word}` is not in the log");
    }
    for (place, text) in [("the log", log), ("an answer", caller.told.join("\n")), ("a call", called)] {
        for secret in secrets(&vod) {
            let line = text.lines().find(|line| line.contains(&secret));
            assert_eq!(line, None, "`{secret}` is in {place}");
        }
    }
    gateway.end();
}
