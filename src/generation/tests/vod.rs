//! Delivery to a video-on-demand service that answers late, fails, or loses whoever delivers.

mod hls;
mod later;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::delivery::vod::{Asset, Certificate, Grant, VodError};
use crate::generation::{Invocation, Recorders, Vod, VodService};
use crate::platform::faults::Faults;
use crate::platform::memory::MemoryRecordings;
use crate::platform::{
    HeadLastObject, LentStore, Loan, Mark, Place, Platform, PublicObject, PublicStore, RecorderEvent, RecordingStore,
    StoreError, StoreErrorKind,
};
use crate::task::failure::FailureCode;
use crate::task::order::{Order, VodOrder};
use crate::task::output::Muxer;
use crate::task::status::Status;

use super::world::{TASK, World};

/// A service that remembers what it was asked; a commit takes 20 s. MP4s all have one place, HLS has another each time.
#[derive(Default)]
pub struct Service {
    asked: Mutex<Vec<String>>,
    /// Until when leave to upload is good, unix seconds.
    expires: AtomicU64,
    refuses: bool,
    /// HLS only.
    refuses_hls: bool,
}

impl Service {
    fn lasting() -> Self {
        Self { expires: AtomicU64::new(4_000_000_000), ..Self::default() }
    }
}

#[async_trait]
impl VodService for Service {
    async fn apply(&self, _order: &VodOrder, media_type: &str) -> Result<Grant, VodError> {
        let mut asked = self.asked.lock().unwrap();
        let nth = asked.iter().filter(|call| *call == "apply m3u8").count();
        asked.push(format!("apply {media_type}"));
        let (path, session) = match media_type {
            "m3u8" => (format!("/vod/{nth}/lesson.m3u8"), format!("session-{nth}")),
            _ => ("/vod/lesson.mp4".into(), "session".into()),
        };
        Ok(Grant {
            storage_bucket: "lent".into(),
            storage_region: "far".into(),
            media_storage_path: path,
            vod_session_key: session,
            temp_certificate: Certificate {
                secret_id: "id".into(),
                secret_key: "key".into(),
                token: "token".into(),
                expired_time: self.expires.load(Ordering::SeqCst),
            },
        })
    }

    async fn commit(&self, session: &str, _sub_app_id: Option<u64>) -> Result<Asset, VodError> {
        self.asked.lock().unwrap().push(format!("commit {session}"));
        tokio::time::sleep(Duration::from_secs(20)).await;
        if self.refuses || self.refuses_hls && session != "session" {
            let (code, message) = ("FailedOperation.ClassLevelLimitExceeded".into(), "no".into());
            return Err(VodError::Refused { action: "CommitUpload", code, message });
        }
        Ok(Asset { file_id: "528".into(), media_url: "https://play.example.com/lesson.mp4".into() })
    }
}

/// Storage that is lent.
#[derive(Default)]
struct Uploads {
    there: MemoryRecordings,
    /// Leave to put ends in the middle of the first so many uploads.
    short: Mutex<u32>,
    /// Objects that were put, in order; and how long each takes, as does each piece of a file.
    put: Arc<Mutex<Vec<String>>>,
    takes: Duration,
}

impl Uploads {
    fn to(there: &MemoryRecordings) -> Self {
        Self { there: there.clone(), ..Self::default() }
    }
}

#[async_trait]
impl LentStore for Uploads {
    async fn open(&self, loan: &Loan) -> Result<Box<dyn HeadLastObject>, StoreError> {
        let (dir, name) = loan.key.rsplit_once('/').unwrap();
        let place = Place { dir: dir.into(), name: Some(name.into()), ..Place::default() };
        let object = self.there.create(&place).await?;
        let mut short = self.short.lock().unwrap();
        Ok(if *short > 0 {
            *short -= 1;
            Box::new(Short { object, pieces: 2, takes: Duration::ZERO })
        } else {
            Box::new(Short { object, pieces: u32::MAX, takes: self.takes })
        })
    }

