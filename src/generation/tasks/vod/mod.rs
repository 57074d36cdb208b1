//! A recording that is over as assets of a video-on-demand service, its MP4 and its HLS each one: apply, make of the chunks what
//! belongs into the place that is lent, commit. That it is there is written down before the commit, so that whoever comes after a
//! crash between the two commits what is there.

mod hls;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::super::assemble::{AssembleError, assemble};
use super::super::change::ChangeError;
use super::super::desk::prefix;
use super::super::lease::Holder;
use super::super::publish;
use super::{Invocation, PATIENCE, TaskRunner, remove};
use crate::delivery::recovery::RecoveryError;
use crate::delivery::vod::{Asset, Grant, VodClient, VodError};
use crate::platform::{Clock, LentStore, Loan, StoreError};
use crate::task::failure::{Failure, FailureCode};
use crate::task::loan::Lent;
use crate::task::order::VodOrder;
use crate::task::output::Muxer;
use crate::task::record::{TaskRecord, Uploaded, Video, VodUpload};
use crate::task::status::Status;

/// Tries of a call that may go well a little later, and of an upload.
const TRIES: u32 = 5;
/// Invocations in a row that may leave with nothing to show for it; the one after them works until it is killed.
const MAX_IDLE: u32 = 5;
/// Wait after the first of them; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// A video-on-demand service.
#[async_trait]
pub trait VodService: Send + Sync {
    /// Asks for permission to upload one file.
    async fn apply(&self, order: &VodOrder, media_type: &str) -> Result<Grant, VodError>;
    /// Says that the file is there.
    async fn commit(&self, session: &str, sub_app_id: Option<u64>) -> Result<Asset, VodError>;
}

/// The service itself.
pub struct WebVod {
    /// Makes the calls.
    pub client: VodClient,
    /// For their time stamps.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl VodService for WebVod {
    async fn apply(&self, order: &VodOrder, media_type: &str) -> Result<Grant, VodError> {
        self.client.apply(order, media_type, self.clock.now() / 1000).await
    }

    async fn commit(&self, session: &str, sub_app_id: Option<u64>) -> Result<Asset, VodError> {
        self.client.commit(session, sub_app_id, self.clock.now() / 1000).await
    }
}

/// A service and its storage.
pub struct Vod {
    /// The service.
    pub service: Arc<dyn VodService>,
    /// Where it lends places.
    pub uploads: Arc<dyn LentStore>,
}

/// What an asset is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mp4,
    Hls,
}

impl Kind {
    /// Those that an order asks for.
    fn of(muxer: Muxer) -> impl Iterator<Item = Self> {
        [(Self::Mp4, muxer.mp4()), (Self::Hls, muxer.hls())]
            .into_iter()
            .filter(|(_, wanted)| *wanted)
            .map(|(kind, _)| kind)
    }

    /// As the service calls it: how the name ends.
    fn media_type(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::Hls => "m3u8",
        }
    }
}

