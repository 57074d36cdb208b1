//! Task records under a version.

use crate::platform::{Created, Cursor, Shelf, TaskStore, Versioned};
use crate::task::order::Order;
use crate::task::record::TaskRecord;
use crate::task::status::Status;
use futures_util::future::join_all;
use std::collections::BTreeSet;
use std::time::Duration;

/// When the suite's tasks are created: some day in 2026, so that no store believes them over.
const NOW: u64 = 1_790_000_000_000;
/// How often a listing is asked again before it counts as wrong, [`LAG_STEP`] apart: indices may lag by seconds.
const LAG_STEPS: u32 = 50;
const LAG_STEP: Duration = Duration::from_millis(100);
/// What a store must take: beyond anything a task's record grows to.
const LARGE_BYTES: usize = 90 << 10;
/// Saves and creations at once.
const RACERS: u64 = 16;

/// Demands of an empty [`TaskStore`] what its documentation promises; leaves it empty.
pub async fn task_store(store: &dyn TaskStore) {
    records_are_added_once(store).await;
    records_whose_time_is_over_do_not_exist(store).await;
    only_the_version_that_was_read_can_be_replaced(store).await;
    of_many_at_once_one_wins(store).await;
    only_the_version_that_was_read_can_be_removed(store).await;
    every_body_comes_back_as_it_was(store).await;
    listings_are_newest_first_and_in_pages(store).await;
    a_finished_task_changes_its_shelf(store).await;
    for shelf in [Shelf::All, Shelf::Running, Shelf::Finished] {
        listed(store, shelf, NOW, &[]).await;
    }
}

fn task(id: &str, created: u64) -> TaskRecord {
    TaskRecord::new(id.into(), Order::of("https://example.com/"), None, created)
}

async fn create(store: &dyn TaskStore, record: &TaskRecord, now: u64) -> u64 {
    match store.create(record, now).await.expect("a record can be added") {
        Created::New(version) => version,
        Created::Exists(found) => panic!("`{}` was not there, but {found:?} was found", record.id),
    }
}

async fn load(store: &dyn TaskStore, id: &str, now: u64) -> Option<Versioned> {
    store.load(id, now).await.expect("a record can be read")
}

async fn save(store: &dyn TaskStore, record: &TaskRecord, version: u64) -> Option<u64> {
    store.save(record, version).await.expect("a record can be replaced")
}

/// Removes a record whatever its version is.
async fn remove(store: &dyn TaskStore, id: &str) {
    if let Some(found) = load(store, id, 0).await {
        assert!(store.delete(id, found.version).await.expect("a record can be removed"), "`{id}` had that version");
    }
    assert_eq!(load(store, id, 0).await, None, "`{id}` was removed");
}

/// Every page of a listing, one after the other.
async fn pages(store: &dyn TaskStore, shelf: Shelf, limit: u32, now: u64) -> Vec<String> {
    let (mut ids, mut after) = (Vec::new(), None::<Cursor>);
    for _ in 0..100 {
        let page = store.list(shelf, limit, after.as_ref(), now).await.expect("tasks can be listed");
        assert!(page.records.len() <= limit as usize, "{} on a page of {limit}", page.records.len());
        ids.extend(page.records.into_iter().map(|r| r.id));
        match page.next {
            Some(next) => after = Some(next),
            None => return ids,
        }
    }
    panic!("a listing of {ids:?} does not end");
}

/// Waits until a shelf holds just these, newest first.
async fn listed(store: &dyn TaskStore, shelf: Shelf, now: u64, expected: &[&str]) {
    let mut seen = Vec::new();
    for _ in 0..LAG_STEPS {
        seen = pages(store, shelf, 100, now).await;
        if seen == expected {
            return;
        }
        tokio::time::sleep(LAG_STEP).await;
    }
    assert_eq!(seen, expected, "{shelf:?}");
}

