//! Objects written head last, and the store that finished recordings are kept in.

use super::bytes;
use crate::platform::{HeadLastObject, Place, RecordingStore, StoreErrorKind};
use async_trait::async_trait;
use bytes::Bytes;

/// A place for objects written head last: makes one by name, and reads what is visible under a key.
#[async_trait]
pub trait HeadLastPlace: Sync {
    /// A new object; it must not be visible before it is finished.
    async fn create(&self, name: &str) -> Box<dyn HeadLastObject>;
    /// What is visible under a key that `finish` returned.
    async fn read(&self, key: &str) -> Option<Vec<u8>>;
    /// Everything that exists in the place, unfinished or temporary things included.
    async fn everything(&self) -> Vec<String>;
}

/// Demands of a [`HeadLastObject`] what its documentation promises. Finished objects of the names `one` to `four` stay.
pub async fn head_last_object(place: &dyn HeadLastPlace) {
    let probe = place.create("probe").await;
    let alignment = probe.head_alignment();
    probe.abort().await.expect("an object can be aborted");
    assert!(alignment > 0);
    let head = |blocks: u64, extra: usize| Bytes::from(vec![b'H'; (alignment * blocks) as usize + extra]);
    let long: Bytes = (0..5_000_000u32).map(|n| (n % 253) as u8).collect();
    for (name, head, payload) in [
        ("one", head(1, 0), vec![bytes("payload"), bytes(""), bytes(" of "), bytes("three")]),
        ("two", head(3, 0), vec![long.clone(), bytes("x"), long]),
        ("three", head(0, 77), vec![bytes("a head of any length must do")]),
        ("four", head(1, 0), vec![]),
    ] {
        let before = place.everything().await;
        let mut object = place.create(name).await;
        for part in &payload {
            object.append(part.clone()).await.expect("payload can be appended");
        }
        assert!(place.read(name).await.is_none(), "{name} is not visible before it is finished");
        let key = object.finish(head.clone(), "ignored").await.expect("an object can be finished");
        assert!(!before.contains(&key), "{key} is new");
        let expected = [vec![head], payload].concat().concat();
        assert!(place.read(&key).await.is_some_and(|got| got == expected), "{name} is head and payload");
    }
    let before = place.everything().await;
    let mut aborted = place.create("aborted").await;
    aborted.append(bytes("x")).await.expect("payload can be appended");
    aborted.abort().await.expect("an object can be aborted");
    let mut dropped = place.create("dropped").await;
    dropped.append(bytes("x")).await.expect("payload can be appended");
    drop(dropped);
    assert_eq!(place.everything().await, before, "what was not finished leaves nothing behind");
}

/// Demands of an empty [`RecordingStore`] what its documentation promises; `place` sees what is in it. Recordings stay.
pub async fn recording_store(store: &dyn RecordingStore, place: &dyn HeadLastPlace) {
    names_are_given_at_the_start_or_at_the_end(store, place).await;
    nothing_is_replaced(store, place).await;
    bad_names_are_refused(store, place).await;
}

/// Demands of a [`RecordingStore`] that one process goes on with what another began, who does not know of it.
pub async fn recordings_are_gone_on_with(store: &dyn RecordingStore, seen: &dyn HeadLastPlace) {
    for (name, lives) in [("x.mp4", true), ("y.mp4", false)] {
        is_gone_on_with(store, seen, name, lives).await;
    }
    let mut aborted = store.create(&at("on", Some("z.mp4"))).await.expect("a recording can be begun");
    while aborted.marks().is_empty() {
        aborted.append(Bytes::from(vec![b'z'; 1_000_000])).await.expect("payload can be appended");
        aborted.settle().await.expect("what is on its way arrives");
    }
    aborted.abort().await.expect("it can be aborted");
    let unfinished = |name: &String| name.ends_with(".part") || name.contains("upload");
    let left: Vec<_> = seen.everything().await.into_iter().filter(unfinished).collect();
    assert_eq!(left, [""; 0], "nothing is left of any");
}

