//! What an invocation does with a task: takes it, records it or picks up what was left behind, delivers, and writes down
//! what came of it. Another invocation may do any part of this again; only who holds the lease is heard.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::announce::Announcer;
use super::assemble::{AssembleError, assemble};
use super::change::ChangeError;
use super::desk::{Desk, name};
use super::lease::Holder;
use super::metrics::{self, Measured};
use super::outcome::Saved;
use super::record::{Job, Studio, Tools};
use crate::delivery::recovery::RecoveryError;
use crate::platform::{ChunkStore, Place, Platform, RecorderEvent, Shelf, StoreError};
use crate::task::failure::{Failure, FailureCode};
use crate::task::order::StorageType;
use crate::task::quality::{Gap, Quality};
use crate::task::record::{Anchor, TaskRecord, Video};
use crate::task::segment::{ChunkName, parse_chunk_key};
use crate::task::status::{Status, StatusEvent};
use crate::task::timeline::seconds;

/// How long the result waits for a store that cannot be reached.
const PATIENCE: Duration = Duration::from_secs(60);
/// An invocation stops recording this long before it is killed: time to store its last segment and to ask for the next
/// invocation, with patience for stores.
const LEAVE: Duration = Duration::from_secs(10);
/// A task that no recorder has taken this long after its Start is taken for forgotten: cold starts take seconds, retried
/// asynchronous invocations a minute.
pub const START_GRACE_MS: u64 = 90_000;
/// Recorders that may be lost before anything was recorded; then the page is taken for one that kills them.
const MAX_STARTS: u32 = 3;
/// Recorders that may be lost in one recording. Each cost seconds, and it goes on; without an end it would go on failing.
const MAX_CRASHES: u32 = 100;
/// Tasks that one sweep looks at.
const SWEEP_PAGE: u32 = 100;

/// The invocation that all this happens in.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Its id.
    pub id: String,
    /// When it began.
    pub began: Instant,
    /// When it is killed.
    pub deadline: Option<Instant>,
}

impl Invocation {
    /// One that begins now and is killed after `limit`.
    pub fn new(id: impl Into<String>, limit: Option<Duration>) -> Self {
        let began = Instant::now();
        Self { id: id.into(), began, deadline: limit.map(|limit| began + limit) }
    }

    /// When capture has to end, so that another invocation can go on: ahead of the deadline, and never before half of the
    /// time is used.
    fn leave_at(&self) -> Option<Instant> {
        let deadline = self.deadline?;
        Some(deadline - LEAVE.min(deadline.saturating_duration_since(Instant::now()) / 2))
    }
}

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
}

/// What came of a task's recording.
#[derive(Default)]
struct Product {
    saved: Option<Saved>,
    failure: Option<Failure>,
    quality: Option<Quality>,
    chunks: Vec<String>,
    lease_age: Duration,
}

