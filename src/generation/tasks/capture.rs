//! One generation's recording: where it begins, and what becomes of the task when it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::super::admission::Admission;
use super::super::change::ChangeError;
use super::super::desk::{Desk, Office, alignment, prefix};
use super::super::gallery::Gallery;
use super::super::lease::{Holder, LEASE};
use super::super::media::{Shared, Target};
use super::super::outcome::Outcome;
use super::super::preview::Showing;
use super::super::publish::{Fresh, Publisher};
use super::super::record::Job;
use super::super::standby::Standby;
use super::deliver::place;
use super::{Invocation, MAX_STARTS, PATIENCE, Product, START_GRACE_MS, TaskRunner, failed};
use crate::platform::{ChunkStore, HeadLastObject, RecorderEvent};
use crate::recording::stills::{Still, Stills};
use crate::task::failure::FailureCode;
use crate::task::record::{Joined, TaskRecord};
use crate::task::relay::RelayEvent;
use crate::task::status::Status;

/// How long a generation that has handed over looks after the next one: its lease, and its first segment.
const SEEN_OFF: Duration = Duration::from_secs(8);
/// How often.
const LOOK: Duration = Duration::from_millis(500);
/// It is gone so long before it would be killed.
const GOING: Duration = Duration::from_secs(1);
/// How long the last segments and pictures may take to be published. Whoever goes on publishes what is missing.
const DRAIN: Duration = Duration::from_secs(2);

/// What a generation's share came to.
pub(super) enum Share {
    /// The recording is over: this is to be delivered.
    Over(Box<Product>),
    /// Another generation goes on, or was never let go of.
    HandedOn,
}

impl From<Product> for Share {
    fn from(product: Product) -> Self {
        Self::Over(Box::new(product))
    }
}

/// What is published while a recorder records.
struct Beside {
    publisher: Option<(Publisher, mpsc::Receiver<Fresh>)>,
    gallery: Option<(Gallery, mpsc::Receiver<Still>)>,
    showing: Showing,
}

impl Beside {
    /// Until all of it is, once the recorder has ended.
    async fn run(&mut self) {
        let (publisher, gallery) = (&mut self.publisher, &mut self.gallery);
        let segments = async {
            if let Some((publisher, queue)) = publisher {
                publisher.run(queue).await;
            }
        };
        let pictures = async {
            if let Some((gallery, taken)) = gallery {
                gallery.run(taken).await;
            }
        };
        tokio::join!(segments, pictures);
    }
}

impl TaskRunner {
    /// Records, or makes the file of what recorders left behind.
    pub(super) async fn produce(
        &self,
        holder: &Holder,
        record: TaskRecord,
        joined: Joined,
        invocation: &Invocation,
        standby: &mut Option<Box<dyn Standby>>,
    ) -> Result<Share, ChangeError> {
        if joined == Joined::Successor {
            let admission = Admission::warm();
            let target = self.shared(&record, None);
            return self.capture(holder, &record, Some(&record), admission, target, invocation, None).await;
        }
        let left = match record.generation {
            1 => Vec::new(),
            _ => holder.holding(self.chunks(&record).list(&prefix(&record.id))).await??,
        };
        let base = record.seams.next_index(&left);
        if !self.records(&record, invocation) {
            return match base {
                0 => Ok(Product::default().into()),
                _ => self.salvage(holder, &record, base).await.map(Share::from),
            };
        }
        if base == 0 && record.crashes >= MAX_STARTS && !record.paused {
            let message = format!("the recorder ended without warning {MAX_STARTS} times before anything was recorded");
            return Ok(failed(FailureCode::RetriesExhausted, message).into());
        }
        // From here on nothing that an earlier generation may still store is in the file.
        let record = holder
            .persist(PATIENCE, |task, _| {
                task.goes_on(base);
                Ok(())
            })
            .await?;
        let target = match base {
            0 if record.order.in_bucket() => {
                match holder.holding(self.platform.recordings.create(&place(&record))).await? {
                    Ok(target) => Some(target),
                    // Tried again by whoever comes next.
                    Err(error) if error.kind.is_transient() => return Err(error.into()),
                    Err(error) => return Ok(failed(FailureCode::UploadFailed, super::super::chain(&error)).into()),
                }
            }
            // The writer goes on with the file that an earlier generation began; only the video-on-demand service gets none.
            _ => None,
        };
        let target = self.shared(&record, target);
        self.capture(holder, &record, None, Admission::owned(base), target, invocation, standby.take()).await
    }

