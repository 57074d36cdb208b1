//! Hand-overs, and everything that may happen to a successor. Each ends with the best recording that was possible, and
//! with what is missing listed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::studio::Page;
use super::town::{Fate, Past, Town, WELL};
use super::world::World;
use crate::generation::run::Command;
use crate::platform::faults::Plan;
use crate::task::quality::GapReason;
use crate::task::record::CommandKind;
use crate::task::relay::RelayState;
use crate::task::status::Status;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Of an invocation. It asks for the next one after 33 s, and leaves after 52 s.
const TIME: Duration = s(60);

/// A recording that is stopped after a while.
async fn recording(pages: &[Page], refuses: u32, seconds: u64, fate: impl FnMut(usize) -> Fate) -> Past {
    let town = Town::of(TIME, pages).await;
    let (world, refuse) = (Arc::clone(&town.world), Arc::clone(&town.refuses));
    let caller = async move {
        world.until(Status::Recording).await;
        refuse.store(refuses, Ordering::SeqCst);
        tokio::time::sleep(s(seconds)).await;
        world.stop().await;
    };
    let past = town.live(fate, caller).await;
    assert_eq!(past.task.result.failure, None);
    past.adds_up(Duration::ZERO);
    past
}

fn reasons(past: &Past) -> Vec<GapReason> {
    past.gaps().iter().map(|g| g.reason).collect()
}

#[tokio::test(start_paused = true)]
async fn twenty_hand_overs_lose_nothing() {
    let past = recording(&[], 0, 800, |_| WELL).await;
    assert!(past.task.generation >= 20, "{}", past.task.generation);
    assert_eq!((past.gaps(), past.task.crashes), (&[][..], 0));
    assert!(past.invocations as u32 - past.task.generation <= 1, "each was asked for once");
    let billed = past.task.result.billed_gb_seconds;
    // 2 GB; each overlaps with the next for at most 14 s of its 40.
    assert!((1_600.0..1_600.0 * 1.4).contains(&billed), "{billed} GB·s for 800 s");
}

