use super::*;
use crate::platform::conformance;
use crate::platform::faults::{Faults, Faulty, Moment, Plan};
use crate::platform::local::{DirectoryChunkStore, SqliteTaskStore};
use crate::task::order::Order;
use std::io;
use std::sync::Mutex;

const NOW: u64 = 1_790_000_000_000;

fn task() -> TaskRecord {
    TaskRecord::new("t".into(), Order::of("https://example.com/"), None, NOW)
}

/// A store with failures, tried again; its count; and the store beneath.
struct Rig {
    tried: Retrying<Faulty<SqliteTaskStore>>,
    faults: Arc<Faults>,
    plain: Arc<SqliteTaskStore>,
    _dir: tempfile::TempDir,
}

fn rig(plan: Plan) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let plain = Arc::new(SqliteTaskStore::open(&dir.path().join("tasks.db")).unwrap());
    let faults = Faults::new(plan);
    let tried = Retrying::new(Arc::new(Faulty::new(plain.clone(), &faults)), &Arc::default());
    Rig { tried, faults, plain, _dir: dir }
}

#[tokio::test]
async fn a_failure_anywhere_in_a_life_changes_nothing_for_the_caller() {
    for (call, moment) in (1..=6).flat_map(|call| [(call, Moment::Before), (call, Moment::After)]) {
        let rig = rig(Plan::One(call, moment));
        let store = &rig.tried;
        let mut record = task();
        let why = format!("call {call}, {moment:?}");
        assert_eq!(store.create(&record, NOW).await.unwrap(), Created::New(1), "{why}");
        record.generation = 1;
        assert_eq!(store.save(&record, 1).await.unwrap(), Some(2), "{why}");
        record.generation = 2;
        assert_eq!(store.save(&record, 2).await.unwrap(), Some(3), "{why}");
        let stale = TaskRecord { generation: 9, ..record.clone() };
        assert_eq!(store.save(&stale, 2).await.unwrap(), None, "{why}");
        let found = store.load("t", NOW).await.unwrap().unwrap();
        assert_eq!((found.record, found.version), (record, 3), "{why}");
        assert!(store.delete("t", 3).await.unwrap(), "{why}");
        assert_eq!(rig.plain.load("t", NOW).await.unwrap(), None, "{why}");
        assert_eq!(rig.faults.failed(), 1, "{why}");
    }
}

#[tokio::test]
async fn attempts_end_and_the_last_error_is_told() {
    let rig = rig(Plan::Outage(1..1000));
    let error = rig.tried.load("t", NOW).await.unwrap_err();
    assert_eq!((error.kind, rig.faults.calls()), (StoreErrorKind::Unavailable, u64::from(ATTEMPTS)));
}

#[tokio::test]
async fn what_cannot_go_well_later_is_not_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let plain = Arc::new(DirectoryChunkStore::new(dir.path()).unwrap());
    let faults = Faults::new(Plan::None);
    let tried = Retrying::new(Arc::new(Faulty::new(plain, &faults)), &Arc::default());
    assert_eq!(tried.get("none").await.unwrap_err().kind, StoreErrorKind::NotFound);
    assert_eq!(tried.put("../x", Bytes::new()).await.unwrap_err().kind, StoreErrorKind::Refused);
    assert_eq!(faults.calls(), 2);
}

#[tokio::test]
async fn without_failures_the_ports_keep_what_they_promise() {
    conformance::task_store(&rig(Plan::None).tried).await;
}

#[tokio::test]
async fn chunks_survive_a_failure_of_any_call() {
    for call in [1, 2, 5, 9] {
        let dir = tempfile::tempdir().unwrap();
        let plain = Arc::new(DirectoryChunkStore::new(dir.path()).unwrap());
        for moment in [Moment::Before, Moment::After] {
            let faults = Faults::new(Plan::One(call, moment));
            conformance::chunk_store(&Retrying::new(Arc::new(Faulty::new(plain.clone(), &faults)), &Arc::default()))
                .await;
            assert_eq!(faults.failed(), 1, "{call} {moment:?}");
        }
    }
}

/// What a store does that answers late: whatever the next entry says.
enum Late {
    /// Does it, and says it does not know.
    Done,
    /// Somebody else saves first, then it does its own.
    Overtaken(u32),
    /// Does it; somebody else saves after that; says it does not know.
    Followed(u32),
    /// Refuses; nothing happened.
    Throttled,
}

