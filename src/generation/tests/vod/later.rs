//! Uploads that outlast their invocation: it leaves before it is killed, and the next one goes on at once.

use super::*;

/// Longer than the recording of 160 s, after which 76 s are left before it leaves.
const TIME: Duration = Duration::from_secs(247);

/// Invocations that each ask for the next one until the task is over; how many there were.
async fn until_over(world: &World, service: &Arc<Service>, lent: impl Fn() -> Uploads) -> usize {
    let mut event = RecorderEvent { task: TASK.into(), generation: None };
    for count in 1..20 {
        let begun = tokio::time::Instant::now();
        invoke_for(world, &world.platform, service, lent(), &event, TIME).await.unwrap();
        assert!(begun.elapsed() < TIME, "it would have been killed after {TIME:?}");
        let (task, asked) = (world.record().await, world.continuation.take());
        if task.status == Status::Finished {
            assert_eq!((asked, task.crashes, task.result.failure), (Vec::new(), 0, None));
            return count;
        }
        assert!(task.lease.is_none(), "whoever comes next need not wait");
        let [next] = &asked[..] else { panic!("{asked:?}") };
        event = next.clone();
    }
    panic!("it never ends: {:?}", world.record().await);
}

#[tokio::test(start_paused = true)]
async fn hls_goes_on_where_it_was_and_no_segment_is_put_twice() {
    let (world, service, uploads) = (World::of(100), service(false), MemoryRecordings::default());
    world.task(hls(false, Muxer::Hls, true)).await;
    let put = Arc::<Mutex<Vec<String>>>::default();
    let takes = Duration::from_secs(8);
    let count =
        until_over(&world, &service, || Uploads { put: Arc::clone(&put), takes, ..Uploads::to(&uploads) }).await;
    assert_eq!(count, 2);
    let mut put = put.lock().unwrap().clone();
    assert_eq!(put.last().map(String::as_str), Some("vod/0/lesson.m3u8"));
    put.retain(|key| !key.contains("/init-"));
    put.sort_unstable();
    let all = put.len();
    put.dedup();
    assert_eq!((all, put.len()), (101, 101), "a playlist and a hundred segments, each of them once");
    assert_eq!(*service.asked.lock().unwrap(), ["apply m3u8", "commit session-0"]);
    assert_eq!(world.record().await.generation, 1, "one of them has recorded");
    assert!(world.platform.chunks.list("").await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_file_is_begun_anew_and_nothing_is_left_of_what_was_begun() {
    let (world, service, uploads) = (World::of(100), service(false), MemoryRecordings::default());
    world.task(hls(false, Muxer::Both, false)).await;
    let takes = Duration::from_secs(1);
    assert_eq!(until_over(&world, &service, || Uploads { takes, ..Uploads::to(&uploads) }).await, 2);
    let asked = ["apply mp4", "apply mp4", "commit session", "apply m3u8", "commit session-0"];
    assert_eq!(*service.asked.lock().unwrap(), asked);
    assert_eq!((uploads.unfinished(), world.record().await.result.videos.len()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_no_invocation_has_time_for_is_not_handed_round_for_ever() {
    let (world, service, uploads) = (World::of(100), service(false), MemoryRecordings::default());
    world.task(order(false)).await;
    let lent = || Uploads { takes: Duration::from_secs(10), ..Uploads::to(&uploads) };
    let mut event = RecorderEvent { task: TASK.into(), generation: None };
    for _ in 0..5 {
        invoke_for(&world, &world.platform, &service, lent(), &event, TIME).await.unwrap();
        event = world.continuation.take().pop().expect("another one is asked for");
    }
    let last = invoke_for(&world, &world.platform, &service, lent(), &event, TIME);
    assert!(tokio::time::timeout(TIME, last).await.is_err(), "it works until it is killed");
    assert!(world.continuation.take().is_empty(), "nobody is asked for any more");
}
