//! From a recorder's loss to the next one's first picture, where somebody comes at once; and those who come while nobody
//! is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use super::studio::SEGMENT;
use super::world::{TASK, World};
use crate::generation::Recorders;
use crate::platform::{Created, Cursor, Platform, Shelf, StoreError, TaskPage, TaskStore, Versioned};
use crate::task::order::Order;
use crate::task::record::{CommandKind, TaskRecord};
use crate::task::status::Status;

/// What the promise of 3 s leaves for a browser that starts and a page that loads; here they take no time.
const TAKEN_WITHIN: f64 = 2.4;

/// A world whose recorder is killed after so long.
async fn killed(after: Duration) -> World {
    let world = World::of(u64::MAX);
    world.task(Order::of("https://example.com/")).await;
    // Dropping the invocation is what a kill does: nothing more is said or written.
    let lived = tokio::time::timeout(after, world.invoke(&world.platform)).await;
    assert!(lived.is_err());
    world
}

/// The second recorder's first picture, seconds after the start of the first one's.
async fn first_picture(world: &World) -> f64 {
    let gaps = world.record().await.gaps;
    let [gap] = gaps[..] else { panic!("{gaps:?}") };
    gap.start + gap.duration
}

/// Kills at any moment between two segments.
fn kills() -> impl Iterator<Item = Duration> {
    (0..22).map(|tenth| Duration::from_millis(9_000 + tenth * 100))
}

#[tokio::test(start_paused = true)]
async fn a_retry_at_once_finds_that_a_recorder_is_lost_and_goes_on() {
    for kill in kills() {
        let world = killed(kill).await;
        let caller = async {
            sleep(Duration::from_secs(8)).await;
            world.stop().await;
        };
        let (answer, ()) = tokio::join!(world.invoke(&world.platform), caller);
        assert_eq!(answer.unwrap()["Status"], "finished");
        let task = world.record().await;
        assert_eq!((task.generation, task.crashes, task.result.failure), (2, 1, None));
        let restart = first_picture(&world).await - kill.as_secs_f64();
        assert!((0.0..TAKEN_WITHIN).contains(&restart), "{restart} s after the kill at {kill:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sweep_at_once_finds_that_a_recorder_is_lost_and_asks_for_another() {
    for kill in kills() {
        let world = killed(kill).await;
        let swept = world.runner(&world.platform).sweep().await.unwrap();
        assert_eq!((swept["Orphans"].as_u64(), world.continuation.take().len()), (Some(1), 1), "killed at {kill:?}");
        let caller = async {
            world.until(Status::Recording).await;
            sleep(Duration::from_secs(8)).await;
            world.stop().await;
        };
        let (answer, ()) = tokio::join!(world.invoke(&world.platform), caller);
        assert_eq!(answer.unwrap()["Status"], "finished");
        let restart = first_picture(&world).await - kill.as_secs_f64();
        assert!((0.0..TAKEN_WITHIN).contains(&restart), "{restart} s after the kill at {kill:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_of_which_nothing_is_recorded_because_it_is_paused_is_not_given_up() {
    let world = World::of(u64::MAX);
    world.task(Order::of("https://example.com/")).await;
    world.command(CommandKind::Pause).await;
    for _ in 0..5 {
        let lived = tokio::time::timeout(Duration::from_secs(5), world.invoke(&world.platform)).await;
        assert!(lived.is_err(), "{lived:?}");
    }
    let caller = async {
        sleep(Duration::from_secs(4)).await;
        world.command(CommandKind::Resume).await;
        sleep(Duration::from_secs(8)).await;
        world.stop().await;
    };
    tokio::join!(world.invoke(&world.platform), caller).0.unwrap();
    let task = world.record().await;
    assert_eq!((task.crashes, task.result.failure), (5, None));
    assert_eq!(super::life::length(&world), Some(3 * SEGMENT));
}

/// Records in a store that counts what is written.
struct Counting {
    tasks: Arc<dyn TaskStore>,
    saves: AtomicU64,
}

#[async_trait]
impl TaskStore for Counting {
    async fn create(&self, record: &TaskRecord, now: u64) -> Result<Created, StoreError> {
        self.tasks.create(record, now).await
    }
    async fn load(&self, id: &str, now: u64) -> Result<Option<Versioned>, StoreError> {
        self.tasks.load(id, now).await
    }
    async fn save(&self, record: &TaskRecord, version: u64) -> Result<Option<u64>, StoreError> {
        self.saves.fetch_add(1, Ordering::SeqCst);
        self.tasks.save(record, version).await
    }
    async fn delete(&self, id: &str, version: u64) -> Result<bool, StoreError> {
        self.tasks.delete(id, version).await
    }
    async fn list(&self, shelf: Shelf, limit: u32, after: Option<&Cursor>, now: u64) -> Result<TaskPage, StoreError> {
        self.tasks.list(shelf, limit, after, now).await
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_while_a_recorder_is_well_writes_nothing() {
    let world = World::of(u64::MAX);
    world.task(Order::of("https://example.com/")).await;
    let tasks = Arc::new(Counting { tasks: Arc::clone(&world.platform.tasks), saves: AtomicU64::new(0) });
    let counted: Arc<dyn TaskStore> = Arc::clone(&tasks) as _;
    let theirs = Platform { tasks: counted, ..world.platform.clone() };
    let others = async {
        world.until(Status::Recording).await;
        for _ in 0..12 {
            assert_eq!(world.invoke(&theirs).await.unwrap()["Status"], "not ours");
            assert_eq!(world.runner(&theirs).sweep().await.unwrap()["Orphans"], 0);
            sleep(Duration::from_millis(70)).await;
        }
        world.stop().await;
    };
    tokio::join!(world.invoke(&world.platform), others).0.unwrap();
    let task = world.record().await;
    assert_eq!((task.generation, task.crashes, &task.gaps[..]), (1, 0, &[][..]));
    assert_eq!((world.continuation.take().len(), tasks.saves.load(Ordering::SeqCst)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_was_given_up_and_is_alive_keeps_its_task() {
    let world = World::of(u64::MAX);
    world.task(Order::of("https://example.com/")).await;
    let others = async {
        world.until(Status::Recording).await;
        sleep(Duration::from_secs(5)).await;
        let given_up = crate::generation::change(&world.platform, TASK, |task| {
            let lease = task.lease.clone().unwrap();
            task.give_up(&lease)
        });
        given_up.await.unwrap();
        sleep(Duration::from_millis(1_200)).await;
        assert_eq!(world.invoke(&world.platform).await.unwrap()["Status"], "not ours");
        world.stop().await;
    };
    tokio::join!(world.invoke(&world.platform), others).0.unwrap();
    let task = world.record().await;
    assert_eq!((task.generation, task.crashes), (1, 0));
    assert!(super::life::length(&world).unwrap() >= 2 * SEGMENT);
}
