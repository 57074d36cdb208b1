//! From a recorder's loss to the next one's first picture, where somebody comes at once; and those who come while nobody
//! is lost.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::studio::SEGMENT;
use super::world::{TASK, World};
use crate::generation::Recorders;
use crate::platform::{Created, Cursor, Platform, Shelf, StoreError, TaskPage, TaskStore, Versioned};
use crate::task::order::Order;
use crate::task::record::{CommandKind, TaskRecord};
use crate::task::status::Status;

/// What the promise of 3 s leaves for a page that loads, which here takes no time, and where a sweep has to ask for a recorder
/// for a browser that starts, too.
const TAKEN_WITHIN: f64 = 2.4;
/// A browser takes so long to start.
const LAUNCH: Duration = Duration::from_millis(700);

/// A world whose recorder is killed after so long, where a browser takes so long to start.
async fn killed(after: Duration, launch: Duration) -> World {
    let mut world = World::of(u64::MAX);
    Arc::get_mut(&mut world.studio).unwrap().launch = launch;
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
        let world = killed(kill, LAUNCH).await;
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
        assert_eq!(world.studio.standbys.fates(), [1, 1, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn of_those_who_come_for_a_lost_recorder_one_records_and_the_others_are_dismissed() {
    let world = killed(Duration::from_secs(9), LAUNCH).await;
    let second = async {
        sleep(Duration::from_millis(10)).await;
        assert_eq!(world.invoke(&world.platform).await.unwrap()["Status"], "not ours");
        assert_eq!(world.studio.standbys.fates(), [2, 1, 1]);
        world.stop().await;
    };
    tokio::join!(world.invoke(&world.platform), second).0.unwrap();
    assert_eq!(world.record().await.generation, 2);
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_on_with_what_is_ready_where_a_sweep_was_first_to_find_the_recorder_lost() {
    let mut first = 0;
    for kill in kills() {
        let mut world = World::of(u64::MAX);
        Arc::get_mut(&mut world.studio).unwrap().launch = LAUNCH;
        world.task(Order::of("https://example.com/")).await;
        let swept = async {
            sleep(kill - Duration::from_millis(450)).await;
            let orphans = world.runner(&world.platform).sweep().await.unwrap()["Orphans"].as_u64().unwrap();
            if orphans > 0 {
                // A process takes no less to start.
                sleep(Duration::from_millis(25)).await;
                assert_eq!(world.invoke(&world.platform).await.unwrap()["Status"], "not ours");
            }
            orphans
        };
        let retried = async {
            let _ = tokio::time::timeout(kill, world.invoke(&world.platform)).await;
            world.invoke(&world.platform).await.unwrap()
        };
        let caller = async {
            sleep(kill + Duration::from_secs(9)).await;
            world.stop().await;
        };
        let (orphans, answer, ()) = tokio::join!(swept, retried, caller);
        first += orphans;
        assert_eq!((&answer["Status"], world.studio.standbys.fates()), (&"finished".into(), [1, 1, 0]), "at {kill:?}");
        let restart = first_picture(&world).await - kill.as_secs_f64();
        assert!((0.0..TAKEN_WITHIN).contains(&restart), "{restart} s after the kill at {kill:?}");
    }
    assert!(first > 0, "the sweep was never first");
}

#[tokio::test(start_paused = true)]
async fn nobody_stands_by_for_a_task_that_is_only_to_be_delivered() {
    let world = killed(Duration::from_secs(9), LAUNCH).await;
    world.stop().await;
    assert_eq!(world.invoke(&world.platform).await.unwrap()["Status"], "finished");
    assert_eq!((world.record().await.crashes, world.studio.standbys.fates()), (1, [0; 3]));
}

#[tokio::test(start_paused = true)]
async fn whoever_stood_by_when_the_stop_came_is_dismissed_and_delivers() {
    let world = killed(Duration::from_secs(9), LAUNCH).await;
    let caller = async {
        for _ in 0..300 {
            if world.studio.standbys.fates()[0] == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        }
        world.stop().await;
    };
    assert_eq!(tokio::join!(world.invoke(&world.platform), caller).0.unwrap()["Status"], "finished");
    assert_eq!(world.studio.standbys.fates(), [1, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_at_once_finds_that_a_recorder_is_lost_and_asks_for_another() {
    for kill in kills() {
        let world = killed(kill, Duration::ZERO).await;
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
        sleep(Duration::from_secs(6)).await;
        world.stop().await;
    };
    tokio::join!(world.invoke(&world.platform), caller).0.unwrap();
    let task = world.record().await;
    assert_eq!((task.crashes, task.result.failure), (5, None));
    assert_eq!(super::life::length(&world), Some(3 * SEGMENT));
}

/// Records in a store that counts what is written, and takes its time.
struct Counting {
    tasks: Arc<dyn TaskStore>,
    saves: AtomicU64,
    takes: Duration,
    /// Calls that are made within this time end with it.
    stalls: Range<Instant>,
}

impl Counting {
    /// The store of a world as others see it who come by.
    fn of(world: &World, takes: Duration) -> (Arc<Self>, Platform) {
        Self::stalling(world, takes, Duration::ZERO..Duration::ZERO)
    }

    /// The same, which answers nothing for a while.
    fn stalling(world: &World, takes: Duration, stalls: Range<Duration>) -> (Arc<Self>, Platform) {
        let (tasks, saves, now) = (Arc::clone(&world.platform.tasks), AtomicU64::new(0), Instant::now());
        let stalls = now + stalls.start..now + stalls.end;
        let tasks = Arc::new(Self { tasks, saves, takes, stalls });
        let platform = Platform { tasks: Arc::clone(&tasks) as _, ..world.platform.clone() };
        (tasks, platform)
    }

    async fn take_time(&self) {
        sleep(self.takes).await;
        if self.stalls.contains(&Instant::now()) {
            tokio::time::sleep_until(self.stalls.end).await;
        }
    }
}

#[async_trait]
impl TaskStore for Counting {
    async fn create(&self, record: &TaskRecord, now: u64) -> Result<Created, StoreError> {
        self.tasks.create(record, now).await
    }
    async fn load(&self, id: &str, now: u64) -> Result<Option<Versioned>, StoreError> {
        self.take_time().await;
        self.tasks.load(id, now).await
    }
    async fn save(&self, record: &TaskRecord, version: u64) -> Result<Option<u64>, StoreError> {
        self.saves.fetch_add(1, Ordering::SeqCst);
        self.take_time().await;
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
    let (tasks, theirs) = Counting::of(&world, Duration::ZERO);
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
    assert_eq!(world.studio.standbys.fates(), [0; 3], "a living recorder has its machine for itself");
}

/// Of a store that is slow for everybody, one call: renewals are then further apart than a lost recorder's retry waits.
const SLOW: Duration = Duration::from_millis(900);

#[tokio::test(start_paused = true)]
async fn a_recorder_whose_store_is_slow_is_alive() {
    let world = World::of(u64::MAX);
    world.task(Order::of("https://example.com/")).await;
    let (_, slow) = Counting::of(&world, SLOW);
    let others = async {
        world.until(Status::Recording).await;
        sleep(Duration::from_secs(5)).await;
        for _ in 0..12 {
            // Whoever took the task would record for ever.
            let looked = tokio::time::timeout(Duration::from_secs(20), world.invoke(&slow)).await;
            assert_eq!(looked.expect("the task was taken").unwrap()["Status"], "not ours");
            assert_eq!(world.runner(&slow).sweep().await.unwrap()["Orphans"], 0);
            sleep(Duration::from_millis(170)).await;
        }
        world.stop().await;
    };
    tokio::join!(world.invoke(&slow), others).0.unwrap();
    let task = world.record().await;
    assert_eq!((task.generation, task.crashes, &task.gaps[..]), (1, 0, &[][..]));
    assert_eq!(world.studio.standbys.fates(), [0; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_recorder_whose_store_stalls_longer_than_for_others_is_alive() {
    let seconds = Duration::from_secs_f64;
    for from in (0..11).map(|tenth| 8.0 + f64::from(tenth) / 10.0) {
        let world = World::of(u64::MAX);
        world.task(Order::of("https://example.com/")).await;
        let stalling = |until| Counting::stalling(&world, Duration::ZERO, seconds(from)..seconds(until)).1;
        let (recorders, others) = (stalling(from + 3.0), stalling(from + 2.3));
        let retry = async {
            sleep(seconds(from - 0.3)).await;
            // Whoever took the task would record for ever.
            let looked = tokio::time::timeout(Duration::from_secs(20), world.invoke(&others)).await;
            assert_eq!(looked.expect("the task was taken").unwrap()["Status"], "not ours");
            world.stop().await;
        };
        tokio::join!(world.invoke(&recorders), retry).0.unwrap();
        assert_eq!(world.record().await.crashes, 0, "stalled from {from} s on");
    }
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_is_lost_is_found_however_slow_the_store_is() {
    let world = killed(Duration::from_secs(9), LAUNCH).await;
    let (_, slow) = Counting::of(&world, SLOW);
    let caller = async {
        sleep(Duration::from_secs(30)).await;
        world.stop().await;
    };
    assert_eq!(tokio::join!(world.invoke(&slow), caller).0.unwrap()["Status"], "finished");
    assert_eq!(world.record().await.crashes, 1);
    // It is looked at for ten seconds, and then taken, which is a dozen calls.
    let restart = first_picture(&world).await - 9.0;
    assert!((10.0..25.0).contains(&restart), "{restart} s after the kill");
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
