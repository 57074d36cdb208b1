//! Every single call of a whole recording fails once, before or after its effect. Whatever happens, the task ends in a
//! legal state, and nothing that was kept before is lost.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::generation::{Recorders, change};
use crate::platform::Platform;
use crate::platform::faults::{Faults, Moment, Plan};
use crate::platform::memory::MemoryRecordings;
use crate::task::order::Order;
use crate::task::output::Muxer;
use crate::task::record::{CommandKind, TaskRecord};
use crate::task::status::Status;

use super::hls;
use super::life::length;
use super::studio::SEGMENT;
use super::town::{Town, WELL};
use super::vod;
use super::world::{TASK, World, patient};

/// The page ends its recording after this many segments.
const SEGMENTS: u64 = 4;
const ALL: RangeInclusive<u64> = SEGMENTS * SEGMENT..=SEGMENTS * SEGMENT;
/// More sweeps than any failure needs.
const SWEEPS: usize = 6;

/// What became of a task.
struct Fate {
    task: TaskRecord,
    chunks: usize,
    world: Arc<World>,
    /// Samples that may be in the file.
    samples: RangeInclusive<u64>,
    /// Where it is, if not in the world's bucket.
    uploads: Option<MemoryRecordings>,
}

/// A recording with a pause, on a platform with failures; then sweeps as a schedule makes them until it is over.
async fn live(order: Order, platform: impl FnOnce(Platform) -> Platform) -> Fate {
    let world = World::of(SEGMENTS);
    world.task(order).await;
    let platform = platform(world.platform.clone());
    let caller = async {
        // The task may be over by then, when its recorder failed.
        for kind in [CommandKind::Pause, CommandKind::Resume] {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let _ = change(&world.platform, TASK, |task| task.command(kind)).await;
        }
    };
    let _ = tokio::join!(world.invoke(&platform), caller);
    over(world, &platform, ALL).await
}

/// The same of an MP4, with stores that are tried again or not.
async fn simple(faults: &Arc<Faults>, tried_again: bool) -> Fate {
    let retried = |platform| if tried_again { patient(platform) } else { platform };
    live(Order::of("https://example.com/"), |platform| retried(faults.around(platform))).await
}

/// An MP4 and a playlist of one encoding.
async fn both(faults: &Arc<Faults>) -> Fate {
    live(hls::order(Muxer::Both, true), |platform| patient(faults.around(platform))).await
}

/// A recorder that is killed after a while, and another that goes on with its file, or, once the task was stopped, delivers it.
async fn killed_after(seconds: u64, stopped: bool, faults: &Arc<Faults>) -> Fate {
    let world = World::of(SEGMENTS + seconds);
    world.task(Order::of("https://example.com/")).await;
    let platform = patient(faults.around(world.platform.clone()));
    let _ = tokio::time::timeout(Duration::from_secs(seconds), world.invoke(&platform)).await;
    if stopped {
        world.stop().await;
    }
    // The last segment of the first may not have been stored when it was killed.
    let (first, more) = (seconds * 48_000 / SEGMENT, if stopped { 0 } else { SEGMENTS + seconds });
    over(world, &platform, (first - 1 + more) * SEGMENT..=(first + more) * SEGMENT).await
}

/// A recording that is handed over, and ends soon after.
async fn handed_over(faults: &Arc<Faults>) -> Fate {
    let town = Town::with(Duration::from_secs(24), &[], hls::order(Muxer::Both, false)).await.failing(faults);
    let world = Arc::clone(&town.world);
    let caller = async {
        tokio::time::sleep(Duration::from_secs(19)).await;
        world.stop().await;
    };
    let past = town.live(|_| WELL, caller).await;
    assert!(past.task.generation > 1, "{:?}", past.task);
    // Where the last invocation failed another one ends the task, and lists the segment that was never whole.
    let end = past.length as f64 / 48_000.0 - 0.001;
    assert!(past.gaps().iter().all(|gap| gap.start > end && gap.duration < 2.2), "{:?}", past.task);
    Fate { task: past.task, chunks: 0, world, samples: 16 * 48_000..=20 * 48_000, uploads: None }
}

/// A recording for a video-on-demand service.
async fn lent(order: Order, faults: &Arc<Faults>) -> Fate {
    let (world, uploads) = (World::of(SEGMENTS), MemoryRecordings::default());
    world.task(order).await;
    let platform = patient(faults.around(world.platform.clone()));
    let service = vod::service(false);
    for _ in 0..SWEEPS {
        let _ = vod::invoke_failing(&world, &platform, &service, &uploads, faults).await;
        tokio::time::sleep(Duration::from_secs(100)).await;
    }
    let fate = over(world, &platform, ALL).await;
    Fate { uploads: Some(uploads), ..fate }
}

/// Sweeps as a schedule makes them, until it is over.
async fn over(world: World, platform: &Platform, samples: RangeInclusive<u64>) -> Fate {
    for _ in 0..SWEEPS {
        tokio::time::sleep(Duration::from_secs(100)).await;
        let _ = world.runner(platform).sweep().await;
        for _event in world.continuation.take() {
            let _ = world.invoke(platform).await;
        }
    }
    let chunks = world.platform.chunks.list("raw/").await.unwrap().len();
    Fate { task: world.record().await, chunks, world: Arc::new(world), samples, uploads: None }
}

