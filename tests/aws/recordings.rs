//! Recordings in a bucket, written head last.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use bytes::Bytes;
use panorec::platform::aws::{Aws, S3Recordings};
use panorec::platform::conformance::{self, HeadLastPlace};
use panorec::platform::{Clock, HeadLastObject, Place, PublicStore, RecordingStore, StoreErrorKind};

use crate::support::aws;
use crate::support::proxy::Proxy;
use crate::support::s3::Bucket;

/// Unix milliseconds of the tests' clock.
const NOW: u64 = 1_700_000_000_123;
/// What is held back, and what goes up while recording.
const HELD: usize = 5 << 20;
const PART: usize = 5 << 20;
/// For what happens behind our back; it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

struct Frozen;

impl Clock for Frozen {
    fn now(&self) -> u64 {
        NOW
    }
}

async fn recordings(bucket: &Bucket, endpoint: &str) -> S3Recordings {
    S3Recordings::new(&aws(endpoint).await, &bucket.name, None, Arc::new(Frozen))
}

fn place(dir: &str, name: Option<&str>) -> Place {
    Place { dir: dir.into(), name: name.map(Into::into), ..Place::default() }
}

/// Bytes that do not repeat where parts could be swapped.
fn noise(len: usize, mut seed: u64) -> Bytes {
    let words = std::iter::repeat_with(move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed.to_be_bytes()
    });
    words.flatten().take(len).collect()
}

/// Payload in pieces like segments, and all of it.
fn payload(len: usize) -> (Vec<Bytes>, Bytes) {
    let mut all = noise(len, 1);
    let whole = all.clone();
    let pieces = std::iter::from_fn(|| (!all.is_empty()).then(|| all.split_to(all.len().min(1_000_000)))).collect();
    (pieces, whole)
}

async fn append_all(object: &mut Box<dyn HeadLastObject>, pieces: &[Bytes]) {
    for piece in pieces {
        object.append(piece.clone()).await.unwrap();
    }
}

struct InBucket {
    bucket: Bucket,
    recordings: S3Recordings,
}

#[async_trait]
impl HeadLastPlace for InBucket {
    async fn create(&self, name: &str) -> Box<dyn HeadLastObject> {
        self.recordings.create(&place("", Some(name))).await.unwrap()
    }
    async fn read(&self, name: &str) -> Option<Vec<u8>> {
        self.bucket.read(name).await
    }
    async fn everything(&self) -> Vec<String> {
        let mut all = self.bucket.keys().await;
        all.extend(self.bucket.uploads().await.into_iter().map(|(key, _)| format!("upload of {key}")));
        all
    }
}

#[tokio::test]
async fn a_bucket_keeps_what_the_port_promises() {
    let bucket = Bucket::new().await;
    let recordings = recordings(&bucket, &bucket.endpoint).await;
    let place = InBucket { bucket, recordings };
    conformance::head_last_object(&place).await;
    conformance::recording_store(&place.recordings, &place).await;
    conformance::recordings_are_gone_on_with(&place.recordings, &place).await;
    conformance::public_store(&place.recordings).await;
}

/// What a web server is to say of a recording.
fn is_described(head: &aws_sdk_s3::operation::head_object::HeadObjectOutput) {
    assert_eq!((head.content_type(), head.cache_control()), (Some("video/mp4"), Some("public, max-age=3600")));
}

#[tokio::test]
async fn a_long_recording_goes_up_while_it_is_made_and_its_head_comes_last() {
    let bucket = Bucket::new().await;
    let recordings = recordings(&bucket, &bucket.endpoint).await;
    let mut object = recordings.create(&place("dir/sub", Some("long.mp4"))).await.unwrap();
    let (pieces, whole) = payload(HELD + 2 * PART + 4_000_000);
    append_all(&mut object, &pieces).await;
    let (key, parts) = bucket.uploads().await.pop().expect("an upload is under way");
    assert_eq!(key, "dir/sub/long.mp4");
    assert!(!parts.contains(&1) && parts.contains(&2), "part 1 waits for the head: {parts:?}");
    assert_eq!(bucket.read("dir/sub/long.mp4").await, None, "nothing is visible before the end");

    let head = noise(100_003, 2);
    assert_eq!(object.finish(head.clone(), "ignored.mp4").await.unwrap(), "dir/sub/long.mp4");
    let made = bucket.client.head_object().bucket(&bucket.name).key("dir/sub/long.mp4").send().await.unwrap();
    is_described(&made);
    let parts = made.e_tag().unwrap().trim_matches('"').rsplit_once('-').map(|(_, parts)| parts);
    assert_eq!(parts, Some("4"), "head and what was held, two whole parts, the rest");
    let got = bucket.read("dir/sub/long.mp4").await.unwrap();
    assert!(got == [head, whole].concat(), "{} bytes came back", got.len());
    assert_eq!(bucket.uploads().await, []);
}

