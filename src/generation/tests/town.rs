//! A world whose events are delivered: each starts an invocation, late or twice or not at all, which lives as long as its
//! fate lets it. A schedule sweeps. An observer sees that nothing ever goes backwards.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::life::samples;
use super::studio::{Page, SEGMENT};
use super::world::{TASK, World, patient};
use crate::generation::{Invocation, Recorders};
use crate::platform::faults::{Faults, Plan};
use crate::platform::{Continuation, Platform, RecorderEvent, StoreError, StoreErrorKind};
use crate::task::order::Order;
use crate::task::quality::Gap;
use crate::task::record::TaskRecord;
use crate::task::seam::{Seam, Seams};
use crate::task::status::Status;

/// How often a schedule looks for tasks that nobody works on, as `serve` does.
const SWEEP: Duration = Duration::from_secs(5);
/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What becomes of an event and of the invocation that it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    /// It is delivered so late.
    pub late: Duration,
    /// It is delivered again after so long.
    pub again: Option<Duration>,
    /// The invocation is killed after so long, if that is before its time is over.
    pub lives: Duration,
    /// It is never delivered.
    pub lost: bool,
}

/// Nothing happens to it.
pub const WELL: Fate = Fate { late: Duration::ZERO, again: None, lives: PATIENCE, lost: false };

/// Asks for invocations by sending their events.
pub struct Post {
    pub events: UnboundedSender<RecorderEvent>,
    /// It is refused so many times from now on.
    pub refuses: Arc<AtomicU32>,
}

#[async_trait]
impl Continuation for Post {
    async fn invoke(&self, event: &RecorderEvent) -> Result<(), StoreError> {
        if self.refuses.try_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            let source = std::io::Error::other("too many requests");
            let key = event.task.clone();
            return Err(StoreError { op: "invoke for", key, kind: StoreErrorKind::Throttled, source });
        }
        let _ = self.events.send(event.clone());
        Ok(())
    }
}

/// See above.
pub struct Town {
    pub world: Arc<World>,
    events: UnboundedReceiver<RecorderEvent>,
    /// Invocations are refused so many times from now on.
    pub refuses: Arc<AtomicU32>,
    /// Time of an invocation.
    pub time: Duration,
    /// As its invocations see it.
    pub platform: Platform,
    faulty: bool,
}

impl Town {
    /// A page that never ends by itself, in invocations of `time`.
    pub async fn of(time: Duration, pages: &[Page]) -> Self {
        Self::with(time, pages, Order::of("https://example.com/")).await
    }

    /// The same for an order.
    pub async fn with(time: Duration, pages: &[Page], order: Order) -> Self {
        let mut world = World::of(u64::MAX);
        let (sender, events) = unbounded_channel();
        let refuses = Arc::<AtomicU32>::default();
        world.platform.continuation = Arc::new(Post { events: sender.clone(), refuses: Arc::clone(&refuses) });
        world.studio.pages.lock().unwrap().extend(pages);
        world.task(Order { limit_seconds: 36_000, ..order }).await;
        let _ = sender.send(RecorderEvent { task: TASK.into(), generation: None });
        let platform = world.platform.clone();
        Self { world: Arc::new(world), events, refuses, time, platform, faulty: false }
    }

    /// Its stores fail by a plan, and are tried again as the real ones are.
    pub fn with_faults(self, plan: Plan) -> Self {
        self.failing(&Faults::new(plan))
    }

    /// The same for whoever counts them.
    pub fn failing(mut self, faults: &Arc<Faults>) -> Self {
        self.platform = patient(faults.around(self.world.platform.clone()));
        self.faulty = true;
        self
    }

    /// Lives until the task is over, while the caller does what it wants. `fate`: of the n-th event, counted from 0.
    pub async fn live(mut self, mut fate: impl FnMut(usize) -> Fate, caller: impl Future<Output = ()>) -> Past {
        let mut invocations = JoinSet::new();
        let mut seen = Seen::default();
        let (mut sweep, mut look) = (tokio::time::interval(SWEEP), tokio::time::interval(Duration::from_secs(1)));
        let mut count = 0;
        let mut sweeping: Option<Pin<Box<dyn Future<Output = ()>>>> = None;
        let mut caller = std::pin::pin!(async {
            caller.await;
            std::future::pending::<()>().await;
        });
        let lived = async {
            loop {
                tokio::select! {
                    Some(event) = self.events.recv() => {
                        let fate = fate(count);
                        count += 1;
                        for wait in [Some(fate.late), fate.again.map(|again| fate.late + again)].into_iter().flatten() {
                            if fate.lost { continue }
                            let (world, event, time) = (Arc::clone(&self.world), event.clone(), self.time);
                            let platform = self.platform.clone();
                            invocations.spawn(async move {
                                tokio::time::sleep(wait).await;
                                let invocation = Invocation::new("invocation", Some(time));
                                let runner = world.runner(&platform);
                                // Dropping it is what a kill does: nothing more is said or written.
                                let _ = tokio::time::timeout(fate.lives.min(time), runner.record(&event, &invocation)).await;
                            });
                        }
                    }
                    Some(done) = invocations.join_next(), if !invocations.is_empty() => done.unwrap(),
                    _ = sweep.tick(), if sweeping.is_none() => {
                        let runner = self.world.runner(&self.platform);
                        sweeping = Some(Box::pin(async move { let _ = runner.sweep().await; }));
                    }
                    () = async { match &mut sweeping { Some(sweep) => sweep.await, None => std::future::pending().await } } => {
                        sweeping = None;
                    }
                    _ = look.tick() => {
                        if seen.look(&self.world).await == Status::Finished { break }
                    }
                    () = &mut caller => {}
                }
            }
        };
        let over = tokio::time::timeout(PATIENCE * 12, lived).await;
        assert!(over.is_ok(), "it never ends: {:?}", self.world.record().await);
        // What is still on its way finds nothing to do.
        let finished = self.world.record().await;
        while let Some(done) = invocations.join_next().await {
            done.unwrap();
        }
        let task = self.world.record().await;
        assert_eq!(task, finished, "nothing changes a task that is over");
        assert_eq!(self.world.studio.standbys.left(), 0, "whoever stood by has recorded or gone");
        let length = delivered(&self.world, &task).unwrap_or(0);
        assert!(
            length >= seen.committed * SEGMENT - task.short,
            "{} kept, {length} samples in the file",
            seen.committed
        );
        if !task.order.muxer.hls() {
            // A store may fail after the file was there, which is made again then: the result names one that is whole.
            let files = self.world.recordings.visible().len();
            assert!(files == usize::from(length > 0) || self.faulty && length > 0, "{files} files");
        }
        let size = serde_json::to_string(&task).unwrap().len();
        assert!(size < 100_000, "a record of {size} bytes");
        Past { task, length, invocations: count, faulty: self.faulty }
    }
}

