use super::*;
use crate::platform::clock::SystemClock;
use crate::platform::conformance;
use crate::platform::local::{DirectoryChunkStore, DirectoryRecordings, SqliteTaskStore};
use crate::task::order::Order;
use std::path::Path;
use std::sync::Mutex;

#[derive(Default)]
struct Invoked(Mutex<Vec<String>>);

#[async_trait]
impl Continuation for Invoked {
    async fn invoke(&self, event: &RecorderEvent) -> Result<(), StoreError> {
        self.0.lock().unwrap().push(event.task.clone());
        Ok(())
    }
}

fn local(dir: &Path, invoked: &Arc<Invoked>) -> Platform {
    Platform {
        tasks: Arc::new(SqliteTaskStore::open(&dir.join("tasks.db")).unwrap()),
        chunks: Arc::new(DirectoryChunkStore::new(&dir.join("chunks")).unwrap()),
        mounted: Some(Arc::new(DirectoryChunkStore::new(&dir.join("mounted")).unwrap())),
        recordings: Arc::new(DirectoryRecordings::new(&dir.join("out"), "http://h".parse().unwrap()).unwrap()),
        public: Arc::new(DirectoryRecordings::new(&dir.join("out"), "http://h".parse().unwrap()).unwrap()),
        continuation: invoked.clone(),
        clock: Arc::new(SystemClock),
        retries: Arc::default(),
    }
}

/// One call of each kind that changes something, in this order. Says which went wrong.
async fn changes(platform: &Platform) -> Vec<u64> {
    let now = platform.clock.now();
    let record = TaskRecord::new("t".into(), Order::of("https://example.com/"), None, now);
    let place = Place { dir: "d".into(), name: Some("x".into()), ..Place::default() };
    let mut wrong = Vec::new();
    let mut note = |call: u64, error: Option<StoreError>| {
        if let Some(error) = error {
            assert_eq!(error.kind, StoreErrorKind::Unavailable);
            wrong.push(call);
        }
    };
    note(1, platform.tasks.create(&record, now).await.err());
    note(2, platform.tasks.save(&record, 1).await.err());
    note(3, platform.chunks.put("c", Bytes::new()).await.err());
    note(4, platform.mounted.as_ref().unwrap().put("m", Bytes::new()).await.err());
    note(5, platform.continuation.invoke(&RecorderEvent { task: "t".into(), generation: None }).await.err());
    match platform.recordings.create(&place).await {
        Ok(mut object) => {
            note(7, object.append(Bytes::from_static(b"payload")).await.err());
            note(8, object.finish(Bytes::from_static(b"H"), "").await.err());
        }
        Err(error) => note(6, Some(error)),
    }
    wrong
}

/// What has come of [`changes`].
async fn effects(platform: &Platform, dir: &Path, invoked: &Invoked) -> [bool; 7] {
    let task = platform.tasks.load("t", 0).await.unwrap();
    let file = std::fs::read(dir.join("out/d/x")).ok();
    [
        task.is_some(),
        task.is_some_and(|t| t.version == 2),
        platform.chunks.get("c").await.is_ok(),
        platform.mounted.as_ref().unwrap().get("m").await.is_ok(),
        !invoked.0.lock().unwrap().is_empty(),
        file.as_ref().is_some_and(|f| f.starts_with(b"H")),
        file.is_some_and(|f| f.ends_with(b"payload")),
    ]
}

#[tokio::test]
async fn every_call_of_every_port_can_fail_before_or_after_its_effect() {
    for call in 1..=9 {
        for moment in [Moment::Before, Moment::After] {
            let (dir, invoked) = (tempfile::tempdir().unwrap(), Arc::new(Invoked::default()));
            let platform = local(dir.path(), &invoked);
            let faults = Faults::new(Plan::One(call, moment));
            let wrong = changes(&faults.around(platform.clone())).await;
            assert_eq!(wrong, if call <= 8 { vec![call] } else { vec![] }, "{moment:?}");
            assert_eq!(faults.failed(), u64::from(call <= 8));
            assert_eq!(faults.calls(), if call == 6 { 6 } else { 8 });
            let mut expected = [true; 7];
            match (call, moment) {
                (1, Moment::Before) => (expected[0], expected[1]) = (false, false),
                (2..=5, Moment::Before) => expected[call as usize - 1] = false,
                (7, _) => expected[6] = false,
                (6, _) | (8, Moment::Before) => (expected[5], expected[6]) = (false, false),
                _ => {}
            }
            assert_eq!(effects(&platform, dir.path(), &invoked).await, expected, "call {call} {moment:?}");
        }
    }
}

#[tokio::test]
async fn an_outage_is_over_after_its_last_call() {
    let (dir, invoked) = (tempfile::tempdir().unwrap(), Arc::new(Invoked::default()));
    let platform = local(dir.path(), &invoked);
    let faults = Faults::new(Plan::Outage(2..5));
    assert_eq!(changes(&faults.around(platform.clone())).await, [2, 3, 4]);
    let expected = [true, false, false, false, true, true, true];
    assert_eq!(effects(&platform, dir.path(), &invoked).await, expected);
    assert_eq!((faults.calls(), faults.failed()), (8, 3));
}

#[tokio::test]
async fn without_a_plan_nothing_changes() {
    let (dir, invoked) = (tempfile::tempdir().unwrap(), Arc::new(Invoked::default()));
    let faults = Faults::new(Plan::None);
    let platform = faults.around(local(dir.path(), &invoked));
    conformance::task_store(&*platform.tasks).await;
    conformance::chunk_store(&*platform.chunks).await;
    assert!(faults.calls() > 100 && faults.failed() == 0);
}
