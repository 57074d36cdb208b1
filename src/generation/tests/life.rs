use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::delivery::mp4::validate::validate;
use crate::generation::Recorders;
use crate::generation::run::Command;
use crate::platform::memory::{MemoryChunkStore, MemoryRecordings};
use crate::platform::{ChunkStore, HeadLastObject, Mark, Place, Platform, RecordingStore, StoreError, StoreErrorKind};
use crate::task::failure::FailureCode;
use crate::task::order::Order;
use crate::task::quality::GapReason;
use crate::task::record::CommandKind;
use crate::task::status::Status;

use super::studio::SEGMENT;
use super::world::{TASK, World};

/// Length of the one file that is visible, if there is one; it must be whole.
pub fn length(world: &World) -> Option<u64> {
    let files = world.recordings.visible();
    // Playlists and segments are not what is meant.
    let (_, bytes) = files.iter().find(|(key, _)| key.ends_with(".mp4") && !key.contains("segments-"))?;
    Some(samples(bytes))
}

/// Length of a file, which must be whole.
pub fn samples(file: &[u8]) -> u64 {
    let file = validate(file, file.len() as u64).unwrap();
    assert_eq!(file.scale, 48_000);
    file.duration
}

/// The one file that is visible must be a whole MP4 of so many segments.
fn one_file(world: &World, segments: u64) {
    let files = world.recordings.visible();
    let sizes: Vec<_> = files.iter().map(|(k, b)| (k, b.len())).collect();
    assert_eq!(files.len(), 1, "{sizes:?}");
    let bytes = files.values().next().unwrap();
    let file = validate(bytes, bytes.len() as u64).unwrap();
    assert_eq!((file.scale, file.duration), (48_000, segments * SEGMENT));
}

#[tokio::test(start_paused = true)]
async fn a_recording_goes_through_its_statuses_and_leaves_one_file() {
    let world = World::of(5);
    world.task(Order::of("https://example.com/")).await;
    let answer = world.invoke(&world.platform).await.unwrap();
    assert_eq!(answer["Status"], "finished");
    one_file(&world, 5);
    let task = world.record().await;
    assert_eq!((task.result.failure, task.lease), (None, None));
    let times = [Some(task.created), task.started, task.canceled, task.stopped, task.finished];
    assert!(times.iter().all(Option::is_some) && times.is_sorted(), "{times:?}");
    let video = &task.result.videos[0];
    assert_eq!(video.filename, format!("{}.mp4", task.stopped.unwrap()));
    assert_eq!(video.file_url, format!("https://memory.invalid/{TASK}/{}", video.filename));
    assert!((video.file_duration - 5.0 * SEGMENT as f64 / 48_000.0).abs() < 1e-6);
    assert!(task.result.billed_gb_seconds > 2.0 * 8.0, "2 GB for more than 8 s: {}", task.result.billed_gb_seconds);
    assert_eq!(world.platform.chunks.list("").await.unwrap(), Vec::<String>::new(), "chunks are removed at the end");
}

