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
use serde_json::json;
use std::thread;

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

#[test]
fn no_secret_is_in_any_log_line_or_message() {
    let stage = Stage::new();
    let runtime = runtime();
    let mishaps = Mishaps { ended: 1, refusal: Some("FailedOperation.ClassLevelLimitExceeded"), ..Mishaps::default() };
    let (vod, bucket, tables) = runtime.block_on(async {
        (VodServer::new(Bucket::new().await, mishaps).await, Bucket::new().await, Tables::new().await)
    });
    let mut env = settings(&vod);
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
    env.extend(more.map(|(name, value)| (name.to_string(), value.to_string())));
    let gateway = Gateway::start(&stage, &["--token", CALLER_TOKEN], &env);
    let bearer = format!("authorization: Bearer {CALLER_TOKEN}");
    let mut said = Vec::new();
    let mut act = |action: &str, data: serde_json::Value| {
        let body = json!({"Action": action, "Data": data}).to_string();
        let answer = request(&gateway.address, "POST", "/record", &[&bearer], body.as_bytes());
        said.push(String::from_utf8(answer.body.clone()).unwrap());
        answer.json()
    };
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let callback = format!("http://{}/done?token={CALLBACK_TOKEN}", server.local_addr().unwrap());
    let told = thread::spawn(move || ["503 Service Unavailable", "204 No Content"].map(|a| heard(&server, a)));
    let page = stage.server.url(&format!("clock.html?token={PAGE_TOKEN}"));
    let auth = format!("https://keys.example.com/key?token={AUTH_TOKEN}");
    let video = json!({"Muxer": "mp4,hls", "EncryptKey": ENCRYPT[0], "AuthUrl": auth});
    let output = json!({"Cos": {"TargetName": "lesson"}, "Vod": {}, "Video": video});
    let order = json!({"RecordURL": page, "MaxDurationLimit": 1, "CallbackURL": callback, "Output": output});
    // Orders that are refused, too: what is nearly a secret is one.
    for (pointer, value) in [
        ("/RecordURL", format!("ftp://example.com/?token={PAGE_TOKEN}")),
        ("/CallbackURL", format!("http://u:{CALLBACK_TOKEN}@example.com/")),
        ("/Output/Video/EncryptKey", TYPO.to_string()),
        ("/Output/Video/AuthUrl", format!("keys.example.com/{AUTH_TOKEN}")),
    ] {
        let mut bad = order.clone();
        *bad.pointer_mut(pointer).unwrap() = value.into();
        assert_eq!(act("Start", bad)["ErrorCode"], "InvalidParam");
    }
    let missing = stage.server.url(&format!("status/500?token={PAGE_TOKEN}"));
    let failing = act("Start", json!({"RecordURL": missing}))["TaskID"].as_str().unwrap().to_string();
    let task = act("Start", order)["TaskID"].as_str().unwrap().to_string();
    let mut finished = |task: &str| loop {
        let now = act("Describe", json!({"TaskID": task}));
        if now["Status"] == "finished" {
            return now["Result"].clone();
        }
        thread::sleep(std::time::Duration::from_millis(50));
    };
    assert_eq!(finished(&failing)["ErrorCode"], "InternalErr");
    let result = finished(&task);
    assert_eq!(result["ErrorCode"], "VodFailed", "{result}");
    let message = result["ErrorMessage"].as_str().unwrap();
    assert!(message.starts_with("FailedOperation.ClassLevelLimitExceeded: not this one"), "{message}");
    assert_eq!(result["Videos"].as_array().unwrap().len(), 2, "the bucket has its own: {result}");
    act("List", json!({}));
    let calls = told.join().unwrap().map(|(_, body)| body.to_string());
    let log = gateway.log();
    // It was talkative, and of all of this.
    for word in ["DEBUG", "task taken", "child reaped", "not delivered to the VOD service", "callback", "refused"] {
        assert!(log.contains(word), "`{word}` is not in the log");
    }
    let places = [("the log", log), ("an answer", said.join("\n")), ("a callback", calls.join("\n"))];
    for (place, text) in &places {
        for secret in secrets(&vod) {
            let line = text.lines().find(|line| line.contains(&secret));
            assert_eq!(line, None, "`{secret}` is in {place}");
        }
    }
    gateway.end();
}
