//! What must hold for any bytes at all: the entry that the function gives its events to answers, whatever they are, and
//! the answer is never that something went wrong on our side. Both `fuzz_targets/event.rs` and the replay among the
//! tests call this.

use std::sync::Arc;

use async_trait::async_trait;
use panorec::api::{Defaults, Service, ServiceConfig};
use panorec::generation::{Invocation, Recorders};
use panorec::platform::memory::{ManualClock, MemoryChunkStore, MemoryContinuation, MemoryRecordings, MemoryTaskStore};
use panorec::platform::{Platform, RecorderEvent, TaskStore};
use panorec::task::order::Order;
use panorec::task::record::{CommandKind, TaskRecord};
use serde_json::{Value, json};

const NOW: u64 = 1_790_000_000_000;

/// Gives the service these bytes as an event, if they are JSON at all (the runtime interface refuses others before us),
/// and as the body of requests through each kind of gateway.
///
/// # Panics
///
/// When the service panics, answers 5xx, or answers what no gateway takes.
pub fn check(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O").block_on(async {
        let service = service().await;
        if let Ok(event) = serde_json::from_slice::<Value>(bytes) {
            answer(&service, &event).await;
        }
        let body = String::from_utf8_lossy(bytes);
        answer(&service, &json!({"version": "2.0", "requestContext": {"http": {"method": "POST"}}, "body": body}))
            .await;
        answer(&service, &json!({"httpMethod": "POST", "isBase64Encoded": true, "body": body})).await;
    });
}

async fn answer(service: &Service, event: &Value) {
    let answer = service.answer(event, &Invocation::new("invocation", None)).await.expect("memory does not fail");
    let Some(status) = answer.get("statusCode") else {
        assert!(answer.get("Recorder").is_some() || answer.get("Orphans").is_some(), "{event} gives {answer}");
        return;
    };
    let status = status.as_u64().expect("a number");
    assert!(matches!(status, 200..=299 | 400..=499), "{event} gives {answer}");
    let body = answer["body"].as_str().expect("a body");
    let body: Value = if body.is_empty() { json!({}) } else { serde_json::from_str(body).expect("a body of JSON") };
    assert_eq!(body.get("ErrorCode").is_some(), status >= 400, "{event} gives {answer}");
}

/// The service on stores in memory, with tasks of the ids that the files in `events/` speak of.
async fn service() -> Service {
    let tasks = MemoryTaskStore::default();
    for n in 1..=6 {
        let id = format!("00000000-0000-4000-8000-00000000000{n}");
        let mut task = TaskRecord::new(id, Order::of("https://example.com/"), None, NOW - 100_000 + n);
        if n == 3 {
            task.command(CommandKind::Pause).expect("it may be paused before the start");
        }
        if n > 4 {
            task.end(NOW - 1000).expect("it may end before the start");
        }
        tasks.create(&task, NOW).await.expect("memory does not fail");
    }
    let platform = Platform {
        tasks: Arc::new(tasks),
        chunks: Arc::new(MemoryChunkStore::default()),
        mounted: None,
        recordings: Arc::new(MemoryRecordings::default()),
        public: Arc::new(MemoryRecordings::default()),
        continuation: Arc::new(MemoryContinuation::default()),
        clock: Arc::new(ManualClock::at(NOW)),
        retries: Arc::default(),
    };
    let defaults = Defaults { max_limit_seconds: 36_000, mounted: false, vod: false };
    let cors = Some("https://app.example.com".into());
    Service::new(platform, Arc::new(Idle), ServiceConfig { defaults, cors })
}

/// What recorders do is not asked here, only that they are asked.
struct Idle;

#[async_trait]
impl Recorders for Idle {
    async fn record(&self, event: &RecorderEvent, _invocation: &Invocation) -> Result<Value, String> {
        assert!(!event.task.is_empty());
        Ok(json!({"Recorder": event.task}))
    }

    async fn sweep(&self) -> Result<Value, String> {
        Ok(json!({"Orphans": 0}))
    }
}
