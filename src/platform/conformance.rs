//! One suite that every adapter passes, so that no caller need know which one it has. Called by the adapters' tests; each
//! function panics with what was expected.

mod public;
mod recordings;
mod tasks;

pub use public::public_store;
pub use recordings::{HeadLastPlace, head_last_object, recording_store, recordings_are_gone_on_with};
pub use tasks::task_store;

use super::{ChunkStore, StoreErrorKind};
use bytes::Bytes;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn put(store: &dyn ChunkStore, key: &str, content: Bytes) {
    store.put(key, content).await.expect("an object can be put");
}

async fn kind_of_get(store: &dyn ChunkStore, key: &str) -> Option<StoreErrorKind> {
    store.get(key).await.err().map(|e| e.kind)
}

/// Demands of an empty [`ChunkStore`] what its documentation promises; leaves it empty.
pub async fn chunk_store(store: &dyn ChunkStore) {
    objects_are_stored_whole_and_replaced(store).await;
    listing_follows_prefixes(store).await;
    bad_keys_are_refused(store).await;
    puts_and_deletes_at_once_do_not_disturb_each_other(store).await;
    let left = store.list("").await.expect("an empty store can be listed");
    assert_eq!(left, Vec::<String>::new(), "nothing is left behind");
}

async fn objects_are_stored_whole_and_replaced(store: &dyn ChunkStore) {
    assert_eq!(kind_of_get(store, "raw/t/0/a").await, Some(StoreErrorKind::NotFound));
    let large: Bytes = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    for content in [bytes("first"), bytes("first"), bytes(""), large] {
        put(store, "raw/t/0/a", content.clone()).await;
        let got = store.get("raw/t/0/a").await.expect("what was put");
        assert!(got == content, "{} bytes in, {} out", content.len(), got.len());
    }
    store.delete("raw/t/0/a").await.expect("an object can be deleted");
    store.delete("raw/t/0/a").await.expect("deleting an absent object succeeds");
    assert_eq!(kind_of_get(store, "raw/t/0/a").await, Some(StoreErrorKind::NotFound));
}

async fn listing_follows_prefixes(store: &dyn ChunkStore) {
    let keys =
        ["raw/t/0/00000000.m4s", "raw/t/0/00000001.m4s", "raw/t/0/init.mp4", "raw/t/1/init.mp4", "raw/t2/x", "rawest"];
    for key in keys.iter().rev() {
        put(store, key, bytes(key)).await;
    }
    for (prefix, expected) in [
        ("", &keys[..]),
        ("raw/t/", &keys[..4]),
        ("raw/t", &keys[..5]),
        ("raw/t/0/0000", &keys[..2]),
        ("raw/t/0/init.mp4", &keys[2..3]),
        ("raw/none/", &[]),
        ("rawest/", &[]),
    ] {
        let found = store.list(prefix).await.expect("a prefix can be listed");
        assert_eq!(found, expected, "prefix {prefix:?}");
    }
    for key in keys {
        store.delete(key).await.expect("an object can be deleted");
    }
}

async fn bad_keys_are_refused(store: &dyn ChunkStore) {
    for key in ["", "/etc/x", "../x", "a/../../x", "a//b", "a/", ".x", "a\nb", "a\0b"] {
        let refused = Some(StoreErrorKind::Refused);
        assert_eq!(store.put(key, bytes("x")).await.err().map(|e| e.kind), refused, "put {key:?}");
        assert_eq!(kind_of_get(store, key).await, refused, "get {key:?}");
        assert_eq!(store.delete(key).await.err().map(|e| e.kind), refused, "delete {key:?}");
    }
    assert_eq!(store.list("../").await.err().map(|e| e.kind), Some(StoreErrorKind::Refused));
}

async fn puts_and_deletes_at_once_do_not_disturb_each_other(store: &dyn ChunkStore) {
    let keys: Vec<String> = (0..40).map(|n| format!("raw/t/{}/{n}", n % 4)).collect();
    let each = keys.iter().map(|key| async move {
        for _ in 0..5 {
            put(store, key, bytes(key)).await;
            assert_eq!(store.get(key).await.expect("what was put"), bytes(key));
            store.delete(key).await.expect("an object can be deleted");
        }
    });
    futures_util::future::join_all(each).await;
}