#[tokio::test]
async fn a_recording_without_a_name_is_called_after_the_end_or_after_the_moment_it_outgrew_memory() {
    let bucket = Bucket::new().await;
    let recordings = recordings(&bucket, &bucket.endpoint).await;
    let mut small = recordings.create(&place("t", None)).await.unwrap();
    small.append(Bytes::from_static(b"payload")).await.unwrap();
    assert_eq!(small.finish(Bytes::from_static(b"head "), "1234.mp4").await.unwrap(), "t/1234.mp4");
    assert_eq!(bucket.read("t/1234.mp4").await.unwrap(), b"head payload");
    is_described(&bucket.client.head_object().bucket(&bucket.name).key("t/1234.mp4").send().await.unwrap());

    let mut large = recordings.create(&place("t", None)).await.unwrap();
    let (pieces, whole) = payload(HELD + PART + 3_000_000);
    append_all(&mut large, &pieces).await;
    let key = large.finish(Bytes::from_static(b"head "), "1234.mp4").await.unwrap();
    assert_eq!(key, format!("t/{NOW}.mp4"));
    assert!(bucket.read(&key).await.unwrap() == [&b"head "[..], &whole].concat());
}

#[tokio::test]
async fn names_that_are_taken_are_left_alone() {
    let bucket = Bucket::new().await;
    let recordings = recordings(&bucket, &bucket.endpoint).await;
    bucket.put("x.mp4", b"theirs").await;
    let finish = async |small: bool| {
        let mut object = recordings.create(&place("", Some("x.mp4"))).await.unwrap();
        let (pieces, _) = payload(if small { 10 } else { HELD + PART + 3_000_000 });
        append_all(&mut object, &pieces).await;
        object.finish(Bytes::from_static(b"head"), "y.mp4").await.unwrap()
    };
    assert_eq!(finish(true).await, "x-1.mp4");
    assert_eq!(finish(true).await, "x-2.mp4");
    assert_eq!(finish(false).await, "x-3.mp4");
    assert_eq!(bucket.read("x.mp4").await.unwrap(), b"theirs");
    assert_eq!(bucket.keys().await, ["x-1.mp4", "x-2.mp4", "x-3.mp4", "x.mp4"]);
}

#[tokio::test]
async fn a_name_that_is_taken_while_recording_is_lost_and_the_error_says_so() {
    let bucket = Bucket::new().await;
    let recordings = recordings(&bucket, &bucket.endpoint).await;
    let mut object = recordings.create(&place("t", Some("x.mp4"))).await.unwrap();
    append_all(&mut object, &payload(HELD + PART + 3_000_000).0).await;
    assert_eq!(bucket.uploads().await.len(), 1, "the upload has begun");
    bucket.put("t/x.mp4", b"theirs").await;
    let lost = object.finish(Bytes::from_static(b"head"), "y.mp4").await.unwrap_err();
    assert_eq!((lost.kind, lost.key.as_str()), (StoreErrorKind::Refused, "t/x.mp4"), "{}", lost.source);
    assert_eq!(bucket.read("t/x.mp4").await.unwrap(), b"theirs");
    assert_eq!((bucket.keys().await.len(), bucket.uploads().await), (1, vec![]));
}

#[tokio::test]
async fn two_recordings_of_one_name_at_once_are_both_kept() {
    let bucket = Bucket::new().await;
    let recordings = recordings(&bucket, &bucket.endpoint).await;
    let finish = async |payload: &'static [u8]| {
        let mut object = recordings.create(&place("", Some("x.mp4"))).await.unwrap();
        object.append(Bytes::from_static(payload)).await.unwrap();
        object.finish(Bytes::from_static(b"head "), "y.mp4").await.unwrap()
    };
    let (one, two) = tokio::join!(finish(b"one"), finish(b"two"));
    assert_ne!(one, two);
    assert_eq!(bucket.read(&one).await.unwrap(), b"head one");
    assert_eq!(bucket.read(&two).await.unwrap(), b"head two");
}

