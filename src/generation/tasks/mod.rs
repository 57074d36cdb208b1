//! What an invocation does with a task: takes it, records it or picks up what was left behind, delivers, and writes down
//! what came of it. Another invocation may do any part of this again; only who holds the lease is heard.

mod capture;
mod deliver;
mod invocation;
mod vod;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::announce::{Announcer, Courier};
use super::change::ChangeError;
use super::lease::Holder;
use super::metrics::{self, Measured};
use super::outcome::Saved;
use super::publish::Course;
use super::record::{Studio, Tools};
use super::secret::EncryptedChunks;
use super::standby::Standby;
use super::watch;
use crate::platform::{ChunkStore, Platform, RecorderEvent, Shelf, StoreError};
use crate::task::failure::{Failure, FailureCode};
use crate::task::order::StorageType;
use crate::task::quality::Quality;
use crate::task::record::{Joined, Refused, TaskRecord, Video, VodUpload};
use crate::task::status::{Status, StatusEvent};
use async_trait::async_trait;
use capture::Share;
pub(super) use deliver::place;
pub use deliver::remove;
pub use invocation::Invocation;
use serde_json::{Value, json};
pub use vod::{Vod, VodService, WebVod};

/// How long the result waits for a store that cannot be reached.
const PATIENCE: Duration = Duration::from_secs(60);
/// A task that no recorder has taken this long after its Start is taken for forgotten: cold starts take seconds, retried
/// asynchronous invocations a minute.
pub const START_GRACE_MS: u64 = 90_000;
/// Recorders that may be lost before anything was recorded, though it was to be; then the page is taken for one that kills
/// them.
const MAX_STARTS: u32 = 3;
/// Recorders that may be lost in one recording. Each cost seconds, and it goes on; without an end it would go on failing.
const MAX_CRASHES: u32 = 100;
/// Tasks that one sweep looks at.
const SWEEP_PAGE: u32 = 100;

/// What invocations for recording do.
#[async_trait]
pub trait Recorders: Send + Sync {
    /// Works on a task until it is over. An error means that the event should be delivered again.
    async fn record(&self, event: &RecorderEvent, invocation: &Invocation) -> Result<Value, String>;
    /// Finds tasks that nobody works on, and asks for invocations that do.
    async fn sweep(&self) -> Result<Value, String>;
}

/// Settings of recorders.
#[derive(Debug, Clone)]
pub struct RunnerConfig {
    /// The programs that are needed.
    pub tools: Tools,
    /// Addresses that pages may reach although they are not public.
    pub allow_addresses: Vec<ipnet::IpNet>,
    /// Chunks stay after the file was made.
    pub keep_chunks: bool,
    /// How long before its last moment an invocation asks for the next one; `None`: as what the page's start took says.
    pub hand_over_lead: Option<Duration>,
    /// Memory of the function, for what it costs.
    pub memory_mb: Option<u32>,
    /// Standard output is read for metrics.
    pub metrics: bool,
}

/// Recorders on a platform.
pub struct TaskRunner {
    platform: Platform,
    studio: Arc<dyn Studio>,
    announcer: Arc<dyn Announcer>,
    config: RunnerConfig,
    vod: Option<Vod>,
}

/// What came of a task's recording.
#[derive(Default)]
struct Product {
    saved: Option<Saved>,
    /// The same as HLS.
    playlist: Option<Saved>,
    failure: Option<Failure>,
    quality: Option<Quality>,
    chunks: Vec<String>,
    lease_age: Duration,
    /// Where this generation's recording stood when.
    course: Course,
}

#[async_trait]
impl Recorders for TaskRunner {
    async fn record(&self, event: &RecorderEvent, invocation: &Invocation) -> Result<Value, String> {
        let told = |status: &str| Ok(json!({"TaskID": event.task, "Status": status}));
        match self.perform(event, invocation).await {
            Ok(status) => told(status.word()),
            // Events come twice, and late: somebody works on it, or nothing is left to do.
            Err(ChangeError::Unknown(_) | ChangeError::Refused(_)) => told("not ours"),
            Err(error @ (ChangeError::Store(_) | ChangeError::Contended(_))) => {
                tracing::error!(task_id = event.task, error = %super::chain(&error), "task cannot be worked on");
                Err(super::chain(&error))
            }
        }
    }

    async fn sweep(&self) -> Result<Value, String> {
        self.find_orphans().await.map(|found| json!({"Orphans": found})).map_err(|e| super::chain(&e))
    }
}