#[async_trait]
impl Recorders for TaskRunner {
    async fn record(&self, event: &RecorderEvent, invocation: &Invocation) -> Result<Value, String> {
        let told = |status: &str| Ok(json!({"TaskID": event.task, "Status": status}));
        match self.perform(&event.task, invocation).await {
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
        Self { platform, studio, announcer, config }
    }

    #[tracing::instrument(skip_all, fields(task_id = task, request_id = invocation.id, generation))]
    async fn perform(&self, task: &str, invocation: &Invocation) -> Result<Status, ChangeError> {
        let retried = self.platform.retries.load(Ordering::Relaxed);
        let (holder, record) = Holder::claim(&self.platform, task).await?;
        tracing::Span::current().record("generation", record.generation);
        tracing::info!(status = record.status.word(), "task taken");
        if record.status == Status::Callback {
            return self.announce(&holder, &record).await;
        }
        let Some(product) = self.produce(&holder, &record, invocation).await? else {
            // Another invocation goes on.
            self.platform.continuation.invoke(&RecorderEvent { task: task.into() }).await?;
            return Ok(record.status);
        };
        let place = place(&record);
        let videos: Vec<Video> = product.saved.iter().map(|saved| self.video(&record, &place, saved)).collect();
        let written = holder
            .persist(PATIENCE, |task, now| {
                task.deliver(StatusEvent::Uploading, now)?;
                task.result.failure = product.failure.clone();
                task.result.videos = videos.clone();
                task.result.quality = product.quality.clone().map(|quality| with_gaps(quality, &task.gaps));
                task.result.billed_gb_seconds += self.billed(invocation);
                match task.order.callback_url {
                    Some(_) => task.announce(now),
                    None => task.end(now),
                }
            })
            .await?;
        if !self.config.keep_chunks {
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
        match written.status {
            Status::Callback => self.announce(&holder, &written).await,
            status => Ok(status),
        }
    }

    /// Announces a result that is written down, and ends the task.
    async fn announce(&self, holder: &Holder, record: &TaskRecord) -> Result<Status, ChangeError> {
        let told = holder.holding(self.announcer.announce(record)).await?;
        if let Err(message) = &told {
            tracing::error!(message, "callback failed");
        }
        let ended = holder.persist(PATIENCE, |task, now| {
            if let Err(message) = &told {
                // What went wrong before is what the caller has to know.
                let failure = Failure { code: FailureCode::CallbackFailed, message: message.clone() };
                task.result.failure.get_or_insert(failure);
            }
            task.end(now)
        });
        Ok(ended.await?.status)
    }

    /// Records, or makes the file of what recorders left behind. `None` when another invocation is to go on.
    async fn produce(
        &self,
        holder: &Holder,
        record: &TaskRecord,
        invocation: &Invocation,
    ) -> Result<Option<Product>, ChangeError> {
        let left = match record.generation {
            1 => Vec::new(),
            _ => self.chunks(record).list(&prefix(record)).await?,
        };
        let base = next_index(&left);
        if record.status >= Status::Canceled || record.crashes > MAX_CRASHES {
            return match base {
                0 => Ok(Some(Product::default())),
                _ => self.salvage(holder, record).await.map(Some),
            };
        }
        if base == 0 && record.crashes >= MAX_STARTS {
            let message = format!("the recorder ended without warning {MAX_STARTS} times before anything was recorded");
            return Ok(Some(failed(FailureCode::RetriesExhausted, message)));
        }
        self.capture(holder, record, invocation, base).await
    }

    /// Records, from segment `base` on.
    async fn capture(
        &self,
        holder: &Holder,
        record: &TaskRecord,
        invocation: &Invocation,
        base: u64,
    ) -> Result<Option<Product>, ChangeError> {
        let segment = record.order.rate.segment();
        let kept = (base * segment).saturating_sub(record.short);
        let mut spec = match record.order.recording(&self.config.allow_addresses) {
            Ok(spec) => spec,
            Err(error) => return Ok(Some(failed(FailureCode::InternalErr, error.to_string()))),
        };
        spec.max_duration = spec.max_duration.map(|d| d.saturating_sub(Duration::from_secs_f64(seconds(kept))));
        // The page has started the recording once; it is not asked again.
        spec.manual_start &= record.started.is_none();
        let target = match (base, self.platform.recordings.create(&place(record)).await) {
            (0, Ok(target)) => Some(target),
            // What earlier recorders left and what this one stores are put together at the end.
            (1.., Ok(target)) => target.abort().await.map(|()| None)?,
            // Tried again by whoever comes next.
            (_, Err(error)) if error.kind.is_transient() => return Err(error.into()),
            (_, Err(error)) => return Ok(Some(failed(FailureCode::UploadFailed, super::chain(&error)))),
        };
        let job = Job {
            spec,
            tools: self.config.tools.clone(),
            task: record.id.clone(),
            generation: record.generation,
            paused: record.paused,
            base,
            chunks: self.chunks(record),
            target,
        };
        let (sender, commands) = mpsc::channel(4);
        let goes_on = record.started.map(|_| kept);
        let desk = Desk::new(holder, &*self.platform.clock, sender, invocation.leave_at(), goes_on);
        let outcome = tokio::select! {
            outcome = self.studio.record(job, commands, &desk) => outcome,
            () = desk.work_for_ever() => unreachable!("it never ends"),
        };
        if desk.handing_over() && outcome.failure.is_none() {
            let short = outcome.kept.next_multiple_of(segment) - outcome.kept;
            holder
                .persist(PATIENCE, |task, now| {
                    let end = Anchor { recorded: kept + outcome.kept, wall: now, paused: task.paused };
                    task.hand_over(end, short);
                    task.result.billed_gb_seconds += self.billed(invocation);
                    Ok(())
                })
                .await?;
            return Ok(None);
        }
        let made = match outcome.only_chunks || desk.handing_over() {
            true => holder.holding(self.assemble(record)).await??,
            false => Product { saved: outcome.saved, chunks: outcome.chunks, ..Product::default() },
        };
        Ok(Some(Product {
            failure: made.failure.clone().or(outcome.failure),
            quality: Some(outcome.quality.shifted(seconds(kept))),
            lease_age: desk.lease_age(),
            ..made
        }))
    }

    /// Makes the file of what a recorder left behind.
    async fn salvage(&self, holder: &Holder, record: &TaskRecord) -> Result<Product, ChangeError> {
        let failure = (record.status < Status::Canceled).then(|| Failure {
            code: FailureCode::RetriesExhausted,
            message: "the recorder ended without warning; what it had recorded is kept".into(),
        });
        let record = holder.persist(PATIENCE, |task, now| task.deliver(StatusEvent::Assembling, now)).await?;
        let made = holder.holding(self.assemble(&record)).await??;
        Ok(Product { failure: made.failure.clone().or(failure), ..made })
    }

    /// The file of a task's chunks.
    async fn assemble(&self, record: &TaskRecord) -> Result<Product, StoreError> {
        let stopped = record.stopped.unwrap_or_else(|| self.platform.clock.now());
        let chunks = self.chunks(record);
        let left = chunks.list(&prefix(record)).await?;
        let target = self.platform.recordings.create(&place(record)).await?;
        match assemble(&*chunks, &prefix(record), target, &name(stopped)).await {
            Ok(saved) => Ok(Product { saved: Some(saved), chunks: left, ..Product::default() }),
            Err(AssembleError::Recovery(RecoveryError::Nothing)) => Ok(Product { chunks: left, ..Product::default() }),
            // Tried again by whoever comes next.
            Err(AssembleError::Store(error)) if error.kind.is_transient() => Err(error),
            Err(error) => Ok(failed(FailureCode::UploadFailed, super::chain(&error))),
        }
    }

    /// What the invocation has cost so far, GB·s.
    fn billed(&self, invocation: &Invocation) -> f64 {
        self.config.memory_mb.map_or(0.0, |mb| f64::from(mb) / 1024.0 * invocation.began.elapsed().as_secs_f64())
    }

    fn chunks(&self, record: &TaskRecord) -> Arc<dyn ChunkStore> {
        let mounted = self.platform.mounted.as_ref().filter(|_| record.order.storage != Some(StorageType::Cos));
        Arc::clone(mounted.unwrap_or(&self.platform.chunks))
    }

    fn video(&self, record: &TaskRecord, place: &Place, saved: &Saved) -> Video {
        let domain = record.order.target.domain.as_deref();
        let key = &saved.key;
        Video {
            filename: key.rsplit('/').next().unwrap_or(key).to_string(),
            file_size: saved.size,
            file_url: self.platform.recordings.url(place, key, domain),
            file_duration: saved.duration,
        }
    }

    async fn find_orphans(&self) -> Result<usize, StoreError> {
        let now = self.platform.clock.now();
        let (mut after, mut found) = (None, 0);
        loop {
            let page = self.platform.tasks.list(Shelf::Running, SWEEP_PAGE, after.as_ref(), now).await?;
            for task in page.records.iter().filter(|t| t.orphaned(now, START_GRACE_MS)) {
                tracing::warn!(task_id = task.id, "nobody works on this task; asking for a recorder");
                self.platform.continuation.invoke(&RecorderEvent { task: task.id.clone() }).await?;
                found += 1;
            }
            after = page.next;
            if after.is_none() {
                return Ok(found);
            }
        }
    }
}

/// Gaps of the whole task: those between recorders, and those of the last one.
fn with_gaps(mut quality: Quality, gaps: &[Gap]) -> Quality {
    quality.gaps.splice(0..0, gaps.iter().copied());
    quality
}

/// Index of the segment that follows those that are there.
fn next_index(keys: &[String]) -> u64 {
    let index = |key: &String| match parse_chunk_key(key)? {
        (_, ChunkName::Segment(index)) => Some(index + 1),
        (_, ChunkName::Init) => None,
    };
    keys.iter().filter_map(index).max().unwrap_or(0)
}

fn failed(code: FailureCode, message: String) -> Product {
    Product {
        saved: None,
        failure: Some(Failure { code, message }),
        quality: None,
        chunks: Vec::new(),
        lease_age: Duration::ZERO,
    }
}

fn prefix(record: &TaskRecord) -> String {
    format!("raw/{}/", record.id)
}

/// Where the task's file belongs.
fn place(record: &TaskRecord) -> Place {
    let target = &record.order.target;
    let name = target.name.as_ref().map(|n| if n.ends_with(".mp4") { n.clone() } else { format!("{n}.mp4") });
    Place {
        bucket: target.bucket.clone(),
        region: target.region.clone(),
        dir: target.dir.clone().unwrap_or_else(|| record.id.clone()),
        name,
    }
}

/// Removes chunks that are not needed any more. What cannot be removed is left to the store's own expiry.
pub async fn remove(chunks: &dyn ChunkStore, keys: &[String]) {
    for key in keys {
        if let Err(error) = chunks.delete(key).await {
            tracing::warn!(error = %super::chain(&error), "chunk not removed");
            return;
        }
    }
}