impl Fate {
    /// The recording is there, whole and once.
    fn is_whole(&self, at: &str) {
        let at = format!("{at}: {:?}", self.task);
        assert_eq!((self.task.status, &self.task.result.failure), (Status::Finished, &None), "{at}");
        let times = [Some(self.task.created), self.task.started, self.task.canceled, self.task.stopped];
        assert!(times.is_sorted(), "{at}");
        if let Some(uploads) = &self.uploads {
            let [video] = &self.task.result.videos[..] else { panic!("{at}") };
            let made = uploads.visible();
            match self.task.order.muxer {
                Muxer::Hls => {
                    let list = hls::whole_at(&made, "vod/0", "lesson.m3u8");
                    assert!(list.ended && self.samples.contains(&list.samples()), "{at}");
                    assert_eq!(list.bytes(), video.file_size, "{at}");
                }
                _ => assert_eq!(made.values().map(|f| f.len() as u64).collect::<Vec<_>>(), [video.file_size], "{at}"),
            }
            return;
        }
        let there = length(&self.world);
        assert!(there.is_some_and(|there| self.samples.contains(&there)), "{there:?} of {:?}; {at}", self.samples);
        let files = self.world.recordings.visible();
        let films = files.keys().filter(|k| k.ends_with(".mp4") && !k.contains("segments-")).count();
        assert_eq!(films, 1, "{:?}; {at}", files.keys());
        if self.task.order.muxer.hls() {
            let list = hls::whole(&self.world);
            assert!(list.ended && Some(list.samples()) == there, "{} of {there:?}; {at}", list.samples());
        }
    }
}

/// Lives with each single call failing, before its effect and after it. Returns how many failures that were.
async fn every_call(story: &str, live: impl AsyncFn(Arc<Faults>) -> Fate) -> u64 {
    let faults = Faults::new(Plan::None);
    live(Arc::clone(&faults)).await.is_whole(story);
    for k in 1..=faults.calls() {
        for moment in [Moment::Before, Moment::After] {
            let fault = Faults::new(Plan::One(k, moment));
            let at = format!("{story}, call {k} failed {moment:?}");
            live(Arc::clone(&fault)).await.is_whole(&at);
            assert_eq!(fault.failed(), u64::from(k <= fault.calls()), "{at}");
        }
    }
    println!("{story}: {} calls, {} points", faults.calls(), faults.points());
    faults.points()
}

#[tokio::test(start_paused = true)]
async fn whichever_call_fails_of_a_recording_or_of_who_goes_on_with_it_the_file_is_whole() {
    let points = every_call("a recording with a pause", async |f| simple(&f, true).await).await
        + every_call("killed after 7 s", async |f| killed_after(7, false, &f).await).await
        + every_call("killed after 12 s", async |f| killed_after(12, false, &f).await).await
        + every_call("stopped after a kill", async |f| killed_after(9, true, &f).await).await
        + every_call("MP4 and HLS", async |f| both(&f).await).await
        + every_call("for another service", async |f| lent(vod::order(false), &f).await).await
        + every_call("HLS for another service", async |f| lent(vod::hls(false, Muxer::Hls, true), &f).await).await;
    assert!(points > 1000, "{points} points");
}

#[tokio::test(start_paused = true)]
async fn whichever_call_fails_while_a_recording_is_handed_over_nothing_is_missing() {
    let points = every_call("handed over", async |f| handed_over(&f).await).await;
    assert!(points > 200, "{points} points");
}

/// What was kept is in the file, or still there to make one of.
fn nothing_kept_is_lost(fate: &Fate, at: &str) {
    let kept = fate.world.chunks.puts().saturating_sub(1); // the first is the init segment
    let there = length(&fate.world).is_some() || !fate.task.result.videos.is_empty();
    assert!(kept == 0 || there || fate.chunks > 1, "{at}");
}

#[tokio::test(start_paused = true)]
async fn without_patience_a_task_ends_all_the_same() {
    let faults = Faults::new(Plan::None);
    simple(&faults, false).await;
    for k in 1..=faults.calls() {
        for moment in [Moment::Before, Moment::After] {
            let fate = simple(&Faults::new(Plan::One(k, moment)), false).await;
            let at = format!("call {k} failed {moment:?}: {:?}", fate.task);
            assert_eq!(fate.task.status, Status::Finished, "{at}");
            nothing_kept_is_lost(&fate, &at);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stores_that_are_away_for_a_while_cost_nothing() {
    for from in (1..60).step_by(7) {
        let fate = simple(&Faults::new(Plan::Outage(from..from + 15)), true).await;
        let at = format!("calls from {from}: {:?}", fate.task);
        assert_eq!(fate.task.status, Status::Finished, "{at}");
        nothing_kept_is_lost(&fate, &at);
    }
}