    fn shared(&self, record: &TaskRecord, begun: Option<Box<dyn HeadLastObject>>) -> Target {
        if !record.order.in_bucket() {
            return Target::None;
        }
        let (tasks, clock) = (Arc::clone(&self.platform.tasks), Arc::clone(&self.platform.clock));
        Target::Task(Shared { ground: self.ground(record), tasks, clock, begun })
    }

    /// Records.
    #[expect(clippy::too_many_arguments, reason = "what one generation of one task has to do with")]
    async fn capture(
        &self,
        holder: &Holder,
        record: &TaskRecord,
        successor: Option<&TaskRecord>,
        admission: Admission,
        target: Target,
        invocation: &Invocation,
        standby: Option<Box<dyn Standby>>,
    ) -> Result<Share, ChangeError> {
        let mut spec = match record.order.recording(&self.config.allow_addresses) {
            Ok(spec) => spec,
            Err(error) => return Ok(failed(FailureCode::InternalErr, error.to_string()).into()),
        };
        // The page has started the recording once; it is not asked again.
        spec.manual_start &= record.started.is_none();
        let generation = record.generation + u32::from(successor.is_some());
        let admission = Arc::new(admission);
        let (mut beside, chunks, stills) = self.beside(record, generation, &admission);
        let first = record.seams.list().last().map_or(0, |s| s.first);
        let job = Job {
            spec,
            tools: self.config.tools.clone(),
            task: record.id.clone(),
            generation,
            paused: record.paused,
            offset: record.segments().begin(first),
            admission,
            successor: successor.and_then(alignment),
            chunks,
            target,
            stills,
        };
        let (sender, commands) = mpsc::channel(8);
        let budget = invocation.budget(record, self.config.hand_over_lead);
        let course = beside.publisher.as_ref().map(|(p, _)| p.course()).unwrap_or_default();
        let desk = Desk::new(Office {
            holder,
            platform: &self.platform,
            chunks: self.chunks(record),
            commands: sender,
            call_at: budget.map(|(call, _)| call),
            leave_at: budget.map(|(_, leave)| leave),
            goes_on: record.started.is_some(),
            successor: successor.cloned(),
            course: course.clone(),
            showing: beside.showing.clone(),
        });
        let (over, is_over) = oneshot::channel::<()>();
        let publishing = async {
            tokio::select! {
                () = beside.run() => {}
                () = async { let _ = is_over.await; tokio::time::sleep(DRAIN).await } => {}
            }
        };
        let recording = async {
            let outcome = match standby {
                Some(standby) => standby.record(job, commands, &desk).await,
                None => self.studio.record(job, commands, &desk).await,
            };
            drop(over);
            outcome
        };
        let (outcome, ()) = tokio::select! {
            done = async { tokio::join!(recording, publishing) } => done,
            () = desk.work_for_ever() => unreachable!("it never ends"),
        };
        if outcome.withdrawn {
            return self.withdraw(holder, record, outcome).await;
        }
        if desk.handing_over() && outcome.failure.is_none() {
            return self.hand_over(holder, outcome, invocation).await;
        }
        if outcome.end.is_none() && record.started.is_some() {
            // It was to go on from there and never did.
            let edit = |task: &mut TaskRecord, now| {
                let first = task.seams.list().last().map_or(0, |s| s.first);
                task.cut_short(task.segments().begin(first), now);
                Ok(())
            };
            holder.persist(PATIENCE, edit).await?;
        }
        let made = match outcome.only_chunks || desk.handing_over() {
            true => holder.holding(self.assemble(&holder.look().await?.0)).await??,
            false => {
                let chunks = self.spare(record, &outcome).await;
                Product { saved: outcome.saved, chunks, ..Product::default() }
            }
        };
        let product = Product {
            failure: made.failure.clone().or(outcome.failure),
            quality: Some(outcome.quality),
            lease_age: holder.longest(),
            course,
            ..made
        };
        Ok(product.into())
    }

