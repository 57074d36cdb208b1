//! HLS as an asset: everything that the playlist names is there, and what is there is not put again.

use std::collections::BTreeMap;

use super::super::hls::whole_at;
use super::*;

/// The only playlist of these uploads, whole, and nothing beside it that it does not name.
fn playlist(uploads: &MemoryRecordings, place: &str) -> crate::delivery::hls::Playlist {
    let files = uploads.visible();
    let list = whole_at(&files, place, "lesson.m3u8");
    assert!(list.ended);
    let inits = list.entries.iter().filter_map(|e| e.init.as_ref()).count();
    let there = files.keys().filter(|k| k.starts_with(place)).count();
    assert_eq!(there, 1 + inits + list.entries.len(), "{:?}", files.keys());
    list
}

#[tokio::test(start_paused = true)]
async fn hls_is_an_asset_of_its_own_and_the_bucket_gets_one_only_if_that_was_ordered() {
    for (muxer, bucket_too, encrypted) in
        [(Muxer::Hls, false, false), (Muxer::Both, false, true), (Muxer::Hls, true, true), (Muxer::Both, true, false)]
    {
        let (world, service, uploads) = (World::of(6), service(false), MemoryRecordings::default());
        world.task(hls(bucket_too, muxer, encrypted)).await;
        invoke(&world, &service, &uploads).await.unwrap();
        let task = world.record().await;
        assert_eq!((task.status, &task.result.failure, task.vod.is_some()), (Status::Finished, &None, false));
        let both = ["apply mp4", "commit session", "apply m3u8", "commit session-0"];
        assert_eq!(*service.asked.lock().unwrap(), both[if muxer.mp4() { 0 } else { 2 }..]);
        let list = playlist(&uploads, "vod/0");
        assert_eq!((list.entries.len(), list.key.is_some()), (6, encrypted));
        assert_eq!(world.recordings.visible().is_empty(), !bucket_too, "a bucket that nobody named");
        let assets: Vec<_> = task.result.videos.iter().filter(|v| v.file_id.is_some()).collect();
        let names: Vec<_> = assets.iter().map(|v| v.filename.as_str()).collect();
        assert_eq!(names, ["lesson.mp4", "lesson.m3u8"][if muxer.mp4() { 0 } else { 1 }..]);
        assert_eq!(task.result.videos.len() - assets.len(), if bucket_too { assets.len() } else { 0 });
        let asset = assets.last().unwrap();
        assert_eq!((asset.file_size, asset.file_duration), (list.bytes(), list.samples() as f64 / 48_000.0));
        assert!(task.result.quality.is_some() && world.platform.chunks.list("").await.unwrap().is_empty());
    }
}

/// How often each object was put.
fn times(put: &[String]) -> BTreeMap<&str, usize> {
    let mut times = BTreeMap::new();
    for key in put {
        *times.entry(key.as_str()).or_default() += 1;
    }
    times
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_after_a_crash_in_mid_upload_puts_again_what_the_last_seconds_put_and_nothing_else() {
    /// Four segments a second; what is there is written down every five seconds.
    const AGAIN: usize = 4 * 6;
    for lasts in [true, false] {
        let (world, service, uploads) = (World::of(100), service(false), MemoryRecordings::default());
        world.task(hls(false, Muxer::Hls, true)).await;
        let put = Arc::<Mutex<Vec<String>>>::default();
        let lent = || Uploads { put: Arc::clone(&put), takes: Duration::from_secs(1), ..Uploads::to(&uploads) };
        let killed = async {
            while put.lock().unwrap().len() < 60 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            done = invoke_with(&world, &world.platform, &service, lent()) => panic!("{done:?}"),
            () = killed => {}
        }
        let task = world.record().await;
        assert!(task.vod.is_some_and(|v| v.lent.is_some()) && task.result.videos.is_empty());
        if !lasts {
            let held = world.platform.tasks.load(TASK, 0).await.unwrap().unwrap();
            let mut record = held.record;
            record.vod.as_mut().unwrap().lent.as_mut().unwrap().expires = world.platform.clock.now();
            world.platform.tasks.save(&record, held.version).await.unwrap().unwrap();
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        let before = put.lock().unwrap().len();
        invoke_with(&world, &world.platform, &service, lent()).await.unwrap();
        let (asked, put) = (service.asked.lock().unwrap().clone(), put.lock().unwrap().clone());
        let task = world.record().await;
        assert_eq!((task.status, &task.result.failure, task.result.videos.len()), (Status::Finished, &None, 1));
        match lasts {
            true => {
                assert_eq!(asked, ["apply m3u8", "commit session-0"]);
                let first = put.iter().position(|key| key == "vod/0/lesson.m3u8");
                assert_eq!(first, Some(put.len() - 1), "the playlist comes last, once");
                assert_eq!(playlist(&uploads, "vod/0").entries.len(), 100);
                let again = times(&put).values().filter(|n| **n > 1).count();
                assert!(again <= AGAIN, "{again} of {before} were put again");
            }
            // Leave is over, and with it the place: a new one gets everything.
            false => {
                assert_eq!(asked, ["apply m3u8", "apply m3u8", "commit session-1"]);
                assert_eq!(playlist(&uploads, "vod/1").entries.len(), 100);
            }
        }
        assert!(world.platform.chunks.list("").await.unwrap().is_empty(), "what was written down is removed, too");
    }
}

#[tokio::test(start_paused = true)]
async fn leave_that_ends_in_mid_upload_of_hls_is_asked_for_again_and_not_without_end() {
    for (short, applied) in [(2, 3), (9, 5)] {
        let (world, service, uploads) = (World::of(6), service(false), MemoryRecordings::default());
        world.task(hls(false, Muxer::Hls, false)).await;
        let lent = Uploads { short: Mutex::new(short), ..Uploads::to(&uploads) };
        invoke_with(&world, &world.platform, &service, lent).await.unwrap();
        let (task, asked) = (world.record().await, service.asked.lock().unwrap().clone());
        assert_eq!(asked.iter().filter(|call| *call == "apply m3u8").count(), applied, "{asked:?}");
        match task.result.failure {
            None => assert_eq!((short, playlist(&uploads, "vod/2").entries.len()), (2, 6)),
            Some(failure) => {
                assert_eq!((short, failure.code), (9, FailureCode::VodFailed));
                assert!(failure.message.contains("ExpiredToken"), "{failure:?}");
                assert!(world.platform.chunks.list("").await.unwrap().len() > 6, "what was recorded is kept");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_asset_that_is_there_stays_in_the_result_when_the_next_is_refused() {
    let (world, uploads) = (World::of(3), MemoryRecordings::default());
    let service = Arc::new(Service { refuses_hls: true, ..Service::lasting() });
    world.task(hls(false, Muxer::Both, false)).await;
    invoke(&world, &service, &uploads).await.unwrap();
    let result = world.record().await.result;
    assert_eq!(result.failure.map(|f| f.code), Some(FailureCode::VodFailed));
    let [video] = &result.videos[..] else { panic!("{:?}", result.videos) };
    assert_eq!(video.filename, "lesson.mp4");
}