#[tokio::test(start_paused = true)]
async fn commands_are_applied_in_order_once_and_soon() {
    let world = World::of(1000);
    world.task(Order::of("https://example.com/")).await;
    let caller = async {
        world.until(Status::Recording).await;
        for kind in [CommandKind::Pause, CommandKind::Refresh, CommandKind::Resume, CommandKind::Pause] {
            world.command(kind).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let task = world.record().await;
        assert_eq!((task.status, task.waiting.len()), (Status::Paused, 0));
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(world.record().await.status, Status::Paused);
        world.command(CommandKind::Resume).await;
        world.until(Status::Recording).await;
        world.stop().await;
    };
    let (answer, ()) = tokio::join!(world.invoke(&world.platform), caller);
    assert_eq!(answer.unwrap()["Status"], "finished");
    use Command::{Pause, Refresh, Resume, Stop};
    assert_eq!(*world.studio.commands.lock().unwrap(), [Pause, Refresh, Resume, Pause, Resume, Stop]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_before_the_recorder_is_up_ends_the_task_without_a_file() {
    let world = World::of(5);
    world.task(Order::of("https://example.com/")).await;
    world.stop().await;
    world.invoke(&world.platform).await.unwrap();
    let task = world.record().await;
    assert_eq!((task.status, task.result.failure, task.result.videos.len()), (Status::Finished, None, 0));
    assert!(world.recordings.visible().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pause_before_the_start_holds_the_recording() {
    let world = World::of(2);
    world.task(Order::of("https://example.com/")).await;
    world.command(CommandKind::Pause).await;
    let caller = async {
        world.until(Status::Paused).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        world.command(CommandKind::Resume).await;
    };
    tokio::join!(world.invoke(&world.platform), caller).0.unwrap();
    one_file(&world, 2);
}

#[tokio::test(start_paused = true)]
async fn the_limit_ends_a_task_as_a_stop_does_even_while_it_is_paused() {
    let world = World::of(1000);
    world.task(Order { limit_seconds: 20, ..Order::of("https://example.com/") }).await;
    let caller = async {
        world.until(Status::Recording).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        world.command(CommandKind::Pause).await;
    };
    tokio::join!(world.invoke(&world.platform), caller).0.unwrap();
    let task = world.record().await;
    assert_eq!((task.status, task.result.failure), (Status::Finished, None));
    let lasted = task.stopped.unwrap() - task.started.unwrap();
    assert!((20_000..21_000).contains(&lasted), "{lasted} ms");
    one_file(&world, 6);
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_event_touches_nothing() {
    let world = World::of(5);
    world.task(Order::of("https://example.com/")).await;
    let twice = async {
        world.until(Status::Recording).await;
        world.invoke(&world.platform).await.unwrap()
    };
    let (first, second) = tokio::join!(world.invoke(&world.platform), twice);
    assert_eq!((&first.unwrap()["Status"], &second["Status"]), (&"finished".into(), &"not ours".into()));
    let late = world.invoke(&world.platform).await.unwrap();
    assert_eq!(late["Status"], "not ours");
    one_file(&world, 5);
    assert_eq!(world.record().await.generation, 1);
}

#[tokio::test(start_paused = true)]
async fn a_killed_recorder_is_followed_by_another_and_the_gap_is_listed() {
    let world = World::of(5);
    world.task(Order::of("https://example.com/")).await;
    // Dropping the invocation is what a kill does: nothing more is said or written.
    let killed = tokio::time::timeout(Duration::from_millis(7_500), world.invoke(&world.platform)).await;
    assert!(killed.is_err());
    let left = world.platform.chunks.list("raw/").await.unwrap();
    let chunks = left.iter().filter(|k| crate::task::segment::parse_chunk_key(k).is_some()).count();
    assert_eq!(chunks, 5, "an init segment and four others: {left:?}");
    tokio::time::sleep(Duration::from_secs(11)).await;
    // It looks for as long as a renewal may take.
    let swept = world.runner(&world.platform).sweep().await.unwrap();
    assert_eq!((swept["Orphans"].as_u64(), world.continuation.take().len()), (Some(1), 1));
    world.invoke(&world.platform).await.unwrap();
    let task = world.record().await;
    assert_eq!((task.result.failure, task.generation, task.crashes), (None, 2, 1));
    one_file(&world, 9);
    let quality = task.result.quality.unwrap();
    let [gap] = quality.gaps[..] else { panic!("{:?}", quality.gaps) };
    let kept = 4.0 * SEGMENT as f64 / 48_000.0;
    assert_eq!(gap.reason, GapReason::RecorderLost);
    assert!((gap.start - kept).abs() < 0.001 && (gap.duration - (19.8 - kept)).abs() < 0.05, "{gap:?}");
}

/// A bucket in which no file can be made.
struct Closed(MemoryRecordings);

#[async_trait]
impl RecordingStore for Closed {
    async fn create(&self, place: &Place) -> Result<Box<dyn HeadLastObject>, StoreError> {
        Ok(Box::new(Unfinished(self.0.create(place).await?)))
    }
    async fn resume(
        &self,
        place: &Place,
        states: &[String],
        held: Bytes,
    ) -> Result<Box<dyn HeadLastObject>, StoreError> {
        Ok(Box::new(Unfinished(self.0.resume(place, states, held).await?)))
    }
    fn url(&self, place: &Place, key: &str, domain: Option<&str>) -> String {
        self.0.url(place, key, domain)
    }
}

struct Unfinished(Box<dyn HeadLastObject>);

#[async_trait]
impl HeadLastObject for Unfinished {
    fn head_alignment(&self) -> u64 {
        self.0.head_alignment()
    }
    async fn append(&mut self, payload: Bytes) -> Result<(), StoreError> {
        self.0.append(payload).await
    }
    async fn finish(self: Box<Self>, _head: Bytes, name: &str) -> Result<String, StoreError> {
        self.0.abort().await?;
        let source = std::io::Error::other("no");
        Err(StoreError { op: "finish", key: name.into(), kind: StoreErrorKind::Refused, source })
    }
    async fn abort(self: Box<Self>) -> Result<(), StoreError> {
        self.0.abort().await
    }
    fn marks(&mut self) -> Vec<Mark> {
        self.0.marks()
    }
    async fn settle(&mut self) -> Result<(), StoreError> {
        self.0.settle().await
    }
}

#[tokio::test(start_paused = true)]
async fn chunks_stay_after_a_failure_and_where_a_setting_says_so() {
    for fails in [false, true] {
        let world = World { keep_chunks: !fails, ..World::of(5) };
        world.task(Order::of("https://example.com/")).await;
        let closed = Platform { recordings: Arc::new(Closed(world.recordings.clone())), ..world.platform.clone() };
        world.invoke(if fails { &closed } else { &world.platform }).await.unwrap();
        let task = world.record().await;
        assert_eq!(task.result.failure.map(|f| f.code), fails.then_some(FailureCode::UploadFailed));
        assert_eq!(world.recordings.visible().len(), usize::from(!fails));
        let left = world.platform.chunks.list("raw/").await.unwrap();
        let chunks = left.iter().filter(|k| crate::task::segment::parse_chunk_key(k).is_some()).count();
        assert_eq!(chunks, 6, "an init segment and five others: {left:?}");
    }
}

/// Chunks on a slow network.
struct Slow(MemoryChunkStore);

#[async_trait]
impl ChunkStore for Slow {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.0.put(key, bytes).await
    }
    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        tokio::time::sleep(Duration::from_secs(4)).await;
        self.0.get(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.0.list(prefix).await
    }
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.0.delete(key).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_is_held_while_its_file_is_made_however_long_that_takes() {
    let world = World::of(1000);
    world.task(Order::of("https://example.com/")).await;
    let killed = tokio::time::timeout(Duration::from_secs(10), world.invoke(&world.platform)).await;
    assert!(killed.is_err());
    world.stop().await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let slow = Platform { chunks: Arc::new(Slow(world.chunks.clone())), ..world.platform.clone() };
    let others = async {
        for _ in 0..15 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(world.invoke(&world.platform).await.unwrap()["Status"], "not ours");
        }
    };
    let (made, ()) = tokio::join!(world.invoke(&slow), others);
    assert_eq!(made.unwrap()["Status"], "finished");
    assert_eq!(world.record().await.generation, 2);
    one_file(&world, 6);
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_is_lost_again_and_again_is_given_up_with_what_there_is() {
    let world = World::of(1000);
    world.task(Order::of("https://example.com/")).await;
    let mut lost = 0;
    while world.record().await.status != Status::Finished {
        assert!(lost < 200, "it never ends");
        let _ = tokio::time::timeout(Duration::from_secs(3), world.invoke(&world.platform)).await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        lost += 1;
    }
    let task = world.record().await;
    assert_eq!(task.result.failure.unwrap().code, FailureCode::RetriesExhausted);
    assert!(lost > 50, "{lost}");
    one_file(&world, lost - 1);
}
