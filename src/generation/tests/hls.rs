//! HLS through hand-overs, crashes and failures: one playlist, in which nothing is missing or twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::guarded::Guarded;
use super::studio::SEGMENT;
use super::town::{Fate, Town, WELL};
use super::world::{TASK, World};
use crate::delivery::hls::cipher::{decrypt, sequence_iv};
use crate::delivery::hls::{KeyTag, Playlist};
use crate::generation::change;
use crate::generation::publish::Publisher;
use crate::generation::tasks::place;
use crate::platform::{ChunkStore, Platform, PublicObject};
use crate::task::boxes::Boxes;
use crate::task::fragment::read_fragment;
use crate::task::order::Order;
use crate::task::output::{Encryption, Key, Muxer};
use crate::task::segment::{ChunkName, chunk_key};
use crate::task::status::Status;

/// FFmpeg's own output: 4 s in segments of 1.6 s.
const TINY: &[u8] = include_bytes!("../../../tests/fixtures/tiny.fmp4");

const KEY: Key = Key(*b"0123456789abcdef");

pub fn order(muxer: Muxer, encrypted: bool) -> Order {
    let auth_url = "https://example.com/key".into();
    let encryption = encrypted.then_some(Encryption { key: KEY, iv: None, auth_url });
    Order { muxer, encryption, ..Order::of("https://example.com/") }
}

fn playlist(world: &World) -> Playlist {
    read(&world.recordings.visible(), TASK, "playlist.m3u8")
}

fn read(files: &BTreeMap<String, Bytes>, dir: &str, name: &str) -> Playlist {
    let text = files.get(&format!("{dir}/{name}")).expect("a playlist");
    Playlist::read(std::str::from_utf8(text).unwrap()).unwrap()
}

/// The task's playlist: see [`whole_at`].
pub fn whole(world: &World) -> Playlist {
    whole_at(&world.recordings.visible(), TASK, "playlist.m3u8")
}

/// Every segment is there, and its picture begins where the one before ends. Returns the playlist.
pub fn whole_at(files: &BTreeMap<String, Bytes>, dir: &str, name: &str) -> Playlist {
    let list = read(files, dir, name);
    let mut at = 0;
    for (n, entry) in list.entries.iter().enumerate() {
        let stored = &files[&format!("{dir}/{}", entry.uri)];
        assert_eq!(entry.bytes, stored.len() as u64);
        let plain = match list.key {
            Some(_) => decrypt(&KEY, sequence_iv(n as u64), stored).expect("it is encrypted with the key"),
            None => stored.clone(),
        };
        let video = read_fragment(&plain).unwrap().runs.remove(0);
        assert_eq!(video.start, at * 15 / 8, "segment {n}");
        at += entry.samples;
        if let Some(init) = &entry.init {
            assert!(files.contains_key(&format!("{dir}/{init}")));
        }
    }
    list
}

#[tokio::test(start_paused = true)]
async fn hls_alone_makes_a_playlist_and_no_mp4() {
    let world = World::of(5);
    world.task(order(Muxer::Hls, false)).await;
    assert_eq!(world.invoke(&world.platform).await.unwrap()["Status"], "finished");
    let task = world.record().await;
    assert_eq!(task.result.failure, None);
    let list = whole(&world);
    assert!(list.ended && list.entries.len() == 5 && list.samples() == 5 * SEGMENT);
    assert_eq!(list.entries[0].wall_ms, task.started);
    assert!(list.entries[1..].iter().all(|e| e.wall_ms.is_none() && !e.discontinuity && e.init.is_none()));
    let [video] = &task.result.videos[..] else { panic!("{:?}", task.result.videos) };
    assert_eq!((video.filename.as_str(), video.file_duration), ("playlist.m3u8", 5.0 * SEGMENT as f64 / 48_000.0));
    let all: usize = world.recordings.visible().iter().filter(|(k, _)| !k.contains("init")).map(|(_, b)| b.len()).sum();
    assert_eq!(video.file_size, all as u64);
    assert!(world.recordings.visible().keys().all(|k| !k.ends_with("0.mp4") || k.contains("init")));
    assert_eq!(world.platform.chunks.list("").await.unwrap(), Vec::<String>::new(), "chunks are removed at the end");
}

