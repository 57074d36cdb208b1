//! Objects beside recordings.

use super::bytes;
use crate::platform::{Place, PublicObject, PublicStore, StoreErrorKind};

fn object(text: &str) -> PublicObject {
    PublicObject { bytes: bytes(text), content_type: "text/plain", cache_control: "no-cache" }
}

/// Demands of a [`PublicStore`] what its documentation promises. Objects below `public/` stay.
pub async fn public_store(store: &dyn PublicStore) {
    let place = Place::default();
    let read = async |key: &str| store.read(&place, key).await.expect("absent or there");
    let replace = async |text: &str, seen: Option<&str>| {
        store.replace(&place, "public/a b/list", object(text), seen).await.expect("one way or the other")
    };
    assert_eq!(read("public/none").await, None);
    for text in ["first", "second", "second", ""] {
        store.put(&place, "public/x", object(text)).await.expect("an object can be put over another");
        assert_eq!(read("public/x").await.expect("what was put").0, bytes(text));
    }
    assert_eq!(replace("no", Some("\"0123\"")).await, None, "what is not there was not seen");
    let one = replace("one", None).await.expect("there was none");
    assert_eq!(replace("other", None).await, None, "there is one now");
    let two = replace("two", Some(&one)).await.expect("the one that was seen");
    assert_eq!(replace("late", Some(&one)).await, None, "who has not seen the newest is late");
    assert_eq!(read("public/a b/list").await, Some((bytes("two"), two)));
    assert_eq!(of_many(store, &place).await, 1, "one of many at once");
    let link = store.link(&place, "public/a b/list", std::time::Duration::from_secs(60)).await.expect("an address");
    let url: url::Url = link.parse().expect("an address");
    assert!(url.path().ends_with("/public/a%20b/list"), "{url}");
    for key in ["", "../x", "/x", ".x", "a//b"] {
        let refused = Some(StoreErrorKind::Refused);
        assert_eq!(store.put(&place, key, object("")).await.err().map(|e| e.kind), refused, "{key:?}");
        assert_eq!(store.replace(&place, key, object(""), None).await.err().map(|e| e.kind), refused, "{key:?}");
    }
}

/// How many of those who have seen the same replace it.
async fn of_many(store: &dyn PublicStore, place: &Place) -> usize {
    let (_, seen) = store.read(place, "public/a b/list").await.expect("there").expect("there");
    let each = (0..8).map(|n| store.replace(place, "public/a b/list", object(&format!("of many, {n}")), Some(&seen)));
    let done = futures_util::future::join_all(each).await;
    done.into_iter().filter(|r| matches!(r, Ok(Some(_)))).count()
}
