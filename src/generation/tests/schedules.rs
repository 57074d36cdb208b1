//! Thousands of random schedules: crashes, stores that fail, delays, duplicates, error pages, refused invocations, callers who pause, resume,
//! reload and stop whenever they like. Whatever happens, the task ends, nothing goes backwards, nothing that was kept is lost or
//! becomes another generation's (`town` looks every second), the result names one whole file, and that file and the listed gaps
//! together are the time that was to be recorded, store failures or not; where callers pause, they are no more than that.
//!
//! Each is made from its number, so that one that fails can be looked at again; what is left to chance is whom the runtime
//! asks first when two are ready. PANOREC_SCHEDULES=20000-60000 runs others than the first 10,000.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::studio::Page;
use super::town::{Fate, Town, WELL};
use crate::platform::faults::Plan;
use crate::task::failure::FailureCode;
use crate::task::record::CommandKind;
use crate::task::status::Status;

/// Which, unless others are asked for.
const SCHEDULES: std::ops::Range<u64> = 0..10_000;
/// Threads that share them.
const THREADS: usize = 2;

/// Numbers that are chance and always the same (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn ms(&mut self, bound: u64) -> Duration {
        Duration::from_millis(self.below(bound))
    }

    fn page(&mut self) -> Page {
        match self.below(8) {
            0 => Page::Error,
            1 => Page::Up(self.ms(12_000)),
            _ => Page::Up(self.ms(1_500)),
        }
    }

    fn fate(&mut self) -> Fate {
        Fate {
            late: if self.one_in(4) { self.ms(25_000) } else { self.ms(300) },
            again: self.one_in(4).then(|| self.ms(40_000)),
            lives: if self.one_in(3) { self.ms(40_000) } else { WELL.lives },
            lost: self.one_in(12),
        }
    }
}

async fn schedule(number: u64) {
    let mut chance = Chance(number);
    // The first page has to be there, or there is no recording.
    let mut pages: Vec<Page> = (0..12).map(|_| chance.page()).collect();
    pages[0] = Page::Up(chance.ms(1_500));
    let mut town = Town::of(Duration::from_secs(30), &pages).await;
    // Of those who try again (`platform::retry`).
    fastrand::seed(number);
    let faults = chance.below(3);
    if faults > 0 {
        // What is appended to a file is not tried again here, and a file that is made of its chunks has dozens of appends.
        town = town.with_faults(Plan::Often { seed: number, one_in: if faults == 1 { 20 } else { 60 } });
    }
    let (world, refuses) = (Arc::clone(&town.world), Arc::clone(&town.refuses));
    let commands = chance.one_in(2);
    let mut acts = Chance(number ^ 0xac75);
    let caller = async move {
        // It may never come to that.
        while world.record().await.status == Status::Normal {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let end = tokio::time::Instant::now() + Duration::from_secs(25) + acts.ms(45_000);
        while tokio::time::Instant::now() < end {
            tokio::time::sleep(acts.ms(9_000)).await;
            let act = acts.below(6);
            refuses.store(u32::from(act == 5), Ordering::SeqCst);
            let kind = [CommandKind::Pause, CommandKind::Resume, CommandKind::Refresh].get(act as usize).copied();
            if let Some(kind) = kind.filter(|_| commands) {
                let _ = crate::generation::change(&world.platform, super::world::TASK, |task| task.command(kind)).await;
            }
        }
        world.stop().await;
    };
    let mut fates = Chance(number ^ 0xfa7e);
    let past = town.live(|n| if n == 0 { WELL } else { fates.fate() }, caller).await;
    let code = past.task.result.failure.as_ref().map(|f| f.code);
    // Pages that do not come up where nobody else records end a task; what was recorded before is there. So does a recorder
    // that is lost again and again, where the caller paused before anything was kept.
    let nothing = commands && past.length == 0 && code == Some(FailureCode::RetriesExhausted);
    assert!(nothing || matches!(code, None | Some(FailureCode::PageNotReady)), "{code:?}");
    assert!(commands || past.length > 0, "nothing is in the file");
    // What failed and who was lost makes no difference to that.
    match commands {
        true => past.lists_nothing_twice(),
        false => past.adds_up(Duration::ZERO),
    }
}

/// The numbers of those that fail among every so many.
fn failing(numbers: impl Iterator<Item = u64>) -> Vec<u64> {
    let fails = |number: &u64| {
        let lived = std::panic::catch_unwind(|| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_time().start_paused(true).build().unwrap().block_on(schedule(*number));
        });
        lived.inspect_err(|_| eprintln!("that was schedule {number}")).is_err()
    };
    numbers.filter(fails).collect()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "this test's own switch")]
fn whatever_happens_the_task_ends_and_nothing_kept_is_lost() {
    let asked = std::env::var("PANOREC_SCHEDULES").ok();
    let numbers = asked.map_or(SCHEDULES, |asked| {
        let (from, to) = asked.split_once('-').expect("PANOREC_SCHEDULES=from-to");
        from.parse().unwrap()..to.parse().unwrap()
    });
    let of = |thread| numbers.clone().skip(thread).step_by(THREADS);
    let threads: Vec<_> = (0..THREADS).map(of).map(|some| std::thread::spawn(|| failing(some))).collect();
    let failed: Vec<_> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
    assert!(failed.is_empty(), "these schedules fail, as told above: {failed:?}");
}
