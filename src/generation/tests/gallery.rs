//! Pictures beside a recording, through hand-overs, crashes and stores that fail.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::guarded::Guarded;
use super::studio::{SEGMENT, SIZE, shown};
use super::town::{Fate, Past, Town, WELL};
use super::world::World;
use crate::delivery::pictures::{Index, jpeg};
use crate::generation::preview;
use crate::platform::{Platform, PublicObject, StoreError, StoreErrorKind};
use crate::task::order::Order;
use crate::task::output::{Muxer, Pictures};
use crate::task::status::Status;

/// Samples of a segment in milliseconds, rounded down.
const SEGMENT_MS: u64 = SEGMENT / 48;
/// A sheet is stored as often, and what is newer is lost with the recorder; then comes the next picture.
const LOST_MS: u64 = 60_000;

fn order(interval_seconds: Option<u32>) -> Order {
    let pictures = Some(Pictures { interval_seconds });
    Order { pictures, muxer: Muxer::Both, ..Order::of("https://example.com/") }
}

/// What lies in the directory of pictures, by its last name.
fn file(world: &World, name: &str) -> Option<Bytes> {
    let files = world.recordings.visible();
    files.into_iter().find(|(key, _)| key.contains("/pictures-") && key.ends_with(&format!("/{name}"))).map(|f| f.1)
}

/// The index, all of whose sheets are there, in the order of the file and of the generations.
fn index(world: &World) -> Index {
    let index = Index::read(std::str::from_utf8(&file(world, "thumbnails.vtt").expect("an index")).unwrap()).unwrap();
    for pair in index.cues.windows(2) {
        assert!(pair[0].at_ms < pair[1].at_ms && pair[0].sheet <= pair[1].sheet, "{pair:?}");
    }
    for cue in &index.cues {
        assert!(file(world, &cue.sheet).is_some(), "{cue:?}");
    }
    index
}

#[tokio::test(start_paused = true)]
async fn a_recording_gets_a_poster_and_thumbnails_of_all_of_it() {
    let world = World::of(40);
    world.task(order(Some(2))).await;
    let looking = async {
        world.until(Status::Recording).await;
        tokio::time::sleep(Duration::from_secs(8)).await;
        let links = preview(&world.platform, &world.record().await).await.unwrap().expect("something to see");
        assert!(links.playlist.is_some_and(|url| url.ends_with("/playlist.m3u8")));
        assert!(links.picture.is_some_and(|url| url.ends_with("/newest.jpg")));
    };
    let (answer, ()) = tokio::join!(world.invoke(&world.platform), looking);
    answer.unwrap();
    let task = world.record().await;
    assert_eq!(task.result.failure, None);
    assert_eq!(file(&world, "poster.jpg").unwrap(), jpeg(&shown(1, 0), SIZE));
    assert_eq!(file(&world, "newest.jpg").unwrap(), jpeg(&shown(1, 39), SIZE));
    let cues = index(&world).cues;
    // One at the first segment that begins when two more seconds are over.
    assert_eq!(cues.len(), 32);
    for (n, cue) in (0..).zip(&cues) {
        assert_eq!(cue.at_ms, (n * 96_000_u64).div_ceil(SEGMENT) * SEGMENT / 48, "{cue:?}");
        assert_eq!(cue.sheet, format!("thumbnails-1-{:04}.jpg", n / 25));
    }
    for video in &task.result.videos {
        assert!(video.poster_url.as_ref().is_some_and(|url| url.ends_with("/poster.jpg")), "{video:?}");
        assert!(video.thumbnails_url.as_ref().is_some_and(|url| url.ends_with("/thumbnails.vtt")), "{video:?}");
    }
    let text = String::from_utf8(file(&world, "thumbnails.vtt").unwrap().to_vec()).unwrap();
    assert!(text.contains(" --> 00:01:04.000\n"), "it ends with the file: {text}");
    assert_eq!(preview(&world.platform, &task).await.unwrap(), None, "nothing grows any more");
}

#[tokio::test(start_paused = true)]
async fn a_poster_alone_needs_one_picture() {
    let world = World::of(10);
    world.task(order(None)).await;
    world.invoke(&world.platform).await.unwrap();
    let there: Vec<_> = world.recordings.visible().into_keys().filter(|key| key.contains("/pictures-")).collect();
    assert!(there.len() == 1 && there[0].ends_with("/poster.jpg"), "{there:?}");
    let video = &world.record().await.result.videos[0];
    assert!(video.poster_url.is_some() && video.thumbnails_url.is_none());
}

async fn recorded(fate: impl FnMut(usize) -> Fate) -> (Arc<World>, Past) {
    let town = Town::with(Duration::from_secs(60), &[], order(Some(5))).await;
    let world = Arc::clone(&town.world);
    let stopped = Arc::clone(&world);
    let caller = async move {
        tokio::time::sleep(Duration::from_secs(170)).await;
        stopped.stop().await;
    };
    let past = town.live(fate, caller).await;
    (world, past)
}

#[tokio::test(start_paused = true)]
async fn pictures_go_on_through_hand_overs_and_a_crash_and_the_poster_stays() {
    for killed in [None, Some(1)] {
        let fate = |n| match killed == Some(n) {
            true => Fate { lives: Duration::from_secs(45), ..WELL },
            false => WELL,
        };
        let (world, past) = recorded(fate).await;
        assert!(past.invocations > 2, "{}", past.invocations);
        assert_eq!(file(&world, "poster.jpg").unwrap(), jpeg(&shown(1, 0), SIZE), "it is the first generation's");
        let cues = index(&world).cues;
        let generations: std::collections::BTreeSet<_> = cues.iter().map(|c| c.sheet.split('-').nth(1)).collect();
        assert!(generations.len() > 2, "{generations:?}");
        let ends = cues.iter().skip(1).map(|c| c.at_ms).chain([past.length / 48]);
        // A generation counts its own seconds, and its pictures are those of segments here.
        let usual = 2 * 5000 + SEGMENT_MS;
        let most = usual + if killed.is_some() { LOST_MS } else { 0 };
        for (cue, end) in cues.iter().zip(ends) {
            assert!(cue.at_ms < end && end - cue.at_ms <= most, "{cue:?} until {end}, {killed:?}");
        }
        assert_eq!(cues[0].at_ms, 0);
    }
}

/// Lets nothing through that is a picture.
fn no_pictures(key: &str, _: Option<&PublicObject>) -> Result<(), StoreError> {
    let source = std::io::Error::other("no room");
    let error = || StoreError { op: "put", key: key.into(), kind: StoreErrorKind::Refused, source };
    if key.contains("/pictures-") { Err(error()) } else { Ok(()) }
}

#[tokio::test(start_paused = true)]
async fn pictures_that_cannot_be_stored_fail_no_recording() {
    let world = World::of(60);
    world.task(order(Some(2))).await;
    let public = Arc::new(Guarded { port: Arc::clone(&world.platform.public), guard: no_pictures });
    let platform = Platform { public, ..world.platform.clone() };
    assert_eq!(world.invoke(&platform).await.unwrap()["Status"], "finished");
    let result = world.record().await.result;
    assert_eq!((result.failure, result.videos.len()), (None, 2));
    assert!(result.videos.iter().all(|v| v.poster_url.is_none() && v.thumbnails_url.is_none()));
}
