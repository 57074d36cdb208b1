use super::*;
use crate::platform::conformance;
use crate::task::order::Order;
use futures_util::future::join_all;
use std::collections::BTreeSet;

const NOW: u64 = 1_790_000_000_000;

fn task(id: &str) -> TaskRecord {
    TaskRecord::new(id.into(), Order::of("https://example.com/"), None, NOW)
}

struct Opened {
    store: SqliteTaskStore,
    path: PathBuf,
    dir: tempfile::TempDir,
}

fn opened() -> Opened {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data/tasks.db");
    Opened { store: SqliteTaskStore::open(&path).unwrap(), path, dir }
}

#[tokio::test]
async fn the_file_keeps_what_the_port_promises() {
    conformance::task_store(&opened().store).await;
}

/// Two that have the file open behave like one.
struct Both(SqliteTaskStore, SqliteTaskStore, AtomicUsize);

impl Both {
    fn either(&self) -> &SqliteTaskStore {
        if self.2.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) { &self.0 } else { &self.1 }
    }
}

#[async_trait]
impl TaskStore for Both {
    async fn create(&self, record: &TaskRecord, now: u64) -> Result<Created, StoreError> {
        self.either().create(record, now).await
    }
    async fn load(&self, id: &str, now: u64) -> Result<Option<Versioned>, StoreError> {
        self.either().load(id, now).await
    }
    async fn save(&self, record: &TaskRecord, version: u64) -> Result<Option<u64>, StoreError> {
        self.either().save(record, version).await
    }
    async fn delete(&self, id: &str, version: u64) -> Result<bool, StoreError> {
        self.either().delete(id, version).await
    }
    async fn list(&self, shelf: Shelf, limit: u32, after: Option<&Cursor>, now: u64) -> Result<TaskPage, StoreError> {
        self.either().list(shelf, limit, after, now).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_share_the_file_see_one_store() {
    let one = opened();
    let both = Both(one.store, SqliteTaskStore::open(&one.path).unwrap(), AtomicUsize::new(0));
    conformance::task_store(&both).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_open_a_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.db");
    let openers = (0..8).map(|_| {
        let path = path.clone();
        tokio::task::spawn_blocking(move || SqliteTaskStore::open(&path))
    });
    for store in join_all(openers.collect::<Vec<_>>()).await {
        store.unwrap().unwrap().create(&task("t"), NOW).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tasks_at_once_are_all_kept_and_none_twice() {
    let one = opened();
    let ids: Vec<String> = (0..1000).map(|n| format!("t{n}")).collect();
    let created = join_all(ids.iter().map(|id| async { one.store.create(&task(id), NOW).await.unwrap() })).await;
    assert!(created.iter().all(|c| *c == Created::New(1)));
    let page = one.store.list(Shelf::All, 2000, None, NOW).await.unwrap();
    let found: BTreeSet<_> = page.records.into_iter().map(|r| r.id).collect();
    assert_eq!(found, ids.into_iter().collect());
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_kill() {
    let one = opened();
    one.store.create(&task("t"), NOW).await.unwrap();
    one.store.save(&TaskRecord { generation: 7, ..task("t") }, 1).await.unwrap();
    // What a kill leaves: the files as they are, nobody closes anything.
    let killed = one.dir.path().join("killed");
    std::fs::create_dir(&killed).unwrap();
    for entry in std::fs::read_dir(one.path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "tasks.db-shm" {
            std::fs::copy(entry.path(), killed.join(entry.file_name())).unwrap();
        }
    }
    let after = SqliteTaskStore::open(&killed.join("tasks.db")).unwrap();
    let found = after.load("t", NOW).await.unwrap().unwrap();
    assert_eq!((found.version, found.record.generation), (2, 7));
}

#[tokio::test]
async fn records_whose_time_is_over_are_removed_as_new_ones_come() {
    let one = opened();
    for n in 0..20 {
        let over = TaskRecord { expires: NOW + 1, ..task(&format!("old{n}")) };
        one.store.create(&over, NOW).await.unwrap();
    }
    let rows = || {
        let raw = Connection::open(&one.path).unwrap();
        raw.query_row("SELECT count(*) FROM tasks", [], |r| r.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(rows(), 20);
    one.store.create(&task("new1"), NOW + 1).await.unwrap();
    one.store.create(&task("new2"), NOW + 1).await.unwrap();
    assert_eq!(rows(), 2);
}

#[tokio::test]
async fn a_file_that_others_hold_too_long_throttles_writers_but_not_readers() {
    let one = opened();
    one.store.create(&task("t"), NOW).await.unwrap();
    let hasty = SqliteTaskStore::open_waiting(&one.path, Duration::from_millis(20)).unwrap();
    let raw = Connection::open(&one.path).unwrap();
    raw.execute_batch("BEGIN IMMEDIATE").unwrap();
    for kind in [
        hasty.create(&task("u"), NOW).await.err().map(|e| e.kind),
        hasty.save(&task("t"), 1).await.err().map(|e| e.kind),
        hasty.delete("t", 1).await.err().map(|e| e.kind),
    ] {
        assert_eq!(kind, Some(StoreErrorKind::Throttled));
    }
    assert!(hasty.load("t", NOW).await.unwrap().is_some());
    raw.execute_batch("COMMIT").unwrap();
    assert_eq!(hasty.save(&task("t"), 1).await.unwrap(), Some(2), "nothing had happened");
}

#[tokio::test]
async fn files_that_are_none_of_ours_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = dir.path().join("garbage.db");
    std::fs::write(&garbage, "no database ".repeat(1000)).unwrap();
    let foreign = dir.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE tasks (x)").unwrap();
    let newer = dir.path().join("newer.db");
    Connection::open(&newer).unwrap().execute_batch("PRAGMA user_version = 9").unwrap();
    for (path, reason) in [
        (garbage, "damaged"),
        (foreign, "another program"),
        (newer, "another version"),
        (dir.path().to_path_buf(), "directory"),
    ] {
        let error = SqliteTaskStore::open(&path).err().unwrap();
        let text = error.source.to_string();
        assert_eq!(error.kind, StoreErrorKind::Refused, "{text}");
        assert!(text.contains(path.to_str().unwrap()) && text.to_lowercase().contains(reason), "{text}");
    }
}

#[tokio::test]
async fn a_damaged_page_or_record_is_refused_and_named() {
    let one = opened();
    for n in 0..200 {
        one.store.create(&task(&format!("t{n}")), NOW).await.unwrap();
    }
    let raw = Connection::open(&one.path).unwrap();
    raw.execute("UPDATE tasks SET body = '{}' WHERE id = 't7'", []).unwrap();
    let error = one.store.load("t7", NOW).await.err().unwrap();
    assert_eq!((error.kind, error.key.as_str()), (StoreErrorKind::Refused, "t7"), "{}", error.source);
    raw.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop((raw, one.store));
    let mut bytes = std::fs::read(&one.path).unwrap();
    bytes[8192..].fill(0xEE);
    std::fs::write(&one.path, bytes).unwrap();
    let store = SqliteTaskStore::open(&one.path).unwrap();
    let error = store.list(Shelf::All, 1000, None, NOW).await.err().unwrap();
    assert_eq!(error.kind, StoreErrorKind::Refused, "{}", error.source);
    assert!(error.source.to_string().contains("tasks.db"), "{}", error.source);
}

#[test]
fn only_the_owner_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let one = opened();
    for entry in std::fs::read_dir(one.path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.file_name());
    }
}

#[tokio::test]
async fn an_open_store_keeps_its_lock_so_that_no_other_takes_itself_for_the_last() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.db");
    let store = SqliteTaskStore::open(&path).unwrap();
    store.load("nobody", NOW).await.unwrap();
    let (inode, pid) = (path.metadata().unwrap().ino(), std::process::id());
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let ours =
        |line: &str| line.contains(&format!(":{inode} ")) && line.split_whitespace().any(|w| w == pid.to_string());
    assert!(locks.lines().any(ours), "no lock of process {pid} on inode {inode}:\n{locks}");
    drop(store);
}
