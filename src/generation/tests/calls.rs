//! A caller's server is told, whatever happens to it and to us, and never at the recording's cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::generation::Recorders;
use crate::platform::Platform;
use crate::platform::faults::{Faults, Moment, Plan};
use crate::platform::retry::Retrying;
use crate::task::failure::FailureCode;
use crate::task::order::Order;
use crate::task::record::CommandKind;
use crate::task::status::Status;

use super::life::length;
use super::studio::SEGMENT;
use super::world::{Listener, TASK, World};

const ALL: [Status; 8] = Status::ALL;

fn called(events: &[Status]) -> Order {
    let callback_url = Some("https://example.com/done".into());
    Order { callback_url, callback_events: events.to_vec(), ..Order::of("https://example.com/") }
}

fn listener(refuses: u64, takes: Duration) -> Arc<Listener> {
    Arc::new(Listener { refuses: AtomicU64::new(refuses), takes, ..Listener::default() })
}

/// Statuses that were told, each as often as it was.
fn told(world: &World) -> Vec<Status> {
    world.announcer.heard.lock().unwrap().iter().map(|(task, _)| task.status).collect()
}

/// What a schedule does until the task is over.
async fn sweep(world: &World, platform: &Platform, times: u32) {
    for _ in 0..times {
        tokio::time::sleep(Duration::from_secs(20)).await;
        let _ = world.runner(platform).sweep().await;
        for _event in world.continuation.take() {
            let _ = world.invoke_for(platform, Duration::from_secs(900)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_is_announced_once_it_is_there_and_before_the_task_is_over() {
    let world = World::of(2);
    world.task(called(&[])).await;
    world.invoke(&world.platform).await.unwrap();
    let heard = world.announcer.heard.lock().unwrap().clone();
    let [(told, call)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((told.status, told.finished.is_some(), told.result.videos.len()), (Status::Callback, true, 1));
    assert_eq!((call.event, call.tries), (Status::Callback, 1));
    let task = world.record().await;
    assert_eq!((task.status, task.finished, task.result.failure), (Status::Finished, told.finished, None));
    assert!(task.calls.last().is_some_and(|past| past.delivered) && task.calls.head().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_never_arrives_keeps_the_videos_and_holds_no_invocation() {
    let world = World { announcer: listener(u64::MAX, Duration::from_millis(20)), ..World::of(2) };
    world.task(called(&[])).await;
    world.invoke(&world.platform).await.unwrap();
    let task = world.record().await;
    assert_eq!((task.status, task.lease.clone(), task.generation), (Status::Callback, None, 1));
    assert_eq!(task.calls.head().map(|c| (c.tries, c.answer)), Some((4, Some(503))), "after 1, 2 and 4 s; then 15");
    let since = task.stopped.unwrap();
    assert!(task.calls.head().unwrap().next > since + 20_000);
    sweep(&world, &world.platform, 25).await;
    let task = world.record().await;
    assert_eq!((task.status, task.result.videos.len(), told(&world).len()), (Status::Finished, 1, 7));
    assert_eq!((task.generation, task.crashes), (1, 0), "calls are no generations");
    let failure = task.result.failure.unwrap();
    assert_eq!((failure.code, failure.message.as_str()), (FailureCode::CallbackFailed, "7 calls: busy"));
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_two_tries_goes_on_counting() {
    let world = World { announcer: listener(u64::MAX, Duration::from_secs(9)), ..World::of(2) };
    world.task(called(&[])).await;
    for _ in 0..40 {
        // Every invocation is killed in the middle of a call.
        let _ = tokio::time::timeout(Duration::from_secs(14), world.invoke(&world.platform)).await;
        tokio::time::sleep(Duration::from_secs(15)).await;
    }
    let task = world.record().await;
    assert_eq!(task.status, Status::Finished);
    let tries: Vec<u32> = world.announcer.heard.lock().unwrap().iter().map(|(_, call)| call.tries).collect();
    assert_eq!(tries, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(task.result.failure.unwrap().code, FailureCode::CallbackFailed);
}

#[tokio::test(start_paused = true)]
async fn every_status_is_told_in_order_and_each_as_it_was() {
    let world = World { announcer: listener(0, Duration::from_millis(50)), ..World::of(4) };
    world.task(called(&ALL)).await;
    let caller = async {
        world.until(Status::Recording).await;
        world.command(CommandKind::Pause).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.command(CommandKind::Resume).await;
    };
    tokio::join!(world.invoke(&world.platform), caller).0.unwrap();
    use Status::{Callback, Canceled, Finished, Normal, Paused, Recording, Transcode, Upload};
    assert_eq!(told(&world), [Normal, Recording, Paused, Recording, Canceled, Transcode, Upload, Callback, Finished]);
    for (task, call) in world.announcer.heard.lock().unwrap().iter() {
        let later = [task.canceled, task.stopped, task.finished].into_iter().flatten().any(|t| t > call.at);
        assert!(!later && (task.status < Callback) == task.result.videos.is_empty(), "{task:?}");
    }
    assert_eq!(world.record().await.status, Finished);
}

#[tokio::test(start_paused = true)]
async fn a_slow_or_dead_server_costs_the_recording_nothing() {
    for (refuses, takes) in [(0, 600), (u64::MAX, 9)] {
        let world = World { announcer: listener(refuses, Duration::from_secs(takes)), ..World::of(5) };
        world.task(called(&ALL)).await;
        let _ = tokio::time::timeout(Duration::from_secs(120), world.invoke(&world.platform)).await;
        let task = world.record().await;
        assert_eq!(length(&world), Some(5 * SEGMENT));
        assert_eq!(task.status, Status::Callback);
        let lasted = task.stopped.unwrap() - task.started.unwrap();
        assert!((8_000..10_000).contains(&lasted), "{lasted} ms for five segments");
    }
}

/// A recording with every status to be told, on stores of which one call fails.
async fn told_despite(plan: Plan) -> (World, u64) {
    let world = World { announcer: listener(0, Duration::from_millis(50)), ..World::of(2) };
    world.task(called(&ALL)).await;
    let faults = Faults::new(plan);
    let platform = faults.around(world.platform.clone());
    let platform = Platform { tasks: Arc::new(Retrying::new(platform.tasks, &platform.retries)), ..platform };
    let _ = world.invoke(&platform).await;
    sweep(&world, &platform, 10).await;
    (world, faults.calls())
}

#[tokio::test(start_paused = true)]
async fn whatever_store_call_fails_every_status_is_told_at_least_once() {
    let calls = told_despite(Plan::None).await.1;
    for (k, moment) in (1..=calls).flat_map(|k| [Moment::Before, Moment::After].map(|m| (k, m))) {
        let (world, _) = told_despite(Plan::One(k, moment)).await;
        let task = world.record().await;
        assert_eq!((task.status, task.calls.lost()), (Status::Finished, 0), "call {k} failed {moment:?}: {task:?}");
        let told = told(&world);
        assert!(
            told.is_sorted() && told.contains(&Status::Normal) && told.contains(&Status::Finished),
            "{k}: {told:?}"
        );
        assert!(told.contains(&Status::Callback), "call {k} failed {moment:?}: {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_recorder_leaves_what_is_owed_to_the_next() {
    let world = World { announcer: listener(3, Duration::from_millis(50)), ..World::of(6) };
    world.task(called(&ALL)).await;
    let killed = tokio::time::timeout(Duration::from_secs(4), world.invoke(&world.platform)).await;
    assert!(killed.is_err() && world.record().await.calls.head().is_some());
    sweep(&world, &world.platform, 6).await;
    let mut told = told(&world);
    told.dedup();
    use Status::{Callback, Canceled, Finished, Normal, Recording, Transcode, Upload};
    assert_eq!(told, [Normal, Recording, Canceled, Transcode, Upload, Callback, Finished]);
    assert_eq!((world.record().await.crashes, world.announcer.refuses.load(Ordering::SeqCst)), (1, 0));
    let seqs: Vec<u32> = world.announcer.heard.lock().unwrap().iter().map(|(_, call)| call.seq).collect();
    assert!(seqs.is_sorted(), "{seqs:?}");
    assert_eq!(TASK, world.record().await.id);
}
