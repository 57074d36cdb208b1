//! The file that grows through generations: whoever goes on reads back little, whatever the length, and what cannot be gone
//! on with is made of the chunks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::life::length;
use super::studio::SEGMENT;
use super::world::World;
use crate::platform::memory::MemoryChunkStore;
use crate::platform::{ChunkStore, Platform, StoreError};
use crate::task::order::Order;
use crate::task::segment::{parse_chunk_key, parse_page_key};
use crate::task::status::Status;

/// Chunks, and how many of them were read.
#[derive(Default)]
struct Counted {
    chunks: MemoryChunkStore,
    media: AtomicU64,
    pages: AtomicU64,
}

#[async_trait]
impl ChunkStore for Counted {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.chunks.put(key, bytes).await
    }
    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.media.fetch_add(parse_chunk_key(key).is_some().into(), Ordering::SeqCst);
        self.pages.fetch_add(parse_page_key(key).is_some().into(), Ordering::SeqCst);
        self.chunks.get(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.chunks.list(prefix).await
    }
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.chunks.delete(key).await
    }
}

/// A world whose first recorder is killed after `seconds`, and whose lease is over.
async fn killed_after(seconds: u64) -> (World, Arc<Counted>) {
    let mut world = World::of(u64::MAX);
    let counted = Arc::new(Counted { chunks: world.chunks.clone(), ..Counted::default() });
    world.platform = Platform { chunks: Arc::clone(&counted) as _, ..world.platform };
    world.task(Order::of("https://example.com/")).await;
    let killed = tokio::time::timeout(Duration::from_secs(seconds), world.invoke(&world.platform)).await;
    assert!(killed.is_err());
    tokio::time::sleep(Duration::from_secs(6)).await;
    (world, counted)
}

/// One file of so many segments, and nothing else.
async fn delivered(world: &World, segments: u64) {
    let task = world.record().await;
    assert_eq!((task.status, &task.result.failure), (Status::Finished, &None));
    assert_eq!(length(world), Some(segments * SEGMENT));
    let size = world.recordings.visible().values().map(|f| f.len() as u64).sum::<u64>();
    assert_eq!(task.result.videos.iter().map(|v| v.file_size).sum::<u64>(), size);
    assert_eq!((world.recordings.visible().len(), world.recordings.unfinished()), (1, 0));
    assert_eq!(world.platform.chunks.list("").await.unwrap(), Vec::<String>::new(), "chunks and pages are removed");
}

#[tokio::test(start_paused = true)]
async fn a_stop_without_a_recorder_reads_back_as_little_after_an_hour_as_after_a_minute() {
    let mut read = Vec::new();
    for seconds in [60, 3600] {
        let (world, counted) = killed_after(seconds).await;
        let kept = world.record().await.seams.next_index(&world.chunks.list("raw/").await.unwrap());
        assert!(kept * SEGMENT / 48_000 > seconds - 5, "{kept} segments");
        world.stop().await;
        world.invoke(&world.platform).await.unwrap();
        delivered(&world, kept).await;
        read.push((counted.media.load(Ordering::SeqCst), counted.pages.load(Ordering::SeqCst)));
    }
    // What is held back, what was not lasting yet, and their init segments; a page and its base.
    assert!(read.iter().all(|(media, pages)| *media <= 5 && *pages <= 2), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_on_after_a_kill_goes_on_with_the_file() {
    let (world, counted) = killed_after(600).await;
    let before = world.chunks.list("raw/").await.unwrap().len();
    let caller = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        world.stop().await;
    };
    let (answer, ()) = tokio::join!(world.invoke(&world.platform), caller);
    answer.unwrap();
    assert!(before > 280);
    let segments = length(&world).unwrap() / SEGMENT;
    delivered(&world, segments).await;
    let media = counted.media.load(Ordering::SeqCst);
    assert!(media <= 5, "{media} chunks read back");
    assert_eq!(world.record().await.generation, 2);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_gone_is_made_of_the_chunks() {
    let (world, counted) = killed_after(60).await;
    world.recordings.expire();
    let kept = world.record().await.seams.next_index(&world.chunks.list("raw/").await.unwrap());
    world.stop().await;
    world.invoke(&world.platform).await.unwrap();
    delivered(&world, kept).await;
    assert!(counted.media.load(Ordering::SeqCst) >= kept, "all of them were read");
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_damaged_costs_reading_and_nothing_else() {
    let (world, _) = killed_after(60).await;
    let keys = world.chunks.list("raw/").await.unwrap();
    let kept = world.record().await.seams.next_index(&keys);
    for key in keys.iter().filter(|k| parse_page_key(k).is_some()) {
        let bytes = world.chunks.get(key).await.unwrap();
        world.chunks.put(key, bytes.slice(..bytes.len() / 2)).await.unwrap();
    }
    world.recordings.expire(); // nobody knows of it any more; a bucket's lifecycle rule does this
    world.stop().await;
    world.invoke(&world.platform).await.unwrap();
    delivered(&world, kept).await;
}