    /// What is published of a task while it is recorded, and what the recorder is given for it.
    fn beside(
        &self,
        record: &TaskRecord,
        generation: u32,
        admission: &Arc<Admission>,
    ) -> (Beside, Arc<dyn ChunkStore>, Option<Stills>) {
        let publisher = record.order.hls_in_bucket().then(|| self.publisher(record));
        let showing = publisher.as_ref().map(Publisher::showing).unwrap_or_default();
        let (chunks, queue) = publisher.as_ref().map(Publisher::listen).unzip();
        let gallery = record
            .order
            .pictures
            .map(|wanted| Gallery::new(&self.platform, record, wanted, generation, admission, showing.clone()));
        let (stills, taken) = gallery.as_ref().map(Gallery::stills).unzip();
        let beside = Beside { publisher: publisher.zip(queue), gallery: gallery.zip(taken), showing };
        (beside, chunks.unwrap_or_else(|| self.chunks(record)), stills)
    }

    /// Chunks that are not needed any more: of all generations.
    async fn spare(&self, record: &TaskRecord, outcome: &Outcome) -> Vec<String> {
        if outcome.saved.is_none() {
            return outcome.chunks.clone();
        }
        self.chunks(record).list(&prefix(&record.id)).await.unwrap_or_else(|_| outcome.chunks.clone())
    }

    /// Everything that was recorded is stored: another generation goes on.
    async fn hand_over(
        &self,
        holder: &Holder,
        outcome: Outcome,
        invocation: &Invocation,
    ) -> Result<Share, ChangeError> {
        let mut held = false;
        let record = holder
            .persist(PATIENCE, |task, now| {
                task.result.billed_gb_seconds += self.billed(invocation);
                let segment = task.order.rate.segment();
                let Some(end) = outcome.end else {
                    // Its page never came up: whoever comes next finds everything as this one did.
                    task.lease = None;
                    return Ok(());
                };
                let on_grid = end.recorded + task.short;
                let short = on_grid.next_multiple_of(segment) - on_grid;
                held = task.hand_over(end, on_grid.div_ceil(segment), short, outcome.quality.clone(), now);
                Ok(())
            })
            .await;
        match record {
            Ok(record) if !held => self.invoke_next(&record).await.map(|()| Share::HandedOn),
            Ok(record) => {
                self.see_off(&record, invocation).await;
                Ok(Share::HandedOn)
            }
            Err(error) => Err(error),
        }
    }

    /// Stays until the successor has recorded a segment of its own. If it is lost before, another one is asked for: nobody
    /// else would look so soon.
    async fn see_off(&self, handed: &TaskRecord, invocation: &Invocation) {
        let until =
            (Instant::now() + SEEN_OFF).min(invocation.deadline.map_or(Instant::now() + SEEN_OFF, |d| d - GOING));
        while Instant::now() < until {
            tokio::time::sleep(LOOK).await;
            let now = self.platform.clock.now();
            let Ok(Some(found)) = self.platform.tasks.load(&handed.id, now).await else { continue };
            let record = found.record;
            if record.generation != handed.generation || record.measuring.is_some() || record.status > Status::Paused {
                return;
            }
            if record.orphaned(now, START_GRACE_MS) {
                tracing::warn!("the successor is lost; asking for another one");
                let event = RecorderEvent { task: record.id.clone(), generation: Some(record.generation) };
                if let Err(error) = self.platform.continuation.invoke(&event).await {
                    tracing::warn!(error = %super::super::chain(&error), "no other one was asked for");
                }
                return;
            }
        }
    }

    /// A successor that is none any more: the task was over, or is somebody else's, or the page does not come up here.
    async fn withdraw(&self, holder: &Holder, record: &TaskRecord, outcome: Outcome) -> Result<Share, ChangeError> {
        if let Some(failure) = &outcome.failure {
            tracing::warn!(message = failure.message, "this successor cannot go on");
        }
        let lease = LEASE.as_millis() as u64;
        holder.edit_relay(|task, owner, now| task.relay(RelayEvent::Fail(owner), now, lease)).await?;
        match holder.look().await {
            // It became its own in the last moment.
            Ok((_, Joined::Holder)) => {
                let edit = |task: &mut TaskRecord, _| {
                    task.lease = None;
                    Ok(())
                };
                let released = holder.persist(Duration::ZERO, edit).await?;
                tracing::warn!(task_id = record.id, "given back");
                self.invoke_next(&released).await.map(|()| Share::HandedOn)
            }
            _ => Ok(Share::HandedOn),
        }
    }

    pub(super) async fn invoke_next(&self, record: &TaskRecord) -> Result<(), ChangeError> {
        let event = RecorderEvent { task: record.id.clone(), generation: Some(record.generation + 1) };
        Ok(self.platform.continuation.invoke(&event).await?)
    }
}
