use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use crate::generation::{Announcer, Invocation, Recorders, RunnerConfig, TaskRunner, Tools, Unheard, change};
use crate::platform::memory::{MemoryChunkStore, MemoryContinuation, MemoryRecordings, MemoryTaskStore};
use crate::platform::retry::Retrying;
use crate::platform::{Clock, Created, Platform, RecorderEvent};
use crate::task::calls::Call;
use crate::task::order::Order;
use crate::task::record::{CommandKind, TaskRecord};
use crate::task::status::Status;

use super::studio::Replay;

/// The runtime's own time, which a test moves by waiting; and by so many milliseconds, as one sets a clock.
pub struct RuntimeClock(tokio::time::Instant, Arc<AtomicI64>);

impl Clock for RuntimeClock {
    fn now(&self) -> u64 {
        (1_700_000_000_000 + self.0.elapsed().as_millis() as u64).saturating_add_signed(self.1.load(Ordering::SeqCst))
    }
}

/// Nobody wants to hear anything.
pub struct Silent;

#[async_trait]
impl Announcer for Silent {
    async fn call(&self, _task: &TaskRecord, _call: &Call) -> Result<u16, Unheard> {
        Ok(204)
    }
}

/// A server that takes its time, remembers what it was told, and fails as often as it is told to.
pub struct Listener {
    /// What was told: the task as it was told, and the call.
    pub heard: Mutex<Vec<(TaskRecord, Call)>>,
    /// Calls that are refused before one is taken.
    pub refuses: AtomicU64,
    /// How long an answer takes.
    pub takes: Duration,
}

impl Default for Listener {
    fn default() -> Self {
        Self { heard: Mutex::default(), refuses: AtomicU64::new(0), takes: Duration::from_secs(8) }
    }
}

#[async_trait]
impl Announcer for Listener {
    async fn call(&self, task: &TaskRecord, call: &Call) -> Result<u16, Unheard> {
        self.heard.lock().unwrap().push((task.as_of(call.event, call.at), call.clone()));
        tokio::time::sleep(self.takes).await;
        match self.refuses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)) {
            Ok(_) => Err(Unheard { status: Some(503), reason: "busy".into() }),
            Err(_) => Ok(200),
        }
    }
}

/// A world of its own for each test.
pub struct World {
    pub platform: Platform,
    pub chunks: MemoryChunkStore,
    pub recordings: MemoryRecordings,
    pub continuation: Arc<MemoryContinuation>,
    pub studio: Arc<Replay>,
    pub announcer: Arc<Listener>,
    /// By how much the clock of the system was set, ms. That of the media is not.
    pub set: Arc<AtomicI64>,
    /// The setting.
    pub keep_chunks: bool,
}

/// A platform whose calls are tried again, as the real one's are.
pub fn patient(platform: Platform) -> Platform {
    let retries = &platform.retries;
    Platform {
        tasks: Arc::new(Retrying::new(platform.tasks, retries)),
        chunks: Arc::new(Retrying::new(platform.chunks, retries)),
        recordings: Arc::new(Retrying::new(platform.recordings, retries)),
        public: Arc::new(Retrying::new(platform.public, retries)),
        continuation: Arc::new(Retrying::new(platform.continuation, retries)),
        ..platform
    }
}

pub const TASK: &str = "11111111-2222-4333-8444-555555555555";

impl World {
    /// A page that ends its recording after so many segments.
    pub fn of(segments: u64) -> Self {
        // Those who try again wait as long each time that a test is run.
        fastrand::seed(0);
        let chunks = MemoryChunkStore::default();
        let recordings = MemoryRecordings::default();
        let continuation = Arc::new(MemoryContinuation::default());
        let (begun, set) = (tokio::time::Instant::now(), Arc::<AtomicI64>::default());
        let platform = Platform {
            tasks: Arc::new(MemoryTaskStore::default()),
            chunks: Arc::new(chunks.clone()),
            mounted: None,
            recordings: Arc::new(recordings.clone()),
            public: Arc::new(recordings.clone()),
            continuation: Arc::clone(&continuation) as _,
            clock: Arc::new(RuntimeClock(begun, Arc::clone(&set))),
            retries: Arc::default(),
        };
        let clock: Arc<dyn Clock> = Arc::new(RuntimeClock(begun, Arc::default()));
        let clocks = Some((clock, Arc::clone(&platform.clock)));
        let studio = Arc::new(Replay { segments, clocks, ..Replay::default() });
        Self { platform, chunks, recordings, continuation, studio, announcer: Arc::default(), set, keep_chunks: false }
    }

    /// A stored task that nobody works on yet.
    pub async fn task(&self, order: Order) -> TaskRecord {
        let record = TaskRecord::new(TASK.into(), order, None, self.platform.clock.now());
        let created = self.platform.tasks.create(&record, record.created).await.unwrap();
        assert!(matches!(created, Created::New(_)), "{created:?}");
        record
    }

    pub fn runner(&self, platform: &Platform) -> TaskRunner {
        let tools = Tools::none();
        let config = RunnerConfig {
            tools,
            allow_addresses: Vec::new(),
            keep_chunks: self.keep_chunks,
            hand_over_lead: None,
            memory_mb: Some(2048),
            metrics: false,
        };
        TaskRunner::new(platform.clone(), Arc::clone(&self.studio) as _, Arc::clone(&self.announcer) as _, config)
    }

    /// One invocation with the recorder event, through `platform` (which may fail).
    pub async fn invoke(&self, platform: &Platform) -> Result<serde_json::Value, String> {
        self.invoke_for(platform, Duration::from_secs(86_400)).await
    }

    /// The same with a deadline.
    pub async fn invoke_for(&self, platform: &Platform, time: Duration) -> Result<serde_json::Value, String> {
        let invocation = Invocation::new("invocation", Some(time));
        self.runner(platform).record(&RecorderEvent { task: TASK.into(), generation: None }, &invocation).await
    }

    pub async fn record(&self) -> TaskRecord {
        let found = self.platform.tasks.load(TASK, self.platform.clock.now()).await.unwrap();
        found.expect("the task is there").record
    }

    pub async fn command(&self, kind: CommandKind) {
        change(&self.platform, TASK, |task| task.command(kind)).await.unwrap();
    }

    pub async fn stop(&self) {
        let now = self.platform.clock.now();
        change(&self.platform, TASK, |task| task.stop(now)).await.unwrap();
    }

    /// Waits until the task has a status; fails if it takes a minute.
    pub async fn until(&self, status: Status) {
        for _ in 0..600 {
            if self.record().await.status == status {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never {status:?}: {:?}", self.record().await);
    }
}
