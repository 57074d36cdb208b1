//! Every file in `events/` has exactly one answer in `tests/golden/`, and the other way round. The answers are those of the
//! real service on stores in memory that hold one task in each status that matters.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::generation::tests::studio::Replay;
use crate::generation::tests::world::Silent;
use crate::generation::{Invocation, RunnerConfig, TaskRunner, Tools};
use crate::platform::memory::{ManualClock, MemoryChunkStore, MemoryContinuation, MemoryRecordings, MemoryTaskStore};
use crate::platform::{Platform, TaskStore};
use crate::task::failure::{Failure, FailureCode};
use crate::task::order::Order;
use crate::task::quality::Quality;
use crate::task::record::{Anchor, CommandKind, TaskRecord, Video};
use crate::task::status::StatusEvent;

const NOW: u64 = 1_790_000_000_000;

fn platform() -> Platform {
    Platform {
        tasks: Arc::new(MemoryTaskStore::default()),
        chunks: Arc::new(MemoryChunkStore::default()),
        mounted: None,
        recordings: Arc::new(MemoryRecordings::default()),
        public: Arc::new(MemoryRecordings::default()),
        continuation: Arc::new(MemoryContinuation::default()),
        clock: Arc::new(ManualClock::at(NOW)),
        retries: Arc::default(),
    }
}

fn service(platform: &Platform) -> Service {
    let tools = Tools::none();
    let config = RunnerConfig {
        tools,
        allow_addresses: Vec::new(),
        keep_chunks: false,
        hand_over_lead: None,
        memory_mb: None,
        metrics: false,
    };
    let studio = Arc::new(Replay { segments: 2, ..Replay::default() });
    let recorders = Arc::new(TaskRunner::new(platform.clone(), studio, Arc::new(Silent), config));
    let defaults = Defaults { max_limit_seconds: 36_000, mounted: false, vod: true };
    Service::new(platform.clone(), recorders, ServiceConfig { defaults, cors: Some("https://app.example.com".into()) })
}

/// The tasks that `scripts/events.py` speaks of: normal, recording, paused, canceled, finished, failed.
async fn tasks(store: &dyn TaskStore) {
    for n in 1..=6u64 {
        let (id, created) = (format!("00000000-0000-4000-8000-00000000000{n}"), NOW - 100_000 + n * 1000);
        let mut task = TaskRecord::new(id, Order::of("https://example.com/"), None, created);
        if n > 1 {
            task.claim("owner", created + 500, 10_000).unwrap();
            task.capturing(Anchor { recorded: 0, wall_us: (created + 2_000) * 1000, paused: n == 3 }).unwrap();
        }
        if n >= 4 {
            task.stop(created + 60_000).unwrap();
        }
        if n >= 5 {
            task.deliver(StatusEvent::Assembling, created + 61_000).unwrap();
            task.end(created + 62_000).unwrap();
        }
        if n == 2 {
            task.preview.playlist = Some(format!("{}/playlist.m3u8", task.id));
            task.preview.picture = Some(format!("{}/pictures-0123456789abcdef/newest.jpg", task.id));
        }
        if n == 5 {
            let picture = |name| Some(format!("https://cdn.example.com/{}/pictures-0123456789abcdef/{name}", task.id));
            task.result.videos = vec![Video {
                filename: "1789999966000.mp4".into(),
                file_size: 1_234_567,
                file_url: format!("https://cdn.example.com/{}/1789999966000.mp4", task.id),
                file_duration: 58.0,
                file_id: None,
                poster_url: picture("poster.jpg"),
                thumbnails_url: picture("thumbnails.vtt"),
            }];
            task.result.quality = Some(Quality { frames_delivered: 1740, frame_rate: 30.0, ..Quality::default() });
        }
        if n == 6 {
            let message = "http://example.com/ answered 503 Service Unavailable".into();
            task.result.failure = Some(Failure { code: FailureCode::InternalErr, message });
        }
        store.create(&task, NOW).await.unwrap();
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|n| n.ends_with(".json")).collect()
}

