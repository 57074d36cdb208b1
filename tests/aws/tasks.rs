//! Task records in a table.

use std::sync::Arc;

use futures_util::future::join_all;
use panorec::platform::aws::DynamoTaskStore;
use panorec::platform::{Created, Shelf, StoreErrorKind, TaskStore, Versioned, conformance};
use panorec::task::order::Order;
use panorec::task::record::TaskRecord;
use panorec::task::status::Status;

use crate::support::aws;
use crate::support::canned::Canned;
use crate::support::proxy::Proxy;
use crate::support::tables::{TABLE, Tables};

const NOW: u64 = 1_700_000_000_000;

async fn store(endpoint: &str) -> DynamoTaskStore {
    DynamoTaskStore::new(&aws(endpoint).await, TABLE)
}

fn task(id: &str, created: u64) -> TaskRecord {
    TaskRecord::new(id.into(), Order::of("https://example.com/"), None, created)
}

#[tokio::test]
async fn a_table_keeps_what_the_port_promises() {
    let tables = Tables::new().await;
    conformance::task_store(&store(&tables.endpoint).await).await;
}

#[tokio::test]
async fn removal_by_the_service_is_late_and_never_early() {
    let tables = Tables::new().await;
    let store = store(&tables.endpoint).await;
    let mut record = task("t", NOW);
    record.expires = NOW + 1_001;
    store.create(&record, NOW).await.unwrap();
    let key = aws_sdk_dynamodb::types::AttributeValue::S("t".into());
    let item = tables.client.get_item().table_name(TABLE).key("id", key).send().await.unwrap().item.unwrap();
    assert_eq!(item["ttl"].as_n().unwrap(), &(NOW / 1000 + 2).to_string());
    assert!(store.load("t", NOW + 1_000).await.unwrap().is_some());
    assert_eq!(store.load("t", NOW + 1_001).await.unwrap(), None, "over, though the item is still there");
    assert_eq!(store.create(&task("t", NOW), NOW + 1_001).await.unwrap(), Created::New(NOW + 1_001));
}

#[tokio::test]
async fn of_many_who_change_a_record_at_once_each_version_has_one_author() {
    let tables = Tables::new().await;
    let store = Arc::new(store(&tables.endpoint).await);
    store.create(&task("t", NOW), NOW).await.unwrap();
    let writers = (0..8).map(|_| async {
        for _ in 0..5 {
            loop {
                let Versioned { mut record, version } = store.load("t", NOW).await.unwrap().unwrap();
                record.last_seq += 1;
                if let Some(next) = store.save(&record, version).await.unwrap() {
                    assert_eq!(next, version + 1);
                    break;
                }
            }
        }
    });
    join_all(writers).await;
    let last = store.load("t", NOW).await.unwrap().unwrap();
    assert_eq!((last.record.last_seq, last.version), (40, NOW + 40), "no change was lost, none was made twice");
}

#[tokio::test]
async fn a_lost_answer_to_a_write_is_an_error_and_never_a_wrong_answer() {
    let tables = Tables::new().await;
    let proxy = Proxy::before(&tables.endpoint).await;
    let store = store(&proxy.endpoint).await;
    let record = task("t", NOW);
    let unknown = |kind| assert_eq!(kind, StoreErrorKind::Unavailable);

    proxy.lose_answer_to("POST ");
    unknown(store.create(&record, NOW).await.unwrap_err().kind);
    let found = store.create(&record, NOW).await.unwrap();
    assert_eq!(found, Created::Exists(Box::new(Versioned { record: record.clone(), version: NOW })));

    proxy.lose_answer_to("POST ");
    unknown(store.save(&record, NOW).await.unwrap_err().kind);
    assert_eq!(store.load("t", NOW).await.unwrap().unwrap().version, NOW + 1, "it was replaced once");

    proxy.lose_answer_to("POST ");
    unknown(store.delete("t", NOW + 1).await.unwrap_err().kind);
    assert_eq!(store.load("t", NOW).await.unwrap(), None);
    assert_eq!(proxy.lost(), 3);

    proxy.lose_answer_to("POST ");
    assert_eq!(store.load("t", NOW).await.unwrap(), None, "a read is tried again");
    assert_eq!(proxy.lost(), 4);
}

#[tokio::test]
async fn throttling_is_tried_again_within_a_bound_and_then_says_so() {
    let busy =
        r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"slow"}"#;
    let table = Canned::answering(400, "ProvisionedThroughputExceededException", busy).await;
    let store = store(&table.endpoint).await;
    let record = task("t", NOW);
    let kinds = [
        store.save(&record, 1).await.unwrap_err().kind,
        store.create(&record, NOW).await.unwrap_err().kind,
        store.delete("t", 1).await.unwrap_err().kind,
        store.load("t", NOW).await.unwrap_err().kind,
        store.list(Shelf::Running, 10, None, NOW).await.unwrap_err().kind,
    ];
    assert_eq!(kinds, [StoreErrorKind::Throttled; 5]);
    assert_eq!(table.asked(), 5 * 3);
}

#[tokio::test]
async fn a_server_error_is_tried_again_for_reads_only() {
    let error = r#"{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError","message":"oops"}"#;
    let table = Canned::answering(500, "InternalServerError", error).await;
    let store = store(&table.endpoint).await;
    let saved = store.save(&task("t", NOW), 1).await.unwrap_err();
    assert_eq!((saved.kind, table.asked()), (StoreErrorKind::Unavailable, 1), "{}", saved.source);
    let loaded = store.load("t", NOW).await.unwrap_err();
    assert_eq!((loaded.kind, table.asked()), (StoreErrorKind::Unavailable, 1 + 3), "{}", loaded.source);
}

#[tokio::test]
async fn a_table_that_is_not_there_is_a_matter_of_configuration() {
    let tables = Tables::new().await;
    let store = DynamoTaskStore::new(&aws(&tables.endpoint).await, "another");
    let refused = store.load("t", NOW).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Refused, "{}", refused.source);
    assert!(refused.source.to_string().contains("ResourceNotFound"), "{}", refused.source);
}

#[tokio::test]
async fn listing_goes_on_where_expired_records_fill_whole_pages() {
    let tables = Tables::new().await;
    let store = store(&tables.endpoint).await;
    let mut expected = Vec::new();
    for n in 0..60 {
        let mut record = task(&format!("t{n:02}"), NOW + n);
        if n % 20 == 0 {
            record.status = if n == 20 { Status::Finished } else { Status::Normal };
            expected.insert(0, record.id.clone());
        } else {
            record.expires = NOW + 100;
        }
        store.create(&record, NOW).await.unwrap();
    }
    let (mut ids, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = store.list(Shelf::All, 1, after.as_ref(), NOW + 100).await.unwrap();
        assert!(page.records.len() <= 1);
        ids.extend(page.records.into_iter().map(|r| r.id));
        pages += 1;
        assert!(pages < 50, "the listing ends");
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(ids, expected);
}