    async fn put(&self, loan: &Loan, object: PublicObject) -> Result<(), StoreError> {
        tokio::time::sleep(self.takes).await;
        let place: u32 = loan.key.split('/').nth(1).unwrap().parse().unwrap();
        if place < *self.short.lock().unwrap() && loan.key.ends_with("00000002.m4s") {
            return Err(ended());
        }
        self.put.lock().unwrap().push(loan.key.clone());
        self.there.put(&Place::default(), &loan.key, object).await
    }
}

/// Takes so many pieces; then nothing is permitted, tidying up neither.
struct Short {
    object: Box<dyn HeadLastObject>,
    pieces: u32,
    takes: Duration,
}

fn ended() -> StoreError {
    let source = std::io::Error::other("ExpiredToken: the token has ended");
    StoreError { op: "upload a part of", key: "vod/lesson.mp4".into(), kind: StoreErrorKind::Refused, source }
}

#[async_trait]
impl HeadLastObject for Short {
    fn head_alignment(&self) -> u64 {
        self.object.head_alignment()
    }

    async fn append(&mut self, payload: Bytes) -> Result<(), StoreError> {
        tokio::time::sleep(self.takes).await;
        self.pieces = self.pieces.checked_sub(1).ok_or_else(ended)?;
        self.object.append(payload).await
    }

    async fn finish(self: Box<Self>, head: Bytes, name: &str) -> Result<String, StoreError> {
        match self.pieces {
            0 => Err(ended()),
            _ => self.object.finish(head, name).await,
        }
    }

    async fn abort(self: Box<Self>) -> Result<(), StoreError> {
        match self.pieces {
            0 => Err(StoreError { op: "abort the upload of", ..ended() }),
            _ => self.object.abort().await,
        }
    }

    fn marks(&mut self) -> Vec<Mark> {
        Vec::new()
    }