#[tokio::test]
async fn what_is_aborted_or_dropped_leaves_no_upload_behind() {
    let bucket = Bucket::new().await;
    let recordings = recordings(&bucket, &bucket.endpoint).await;
    let begin = async |name: &str| {
        let mut object = recordings.create(&place("", Some(name))).await.unwrap();
        append_all(&mut object, &payload(HELD + PART + 3_000_000).0).await;
        object
    };
    let (aborted, dropped) = (begin("aborted").await, begin("dropped").await);
    assert_eq!(bucket.uploads().await.len(), 2);
    aborted.abort().await.unwrap();
    assert_eq!(bucket.uploads().await.len(), 1);
    drop(dropped);
    let gone = async {
        while !bucket.uploads().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the upload of a dropped object is aborted");
    assert_eq!(bucket.keys().await, [""; 0]);
}

#[tokio::test]
async fn a_lost_answer_at_the_end_makes_neither_a_second_object_nor_an_error() {
    let bucket = Bucket::new().await;
    let proxy = Proxy::before(&bucket.endpoint).await;
    let recordings = recordings(&bucket, &proxy.endpoint).await;
    for (name, len, request) in [("small.mp4", 10, "PUT /"), ("large.mp4", HELD + PART + 3_000_000, "POST /")] {
        let mut object = recordings.create(&place("", Some(name))).await.unwrap();
        let (pieces, whole) = payload(len);
        append_all(&mut object, &pieces).await;
        let lost = proxy.lost();
        proxy.lose_answer_to(request);
        assert_eq!(object.finish(Bytes::from_static(b"head"), "y.mp4").await.unwrap(), name);
        assert_eq!(proxy.lost(), lost + 1);
        assert!(bucket.read(name).await.unwrap() == [&b"head"[..], &whole].concat());
    }
    assert_eq!(bucket.keys().await, ["large.mp4", "small.mp4"]);
    assert_eq!(bucket.uploads().await, []);
}

#[tokio::test]
async fn an_end_without_a_network_waits_for_it() {
    let bucket = Bucket::new().await;
    let proxy = Proxy::before(&bucket.endpoint).await;
    let recordings = recordings(&bucket, &proxy.endpoint).await;
    for (name, len) in [("small.mp4", 10), ("large.mp4", HELD + 2 * PART)] {
        let mut object = recordings.create(&place("", Some(name))).await.unwrap();
        let (pieces, whole) = payload(len);
        append_all(&mut object, &pieces).await;
        proxy.set_down(true);
        let back = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            proxy.set_down(false);
        };
        let (key, ()) = tokio::join!(object.finish(Bytes::from_static(b"head"), "y.mp4"), back);
        assert_eq!(key.unwrap(), name);
        assert!(bucket.read(name).await.unwrap() == [&b"head"[..], &whole].concat());
    }
    assert_eq!((bucket.keys().await.len(), bucket.uploads().await), (2, vec![]));
}