impl TaskRunner {
    /// Recorders that record with `studio`.
    pub fn new(
        platform: Platform,
        studio: Arc<dyn Studio>,
        announcer: Arc<dyn Announcer>,
        config: RunnerConfig,
    ) -> Self {
        Self { platform, studio, announcer, config, vod: None }
    }

    /// The same, which deliver to a video-on-demand service too.
    pub fn with_vod(self, vod: Option<Vod>) -> Self {
        Self { vod, ..self }
    }

    #[tracing::instrument(skip_all, fields(task_id = event.task, request_id = invocation.id, generation))]
    async fn perform(&self, event: &RecorderEvent, invocation: &Invocation) -> Result<Status, ChangeError> {
        let mut standby = None;
        let done = self.take_and_work(event, invocation, &mut standby).await;
        dismiss(&mut standby).await;
        done
    }

    async fn take_and_work(
        &self,
        event: &RecorderEvent,
        invocation: &Invocation,
        standby: &mut Option<Box<dyn Standby>>,
    ) -> Result<Status, ChangeError> {
        let retried = self.platform.retries.load(Ordering::Relaxed);
        let (holder, record, joined) = self.take(event, invocation, standby).await?;
        if joined == Joined::Successor || !self.records(&record, invocation) {
            dismiss(standby).await;
        }
        let generation = record.generation + u32::from(joined == Joined::Successor);
        tracing::Span::current().record("generation", generation);
        tracing::info!(status = record.status.word(), ?joined, "task taken");
        let status = record.status;
        if joined == Joined::Holder && status == Status::Callback {
            return self.announce(&holder, invocation).await;
        }
        if joined == Joined::Holder && record.vod.is_some() {
            return self.publish(&holder, &record, invocation).await;
        }
        let courier = Courier::new(&*self.announcer, &holder, &*self.platform.clock);
        let share = tokio::select! {
            share = self.produce(&holder, record.clone(), joined, invocation, standby) => share?,
            () = courier.accompany(&record) => unreachable!("it never ends"),
        };
        // Where nothing was to be recorded after all, delivery may take long.
        dismiss(standby).await;
        let mut product = match share {
            Share::Over(product) => *product,
            Share::HandedOn => return Ok(status),
        };
        holder.holding(self.close_hls(&record, &mut product)).await??;
        let shots = holder.holding(self.close_pictures(&record, &product)).await?;
        let place = place(&record);
        let videos: Vec<Video> = product
            .saved
            .iter()
            .chain(&product.playlist)
            .map(|saved| self.video(&record, &place, saved, &shots))
            .collect();
        let written = holder
            .persist(PATIENCE, |task, now| {
                task.deliver(StatusEvent::Uploading, now)?;
                task.result.failure = product.failure.clone();
                task.result.videos = videos.clone();
                let length = videos.iter().map(|v| v.file_duration).fold(0.0, f64::max);
                task.result.quality = task.total(product.quality.clone(), length);
                task.result.billed_gb_seconds += self.billed(invocation);
                if task.order.vod.is_some() {
                    // How long the file is shows when it is made.
                    if let Some(last) = product.quality.clone() {
                        task.measured.get_or_insert_default().absorb(last);
                    }
                    task.measuring = None;
                    task.vod = Some(VodUpload::default());
                    return Ok(());
                }
                (task.measured, task.measuring) = (None, None);
                match task.order.callback_url {
                    Some(_) => task.announce(now),
                    None => task.end(now),
                }
            })
            .await?;
        if !self.config.keep_chunks && written.vod.is_none() {
            remove(&*self.chunks(&record), &product.chunks).await;
        }
        if self.config.metrics {
            let measured = Measured {
                uploads: product.chunks.len() as u64,
                retries: self.platform.retries.load(Ordering::Relaxed) - retried,
                lease_age_ms: product.lease_age.as_millis() as u64,
            };
            println!("{}", metrics::line(&written, measured, self.platform.clock.now()));
        }
        tracing::info!(
            videos = written.result.videos.len(),
            failure = ?written.result.failure.as_ref().map(|f| f.code),
            "task delivered"
        );
        if written.vod.is_some() {
            return self.publish(&holder, &written, invocation).await;
        }
        match written.status {
            Status::Callback => self.announce(&holder, invocation).await,
            status => Ok(status),
        }
    }

