//! From what recorders left behind to a file, and where that belongs.

use std::sync::Arc;

use super::super::assemble::{AssembleError, assemble};
use super::super::change::ChangeError;
use super::super::desk::{name, prefix};
use super::super::gallery::{self, Shots};
use super::super::growth::{Ground, Growth, ResumeError};
use super::super::lease::Holder;
use super::super::outcome::Saved;
use super::super::publish::{PublishError, Published, Publisher};
use super::{PATIENCE, Product, TaskRunner, failed};
use crate::delivery::recovery::RecoveryError;
use crate::platform::{ChunkStore, Place, StoreError};
use crate::task::failure::{Failure, FailureCode};
use crate::task::record::{TaskRecord, Video};
use crate::task::status::{Status, StatusEvent};
use crate::task::timeline::seconds;

impl TaskRunner {
    /// Makes the file of what a recorder left behind.
    pub(super) async fn salvage(
        &self,
        holder: &Holder,
        record: &TaskRecord,
        next: u64,
    ) -> Result<Product, ChangeError> {
        let failure = (record.status < Status::Canceled).then(|| Failure {
            code: FailureCode::RetriesExhausted,
            message: "the recorder ended without warning; what it had recorded is kept".into(),
        });
        let record = holder
            .persist(PATIENCE, |task, now| {
                task.cut_short(task.segments().begin(next), now);
                task.settle(next);
                task.deliver(StatusEvent::Assembling, now)
            })
            .await?;
        let made = holder.holding(self.assemble(&record)).await??;
        Ok(Product { failure: made.failure.clone().or(failure), ..made })
    }

    pub(super) fn ground(&self, record: &TaskRecord) -> Ground {
        let (recordings, chunks) = (Arc::clone(&self.platform.recordings), self.chunks(record));
        Ground { recordings, chunks, place: place(record), task: record.id.clone() }
    }

    /// The file of what is kept of a task: the growing one, or, if nobody can go on with that, one of its chunks.
    pub(super) async fn assemble(&self, record: &TaskRecord) -> Result<Product, StoreError> {
        let stopped = record.stopped.unwrap_or_else(|| self.platform.clock.now());
        let (chunks, prefix) = (self.chunks(record), prefix(&record.id));
        let left = chunks.list(&prefix).await?;
        if !record.order.in_bucket() {
            return Ok(Product { chunks: left, ..Product::default() });
        }
        match self.grown(record, &left, &name(stopped)).await {
            Ok(Some(saved)) => return Ok(Product { saved: Some(saved), chunks: left, ..Product::default() }),
            Ok(None) => {}
            Err(ResumeError::Store(error)) if error.kind.is_transient() => return Err(error),
            Err(error) => {
                tracing::warn!(error = %super::super::chain(&error), "the growing file is lost; making one of its chunks");
                if let Err(error) = self.ground(record).discard(&record.seams).await {
                    tracing::warn!(error = %super::super::chain(&error), "an unfinished upload is left behind");
                }
            }
        }
        let target = self.platform.recordings.create(&place(record)).await?;
        match assemble(&*chunks, &prefix, Some(&record.seams), target, &name(stopped), None).await {
            Ok(saved) => Ok(Product { saved: Some(saved), chunks: left, ..Product::default() }),
            Err(AssembleError::Recovery(RecoveryError::Nothing)) => Ok(Product { chunks: left, ..Product::default() }),
            // Tried again by whoever comes next.
            Err(AssembleError::Store(error)) if error.kind.is_transient() => Err(error),
            Err(error) => Ok(failed(FailureCode::UploadFailed, super::super::chain(&error))),
        }
    }

    /// Finishes the growing file, if there is one.
    async fn grown(&self, record: &TaskRecord, left: &[String], name: &str) -> Result<Option<Saved>, ResumeError> {
        let (ground, upto) = (self.ground(record), record.seams.next_index(left));
        let Some(growth) = Growth::take_over(&ground, &record.seams, record.generation, upto).await? else {
            return Ok(None);
        };
        let recorded = growth.recorded();
        let made = growth.finish(recorded, name).await.map_err(|e| e.at(name))?;
        Ok(made.map(|(key, size)| Saved { key, duration: seconds(recorded), size }))
    }

    /// What publishes a task's segments.
    pub(super) fn publisher(&self, record: &TaskRecord) -> Publisher {
        Publisher::new(&self.platform, self.chunks(record), record, place(record))
    }

    /// Ends the task's playlist, if it has one, and says so in `product`. Without it the chunks are kept.
    pub(super) async fn close_hls(&self, record: &TaskRecord, product: &mut Product) -> Result<(), StoreError> {
        if !record.order.hls_in_bucket() {
            return Ok(());
        }
        match self.publisher(record).knowing(product.course.clone()).close().await {
            Ok(None) => {}
            Ok(Some(Published { key, duration, bytes })) => {
                product.playlist = Some(Saved { key, duration, size: bytes })
            }
            // Tried again by whoever comes next.
            Err(PublishError::Store(error)) if error.kind.is_transient() => return Err(error),
            Err(error) => {
                let message = super::super::chain(&error);
                product.failure.get_or_insert(Failure { code: FailureCode::UploadFailed, message });
                product.chunks.clear();
            }
        }
        Ok(())
    }

    /// Ends the task's thumbnails, if it has any, and says what pictures there are.
    pub(super) async fn close_pictures(&self, record: &TaskRecord, product: &Product) -> Shots {
        let length = product.saved.iter().chain(&product.playlist).map(|saved| saved.duration).reduce(f64::max);
        match (record.order.pictures, length) {
            (Some(pictures), Some(length)) => gallery::close(&self.platform, record, pictures, length).await,
            _ => Shots::default(),
        }
    }

    pub(super) fn video(&self, record: &TaskRecord, place: &Place, saved: &Saved, shots: &Shots) -> Video {
        let domain = record.order.target.domain.as_deref();
        let key = &saved.key;
        let url = |key: Option<&String>| key.map(|key| self.platform.recordings.url(place, key, domain));
        Video {
            filename: key.rsplit('/').next().unwrap_or(key).to_string(),
            file_size: saved.size,
            file_url: self.platform.recordings.url(place, key, domain),
            file_duration: saved.duration,
            file_id: None,
            poster_url: url(shots.poster.as_ref()),
            thumbnails_url: url(shots.thumbnails.as_ref()),
        }
    }
}

/// Where the task's file belongs.
pub(in crate::generation) fn place(record: &TaskRecord) -> Place {
    let target = &record.order.target;
    let name = target.stem().map(|stem| format!("{stem}.mp4"));
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
            tracing::warn!(error = %super::super::chain(&error), "chunk not removed");
            return;
        }
    }
}