async fn records_are_added_once(store: &dyn TaskStore) {
    let record = task("once", NOW);
    assert_eq!(load(store, "once", NOW).await, None);
    let version = create(store, &record, NOW).await;
    let there = Versioned { record: record.clone(), version };
    assert_eq!(load(store, "once", NOW).await, Some(there.clone()));
    let other = TaskRecord { created: NOW + 1, ..record };
    let again = store.create(&other, NOW).await.expect("a record that exists is no error");
    assert_eq!(again, Created::Exists(Box::new(there.clone())));
    assert_eq!(load(store, "once", NOW).await, Some(there), "it is left as it was");
    remove(store, "once").await;
}

async fn records_whose_time_is_over_do_not_exist(store: &dyn TaskStore) {
    let old = TaskRecord { expires: NOW + 10, ..task("over", NOW) };
    let first = create(store, &old, NOW).await;
    assert!(load(store, "over", NOW + 9).await.is_some());
    assert_eq!(load(store, "over", NOW + 10).await, None);
    listed(store, Shelf::All, NOW + 9, &["over"]).await;
    listed(store, Shelf::All, NOW + 10, &[]).await;
    listed(store, Shelf::Running, NOW + 10, &[]).await;
    let new = TaskRecord { expires: NOW + 30, ..task("over", NOW + 20) };
    create(store, &new, NOW + 20).await;
    let found = load(store, "over", NOW + 20).await;
    assert_eq!(found.as_ref().map(|f| &f.record), Some(&new), "the id can be used again");
    let late = save(store, &old, first).await;
    assert_eq!(late, None, "whoever still has the old record has lost");
    listed(store, Shelf::All, NOW + 20, &["over"]).await;
    remove(store, "over").await;
}

async fn only_the_version_that_was_read_can_be_replaced(store: &dyn TaskStore) {
    let mut record = task("saved", NOW);
    assert_eq!(save(store, &record, 1).await, None, "what is not there cannot be replaced");
    assert_eq!(load(store, "saved", NOW).await, None, "nor does that add it");
    let first = create(store, &record, NOW).await;
    record.status = Status::Recording;
    record.started = Some(NOW + 5);
    let second = save(store, &record, first).await.expect("it has the version that it was created with");
    assert_eq!(second, first + 1, "versions count up");
    let expected = Some(Versioned { record: record.clone(), version: second });
    assert_eq!(load(store, "saved", NOW).await, expected);
    let stale = TaskRecord { status: Status::Paused, ..record };
    for version in [first, second + 1, 0] {
        assert_eq!(save(store, &stale, version).await, None, "version {version}");
    }
    assert_eq!(load(store, "saved", NOW).await, expected, "who lost has changed nothing");
    remove(store, "saved").await;
}

async fn of_many_at_once_one_wins(store: &dyn TaskStore) {
    let record = |n| task("raced", NOW + n);
    let created = join_all(
        (0..RACERS).map(|n| async move { (n, store.create(&record(n), NOW).await.expect("a record can be added")) }),
    )
    .await;
    let winners: Vec<_> = created.iter().filter(|(_, c)| matches!(c, Created::New(_))).map(|(n, _)| *n).collect();
    assert_eq!(winners.len(), 1, "{winners:?} were all added");
    let mut now = load(store, "raced", NOW).await.expect("it was added");
    assert_eq!(now.record, record(winners[0]));
    for (_, other) in created {
        if let Created::Exists(found) = other {
            assert_eq!(*found, now, "the others find the one that won");
        }
    }
    for _ in 0..4 {
        let version = now.version;
        let saved = join_all((0..RACERS).map(|n| async move { (n, save(store, &record(n), version).await) })).await;
        let winners: Vec<_> = saved.iter().filter_map(|(n, v)| Some((*n, (*v)?))).collect();
        assert_eq!(winners.len(), 1, "{winners:?} have all replaced version {version}");
        now = load(store, "raced", NOW).await.expect("it is there");
        assert_eq!((now.record.created, now.version), (NOW + winners[0].0, winners[0].1));
    }
    let deleted = join_all((0..RACERS).map(|_| store.delete("raced", now.version))).await;
    assert_eq!(deleted.into_iter().filter(|d| matches!(d, Ok(true))).count(), 1, "one has removed it");
}