#[tokio::test(start_paused = true)]
async fn both_are_made_of_one_encoding_and_a_pause_shows_in_the_time_of_day_only() {
    let world = World::of(1000);
    world.task(order(Muxer::Both, true)).await;
    let caller = async {
        world.until(Status::Recording).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let growing = playlist(&world);
        assert!(!growing.ended && growing.entries.len() >= 3, "live: {growing:?}");
        world.command(crate::task::record::CommandKind::Pause).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        world.command(crate::task::record::CommandKind::Resume).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let raw = world.platform.chunks.list("raw/").await.unwrap();
        let chunk = world.platform.chunks.get(raw.last().unwrap()).await.unwrap();
        assert!(read_fragment(&chunk).is_err(), "chunks are encrypted too");
        world.stop().await;
    };
    let (answer, ()) = tokio::join!(world.invoke(&world.platform), caller);
    answer.unwrap();
    let list = whole(&world);
    assert_eq!(list.key, Some(KeyTag { uri: "https://example.com/key".into(), iv: None }));
    let jumps: Vec<_> = list.entries.iter().filter(|e| e.wall_ms.is_some()).collect();
    assert_eq!(jumps.len(), 2, "the beginning and the pause: {jumps:?}");
    assert!(list.entries.iter().all(|e| !e.discontinuity));
    let task = world.record().await;
    let names: Vec<_> = task.result.videos.iter().map(|v| v.filename.as_str()).collect();
    assert!(names.len() == 2 && names[0].ends_with(".mp4") && names[1] == "playlist.m3u8", "{names:?}");
    let lengths: Vec<_> = task.result.videos.iter().map(|v| v.file_duration).collect();
    assert!((lengths[0] - lengths[1]).abs() < 1e-6, "{lengths:?}");
}

#[tokio::test(start_paused = true)]
async fn a_playlist_goes_on_through_hand_overs_and_a_crash() {
    for killed in [None, Some(1)] {
        let town = Town::with(Duration::from_secs(60), &[], order(Muxer::Both, false)).await;
        let world = Arc::clone(&town.world);
        let caller = async {
            tokio::time::sleep(Duration::from_secs(170)).await;
            world.stop().await;
        };
        let fate = |n| match killed == Some(n) {
            true => Fate { lives: Duration::from_secs(45), ..WELL },
            false => WELL,
        };
        let past = town.live(fate, caller).await;
        assert!(past.invocations > 2, "{}", past.invocations);
        let list = whole(&world);
        assert!(list.ended && list.samples() == past.length, "{} of {}", list.samples(), past.length);
        let breaks = list.entries.iter().filter(|e| e.discontinuity).count();
        // A successor was warm when its turn came: its stream goes on. One that came after a crash was not.
        assert_eq!(breaks > 0, killed.is_some() && !past.gaps().is_empty(), "{:?}", past.gaps());
    }
}

#[tokio::test(start_paused = true)]
async fn a_generation_that_lost_the_task_leaves_the_playlist_alone_and_names_that_are_taken_too() {
    let world = World::of(3);
    let theirs = crate::platform::PublicObject {
        bytes: "#EXTM3U\n".into(),
        content_type: "text/plain",
        cache_control: "no-cache",
    };
    let place = crate::platform::Place::default();
    let key = format!("{TASK}/playlist.m3u8");
    world.platform.public.put(&place, &key, theirs).await.unwrap();
    world.task(order(Muxer::Hls, false)).await;
    world.invoke(&world.platform).await.unwrap();
    assert_eq!(&world.recordings.visible()[&key][..], b"#EXTM3U\n");
    assert_eq!(world.record().await.result.videos[0].filename, "playlist-1.m3u8");
}

/// A publisher of a task whose segments from these on are these generations'.
async fn publisher(world: &World, platform: &Platform, seams: &[(u64, u32)]) -> Publisher {
    world.task(order(Muxer::Hls, false)).await;
    let cut = change(&world.platform, TASK, |task| {
        task.started = Some(task.created);
        seams.iter().for_each(|(first, generation)| task.seams.cut(*first, *generation));
        Ok(())
    });
    let record = cut.await.unwrap();
    for (_, generation) in seams {
        let init = Boxes::new(TINY).map(Result::unwrap).find(|b| &b.kind.0 == b"moof").unwrap().at;
        let key = chunk_key(TASK, *generation, ChunkName::Init);
        world.platform.chunks.put(&key, Bytes::from_static(&TINY[..init])).await.unwrap();
    }
    let chunks = Arc::clone(&world.platform.chunks);
    Publisher::new(platform, chunks, &record, place(&record))
}

