//! A long recording through the stores that a deployment has: SeaweedFS for S3, MiniStack for DynamoDB. Segments come from the
//! studio without a browser, and time jumps; tasks, hand-overs, the growing file and every request are the real thing.
//! `PANOREC_SOAK=1` (as `make soak` sets it) makes ten hours in invocations of 15 minutes of what is otherwise two minutes;
//! `PANOREC_HOURS` says another number of hours.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::cloud::lambda::Lambda;
use super::cloud::s3::Bucket;
use super::cloud::tables::{TABLE, Tables};
use super::cloud::{SECRET, aws, config};
use super::elsewhere::Elsewhere;
use super::studio::Replay;
use super::town::Post;
use super::world::{TASK, World};
use crate::delivery::mp4::validate::validate;
use crate::generation::{Invocation, Recorders};
use crate::platform::aws::{DynamoTaskStore, S3ChunkStore, S3Recordings};
use crate::platform::clock::SystemClock;
use crate::platform::retry::Retrying;
use crate::platform::{ChunkStore, Platform, RecorderEvent, RecordingStore, TaskStore};
use crate::recording::process::{give_memory_back, keep_little_memory};
use crate::task::boxes::Boxes;
use crate::task::order::Order;
use crate::task::record::{CommandKind, TaskRecord};
use crate::task::status::Status;

/// The promise, bytes.
const RECORD_BYTES: usize = 100_000;
/// The promise: from Stop to the finished file.
const FINISHED_WITHIN: Duration = Duration::from_secs(10);
/// What memory may grow by from the second tenth of the recording to the last, kB. The sample tables of the file are kept in
/// it: 28 MB were seen in ten hours, those of this process's own world included.
const GROWTH_KB: u64 = 32 << 10;
/// As the template's schedule does.
const SWEEP: Duration = Duration::from_secs(60);
/// The file's head is within its first bytes.
const HEAD_BYTES: u64 = 64 << 20;

/// How long it is, and of what.
struct Length {
    whole: Duration,
    invocation: Duration,
    /// It is paused once in each of these, for a twelfth of it.
    pause_every: Duration,
    /// Added to every segment: a file of many parts.
    padding: usize,
    soak: bool,
}

fn length() -> Length {
    #[allow(clippy::disallowed_methods, reason = "the tests have no config.rs")]
    let (soak, hours) = (std::env::var_os("PANOREC_SOAK").is_some(), std::env::var("PANOREC_HOURS"));
    let hours = hours.ok().map(|h| h.parse::<f64>().expect("PANOREC_HOURS is a number"));
    let s = Duration::from_secs;
    match hours.or(soak.then_some(10.0)) {
        // Its limit must not end it.
        Some(hours) => Length {
            whole: Duration::from_secs_f64(hours * 3_600.0) - s(100),
            invocation: s(900),
            pause_every: s(3_600),
            padding: 64 << 10,
            soak: true,
        },
        None => Length { whole: s(120), invocation: s(60), pause_every: s(60), padding: 512 << 10, soak: false },
    }
}

/// A segment with so many bytes more in its last picture.
pub fn padded(segment: &[u8], by: usize) -> bytes::Bytes {
    let grow = |bytes: &mut Vec<u8>, at: usize, by: usize| {
        let field: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
        bytes[at..at + 4].copy_from_slice(&(u32::from_be_bytes(field) + by as u32).to_be_bytes());
    };
    let outer = |kind: &[u8; 4]| Boxes::new(segment).map(Result::unwrap).find(|b| &b.kind.0 == kind).unwrap();
    let (moof, mdat) = (outer(b"moof"), outer(b"mdat"));
    // Their positions: (first byte, end).
    let runs: Vec<(usize, usize)> = Boxes::new(moof.body)
        .map(Result::unwrap)
        .filter(|traf| &traf.kind.0 == b"traf")
        .map(|traf| {
            let trun = traf.child(b"trun").unwrap();
            let at = moof.body_at() + traf.body_at() + trun.at;
            (at, at + trun.whole.len())
        })
        .collect();
    let [picture, sound] = runs[..] else { panic!("{} runs", runs.len()) };
    let mut bytes = segment.to_vec();
    let sound_offset = sound.0 + 16;
    let sound_at = moof.at + u32::from_be_bytes(bytes[sound_offset..sound_offset + 4].try_into().unwrap()) as usize;
    grow(&mut bytes, picture.1 - 4, by); // sizes are all that its samples have of their own
    grow(&mut bytes, sound_offset, by);
    grow(&mut bytes, mdat.at, by);
    bytes.splice(sound_at..sound_at, std::iter::repeat_n(0, by));
    bytes.into()
}