/// Why there is no asset.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Service(#[from] VodError),
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Hls(#[from] publish::PublishError),
    #[error("no key of the VOD service is configured any more; set VOD_SECRET_ID and VOD_SECRET_KEY")]
    Unconfigured,
    #[error(transparent)]
    Task(#[from] ChangeError),
    #[error("this invocation's time is over")]
    OutOfTime {
        /// More is there than was.
        went_on: bool,
    },
}

impl TaskRunner {
    /// Delivers to the service, writes down what came of it, and ends the task.
    pub(super) async fn publish(
        &self,
        holder: &Holder,
        record: &TaskRecord,
        invocation: &Invocation,
    ) -> Result<Status, ChangeError> {
        let idle = record.vod.as_ref().map_or(0, |v| v.idle);
        let leave = invocation.leave(record).filter(|_| idle < MAX_IDLE);
        let failure = match self.assets(holder, record.clone(), leave).await {
            Ok(()) => None,
            Err(PublishError::Task(lost)) => return Err(lost),
            Err(PublishError::OutOfTime { went_on }) => return self.go_on_later(holder, went_on).await,
            Err(error) => {
                let message = format!("{}; what was recorded is kept", super::super::chain(&error));
                tracing::error!(reason = message, "not delivered to the VOD service");
                Some(Failure { code: FailureCode::VodFailed, message })
            }
        };
        let written = holder
            .persist(PATIENCE, |task, now| {
                task.vod = None;
                if let Some(failure) = &failure {
                    task.result.failure.get_or_insert(failure.clone());
                }
                let length = task.result.videos.first().map_or(0.0, |v| v.file_duration);
                task.result.quality = task.total(None, length);
                (task.measured, task.measuring) = (None, None);
                match task.order.callback_url {
                    Some(_) => task.announce(now),
                    None => task.end(now),
                }
            })
            .await?;
        if failure.is_none() && !self.config.keep_chunks {
            let chunks = self.chunks(record);
            remove(&*chunks, &chunks.list(&prefix(&record.id)).await.unwrap_or_default()).await;
        }
        match written.status {
            Status::Callback => self.announce(holder, invocation).await,
            status => Ok(status),
        }
    }

    /// Asks for another invocation, which goes on with what is written down.
    async fn go_on_later(&self, holder: &Holder, went_on: bool) -> Result<Status, ChangeError> {
        let edit = |task: &mut TaskRecord, _| {
            let upload = task.vod.get_or_insert_default();
            upload.idle = if went_on { 0 } else { upload.idle + 1 };
            task.rest();
            Ok(())
        };
        let record = holder.persist(PATIENCE, edit).await?;
        tracing::info!("the upload goes on in another invocation");
        self.invoke_next(&record).await?;
        Ok(record.status)
    }

    /// Makes every asset that was ordered and is not there yet, and writes down each. `leave`: when it is to stop at the latest.
    async fn assets(
        &self,
        holder: &Holder,
        mut record: TaskRecord,
        leave: Option<Instant>,
    ) -> Result<(), PublishError> {
        loop {
            let done = record.vod.as_ref().map_or(0, |v| v.done);
            let Some(kind) = Kind::of(record.order.muxer).nth(done as usize) else { return Ok(()) };
            let video = self.asset(holder, &record, kind, leave).await?;
            let edit = |task: &mut TaskRecord, _| {
                // It may have been written down although nobody said so.
                if task.vod.as_ref().is_some_and(|v| v.done == done) {
                    task.result.videos.extend(video.clone());
                    task.vod = Some(VodUpload { done: done + 1, ..VodUpload::default() });
                }
                Ok(())
            };
            record = holder.persist(PATIENCE, edit).await?;
        }
    }

    /// The asset; none where nothing was recorded.
    async fn asset(
        &self,
        holder: &Holder,
        record: &TaskRecord,
        kind: Kind,
        leave: Option<Instant>,
    ) -> Result<Option<Video>, PublishError> {
        let (Some(vod), Some(order)) = (&self.vod, &record.order.vod) else { return Err(PublishError::Unconfigured) };
        let kept = record.vod.as_ref().and_then(|v| v.uploaded.as_ref());
        if let Some(kept) = kept.filter(|kept| kept.expires > self.platform.clock.now()) {
            match self.commit(vod, holder, order, kept).await {
                // The session is not good any more, whatever it is that ended it: everything goes up again.
                Err(PublishError::Service(error)) if !error.is_transient() => {
                    tracing::warn!(error = %super::super::chain(&error), "uploading to the VOD service again");
                }
                done => return done.map(Some),
            }
        }
        in_time(leave, Duration::ZERO)?;
        let uploaded = match kind {
            Kind::Mp4 => self.upload(vod, holder, record, order, leave).await?,
            Kind::Hls => self.upload_hls(vod, holder, record, order, leave).await?,
        };
        match uploaded {
            Some(uploaded) => self.commit(vod, holder, order, &uploaded).await.map(Some),
            None => Ok(None),
        }
    }

    /// Puts the file where the service wants it, and writes down that it is there. One that is not there in time is begun anew,
    /// with all of another invocation's time.
    async fn upload(
        &self,
        vod: &Vod,
        holder: &Holder,
        record: &TaskRecord,
        order: &VodOrder,
        leave: Option<Instant>,
    ) -> Result<Option<Uploaded>, PublishError> {
        let (chunks, prefix) = (self.chunks(record), prefix(&record.id));
        let (mut tries, mut wait) = (1, FIRST_WAIT);
        loop {
            let lent = self.lent(vod, holder, order, Kind::Mp4).await?;
            let making = async {
                let target = vod.uploads.open(&lent.loan).await?;
                assemble(&*chunks, &prefix, Some(&record.seams), target, lent.loan.filename(), leave).await
            };
            match holder.holding(making).await? {
                Ok(saved) => return self.is_there(holder, lent, saved.size, saved.duration).await.map(Some),
                Err(AssembleError::Recovery(RecoveryError::Nothing)) => return Ok(None),
                // Storage may be away, and leave to put may have run out: a new application helps against both.
                Err(AssembleError::Store(error)) if tries < TRIES => {
                    tracing::warn!(tries, error = %super::super::chain(&error), "upload to the VOD service failed");
                }
                Err(AssembleError::OutOfTime) => return Err(PublishError::OutOfTime { went_on: false }),
                Err(error) => return Err(error.into()),
            }
            in_time(leave, wait)?;
            holder.holding(tokio::time::sleep(wait)).await?;
            (tries, wait) = (tries + 1, wait * 2);
        }
    }

    /// A place for one asset.
    async fn lent(&self, vod: &Vod, holder: &Holder, order: &VodOrder, kind: Kind) -> Result<Lent, PublishError> {
        let grant = patiently(|| vod.service.apply(order, kind.media_type()));
        Ok(lent(holder.holding(grant).await??))
    }

    /// Writes down that everything is where it belongs.
    async fn is_there(&self, holder: &Holder, lent: Lent, size: u64, duration: f64) -> Result<Uploaded, PublishError> {
        let filename = lent.loan.filename().to_owned();
        let uploaded = Uploaded { session: lent.session, expires: lent.expires, filename, size, duration };
        let edit = |task: &mut TaskRecord, _| {
            let upload = task.vod.get_or_insert_default();
            (upload.lent, upload.uploaded) = (None, Some(uploaded.clone()));
            Ok(())
        };
        holder.persist(PATIENCE, edit).await?;
        Ok(uploaded)
    }

    async fn commit(
        &self,
        vod: &Vod,
        holder: &Holder,
        order: &VodOrder,
        uploaded: &Uploaded,
    ) -> Result<Video, PublishError> {
        let committing = patiently(|| vod.service.commit(&uploaded.session, order.sub_app_id));
        let asset = holder.holding(committing).await??;
        Ok(Video {
            filename: uploaded.filename.clone(),
            file_size: uploaded.size,
            file_url: asset.media_url,
            file_duration: uploaded.duration,
            file_id: Some(asset.file_id),
            poster_url: None,
            thumbnails_url: None,
        })
    }
}

/// Whether there still is so much time.
fn in_time(leave: Option<Instant>, time: Duration) -> Result<(), PublishError> {
    match leave {
        Some(leave) if leave <= Instant::now() + time => Err(PublishError::OutOfTime { went_on: false }),
        _ => Ok(()),
    }
}

fn lent(grant: Grant) -> Lent {
    let certificate = grant.temp_certificate;
    let loan = Loan {
        bucket: grant.storage_bucket,
        region: grant.storage_region,
        key: grant.media_storage_path.trim_start_matches('/').to_owned(),
        access_key: certificate.secret_id,
        secret_key: certificate.secret_key,
        token: certificate.token,
    };
    Lent { session: grant.vod_session_key, expires: certificate.expired_time.saturating_mul(1000), loan }
}

/// Makes a call again while it may go well a little later.
async fn patiently<T, F: Future<Output = Result<T, VodError>>>(mut call: impl FnMut() -> F) -> Result<T, VodError> {
    let (mut tries, mut wait) = (1, FIRST_WAIT);
    loop {
        match call().await {
            Err(error) if error.is_transient() && tries < TRIES => {
                tracing::warn!(tries, error = %super::super::chain(&error), "VOD service not reached");
                tokio::time::sleep(wait).await;
                (tries, wait) = (tries + 1, wait * 2);
            }
            done => return done,
        }
    }
}