#[tokio::test]
async fn a_network_that_comes_back_costs_only_what_was_refused_meanwhile() {
    let bucket = Bucket::new().await;
    let proxy = Proxy::before(&bucket.endpoint).await;
    let recordings = recordings(&bucket, &proxy.endpoint).await;
    let mut object = recordings.create(&place("", Some("x.mp4"))).await.unwrap();
    let (pieces, _) = payload(HELD + 6 * PART);
    let (mut kept, mut refused) = (Vec::new(), 0);
    for (n, piece) in pieces.iter().enumerate() {
        proxy.set_down((17..30).contains(&n));
        match object.append(piece.clone()).await {
            Ok(()) => kept.push(piece.clone()),
            Err(e) => {
                assert_eq!(e.kind, StoreErrorKind::Unavailable, "{}", e.source);
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "memory is bounded while nothing goes up");
    assert_eq!(object.finish(Bytes::from_static(b"head"), "y.mp4").await.unwrap(), "x.mp4");
    let expected = [vec![Bytes::from_static(b"head")], kept].concat().concat();
    assert!(bucket.read("x.mp4").await.unwrap() == expected);
}

#[tokio::test]
async fn a_place_may_name_another_bucket_and_bad_places_are_refused() {
    let (bucket, other) = (Bucket::new().await, Bucket::new().await);
    let recordings = recordings(&bucket, &bucket.endpoint).await;
    let elsewhere =
        Place { bucket: Some(other.name.clone()), region: Some("eu-west-1".into()), ..place("t", Some("x")) };
    let object = recordings.create(&elsewhere).await.unwrap();
    assert_eq!(object.finish(Bytes::from_static(b"head"), "y").await.unwrap(), "t/x");
    assert_eq!((bucket.keys().await.len(), other.read("t/x").await.unwrap()), (0, b"head".to_vec()));
    for bad in [
        place("../up", Some("x")),
        place("t", Some("a/b")),
        place("t", Some(".hidden")),
        Place { bucket: Some("host.example/".into()), ..place("t", None) },
        Place { region: Some("host.example/".into()), ..place("t", None) },
    ] {
        let refused = recordings.create(&bad).await.err().map(|e| e.kind);
        assert_eq!(refused, Some(StoreErrorKind::Refused), "{bad:?}");
    }
}

#[tokio::test]
async fn another_regions_bucket_is_spoken_to_at_its_own_address_and_signed_for_it() {
    let config = |endpoint: Option<&str>| {
        let keys = aws_sdk_s3::config::Credentials::new("id", "secret", None, None, "tests");
        let config = SdkConfig::builder().region(Region::new("eu-west-1")).behavior_version(BehaviorVersion::latest());
        let config = config.credentials_provider(aws_sdk_s3::config::SharedCredentialsProvider::new(keys));
        let mut config = config.build().into_builder();
        config.set_endpoint_url(endpoint.map(Into::into));
        Aws::new(config.build()).unwrap()
    };
    let of = |region: &str| Place { bucket: Some("other".into()), region: Some(region.into()), ..place("", None) };
    for (endpoint, place, address, region) in [
        (None, place("", None), "https://videos.s3.eu-west-1.amazonaws.com/t/x?", "eu-west-1"),
        (None, of("us-west-2"), "https://other.s3.us-west-2.amazonaws.com/t/x?", "us-west-2"),
        (None, of("cn-north-1"), "https://other.s3.cn-north-1.amazonaws.com.cn/t/x?", "cn-north-1"),
        (Some("http://127.0.0.1:9"), of("us-west-2"), "http://127.0.0.1:9/other/t/x?", "us-west-2"),
    ] {
        let recordings = S3Recordings::new(&config(endpoint), "videos", None, Arc::new(Frozen));
        let link = recordings.link(&place, "t/x", Duration::from_secs(60)).await.unwrap();
        assert!(link.starts_with(address), "{link}");
        assert!(link.contains(&format!("%2F{region}%2Fs3%2Faws4_request")), "{link}");
    }
}

#[test]
fn addresses_follow_domain_endpoint_and_region() {
    let config = |endpoint: Option<&str>| {
        let builder = SdkConfig::builder().region(Region::new("eu-west-1")).behavior_version(BehaviorVersion::latest());
        let mut config = builder.build().into_builder();
        config.set_endpoint_url(endpoint.map(Into::into));
        Aws::new(config.build()).unwrap()
    };
    let url = |endpoint, domain, place: &Place| {
        S3Recordings::new(&config(endpoint), "videos", domain, Arc::new(Frozen)).url(place, "a b/x.mp4", None)
    };
    let ours = place("", None);
    let other = Place { bucket: Some("other".into()), region: Some("cn-north-1".into()), ..place("", None) };
    assert_eq!(url(None, None, &ours), "https://videos.s3.eu-west-1.amazonaws.com/a%20b/x.mp4");
    assert_eq!(url(None, Some("cdn.example"), &ours), "https://cdn.example/a%20b/x.mp4");
    assert_eq!(
        url(None, Some("cdn.example"), &other),
        "https://other.s3.cn-north-1.amazonaws.com.cn/a%20b/x.mp4",
        "the domain is that of our bucket"
    );
    let named = S3Recordings::new(&config(None), "videos", Some("cdn.example"), Arc::new(Frozen));
    assert_eq!(named.url(&other, "x.mp4", Some("their.example")), "https://their.example/x.mp4");
    assert_eq!(url(Some("http://127.0.0.1:9/"), None, &ours), "http://127.0.0.1:9/videos/a%20b/x.mp4");
}
