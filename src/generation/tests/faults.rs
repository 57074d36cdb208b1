//! Every single call of a whole recording fails once, before or after its effect. Whatever happens, the task ends in a
//! legal state, and nothing that was kept before is lost.

use std::sync::Arc;
use std::time::Duration;

use crate::generation::{Recorders, change};
use crate::platform::Platform;
use crate::platform::faults::{Faults, Moment, Plan};
use crate::platform::retry::Retrying;
use crate::task::order::Order;
use crate::task::record::{CommandKind, TaskRecord};
use crate::task::status::Status;

use super::life::length;
use super::studio::SEGMENT;
use super::world::{TASK, World};

/// The page ends its recording after this many segments.
const SEGMENTS: u64 = 4;
/// More sweeps than any failure needs.
const SWEEPS: usize = 6;

/// What became of a task.
struct Fate {
    task: TaskRecord,
    calls: u64,
    failed: u64,
    chunks: usize,
    world: World,
}

/// A recording with a pause, under a plan of failures; then sweeps as a schedule makes them until it is over.
async fn live(plan: Plan, patient: bool) -> Fate {
    let world = World::of(SEGMENTS);
    world.task(Order::of("https://example.com/")).await;
    let faults = Faults::new(plan);
    let mut platform = faults.around(world.platform.clone());
    if patient {
        platform = Platform {
            tasks: Arc::new(Retrying::new(platform.tasks, &platform.retries)),
            chunks: Arc::new(Retrying::new(platform.chunks, &platform.retries)),
            recordings: Arc::new(Retrying::new(platform.recordings, &platform.retries)),
            ..platform
        };
    }
    let caller = async {
        // The task may be over by then, when its recorder failed.
        for kind in [CommandKind::Pause, CommandKind::Resume] {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let _ = change(&world.platform, TASK, |task| task.command(kind)).await;
        }
    };
    let _ = tokio::join!(world.invoke(&platform), caller);
    over(world, &faults, &platform).await
}

/// The same with a recorder that is killed after a while, and another that goes on with its file.
async fn killed_after(seconds: u64, plan: Plan) -> Fate {
    let world = World::of(SEGMENTS + seconds);
    world.task(Order::of("https://example.com/")).await;
    let faults = Faults::new(plan);
    let platform = faults.around(world.platform.clone());
    let platform = Platform {
        tasks: Arc::new(Retrying::new(platform.tasks, &platform.retries)),
        chunks: Arc::new(Retrying::new(platform.chunks, &platform.retries)),
        recordings: Arc::new(Retrying::new(platform.recordings, &platform.retries)),
        ..platform
    };
    let _ = tokio::time::timeout(Duration::from_secs(seconds), world.invoke(&platform)).await;
    over(world, &faults, &platform).await
}

/// Sweeps as a schedule makes them, until it is over.
async fn over(world: World, faults: &Faults, platform: &Platform) -> Fate {
    for _ in 0..SWEEPS {
        tokio::time::sleep(Duration::from_secs(100)).await;
        let _ = world.runner(platform).sweep().await;
        for _event in world.continuation.take() {
            let _ = world.invoke(platform).await;
        }
    }
    let chunks = world.platform.chunks.list("raw/").await.unwrap().len();
    Fate { task: world.record().await, calls: faults.calls(), failed: faults.failed(), chunks, world }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_passes_costs_nothing() {
    let calls = live(Plan::None, true).await.calls;
    assert!(calls > 60, "{calls} calls of a whole recording");
    for k in 1..=calls {
        for moment in [Moment::Before, Moment::After] {
            let fate = live(Plan::One(k, moment), true).await;
            let at = format!("call {k} failed {moment:?}: {:?}", fate.task);
            assert_eq!(fate.failed, u64::from(k <= fate.calls), "{at}");
            assert_eq!(fate.task.status, Status::Finished, "{at}");
            let times = [Some(fate.task.created), fate.task.started, fate.task.canceled, fate.task.stopped];
            assert!(times.is_sorted(), "{at}");
            assert_eq!(fate.task.result.failure, None, "{at}");
            assert_eq!(fate.world.recordings.visible().len(), 1, "{at}");
            assert_eq!(length(&fate.world), Some(SEGMENTS * SEGMENT), "{at}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whichever_call_fails_a_file_that_another_goes_on_with_is_whole() {
    let mut points = 0;
    for seconds in [7, 12] {
        let calls = killed_after(seconds, Plan::None).await.calls;
        for k in 1..=calls {
            for moment in [Moment::Before, Moment::After] {
                let fate = killed_after(seconds, Plan::One(k, moment)).await;
                let at = format!("killed after {seconds} s, call {k} failed {moment:?}: {:?}", fate.task);
                assert_eq!((fate.task.status, &fate.task.result.failure), (Status::Finished, &None), "{at}");
                assert_eq!(fate.world.recordings.visible().len(), 1, "{at}");
                // The last segment of the first may not have been stored when it was killed.
                let least = (SEGMENTS + seconds + seconds * 48_000 / SEGMENT - 1) * SEGMENT;
                assert!(length(&fate.world) >= Some(least), "{at}");
                points += 1;
            }
        }
    }
    assert!(points > 500, "{points} points");
}

/// What was kept is in the file, or still there to make one of.
fn nothing_kept_is_lost(fate: &Fate, at: &str) {
    let kept = fate.world.chunks.puts().saturating_sub(1); // the first is the init segment
    let there = length(&fate.world).is_some() || !fate.task.result.videos.is_empty();
    assert!(kept == 0 || there || fate.chunks > 1, "{at}");
}

#[tokio::test(start_paused = true)]
async fn without_patience_a_task_ends_all_the_same() {
    let calls = live(Plan::None, false).await.calls;
    for k in 1..=calls {
        for moment in [Moment::Before, Moment::After] {
            let fate = live(Plan::One(k, moment), false).await;
            let at = format!("call {k} failed {moment:?}: {:?}", fate.task);
            assert_eq!(fate.task.status, Status::Finished, "{at}");
            nothing_kept_is_lost(&fate, &at);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stores_that_are_away_for_a_while_cost_nothing() {
    for from in (1..60).step_by(7) {
        let fate = live(Plan::Outage(from..from + 15), true).await;
        let at = format!("calls from {from}: {:?}", fate.task);
        assert_eq!(fate.task.status, Status::Finished, "{at}");
        nothing_kept_is_lost(&fate, &at);
    }
}
