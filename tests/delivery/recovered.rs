//! What a killed recorder left in a chunk store becomes a file, on the real file system, by the real adapters.

use crate::tools::{encode, pictures, probe, split};
use panorec::delivery::mp4::validate::validate;
use panorec::delivery::recovery::{Recovery, RecoveryError, order};
use panorec::platform::local::{DirectoryChunkStore, GrowingFile};
use panorec::platform::{ChunkStore, HeadLastObject};
use panorec::task::segment::{ChunkName, chunk_key};
use std::path::Path;

/// Stores an encoder's output as a recorder does, and ends as one that is killed: nothing is tidied up.
async fn record(store: &dyn ChunkStore, file: &[u8]) -> usize {
    let (init, segments) = split(file, 0, 0);
    store.put(&chunk_key("task", 1, ChunkName::Init), init).await.unwrap();
    for segment in &segments {
        let key = chunk_key("task", 1, ChunkName::Segment(segment.index));
        store.put(&key, segment.bytes.clone()).await.unwrap();
    }
    segments.len()
}

/// The loop that a command would run.
async fn recover(store: &dyn ChunkStore, target: &Path) -> Option<RecoveryError> {
    let mut file = Box::new(GrowingFile::create(target, false).unwrap());
    let (mut recovery, mut ended) = (Recovery::new(), None);
    for chunk in order(store.list("raw/task/").await.unwrap()) {
        let bytes = store.get(&chunk.key).await.unwrap();
        match recovery.take(&chunk, bytes) {
            Ok(Some(payload)) => file.append(payload).await.unwrap(),
            Ok(None) => {}
            Err(error) => {
                ended = Some(error);
                break;
            }
        }
    }
    let head = recovery.head(file.head_alignment()).unwrap();
    file.finish(head, "").await.unwrap();
    ended
}

#[tokio::test]
async fn a_killed_recording_is_rebuilt_up_to_its_last_whole_segment() {
    let dir = tempfile::tempdir().unwrap();
    let source = encode(dir.path(), "source.mp4", "10", "null", "ultrafast");
    let store = DirectoryChunkStore::new(&dir.path().join("chunks")).unwrap();
    let segments = record(&store, &source).await;
    assert_eq!(segments, 7);
    let all = pictures(&dir.path().join("source.mp4"), &[]);

    let whole = dir.path().join("whole.mp4");
    assert_eq!(recover(&store, &whole).await, None);
    assert_eq!(pictures(&whole, &[]), all);
    assert_eq!(probe(&whole, &[], "format=start_time,duration"), "0.000000,10.000000");

    // The disk failed under the fourth segment: half of it is there.
    let key = chunk_key("task", 1, ChunkName::Segment(3));
    let half = store.get(&key).await.unwrap();
    store.put(&key, half.slice(..half.len() / 2)).await.unwrap();
    let part = dir.path().join("part.mp4");
    let ended = recover(&store, &part).await.unwrap().to_string();
    assert!(ended.contains("00000003.m4s` is damaged"), "{ended}");
    assert_eq!(pictures(&part, &[]), all[..3 * 48]);
    assert_eq!(probe(&part, &[], "format=start_time,duration"), "0.000000,4.800000");
    let bytes = std::fs::read(&part).unwrap();
    validate(&bytes, bytes.len() as u64).unwrap();
}