    /// Takes the event's task. Who finds somebody at work on it looks whether that one is alive: the platform delivers an
    /// event again when an invocation was lost, too. As soon as it may be lost a recorder stands by.
    async fn take(
        &self,
        event: &RecorderEvent,
        invocation: &Invocation,
        standby: &mut Option<Box<dyn Standby>>,
    ) -> Result<(Holder, TaskRecord, Joined), ChangeError> {
        let suspect = |record: &TaskRecord| {
            let alone = record.relay.alive(self.platform.clock.now()).is_none();
            if standby.is_none() && alone && self.records(record, invocation) {
                *standby = self.stand_by(record);
            }
            standby.is_some()
        };
        match Holder::take(&self.platform, event).await {
            Err(held @ ChangeError::Refused(Refused::Leased)) => {
                match watch::lost(&self.platform, vec![event.task.clone()], suspect).await?.is_empty() {
                    true => Err(held),
                    false => Holder::take(&self.platform, event).await,
                }
            }
            taken => taken,
        }
    }

    /// Whoever holds this task has something to record, and not only to deliver.
    fn records(&self, record: &TaskRecord, invocation: &Invocation) -> bool {
        record.status <= Status::Paused && record.crashes <= MAX_CRASHES && !invocation.too_many_hops(record)
    }

    fn stand_by(&self, record: &TaskRecord) -> Option<Box<dyn Standby>> {
        let spec = record.order.recording(&self.config.allow_addresses).ok()?;
        tracing::debug!("the recorder may be lost; standing by");
        Some(Arc::clone(&self.studio).stand_by(spec, self.config.tools.clone()))
    }

    /// Announces a result that is written down, and what else is to be told; then the task is over. Long waits between two
    /// tries are left to whoever looks for tasks that nobody works on.
    async fn announce(&self, holder: &Holder, invocation: &Invocation) -> Result<Status, ChangeError> {
        let courier = Courier::new(&*self.announcer, holder, &*self.platform.clock);
        let all_told = courier.work_off(invocation.deadline).await?;
        let ended = holder.persist(PATIENCE, |task, now| match all_told {
            true => task.end(now),
            false => {
                task.rest();
                Ok(())
            }
        });
        Ok(ended.await?.status)
    }

    /// What the invocation has cost so far, GB·s.
    fn billed(&self, invocation: &Invocation) -> f64 {
        self.config.memory_mb.map_or(0.0, |mb| f64::from(mb) / 1024.0 * invocation.began.elapsed().as_secs_f64())
    }

    fn chunks(&self, record: &TaskRecord) -> Arc<dyn ChunkStore> {
        let mounted = self.platform.mounted.as_ref().filter(|_| record.order.storage != Some(StorageType::Cos));
        let chunks = Arc::clone(mounted.unwrap_or(&self.platform.chunks));
        match &record.order.encryption {
            Some(encryption) => Arc::new(EncryptedChunks::new(chunks, encryption.key)),
            None => chunks,
        }
    }

    async fn find_orphans(&self) -> Result<usize, ChangeError> {
        let now = self.platform.clock.now();
        let (mut after, mut orphans, mut held) = (None, Vec::new(), Vec::new());
        loop {
            let page = self.platform.tasks.list(Shelf::Running, SWEEP_PAGE, after.as_ref(), now).await?;
            for task in page.records {
                match task.orphaned(now, START_GRACE_MS) {
                    true if task.lease.is_none() => orphans.push(task.id),
                    // A lease that is over may have other reasons: a clock was set, or the store was away.
                    true => held.push(task.id),
                    // What is recorded is lost for as long as nobody finds that its recorder is.
                    false if task.status <= Status::Paused && task.lease.is_some() => held.push(task.id),
                    false => {}
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        orphans.extend(watch::lost(&self.platform, held, |_| false).await?);
        for id in &orphans {
            self.adopt(id).await?;
        }
        Ok(orphans.len())
    }

    async fn adopt(&self, id: &str) -> Result<(), StoreError> {
        tracing::warn!(task_id = id, "nobody works on this task; asking for a recorder");
        self.platform.continuation.invoke(&RecorderEvent { task: id.into(), generation: None }).await
    }
}

async fn dismiss(standby: &mut Option<Box<dyn Standby>>) {
    if let Some(standby) = standby.take() {
        standby.dismiss().await;
    }
}

fn failed(code: FailureCode, message: String) -> Product {
    Product { failure: Some(Failure { code, message }), ..Product::default() }
}
