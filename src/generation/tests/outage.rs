//! A bucket that is away for a minute while the task's record can be reached: what is recorded meanwhile waits, and nothing
//! is missing afterwards.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::hls;
use super::life::length;
use super::studio::SEGMENT;
use super::world::{World, patient};
use crate::generation::Recorders;
use crate::generation::backlog::Bounds;
use crate::platform::faults::{Faults, Plan};
use crate::platform::{ChunkStore, Platform};
use crate::task::order::Order;
use crate::task::output::Muxer;
use crate::task::quality::GapReason;
use crate::task::status::Status;

/// Room for a minute of the segments here, nearly all of it in the file.
const ROOMY: Bounds = Bounds { memory: 8, disk: 1024, segments: 1024 };
const MINUTE: Duration = Duration::from_secs(60);

/// A world whose pages end their recordings after so many segments.
fn world(segments: u64, bounds: Bounds) -> World {
    let mut world = World::of(segments);
    Arc::get_mut(&mut world.studio).unwrap().bounds = bounds;
    world
}

/// Its platform, of which the bucket is away for a while.
fn without_bucket(world: &World, away: Range<Duration>) -> Platform {
    let faulty = Faults::new(Plan::Away(away)).around(world.platform.clone());
    let Platform { chunks, recordings, public, .. } = patient(faulty);
    Platform { chunks, recordings, public, ..world.platform.clone() }
}

fn held_up(world: &World) -> Duration {
    *world.studio.held_up.lock().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_is_away_for_a_minute_costs_no_picture() {
    for from in [1.0, 20.0, 33.3] {
        let from = Duration::from_secs_f64(from);
        let world = world(60, ROOMY);
        world.task(hls::order(Muxer::Both, true)).await;
        world.invoke(&without_bucket(&world, from..from + MINUTE)).await.unwrap();
        let task = world.record().await;
        assert_eq!((task.status, &task.result.failure, task.generation), (Status::Finished, &None, 1));
        assert_eq!(task.result.quality.unwrap().gaps, []);
        assert_eq!((length(&world), hls::whole(&world).samples()), (Some(60 * SEGMENT), 60 * SEGMENT));
        assert_eq!(held_up(&world), Duration::ZERO, "the encoder never waits");
        assert_eq!(world.chunks.list("").await.unwrap(), Vec::<String>::new(), "chunks are removed at the end");
    }
}

#[tokio::test(start_paused = true)]
async fn beyond_its_bounds_the_encoder_waits_and_what_it_put_out_is_kept() {
    let world = world(60, Bounds { memory: 8, disk: 16, segments: 1024 });
    world.task(Order::of("https://example.com/")).await;
    let from = Duration::from_secs(20);
    world.invoke(&without_bucket(&world, from..from + MINUTE)).await.unwrap();
    assert!(held_up(&world) > MINUTE / 4, "{:?}", held_up(&world));
    assert_eq!((world.record().await.result.failure, length(&world)), (None, Some(60 * SEGMENT)));
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_the_bucket_is_away_keeps_what_waits() {
    let world = world(u64::MAX, ROOMY);
    world.task(Order::of("https://example.com/")).await;
    let from = Duration::from_secs(20);
    let platform = without_bucket(&world, from..from + MINUTE);
    let caller = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        world.stop().await;
    };
    let (answer, ()) = tokio::join!(world.invoke(&platform), caller);
    assert_eq!(answer.unwrap()["Status"], "finished");
    let task = world.record().await;
    let whole = (task.canceled.unwrap() - task.started.unwrap()) * 48 / SEGMENT;
    assert_eq!((task.result.failure, length(&world)), (None, Some(whole * SEGMENT)));
}

#[tokio::test(start_paused = true)]
async fn what_waited_when_a_recorder_was_killed_is_listed_as_missing() {
    let world = world(40, ROOMY);
    world.task(Order::of("https://example.com/")).await;
    let from = Duration::from_secs(20);
    // What is dropped here is not quite dead: its writer would go on when the bucket is back.
    let platform = without_bucket(&world, from..from + 60 * MINUTE);
    let killed = tokio::time::timeout(Duration::from_secs(50), world.invoke(&platform)).await;
    assert!(killed.is_err());
    let kept = world.record().await.seams.next_index(&world.chunks.list("raw/").await.unwrap());
    assert_eq!(kept, 12, "20 s are twelve segments and a bit");
    tokio::time::sleep(from + MINUTE - Duration::from_secs(50)).await;
    let _ = world.runner(&world.platform).sweep().await;
    assert_eq!(world.continuation.take().len(), 1);
    world.invoke(&world.platform).await.unwrap();
    let task = world.record().await;
    assert_eq!((task.result.failure, length(&world)), (None, Some((kept + 40) * SEGMENT)));
    let quality = task.result.quality.unwrap();
    let [gap] = quality.gaps[..] else { panic!("{:?}", quality.gaps) };
    // The sweep watches the lease for 1.3 s.
    let (start, until) = ((kept * SEGMENT) as f64 / 48_000.0, 81.3);
    assert_eq!(gap.reason, GapReason::RecorderLost);
    assert!((gap.start - start).abs() < 0.001 && (gap.duration - (until - start)).abs() < 0.1, "{gap:?}");
}
