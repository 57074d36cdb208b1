//! Chunks in a bucket.

use bytes::Bytes;
use futures_util::StreamExt;
use panorec::platform::aws::{Aws, S3ChunkStore};
use panorec::platform::{ChunkStore, StoreErrorKind, conformance};

use crate::support::proxy::Proxy;
use crate::support::s3::Bucket;
use crate::support::{aws, config};

async fn store(bucket: &Bucket, prefix: &str) -> S3ChunkStore {
    S3ChunkStore::new(&aws(&bucket.endpoint).await, &bucket.name, prefix).unwrap()
}

#[tokio::test]
async fn a_bucket_keeps_what_the_port_promises() {
    let bucket = Bucket::new().await;
    conformance::chunk_store(&store(&bucket, "").await).await;
    bucket.put("panorec-of-others", b"x").await;
    conformance::chunk_store(&store(&bucket, "panorec/").await).await;
    assert_eq!(bucket.keys().await, ["panorec-of-others"], "what is outside of the prefix is not touched");
}

#[tokio::test]
async fn a_listing_of_several_pages_is_whole_and_sorted() {
    let bucket = Bucket::new().await;
    let store = store(&bucket, "panorec/").await;
    let keys: Vec<String> = (0..1010).map(|n| format!("raw/t/0/{n:08}.m4s")).collect();
    let puts = keys.iter().rev().map(|key| store.put(key, Bytes::from_static(b"x")));
    let done: Vec<_> = futures_util::stream::iter(puts).buffer_unordered(8).collect().await;
    assert!(done.iter().all(Result::is_ok));
    assert_eq!(store.list("raw/t/").await.unwrap(), keys);
}

#[tokio::test]
async fn wrong_credentials_are_refused_with_words_that_say_so() {
    let bucket = Bucket::new().await;
    let stranger = Aws::new(config(&bucket.endpoint, "another secret").await).unwrap();
    let store = S3ChunkStore::new(&stranger, &bucket.name, "").unwrap();
    for refused in [
        store.put("a", Bytes::from_static(b"x")).await.unwrap_err(),
        store.get("a").await.unwrap_err(),
        store.list("").await.unwrap_err(),
        store.delete("a").await.unwrap_err(),
    ] {
        let words = refused.source.to_string();
        assert_eq!(refused.kind, StoreErrorKind::Refused, "{words}");
        assert!(words.contains("SignatureDoesNotMatch") && words.contains("check the credentials"), "{words}");
    }
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_no_missing_object() {
    let bucket = Bucket::new().await;
    let store = S3ChunkStore::new(&aws(&bucket.endpoint).await, "no-such-bucket", "").unwrap();
    let refused = store.get("a").await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Refused, "{}", refused.source);
    assert!(refused.source.to_string().contains("NoSuchBucket"), "{}", refused.source);
}

#[tokio::test]
async fn a_network_that_is_down_is_a_passing_fault() {
    let bucket = Bucket::new().await;
    let proxy = Proxy::before(&bucket.endpoint).await;
    let store = S3ChunkStore::new(&aws(&proxy.endpoint).await, &bucket.name, "").unwrap();
    store.put("a", Bytes::from_static(b"x")).await.unwrap();
    proxy.set_down(true);
    let failed = store.put("a", Bytes::from_static(b"y")).await.unwrap_err();
    assert_eq!(failed.kind, StoreErrorKind::Unavailable, "{}", failed.source);
    proxy.set_down(false);
    assert_eq!(store.get("a").await.unwrap(), "x");
}

#[tokio::test]
async fn a_lost_answer_to_a_put_is_tried_again_unseen() {
    let bucket = Bucket::new().await;
    let proxy = Proxy::before(&bucket.endpoint).await;
    let store = S3ChunkStore::new(&aws(&proxy.endpoint).await, &bucket.name, "").unwrap();
    proxy.lose_answer_to("PUT ");
    store.put("a", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!((proxy.lost(), store.get("a").await.unwrap()), (1, Bytes::from_static(b"x")));
}