/// Its chunks; it publishes until they are dropped.
async fn publishing(world: &World, seams: &[(u64, u32)]) -> Arc<dyn ChunkStore> {
    let mut publisher = publisher(world, &world.platform, seams).await;
    let (telling, mut queue) = publisher.listen();
    tokio::spawn(async move { publisher.run(&mut queue).await });
    telling
}

/// The third of these is shorter than the others.
fn tiny(n: usize) -> Bytes {
    let starts = Boxes::new(TINY).map(Result::unwrap).filter(|b| matches!(&b.kind.0, b"moof" | b"mfra")).map(|b| b.at);
    let starts: Vec<_> = starts.chain([TINY.len()]).collect();
    Bytes::from_static(&TINY[starts[n]..starts[n + 1]])
}

/// A generation stores a whole segment.
async fn stores(chunks: &dyn ChunkStore, generation: u32, index: u64) {
    let key = chunk_key(TASK, generation, ChunkName::Segment(index));
    chunks.put(&key, tiny(1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_segment_is_never_seen_without_the_end() {
    // One whole segment before it, and as many as are shown in steps at the end.
    for last in [1, 15, 16] {
        let world = World::of(1);
        let seen = Arc::<Mutex<Vec<Playlist>>>::default();
        let lists = Arc::clone(&seen);
        let guard = move |key: &str, object: Option<&PublicObject>| {
            if let Some(object) = object.filter(|_| key.ends_with(".m3u8")) {
                let text = std::str::from_utf8(&object.bytes).unwrap();
                lists.lock().unwrap().push(Playlist::read(text).unwrap());
            }
            Ok(())
        };
        let port = Arc::clone(&world.platform.public);
        let platform = Platform { public: Arc::new(Guarded { port, guard }), ..world.platform.clone() };
        let mut publisher = publisher(&world, &platform, &[(0, 1)]).await;
        for index in 0..=last {
            let bytes = tiny(if index < last { 1 } else { 2 });
            world.platform.chunks.put(&chunk_key(TASK, 1, ChunkName::Segment(index)), bytes).await.unwrap();
        }
        publisher.close().await.unwrap();
        assert_eq!(whole(&world).samples(), last * SEGMENT + SEGMENT / 2);
        let lists = seen.lock().unwrap();
        let lengths: Vec<_> = lists.iter().map(|list| (list.entries.len() as u64, list.ended)).collect();
        let (end, growing) = lengths.split_last().unwrap();
        assert_eq!(*end, (last + 1, true));
        assert!(growing.iter().all(|(length, ended)| *length <= last && !ended), "{lengths:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_predecessor_that_writes_once_more_does_not_silence_the_playlist() {
    let world = World::of(1);
    let chunks = publishing(&world, &[(0, 1)]).await;
    stores(&*chunks, 1, 0).await;
    let (key, seen) = (format!("{TASK}/playlist.m3u8"), playlist(&world));
    assert_eq!(seen.entries.len(), 1);
    // As when the last of its segments comes into the playlist late: it is another than was seen.
    let written = Bytes::from(seen.text() + "# 0\n");
    let object = crate::generation::publish::object(written, "", "");
    let public = &world.platform.public;
    public.put(&place(&world.record().await), &key, object).await.unwrap();
    stores(&*chunks, 1, 1).await;
    stores(&*chunks, 1, 2).await;
    assert_eq!(whole(&world).entries.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_a_generation_stores_that_has_lost_the_task_never_comes_under_its_successors_name() {
    let world = World::of(1);
    let chunks = publishing(&world, &[(0, 1), (1, 2)]).await;
    // Not published, so that it has to look at the playlist when it is told of the next.
    stores(&*world.platform.chunks, 1, 0).await;
    stores(&*chunks, 1, 1).await;
    let files = world.recordings.visible();
    assert!(files.is_empty(), "{:?}", files.keys());
}
