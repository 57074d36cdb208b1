//! What an invocation does with a task: takes it, records it or picks up what was left behind, delivers, and writes down
//! what came of it. Another invocation may do any part of this again; only who holds the lease is heard.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

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
use crate::task::quality::Quality;
use crate::task::record::{TaskRecord, Video};
use crate::task::status::{Status, StatusEvent};

/// How long the result waits for a store that cannot be reached.
const PATIENCE: Duration = Duration::from_secs(60);
/// An invocation stops recording this long before it is killed, so that the file can be made.
const LEAVE: Duration = Duration::from_secs(15);
/// A task that no recorder has taken this long after its Start is taken for forgotten: cold starts take seconds, retried
/// asynchronous invocations a minute.
pub const START_GRACE_MS: u64 = 90_000;
/// Generations that may be begun before the page is taken for one that kills recorders.
const MAX_STARTS: u32 = 3;
/// Tasks that one sweep looks at.
const SWEEP_PAGE: u32 = 100;

/// The invocation that all this happens in.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Its id.
    pub id: String,
    /// When it is killed.
    pub deadline: Option<Instant>,
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
    pub fn new(platform: Platform, studio: Arc<dyn Studio>, config: RunnerConfig) -> Self {
        Self { platform, studio, config }
    }

    #[tracing::instrument(skip_all, fields(task_id = task, request_id = invocation.id, generation))]
    async fn perform(&self, task: &str, invocation: &Invocation) -> Result<Status, ChangeError> {
        let began = Instant::now();
        let retried = self.platform.retries.load(Ordering::Relaxed);
        let (holder, record) = Holder::claim(&self.platform, task).await?;
        tracing::Span::current().record("generation", record.generation);
        tracing::info!(status = record.status.word(), "task taken");
        let product = self.produce(&holder, &record, invocation).await?;
        let billed = self.config.memory_mb.map_or(0.0, |mb| f64::from(mb) / 1024.0 * began.elapsed().as_secs_f64());
        let place = place(&record);
        let videos: Vec<Video> = product.saved.iter().map(|saved| self.video(&record, &place, saved)).collect();
        let written = holder
            .persist(PATIENCE, |task, now| {
                task.deliver(StatusEvent::Uploading, now)?;
                task.result.failure = product.failure.clone();
                task.result.videos = videos.clone();
                task.result.quality = product.quality.clone();
                task.result.billed_gb_seconds += billed;
                task.end(now)
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
            "task finished"
        );
        Ok(written.status)
    }

    /// Records, or makes the file of what a recorder left that ended without warning.
    async fn produce(
        &self,
        holder: &Holder,
        record: &TaskRecord,
        invocation: &Invocation,
    ) -> Result<Product, ChangeError> {
        let left = match record.generation {
            1 => Vec::new(),
            _ => self.chunks(record).list(&prefix(record)).await?,
        };
        if !left.is_empty() {
            return self.salvage(holder, record).await;
        }
        if record.status >= Status::Canceled {
            return Ok(Product {
                saved: None,
                failure: None,
                quality: None,
                chunks: Vec::new(),
                lease_age: Duration::ZERO,
            });
        }
        if record.generation > MAX_STARTS {
            let message = format!("the recorder ended without warning {MAX_STARTS} times before anything was recorded");
            return Ok(failed(FailureCode::RetriesExhausted, message));
        }
        self.capture(holder, record, invocation).await
    }

    async fn capture(
        &self,
        holder: &Holder,
        record: &TaskRecord,
        invocation: &Invocation,
    ) -> Result<Product, ChangeError> {
        let spec = match record.order.recording(&self.config.allow_addresses) {
            Ok(spec) => spec,
            Err(error) => return Ok(failed(FailureCode::InternalErr, error.to_string())),
        };
        let target = match self.platform.recordings.create(&place(record)).await {
            Ok(target) => target,
            // Tried again by whoever comes next.
            Err(error) if error.kind.is_transient() => return Err(error.into()),
            Err(error) => return Ok(failed(FailureCode::UploadFailed, super::chain(&error))),
        };
        let job = Job {
            spec,
            tools: self.config.tools.clone(),
            task: record.id.clone(),
            generation: record.generation,
            paused: record.paused,
            chunks: self.chunks(record),
            target,
        };
        let (sender, commands) = mpsc::channel(4);
        let leave_at = invocation.deadline.map(|at| at.checked_sub(LEAVE).unwrap_or(at));
        let desk = Desk::new(holder, &*self.platform.clock, sender, leave_at);
        let outcome = tokio::select! {
            outcome = self.studio.record(job, commands, &desk) => outcome,
            () = desk.work_for_ever() => unreachable!("it never ends"),
        };
        let failure = outcome.failure.or_else(|| {
            desk.out_of_time().then(|| Failure {
                code: FailureCode::RetriesExhausted,
                message: "the invocation's time was over and nobody took the recording on; what was recorded is kept"
                    .into(),
            })
        });
        let made = match outcome.only_chunks {
            true => self.assemble(record).await?,
            false => Product { saved: outcome.saved, chunks: outcome.chunks, ..Product::default() },
        };
        let lease_age = desk.lease_age();
        Ok(Product { failure: made.failure.clone().or(failure), quality: Some(outcome.quality), lease_age, ..made })
    }

    /// Makes the file of what a recorder left behind.
    async fn salvage(&self, holder: &Holder, record: &TaskRecord) -> Result<Product, ChangeError> {
        let failure = (record.status < Status::Canceled).then(|| Failure {
            code: FailureCode::RetriesExhausted,
            message: "the recorder ended without warning; what it had recorded is kept".into(),
        });
        let record = holder.persist(PATIENCE, |task, now| task.deliver(StatusEvent::Assembling, now)).await?;
        let made = self.assemble(&record).await?;
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