/// The stores, and what is asked of them afterwards.
struct Stores {
    bucket: Bucket,
    tasks: Arc<Elsewhere<dyn TaskStore>>,
    chunks: Arc<Elsewhere<dyn ChunkStore>>,
    recordings: Arc<Elsewhere<dyn RecordingStore>>,
}

async fn stores() -> Stores {
    let (bucket, table) = (Bucket::new().await, Lambda::new().await.endpoint);
    Tables::create(&aws_sdk_dynamodb::Client::new(&config(&table, SECRET).await)).await;
    let (there, s3) = (Handle::current(), aws(&bucket.endpoint).await);
    let tasks: Arc<dyn TaskStore> = Arc::new(DynamoTaskStore::new(&aws(&table).await, TABLE));
    let chunks: Arc<dyn ChunkStore> = Arc::new(S3ChunkStore::new(&s3, &bucket.name, "").unwrap());
    let recordings: Arc<dyn RecordingStore> =
        Arc::new(S3Recordings::new(&s3, &bucket.name, None, Arc::new(SystemClock)));
    Stores {
        tasks: Arc::new(Elsewhere::new(tasks, &there)),
        chunks: Arc::new(Elsewhere::new(chunks, &there)),
        recordings: Arc::new(Elsewhere::new(recordings, &there)),
        bucket,
    }
}

/// A world of these stores, and its events.
fn world(stores: &Stores, length: &Length) -> (Arc<World>, UnboundedReceiver<RecorderEvent>) {
    let mut world = World::of(u64::MAX);
    let retries = Arc::clone(&world.platform.retries);
    let (sender, events) = unbounded_channel();
    let _ = sender.send(RecorderEvent { task: TASK.into(), generation: None });
    world.platform = Platform {
        tasks: Arc::new(Retrying::new(Arc::clone(&stores.tasks), &retries)),
        chunks: Arc::new(Retrying::new(Arc::clone(&stores.chunks), &retries)),
        recordings: Arc::new(Retrying::new(Arc::clone(&stores.recordings), &retries)),
        continuation: Arc::new(Post { events: sender, refuses: Arc::default() }),
        ..world.platform
    };
    let studio = Arc::get_mut(&mut world.studio).unwrap();
    *studio = Replay { padding: length.padding, ..std::mem::take(studio) };
    (Arc::new(world), events)
}

/// Memory of this process, kB.
fn memory_kb() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// What the caller saw.
struct Seen {
    /// After each twentieth.
    memory_kb: Vec<u64>,
    /// It was paused for so long.
    paused: Duration,
    /// When it was stopped, in real time, and how long the world then waited until it was over.
    stopped: std::time::Instant,
    waited: Duration,
}