struct Scripted {
    store: Arc<SqliteTaskStore>,
    script: Mutex<Vec<Late>>,
}

fn unknown(kind: StoreErrorKind) -> StoreError {
    StoreError { op: "save", key: "t".into(), kind, source: io::Error::other("scripted") }
}

#[async_trait]
impl TaskStore for Scripted {
    async fn create(&self, record: &TaskRecord, now: u64) -> Result<Created, StoreError> {
        self.store.create(record, now).await
    }
    async fn load(&self, id: &str, now: u64) -> Result<Option<Versioned>, StoreError> {
        self.store.load(id, now).await
    }
    async fn save(&self, record: &TaskRecord, version: u64) -> Result<Option<u64>, StoreError> {
        let step = self.script.lock().unwrap().pop();
        let other = |generation| TaskRecord { generation, ..task() };
        match step {
            None => return self.store.save(record, version).await,
            Some(Late::Throttled) => return Err(unknown(StoreErrorKind::Throttled)),
            Some(Late::Done) => drop(self.store.save(record, version).await?),
            Some(Late::Overtaken(by)) => drop(self.store.save(&other(by), version).await?),
            Some(Late::Followed(by)) => {
                self.store.save(record, version).await?;
                self.store.save(&other(by), version + 1).await?;
            }
        }
        Err(unknown(StoreErrorKind::Unavailable))
    }
    async fn delete(&self, id: &str, version: u64) -> Result<bool, StoreError> {
        self.store.delete(id, version).await
    }
    async fn list(&self, shelf: Shelf, limit: u32, after: Option<&Cursor>, now: u64) -> Result<TaskPage, StoreError> {
        self.store.list(shelf, limit, after, now).await
    }
}

#[tokio::test]
async fn a_save_that_may_have_happened_is_looked_up() {
    let cases = [
        (vec![], Ok(Some(2)), (2, 5)),
        (vec![Late::Throttled, Late::Throttled], Ok(Some(2)), (2, 5)),
        (vec![Late::Done], Ok(Some(2)), (2, 5)),
        (vec![Late::Done, Late::Throttled], Ok(Some(2)), (2, 5)),
        (vec![Late::Overtaken(8)], Ok(None), (2, 8)),
        // Whether ours is beneath cannot be seen.
        (vec![Late::Followed(8)], Err(StoreErrorKind::Unavailable), (3, 8)),
    ];
    for (n, (script, outcome, (version, generation))) in cases.into_iter().enumerate() {
        let rig = rig(Plan::None);
        let store = &rig.plain;
        let scripted = Arc::new(Scripted { store: store.clone(), script: Mutex::new(script) });
        store.create(&task(), NOW).await.unwrap();
        let mine = TaskRecord { generation: 5, ..task() };
        let saved = Retrying::new(scripted, &Arc::default()).save(&mine, 1).await;
        assert_eq!(saved.map_err(|e| e.kind), outcome, "case {n}");
        let found = store.load("t", NOW).await.unwrap().unwrap();
        assert_eq!((found.version, found.record.generation), (version, generation), "case {n}");
    }
}

#[tokio::test]
async fn somebody_elses_record_is_not_taken_for_our_own() {
    let rig = rig(Plan::One(1, Moment::Before));
    let theirs = TaskRecord { created: NOW + 1, ..task() };
    rig.plain.create(&theirs, NOW).await.unwrap();
    match rig.tried.create(&task(), NOW).await.unwrap() {
        Created::Exists(found) => assert_eq!(found.record, theirs),
        Created::New(version) => panic!("version {version} is theirs"),
    }
}

#[test]
fn refused_after_unsure_is_still_unsure() {
    let count = AtomicU64::default();
    let fresh = || Attempts { made: 0, most: ATTEMPTS, unsure: false, count: &count };
    let mut attempts = fresh();
    assert!(attempts.another(&unknown(StoreErrorKind::Unavailable)));
    assert_eq!(attempts.verdict(unknown(StoreErrorKind::Throttled)).kind, StoreErrorKind::Unavailable);
    assert_eq!(attempts.verdict(unknown(StoreErrorKind::Refused)).kind, StoreErrorKind::Refused);
    assert_eq!(fresh().verdict(unknown(StoreErrorKind::Throttled)).kind, StoreErrorKind::Throttled);
}