async fn only_the_version_that_was_read_can_be_removed(store: &dyn TaskStore) {
    let delete = async |version| store.delete("gone", version).await.expect("a record can be removed");
    assert!(!delete(1).await, "it is not there");
    let record = task("gone", NOW);
    let first = create(store, &record, NOW).await;
    let second = save(store, &record, first).await.expect("it has that version");
    assert!(!delete(first).await, "it has another version");
    assert!(load(store, "gone", NOW).await.is_some());
    assert!(delete(second).await);
    assert_eq!(load(store, "gone", NOW).await, None);
    assert!(!delete(second).await, "it was removed already");
}

async fn every_body_comes_back_as_it_was(store: &dyn TaskStore) {
    for (id, text) in [
        ("unicode", "名前 🎥 \u{0}\u{7f}\u{2028} \"'\\ é e\u{301}".to_owned()),
        ("large", "x".repeat(LARGE_BYTES)),
        ("large-unicode", "録".repeat(LARGE_BYTES / 3)),
        ("empty", String::new()),
    ] {
        let mut record = task(id, NOW);
        record.order.page_title = Some(text);
        record.order.target.dir = Some("a/b c".into());
        record.fingerprint = Some("f".into());
        let version = create(store, &record, NOW).await;
        let found = load(store, id, NOW).await.expect("it was added");
        assert!(found.record == record, "`{id}` comes back as it was");
        record.finished = Some(NOW + 1);
        save(store, &record, version).await.expect("it has that version");
        assert!(load(store, id, NOW).await.is_some_and(|f| f.record == record), "`{id}` comes back as it was saved");
        remove(store, id).await;
    }
}

async fn listings_are_newest_first_and_in_pages(store: &dyn TaskStore) {
    // Three of a moment, and moments whose numbers of digits differ.
    let tasks = [("b", 100), ("a", 99), ("c", 100), ("a2", 100), ("z", 9), ("y", NOW), ("x", NOW - 1)];
    for (id, created) in tasks {
        let record = TaskRecord { expires: NOW + 1000, ..task(id, created) };
        create(store, &record, NOW).await;
    }
    let order = ["y", "x", "c", "b", "a2", "a", "z"];
    listed(store, Shelf::All, NOW, &order).await;
    for limit in 1..=8 {
        assert_eq!(pages(store, Shelf::All, limit, NOW).await, order, "in pages of {limit}");
        assert_eq!(pages(store, Shelf::Running, limit, NOW).await, order, "in pages of {limit}");
    }
    let from = |created, id: &str| Cursor { created, id: id.into() };
    for (after, expected) in [
        (from(100, "b"), &order[4..]),
        (from(100, "bb"), &order[3..]), // nobody's position, or that of a task which was removed
        (from(50, "q"), &order[6..]),
        (from(9, "z"), &[]),
        (from(u64::MAX, ""), &order),
    ] {
        let page = store.list(Shelf::All, 100, Some(&after), NOW).await.expect("tasks can be listed");
        assert_eq!(page.records.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), expected, "after {after:?}");
    }
    let page = store.list(Shelf::All, 2, None, NOW).await.expect("tasks can be listed");
    assert_eq!(page.next, Some(from(NOW - 1, "x")), "the position of the last");
    for (id, _) in tasks {
        remove(store, id).await;
    }
}

async fn a_finished_task_changes_its_shelf(store: &dyn TaskStore) {
    let ids = ["s1", "s2", "s3"];
    let mut versions = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        versions.push(create(store, &task(id, NOW + n as u64), NOW).await);
    }
    listed(store, Shelf::Running, NOW, &["s3", "s2", "s1"]).await;
    listed(store, Shelf::Finished, NOW, &[]).await;
    let mut record = task("s2", NOW + 1);
    for status in Status::ALL {
        record.status = status;
        versions[1] = save(store, &record, versions[1]).await.expect("it has that version");
    }
    listed(store, Shelf::Running, NOW, &["s3", "s1"]).await;
    listed(store, Shelf::Finished, NOW, &["s2"]).await;
    listed(store, Shelf::All, NOW, &["s3", "s2", "s1"]).await;
    let found: BTreeSet<_> = pages(store, Shelf::Finished, 1, NOW).await.into_iter().collect();
    assert_eq!(found.len(), 1);
    for id in ids {
        remove(store, id).await;
    }
}