/// The answer as it is kept: the body as JSON, an id that is new each time under a name.
fn shown(name: &str, mut answer: Value) -> Value {
    if let Some(body) = answer.get("body").and_then(Value::as_str).filter(|b| !b.is_empty()) {
        let mut body: Value = serde_json::from_str(body).expect("a JSON body");
        if name == "start-without-token.json" {
            let id = body["TaskID"].as_str().unwrap();
            assert!(uuid::Uuid::try_parse(id).is_ok_and(|id| id.get_version_num() == 4), "{id}");
            body["TaskID"] = "a new one".into();
        }
        answer["body"] = body;
    }
    answer
}

#[tokio::test(start_paused = true)]
async fn every_event_has_its_one_answer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (events, golden) = (root.join("events"), root.join("tests/golden"));
    assert_eq!(names(&events), names(&golden), "an event without an answer, or an answer without an event");
    let made = root.join("target/golden");
    std::fs::create_dir_all(&made).unwrap();
    let mut wrong = Vec::new();
    for name in names(&events) {
        let platform = platform();
        tasks(&*platform.tasks).await;
        let service = service(&platform);
        let token = json!({"Action": "Start", "Data": {"RecordURL": "https://example.com/class?room=7", "ClientToken": "used"}});
        let before = json!({"httpMethod": "POST", "body": token.to_string()});
        let invocation = Invocation::new("invocation", None);
        service.answer(&before, &invocation).await.unwrap();
        let event: Value = serde_json::from_slice(&std::fs::read(events.join(&name)).unwrap()).unwrap();
        let answer = shown(&name, service.answer(&event, &invocation).await.unwrap());
        let expected: Value = serde_json::from_slice(&std::fs::read(golden.join(&name)).unwrap()).unwrap_or_default();
        if answer != expected {
            std::fs::write(made.join(&name), format!("{answer:#}\n")).unwrap();
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "answers differ, what came is in {}: {wrong:?}", made.display());
}

#[tokio::test(start_paused = true)]
async fn an_order_is_stored_as_it_was_given() {
    let platform = platform();
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("events/start-everything.json")).unwrap();
    let invocation = Invocation::new("invocation", None);
    let answer = service(&platform).answer(&serde_json::from_str(&text).unwrap(), &invocation).await.unwrap();
    let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    let task = platform.tasks.load(body["TaskID"].as_str().unwrap(), NOW).await.unwrap().unwrap().record;
    let order = task.order;
    assert_eq!((order.size.width, order.size.height, order.rate.per_second()), (1920, 1080, 25));
    assert_eq!((order.bitrates.video_kbit, order.bitrates.audio_kbit, order.limit_seconds), (4000, 192, 3600));
    assert_eq!((order.manual_start, order.ready_timeout_seconds), (true, 60));
    assert_eq!((order.target.dir.as_deref(), order.target.name.as_deref()), (Some("2026/11"), Some("algebra.mp4")));
    assert_eq!(order.user_agent.as_deref(), Some("recorder"));
    assert_eq!(order.pictures.and_then(|pictures| pictures.interval_seconds), Some(10));
}

