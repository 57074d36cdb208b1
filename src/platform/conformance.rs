//! One suite that every adapter passes, so that no caller need know which one it has. Called by the adapters' tests; each
//! function panics with what was expected.

use super::{ChunkStore, HeadLastObject, StoreErrorKind};
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

/// A place for objects written head last: makes one by name, and reads what is visible under a name.
pub trait HeadLastPlace {
    /// A new object; it must not be visible before it is finished.
    fn create(&self, name: &str) -> Box<dyn HeadLastObject>;
    /// What is visible under the name.
    fn read(&self, name: &str) -> Option<Vec<u8>>;
    /// Everything that exists in the place, unfinished or temporary things included.
    fn everything(&self) -> Vec<String>;
}

/// Demands of a [`HeadLastObject`] what its documentation promises. Finished objects of the names `one` to `four` stay.
pub async fn head_last_object(place: &dyn HeadLastPlace) {
    let alignment = place.create("probe").head_alignment();
    assert!(alignment > 0);
    let head = |blocks: u64, extra: usize| Bytes::from(vec![b'H'; (alignment * blocks) as usize + extra]);
    let long: Bytes = (0..5_000_000u32).map(|n| (n % 253) as u8).collect();
    for (name, head, payload) in [
        ("one", head(1, 0), vec![bytes("payload"), bytes(""), bytes(" of "), bytes("three")]),
        ("two", head(3, 0), vec![long.clone(), bytes("x"), long]),
        ("three", head(0, 77), vec![bytes("a head of any length must do")]),
        ("four", head(1, 0), vec![]),
    ] {
        let mut object = place.create(name);
        for part in &payload {
            object.append(part.clone()).await.expect("payload can be appended");
        }
        assert_eq!(place.read(name), None, "{name} is not visible before it is finished");
        object.finish(head.clone(), "unused").await.expect("an object can be finished");
        let expected = [vec![head], payload].concat().concat();
        assert!(place.read(name).is_some_and(|got| got == expected), "{name} is head and payload");
    }
    let before = place.everything();
    let mut aborted = place.create("aborted");
    aborted.append(bytes("x")).await.expect("payload can be appended");
    aborted.abort().await.expect("an object can be aborted");
    let mut dropped = place.create("dropped");
    dropped.append(bytes("x")).await.expect("payload can be appended");
    drop(dropped);
    assert_eq!(place.everything(), before, "what was not finished leaves nothing behind");
}