/// Length of the one MP4 file that the result names, if it names one; it must be whole.
fn delivered(world: &World, task: &TaskRecord) -> Option<u64> {
    let mut named = task.result.videos.iter().filter(|v| v.filename.ends_with(".mp4"));
    let (video, another) = (named.next()?, named.next());
    assert!(another.is_none(), "{another:?} beside {video:?}");
    let files = world.recordings.visible();
    let of_it = |key: &&String| key.rsplit('/').next() == Some(&video.filename);
    let bytes = &files[files.keys().find(of_it).expect("the file that is named is there")];
    assert_eq!(video.file_size, bytes.len() as u64, "{video:?}");
    let length = samples(bytes);
    assert!((video.file_duration - length as f64 / 48_000.0).abs() < 1e-6, "{length} samples of {video:?}");
    Some(length)
}

/// What an observer has seen so far.
#[derive(Default)]
struct Seen {
    status: Option<Status>,
    committed: u64,
    seams: Seams,
}

impl Seen {
    async fn look(&mut self, world: &World) -> Status {
        let task = world.record().await;
        let back = (self.status, task.status) == (Some(Status::Paused), Status::Recording);
        assert!(back || self.status.is_none_or(|s| s <= task.status), "{:?}, then {:?}", self.status, task.status);
        self.status = Some(task.status);
        if task.status <= Status::Paused {
            let kept = task.seams.next_index(&world.platform.chunks.list("raw/").await.unwrap());
            assert!(kept >= self.committed, "{} segments were kept, and now {kept}", self.committed);
            // Whose a kept segment is does not change, whoever stores what later; each is one generation's.
            let (was, is) = (self.seams.before(self.committed), task.seams.before(self.committed));
            assert_eq!(was, is, "of the first {} segments", self.committed);
            let follow = |w: &[Seam]| w[0].first < w[1].first && w[0].generation < w[1].generation;
            assert!(task.seams.list().windows(2).all(follow), "{:?}", task.seams);
            (self.committed, self.seams) = (kept, task.seams);
        }
        task.status
    }
}

/// What came of it.
pub struct Past {
    pub task: TaskRecord,
    /// Of the file, samples.
    pub length: u64,
    /// Events that were sent.
    pub invocations: usize,
    faulty: bool,
}

impl Past {
    pub fn gaps(&self) -> &[Gap] {
        self.task.result.quality.as_ref().map_or(&[], |q| &q.gaps)
    }

    /// By how many seconds file and gaps together are less than the time from the start to the Stop.
    fn unlisted(&self) -> Option<f64> {
        let ended = self.task.canceled.or(self.task.stopped);
        let wanted = (ended? - self.task.started?) as f64 / 1000.0;
        let missing: f64 = self.gaps().iter().map(|g| g.duration).sum();
        Some(wanted - self.length as f64 / 48_000.0 - missing)
    }

    /// What is there, or listed, too much at most: the time to notice a Stop, and to ask a store again.
    fn least(&self) -> f64 {
        if self.faulty { -0.6 } else { -0.3 }
    }

    /// File and gaps together are the time that was to be recorded. The unfinished segment at the end is not kept here.
    pub fn adds_up(&self, paused: Duration) {
        let Some(off) = self.unlisted().map(|off| off - paused.as_secs_f64()) else { return };
        // At the end: a segment, the encoder, and the time to notice a Stop; this studio forgets the unfinished segment of a
        // task that is handed over while it is paused, too. Stores that are asked again take their time.
        let most = if paused > Duration::ZERO { 5.2 } else { 3.0 } + if self.faulty { 0.5 } else { 0.0 };
        assert!((self.least()..most).contains(&off), "{off} s are neither there nor listed: {:?}", self.gaps());
    }

    /// They are no more than the time from the start to the Stop, however much of it was paused.
    pub fn lists_nothing_twice(&self) {
        let Some(off) = self.unlisted() else { return };
        assert!(off > self.least(), "{} s too much is there or listed: {:?}", -off, self.gaps());
    }
}