/// JSON that looks like requests: our names, other types, odd values.
fn anything() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "Action",
        "Data",
        "Start",
        "Stop",
        "List",
        "Describe",
        "Pause",
        "TaskID",
        "RecordURL",
        "Width",
        "Output",
        "Cos",
        "TargetDir",
        "Video",
        "FrameRate",
        "ClientToken",
        "Limit",
        "NextToken",
        "CallbackEvents",
        "https://example.com/",
        "00000000-0000-4000-8000-000000000002",
        "httpMethod",
        "POST",
        "body",
        "requestContext",
        "http",
        "method",
        "isBase64Encoded",
        "Recorder",
        "source",
        "headers",
        "",
        "\u{0}",
        "../",
        "ⅷ",
    ])
    .prop_map(String::from);
    let word = prop_oneof![9 => word, 1 => ".{0,12}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(word.clone(), inner, 0..6).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// A request of the contract with one value replaced, or any text at all as body.
fn mutated() -> impl Strategy<Value = Value> {
    let actions = prop::sample::select(vec!["Start", "Pause", "Resume", "Refresh", "Stop", "Describe", "List"]);
    let field = prop::sample::select(vec![
        "RecordURL",
        "ManualStart",
        "Width",
        "Height",
        "CallbackURL",
        "MaxDurationLimit",
        "StorageType",
        "Output",
        "ReadyTimeout",
        "ClientToken",
        "Headers",
        "PageTitle",
        "CallbackEvents",
        "TaskID",
        "Status",
        "Limit",
        "NextToken",
    ]);
    let request = (actions, field, anything()).prop_map(|(action, field, value)| {
        let mut data = json!({"RecordURL": "https://example.com/"});
        data[field] = value;
        json!({"Action": action, "Data": data}).to_string()
    });
    prop_oneof![4 => request, 1 => ".{0,60}", 1 => anything().prop_map(|v| v.to_string())]
        .prop_map(|body| json!({"version": "2.0", "requestContext": {"http": {"method": "POST"}}, "body": body}))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]
    #[test]
    fn no_event_panics_and_no_request_is_our_fault(event in anything(), request in mutated()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let platform = platform();
            tasks(&*platform.tasks).await;
            let service = service(&platform);
            let invocation = Invocation::new("invocation", None);
            for event in [event, request] {
                let answer = service.answer(&event, &invocation).await.expect("memory does not fail");
                let status = answer.get("statusCode").and_then(Value::as_u64);
                assert!(status.is_none_or(|s| (200..500).contains(&s)), "{event} gives {answer}");
            }
        });
    }
}

#[test]
fn a_command_changes_nothing_of_a_task_that_is_over() {
    let mut task = TaskRecord::new("t".into(), Order::of("https://example.com/"), None, 1);
    task.end(2).unwrap();
    let before = task.clone();
    assert!(task.command(CommandKind::Pause).is_err());
    task.command(CommandKind::Refresh).unwrap();
    assert_eq!(task, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_starts_at_once_are_all_answered_none_lost_none_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::platform::local::SqliteTaskStore::open(&dir.path().join("tasks.db")).unwrap();
    let continuation = Arc::new(MemoryContinuation::default());
    let platform = Platform {
        tasks: Arc::new(crate::platform::retry::Retrying::new(Arc::new(store), &Arc::default())),
        continuation: Arc::clone(&continuation) as _,
        ..platform()
    };
    let service = service(&platform);
    let starts = (0..1000).map(|n| {
        // Each token twice: as a client does that heard nothing the first time.
        let data = json!({"RecordURL": "https://example.com/", "ClientToken": format!("t{}", n / 2)});
        let event = json!({"httpMethod": "POST", "body": json!({"Action": "Start", "Data": data}).to_string()});
        let service = &service;
        async move {
            let invocation = Invocation::new("invocation", None);
            let answer = service.answer(&event, &invocation).await.unwrap();
            assert_eq!(answer["statusCode"], 200, "{answer}");
            let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
            body["TaskID"].as_str().unwrap().to_string()
        }
    });
    let ids: BTreeSet<String> = futures_util::future::join_all(starts).await.into_iter().collect();
    assert_eq!(ids.len(), 500);
    let (mut listed, mut after) = (BTreeSet::new(), None);
    loop {
        let page = platform.tasks.list(crate::platform::Shelf::All, 100, after.as_ref(), NOW).await.unwrap();
        listed.extend(page.records.into_iter().map(|t| t.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, ids);
    let asked: BTreeSet<String> = continuation.take().into_iter().map(|e| e.task).collect();
    assert_eq!(asked, ids, "each has a recorder");
}