/// `lives`: the first process is at it still.
async fn is_gone_on_with(store: &dyn RecordingStore, seen: &dyn HeadLastPlace, name: &str, lives: bool) {
    let place = at("on", Some(name));
    let piece = |n: u32| Bytes::from_iter((0..1_000_000u32).map(|i| ((i + n) % 251) as u8));
    let mut begun = store.create(&place).await.expect("a recording can be begun");
    let (mut payload, mut marks) = (Vec::new(), Vec::new());
    while marks.len() < 2 {
        assert!(payload.len() < 64, "64 MB, and nothing of them is lasting");
        let next = piece(payload.len() as u32);
        begun.append(next.clone()).await.expect("payload can be appended");
        payload.push(next);
        begun.settle().await.expect("what is on its way arrives");
        marks.extend(begun.marks());
    }
    let payload = payload.concat();
    let last = marks.last().expect("there are marks");
    let (lasting, held) = (last.payload as usize, last.held as usize);
    let states: Vec<String> = marks.iter().map(|m| m.state.clone()).collect();
    let mut first = Some(begun).filter(|_| lives);
    let resumed = store.resume(&place, &states, Bytes::copy_from_slice(&payload[..held])).await;
    let mut second = resumed.expect("another goes on");
    for n in 0..20 {
        if let Some(first) = &mut first {
            // What becomes of it is its own business.
            let _ = first.append(Bytes::from(vec![b'!'; 1_000_000])).await;
            let _ = first.settle().await;
        }
        second.append(piece(100 + n)).await.expect("payload can be appended");
    }
    drop(first);
    let key = second.finish(bytes("H"), "").await.expect("it can be finished");
    let rest: Vec<Bytes> = (0..20).map(|n| piece(100 + n)).collect();
    let expected = [b"H".as_slice(), &payload[..lasting], &rest.concat()].concat();
    assert!(seen.read(&key).await.is_some_and(|got| got == expected), "head, what was lasting, and what followed");
    let gone = store.resume(&place, &states, Bytes::copy_from_slice(&payload[..held])).await;
    if let Ok(late) = gone {
        late.finish(bytes("Z"), "").await.expect_err("what is over is not finished again");
    }
}

fn at(dir: &str, name: Option<&str>) -> Place {
    Place { dir: dir.into(), name: name.map(Into::into), ..Place::default() }
}

async fn record(store: &dyn RecordingStore, place: &Place, payload: &str, last: &str) -> String {
    let mut object = store.create(place).await.expect("a recording can be begun");
    object.append(bytes(payload)).await.expect("payload can be appended");
    object.finish(bytes("H"), last).await.expect("a recording can be finished")
}

async fn names_are_given_at_the_start_or_at_the_end(store: &dyn RecordingStore, seen: &dyn HeadLastPlace) {
    for (dir, name, last, key) in [
        ("d/e", Some("x.mp4"), "other.mp4", "d/e/x.mp4"),
        ("d/e", None, "1700000000000.mp4", "d/e/1700000000000.mp4"),
        ("", Some("top.mp4"), "other.mp4", "top.mp4"),
        ("", None, "no extension", "no extension"),
        ("録画 1", Some("100% & more?.mp4"), "other.mp4", "録画 1/100% & more?.mp4"),
    ] {
        let place = at(dir, name);
        assert_eq!(record(store, &place, key, last).await, key);
        assert_eq!(seen.read(key).await, Some(format!("H{key}").into_bytes()), "{key}");
        let url: url::Url = store.url(&place, key, None).parse().expect("an address");
        let path = url.path().to_owned();
        assert!(path.is_ascii() && !path.contains(' ') && url.query().is_none(), "{url} is percent-encoded");
        assert!(path.ends_with(".mp4") || name.is_none(), "{url} ends as its key does");
    }
}

async fn nothing_is_replaced(store: &dyn RecordingStore, seen: &dyn HeadLastPlace) {
    let (named, later) = (at("taken", Some("x.mp4")), at("taken", None));
    let first = record(store, &named, "first", "").await;
    let (second, unnamed) = tokio::join!(
        record(store, &named, "second", ""), // they race for the next name
        record(store, &later, "third", "x.mp4"),
    );
    for (key, payload) in [(&first, "Hfirst"), (&second, "Hsecond"), (&unnamed, "Hthird")] {
        assert_eq!(seen.read(key).await, Some(payload.into()), "{key}");
        assert!(key.starts_with("taken/x") && key.ends_with(".mp4"), "{key}");
    }
    assert_eq!(first, "taken/x.mp4");
}

async fn bad_names_are_refused(store: &dyn RecordingStore, seen: &dyn HeadLastPlace) {
    let before = seen.everything().await;
    for (dir, name) in [
        ("../x", Some("x")),
        ("/etc", Some("x")),
        ("a//b", None),
        (".hidden", None),
        ("a/", Some("x")),
        ("a", Some("..")),
        ("a", Some(".x")),
        ("a", Some("b/../../x")),
        ("a", Some("x\n")),
        ("a", Some("")),
    ] {
        let refused = store.create(&at(dir, name)).await.err().map(|e| e.kind);
        assert_eq!(refused, Some(StoreErrorKind::Refused), "{dir:?} {name:?}");
    }
    for last in ["", "..", "../x", ".x", "x\0"] {
        let object = store.create(&at("late", None)).await.expect("a recording can be begun");
        let refused = object.finish(bytes("H"), last).await.err().map(|e| e.kind);
        assert_eq!(refused, Some(StoreErrorKind::Refused), "{last:?}");
    }
    assert_eq!(seen.everything().await, before, "what was refused leaves nothing behind");
}