#[tokio::test(start_paused = true)]
async fn every_event_delivered_twice_or_thrice_changes_nothing() {
    for again in [0, 1, 5, 8, 20, 70] {
        let past = recording(&[], 0, 200, |_| Fate { again: Some(s(again)), ..WELL }).await;
        assert_eq!((past.gaps(), past.task.crashes), (&[][..], 0), "again after {again} s");
        assert!(past.invocations as u32 - past.task.generation <= 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_is_late_costs_nothing_while_there_is_time() {
    let past = recording(&[], 0, 100, |n| if n == 1 { Fate { late: s(7), ..WELL } } else { WELL }).await;
    assert_eq!(past.gaps(), []);
    // One that is later finds another one there.
    let past = recording(&[], 0, 100, |n| if n == 1 { Fate { late: s(12), ..WELL } } else { WELL }).await;
    assert_eq!(past.gaps(), []);
}

#[tokio::test(start_paused = true)]
async fn successors_that_come_after_the_end_are_a_gap() {
    let past = recording(&[], 0, 100, |n| if (1..6).contains(&n) { Fate { late: s(30), ..WELL } } else { WELL }).await;
    assert_eq!(reasons(&past), [GapReason::HandOver]);
    assert!((5.0..20.0).contains(&past.gaps()[0].duration), "{:?}", past.gaps());
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_never_comes_is_asked_for_again() {
    let past = recording(&[], 0, 100, |n| Fate { lost: n == 1 || n == 2, ..WELL }).await;
    assert_eq!((past.gaps(), past.task.generation >= 3), (&[][..], true));
}

#[tokio::test(start_paused = true)]
async fn without_any_successor_the_task_goes_on_once_somebody_comes() {
    // Those that were asked for, and the one after the end; a sweep finds the task then.
    let past = recording(&[], 0, 120, |n| Fate { lost: (1..5).contains(&n), ..WELL }).await;
    assert_eq!(reasons(&past), [GapReason::HandOver]);
}

#[tokio::test(start_paused = true)]
async fn an_invocation_that_is_throttled_is_asked_for_again() {
    let past = recording(&[], 2, 100, |_| WELL).await;
    assert_eq!(past.gaps(), []);
    assert_eq!(past.task.crashes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_dies_before_it_is_ready_is_replaced() {
    for lives in [0, 1, 2] {
        let past = recording(&[], 0, 100, |n| if n == 1 { Fate { lives: s(lives), ..WELL } } else { WELL }).await;
        assert_eq!((past.gaps(), past.task.crashes), (&[][..], 0), "it lived for {lives} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_dies_as_it_goes_on_is_a_lost_recorder() {
    for lives in (4..16).map(|half| Duration::from_millis(half * 500)) {
        let past = recording(&[], 0, 100, |n| if n == 1 { Fate { lives, ..WELL } } else { WELL }).await;
        let expected: &[GapReason] = if past.task.crashes > 0 { &[GapReason::RecorderLost] } else { &[] };
        assert_eq!(reasons(&past), expected, "it lived for {lives:?}");
        // A lease, a sweep, and what was in its encoder.
        assert!(past.gaps().iter().all(|g| g.duration < 16.0), "{:?}", past.gaps());
    }
}

#[tokio::test(start_paused = true)]
async fn a_successor_with_an_error_page_is_replaced_by_one_without() {
    let past = recording(&[Page::Up(s(0)), Page::Error], 0, 100, |_| WELL).await;
    assert_eq!((past.gaps(), past.task.generation >= 3), (&[][..], true));
    // As long as there is one, the holder goes on to its last second.
    let mut pages = [Page::Error; 6];
    (pages[0], pages[5]) = (Page::Up(s(0)), Page::Up(s(2)));
    let past = recording(&pages, 0, 100, |_| WELL).await;
    assert_eq!(reasons(&past), [GapReason::HandOver]);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_takes_long_is_waited_for() {
    let past = recording(&[Page::Up(s(5)), Page::Up(s(9))], 0, 100, |_| WELL).await;
    assert_eq!(past.gaps(), []);
    // One that is not there at the last moment takes the task all the same.
    let past = recording(&[Page::Up(s(1)), Page::Up(s(25))], 0, 100, |_| WELL).await;
    assert_eq!(reasons(&past), [GapReason::HandOver]);
    assert!(past.gaps()[0].duration < 10.0, "{:?}", past.gaps());
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_is_lost_has_its_successor_there_already() {
    for lives in 34..42 {
        let past = recording(&[], 0, 100, |n| if n == 0 { Fate { lives: s(lives), ..WELL } } else { WELL }).await;
        let gaps = past.gaps();
        assert!(gaps.len() <= 1, "{gaps:?}");
        // Its lease has to run out, and a segment to begin; no sweep is needed.
        assert!(gaps.iter().all(|g| g.duration < 11.0 && g.reason == GapReason::RecorderLost), "{lives} s: {gaps:?}");
    }
}

/// A caller who acts at some second after the first page was there.
async fn with_caller(acts: &[(f64, Act)], seconds: u64) -> (Past, Arc<World>) {
    let town = Town::of(TIME, &[]).await;
    let world = Arc::clone(&town.world);
    let (at, acts) = (Arc::clone(&world), acts.to_vec());
    let caller = async move {
        at.until(Status::Recording).await;
        let begun = tokio::time::Instant::now();
        for (second, act) in acts {
            tokio::time::sleep_until(begun + Duration::from_secs_f64(second)).await;
            match act {
                Act::Do(kind) => at.command(kind).await,
                Act::Check(check) => check(&at.record().await.relay.state),
            }
        }
        tokio::time::sleep_until(begun + s(seconds)).await;
        at.stop().await;
    };
    let past = town.live(|_| WELL, caller).await;
    assert_eq!(past.task.result.failure, None);
    (past, world)
}

#[derive(Clone, Copy)]
enum Act {
    Do(CommandKind),
    Check(fn(&RelayState)),
}

const PAUSE: Act = Act::Do(CommandKind::Pause);
const RESUME: Act = Act::Do(CommandKind::Resume);

#[tokio::test(start_paused = true)]
async fn a_pause_at_any_moment_of_a_hand_over_loses_nothing() {
    for tenth in 0..60 {
        let at = 32.0 + f64::from(tenth) * 0.25;
        for pause in [0.15, 1.0, 7.3] {
            let (past, _) = with_caller(&[(at, PAUSE), (at + pause, RESUME)], 70).await;
            assert_eq!(past.gaps(), [], "paused at {at} s for {pause} s");
            past.adds_up(Duration::from_secs_f64(pause));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_paused_is_handed_over_at_once() {
    let ready = Act::Check(|relay| assert!(matches!(relay, RelayState::Idle), "{relay:?}"));
    let (past, _) = with_caller(&[(20.0, PAUSE), (40.0, ready), (130.0, RESUME)], 150).await;
    assert_eq!(past.gaps(), []);
    assert!(past.task.generation >= 3);
    past.adds_up(s(110));
}

#[tokio::test(start_paused = true)]
async fn a_reload_reaches_the_page_of_a_successor_too() {
    let (past, world) = with_caller(&[(37.0, Act::Do(CommandKind::Refresh))], 60).await;
    assert_eq!((past.gaps(), past.task.refreshed), (&[][..], 1));
    let commands = world.studio.commands.lock().unwrap();
    let of = |wanted| commands.iter().filter(|c| **c == wanted).count();
    assert_eq!((of(Command::Refresh), of(Command::Reload)), (1, 1), "{commands:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_at_any_moment_of_a_hand_over_ends_the_task() {
    for tenth in 0..60 {
        let seconds = 32.0 + f64::from(tenth) * 0.25;
        let (past, _) = with_caller(&[(seconds, Act::Check(|_| ()))], seconds as u64).await;
        assert_eq!(past.gaps(), [], "stopped after {seconds} s");
        past.adds_up(Duration::ZERO);
    }
}

/// A recording of 200 s whose clock is set at some moment.
async fn with_clock_set(at: Duration, by_ms: i64, lives: Duration) -> Past {
    let town = Town::of(s(600), &[]).await;
    let world = Arc::clone(&town.world);
    let caller = async move {
        world.until(Status::Recording).await;
        tokio::time::sleep(at).await;
        world.set.store(by_ms, Ordering::SeqCst);
        tokio::time::sleep(s(200) - at).await;
        world.stop().await;
    };
    let past = town.live(|n| if n == 0 { Fate { lives, ..WELL } } else { WELL }, caller).await;
    assert_eq!(past.task.result.failure, None);
    past
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_costs_nothing() {
    for by in [-7_200_000, -61_000, -4_000, 4_000, 61_000, 7_200_000] {
        for quarter in 0..20 {
            let past = with_clock_set(Duration::from_millis(50_000 + quarter * 250), by, WELL.lives).await;
            if by == 4_000 {
                // It looks like a lease that has just run out: another recorder may take over.
                assert!(past.gaps().len() <= 1 && past.task.crashes <= 1, "{:?}", past.gaps());
                continue;
            }
            assert_eq!((past.gaps(), past.task.crashes), (&[][..], 0), "by {by} ms after {quarter} quarters");
            assert!((195.0..201.0).contains(&(past.length as f64 / 48_000.0)), "{}", past.length);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_is_lost_as_the_clock_is_set_is_followed_by_another() {
    for by in [-7_200_000, -61_000, 61_000, 7_200_000] {
        let past = with_clock_set(s(51), by, s(50)).await;
        assert_eq!((past.task.crashes, past.task.generation), (1, 2), "by {by} ms");
        let seconds = past.length as f64 / 48_000.0;
        assert!((180.0..200.0).contains(&seconds), "by {by} ms: {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn stores_that_are_away_for_a_minute_cost_nothing() {
    for from in [0.2, 5.0, 30.0, 31.7] {
        let away = Duration::from_secs_f64(from)..Duration::from_secs_f64(from + 60.0);
        let town = Town::of(s(600), &[]).await.with_faults(Plan::Away(away));
        let world = Arc::clone(&town.world);
        let caller = async move {
            while world.record().await.started.is_none() {
                tokio::time::sleep(s(1)).await;
            }
            tokio::time::sleep(s(200)).await;
            world.stop().await;
        };
        let past = town.live(|_| WELL, caller).await;
        assert_eq!((past.task.result.failure.as_ref(), past.gaps()), (None, &[][..]), "from {from} s");
        past.adds_up(Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn every_segment_is_counted_once_whoever_is_lost() {
    for lives in 20..50 {
        let past = recording(&[], 0, 100, |n| if n < 2 { Fate { lives: s(lives), ..WELL } } else { WELL }).await;
        let delivered = past.task.result.quality.as_ref().unwrap().frames_delivered;
        // This studio draws one picture in each.
        assert_eq!(delivered, past.length / super::studio::SEGMENT, "they lived for {lives} s");
    }
}