/// Starts, pauses once in a while, and stops.
async fn call(world: &World, length: &Length) -> Seen {
    world.until(Status::Recording).await;
    let (step, mut next_pause) = (length.whole / 20, length.pause_every / 2);
    let (began, mut memory, mut paused) = (Instant::now(), Vec::new(), Duration::ZERO);
    while began.elapsed() < length.whole {
        let next = (step * (memory.len() as u32 + 1)).min(next_pause);
        tokio::time::sleep_until(began + next).await;
        if next == next_pause {
            world.command(CommandKind::Pause).await;
            tokio::time::sleep(length.pause_every / 12).await;
            world.command(CommandKind::Resume).await;
            (next_pause, paused) = (next_pause + length.pause_every, paused + length.pause_every / 12);
        } else {
            memory.push(memory_kb());
        }
    }
    let (stopped, really) = (Instant::now(), std::time::Instant::now());
    world.stop().await;
    while world.record().await.status != Status::Finished {
        assert!(stopped.elapsed() < length.whole, "it never ends");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Seen { memory_kb: memory, paused, stopped: really, waited: stopped.elapsed() }
}

/// Delivers events, each to an invocation, and sweeps, until the caller is content. Returns the task, too.
async fn live(stores: &Stores, length: &Length) -> (Seen, TaskRecord) {
    let (world, mut events) = world(stores, length);
    world.task(Order { limit_seconds: 36_000, ..Order::of("https://example.com/") }).await;
    let (mut invocations, mut sweep) = (JoinSet::new(), tokio::time::interval(SWEEP));
    let mut caller = std::pin::pin!(call(&world, length));
    let seen = loop {
        tokio::select! {
            Some(event) = events.recv() => {
                let (runner, time) = (world.runner(&world.platform), length.invocation);
                invocations.spawn(async move {
                    let invocation = Invocation::new("invocation", Some(time));
                    let recorded = tokio::time::timeout(time, runner.record(&event, &invocation)).await;
                    recorded.expect("it ends before it is killed").unwrap();
                    // As the real recorder does after each recording: this one's is all here is that is not the function's own.
                    give_memory_back();
                });
            }
            Some(done) = invocations.join_next(), if !invocations.is_empty() => done.unwrap(),
            _ = sweep.tick() => drop(world.runner(&world.platform).sweep().await.unwrap()),
            seen = &mut caller => break seen,
        }
    };
    while let Some(done) = invocations.join_next().await {
        done.unwrap();
    }
    (seen, world.record().await)
}

/// The file in the bucket: its length in samples, and in bytes.
async fn file(bucket: &Bucket) -> (u64, u64) {
    let keys = bucket.keys().await;
    assert_eq!(keys.len(), 1, "the file and nothing else: {keys:?}");
    let object = || bucket.client.get_object().bucket(&bucket.name).key(&keys[0]);
    let head = bucket.client.head_object().bucket(&bucket.name).key(&keys[0]).send().await.unwrap();
    let bytes = head.content_length().unwrap() as u64;
    let front = object().range(format!("bytes=0-{}", HEAD_BYTES.min(bytes) - 1)).send().await.unwrap();
    let front = front.body.collect().await.unwrap().into_bytes();
    let file = validate(&front, bytes).unwrap();
    assert_eq!(file.scale, 48_000);
    (file.duration, bytes)
}

#[test]
fn ten_hours_through_real_stores_are_recorded_like_a_minute() {
    keep_little_memory();
    let length = length();
    let there = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let stores = there.block_on(stores());
    let mut here = tokio::runtime::Builder::new_current_thread();
    let here = here.enable_time().start_paused(true).build().unwrap();
    let really = std::time::Instant::now();
    let (seen, task) = here.block_on(live(&stores, &length));
    let (samples, bytes) = there.block_on(file(&stores.bucket));
    let quality = task.result.quality.clone().unwrap();
    let largest = stores.tasks.largest.load(Ordering::Relaxed);
    // Time stands still while stores work, and what follows the end (removing the chunks) is not of it.
    let finishing = seen.waited + stores.tasks.over.get().unwrap().duration_since(seen.stopped);
    let calls = [&stores.tasks.calls, &stores.chunks.calls].map(|calls| calls.load(Ordering::Relaxed));
    println!(
        "{:?} in {} generations: {:.1} s of file, {:.0} MB; record {largest} bytes at most; memory {:?} kB; \
         finished {:.2?} after Stop; {} calls for records, {} for chunks; all in {:.0?}",
        length.whole,
        task.generation,
        samples as f64 / 48_000.0,
        bytes as f64 / 1e6,
        seen.memory_kb,
        finishing,
        calls[0],
        calls[1],
        really.elapsed()
    );
    assert_eq!((task.result.failure.as_ref(), &quality.gaps[..], task.crashes), (None, &[][..], 0));
    assert!(u64::from(task.generation) > length.whole.as_secs() / length.invocation.as_secs(), "{}", task.generation);
    let off = (length.whole - seen.paused).as_secs_f64() - samples as f64 / 48_000.0;
    // This studio forgets the unfinished segment at the end, and those of what is handed over while it is paused.
    let pauses = (seen.paused.as_secs_f64() / length.pause_every.as_secs_f64() * 12.0).round();
    let forgotten = 2.2 * (1.0 + pauses) + 1.0;
    assert!((-0.3 * forgotten..forgotten).contains(&off), "{off} s are missing");
    assert!(largest < RECORD_BYTES, "a record of {largest} bytes");
    if length.soak {
        let (early, late) = (seen.memory_kb[3], seen.memory_kb[18]);
        assert!(late <= early + GROWTH_KB, "{early} kB grew to {late} kB");
        assert!(finishing < FINISHED_WITHIN, "finished {finishing:?} after Stop");
    }
}