    async fn settle(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

pub fn order(bucket_too: bool) -> Order {
    let vod = Some(VodOrder { bucket_too, ..VodOrder::default() });
    Order { vod, ..Order::of("https://example.com/") }
}

/// The same with HLS.
pub fn hls(bucket_too: bool, muxer: Muxer, encrypted: bool) -> Order {
    Order { vod: order(bucket_too).vod, ..super::hls::order(muxer, encrypted) }
}

async fn invoke(world: &World, service: &Arc<Service>, uploads: &MemoryRecordings) -> Result<(), String> {
    invoke_with(world, &world.platform, service, Uploads::to(uploads)).await
}

/// The same with failures of stores, those that are lent too.
pub async fn invoke_failing(
    world: &World,
    platform: &Platform,
    service: &Arc<Service>,
    uploads: &MemoryRecordings,
    faults: &Arc<Faults>,
) -> Result<(), String> {
    let uploads = faults.around_lent(Arc::new(Uploads::to(uploads)));
    invoke_with(world, platform, service, uploads).await
}

async fn invoke_with(
    world: &World,
    platform: &Platform,
    service: &Arc<Service>,
    uploads: impl LentStore + 'static,
) -> Result<(), String> {
    let event = RecorderEvent { task: TASK.into(), generation: None };
    invoke_for(world, platform, service, uploads, &event, Duration::from_secs(900)).await
}

/// An invocation of so much time.
async fn invoke_for(
    world: &World,
    platform: &Platform,
    service: &Arc<Service>,
    uploads: impl LentStore + 'static,
    event: &RecorderEvent,
    time: Duration,
) -> Result<(), String> {
    let vod = Vod { service: Arc::clone(service) as _, uploads: Arc::new(uploads) };
    let invocation = Invocation::new("invocation", Some(time));
    world.runner(platform).with_vod(Some(vod)).record(event, &invocation).await.map(drop)
}

pub fn service(refuses: bool) -> Arc<Service> {
    Arc::new(Service { refuses, ..Service::lasting() })
}

#[tokio::test(start_paused = true)]
async fn the_asset_is_the_recording_and_the_bucket_gets_one_only_if_that_was_ordered() {
    for bucket_too in [false, true] {
        let (world, service, uploads) = (World::of(3), service(false), MemoryRecordings::default());
        world.task(order(bucket_too)).await;
        invoke(&world, &service, &uploads).await.unwrap();
        let task = world.record().await;
        assert_eq!((task.status, &task.result.failure, task.vod.is_some()), (Status::Finished, &None, false));
        assert_eq!((world.recordings.visible().len(), uploads.visible().len()), (usize::from(bucket_too), 1));
        let asset = task.result.videos.last().unwrap();
        assert_eq!((asset.file_id.as_deref(), asset.filename.as_str()), (Some("528"), "lesson.mp4"));
        assert_eq!(asset.file_size, uploads.visible()["vod/lesson.mp4"].len() as u64);
        assert!(task.result.quality.is_some() && world.platform.chunks.list("").await.unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_upload_and_commit_is_taken_up_while_leave_to_upload_lasts() {
    for lasts in [true, false] {
        let (world, service, uploads) = (World::of(3), service(false), MemoryRecordings::default());
        if !lasts {
            service.expires.store(world.platform.clock.now() / 1000 + 15, Ordering::SeqCst);
        }
        world.task(order(false)).await;
        let killed = tokio::time::timeout(Duration::from_secs(20), invoke(&world, &service, &uploads)).await;
        assert!(killed.is_err() && world.record().await.vod.is_some_and(|v| v.uploaded.is_some()));
        tokio::time::sleep(Duration::from_secs(10)).await;
        invoke(&world, &service, &uploads).await.unwrap();
        let asked = service.asked.lock().unwrap().clone();
        match lasts {
            true => assert_eq!(asked, ["apply mp4", "commit session", "commit session"]),
            false => assert_eq!(asked, ["apply mp4", "commit session", "apply mp4", "commit session"]),
        }
        let task = world.record().await;
        assert_eq!((task.status, task.result.failure, task.result.videos.len()), (Status::Finished, None, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn leave_that_ends_in_mid_upload_is_asked_for_again_and_not_without_end() {
    for (short, good) in [(2, true), (9, false)] {
        let (world, service, uploads) = (World::of(3), service(false), MemoryRecordings::default());
        world.task(order(false)).await;
        let lent = Uploads { short: Mutex::new(short), ..Uploads::to(&uploads) };
        invoke_with(&world, &world.platform, &service, lent).await.unwrap();
        let (task, asked) = (world.record().await, service.asked.lock().unwrap().clone());
        let applied = asked.iter().filter(|call| call.starts_with("apply")).count();
        assert_eq!(
            (task.status, applied, asked.len()),
            (Status::Finished, if good { 3 } else { 5 }, if good { 4 } else { 5 })
        );
        assert_eq!(uploads.visible().len(), usize::from(good));
        match task.result.failure {
            None => assert!(good),
            Some(failure) => {
                assert!(!good && failure.code == FailureCode::VodFailed, "{failure:?}");
                assert!(
                    failure.message.starts_with("upload a part of `vod/lesson.mp4` failed: ExpiredToken"),
                    "{failure:?}"
                );
                assert_eq!(world.platform.chunks.list("").await.unwrap().len(), 4, "what was recorded is kept");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_keeps_what_was_recorded_and_the_services_code() {
    let (world, service, uploads) = (World::of(3), service(true), MemoryRecordings::default());
    world.task(order(false)).await;
    invoke(&world, &service, &uploads).await.unwrap();
    let failure = world.record().await.result.failure.unwrap();
    assert_eq!(failure.code, FailureCode::VodFailed);
    assert!(failure.message.starts_with("FailedOperation.ClassLevelLimitExceeded: no"), "{}", failure.message);
    assert_eq!(world.platform.chunks.list("").await.unwrap().len(), 4, "an init segment and three others");
}
