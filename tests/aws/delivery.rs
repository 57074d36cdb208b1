//! A file that grows in a bucket, up to Stop: what is read back does not grow with its length, and it plays.
//! `PANOREC_BENCH=1` (as `make bench-delivery` sets it) makes six hours of it and measures; without, minutes keep it honest.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use panorec::generation::{Ground, Growth};
use panorec::platform::aws::{S3ChunkStore, S3Recordings};
use panorec::platform::clock::SystemClock;
use panorec::platform::{ChunkStore, Place, PublicStore, StoreError};
use panorec::task::init::Init;
use panorec::task::seam::Seams;
use panorec::task::segment::{ChunkName, Segment, chunk_key};

use crate::support::aws;
use crate::support::s3::Bucket;
use crate::tools;

/// Length of a segment at 30 fps, samples.
const SEGMENT: u64 = 76_800;
/// Most that may be read back at the end, whatever the length: the promise.
const READ_BACK: u64 = 16 << 20;
const TASK: &str = "task";
/// Between the last segments: a part needs so long on a busy machine.
const PACE: Duration = Duration::from_millis(700);

/// Chunks, and how much of them was read.
struct Counted {
    chunks: S3ChunkStore,
    read: AtomicU64,
}

#[async_trait]
impl ChunkStore for Counted {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.chunks.put(key, bytes).await
    }
    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let bytes = self.chunks.get(key).await?;
        self.read.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        Ok(bytes)
    }
    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.chunks.list(prefix).await
    }
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.chunks.delete(key).await
    }
}

/// What FFmpeg encoded once, of which recordings of any length are made: the first segment, and one that may follow again and
/// again.
struct Material {
    init: Bytes,
    parsed: Init,
    segments: [Bytes; 2],
    /// Checksums of its pictures.
    pictures: HashSet<String>,
}

impl Material {
    /// 720p at 30 fps and some 1.3 Mbit/s, which is a class with a camera.
    fn encoded() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let filter = "scale=1280:720:flags=neighbor,noise=alls=3:allf=t";
        let source = tools::encode(dir.path(), "source.mp4", "6.4", filter, "ultrafast");
        let (init, segments) = tools::split(&source, 0, 0);
        let pictures = tools::pictures(&dir.path().join("source.mp4"), &[]);
        Self {
            parsed: Init::read(&init).unwrap(),
            init,
            segments: [segments[0].bytes.clone(), segments[1].bytes.clone()],
            pictures: pictures.into_iter().map(|(_, _, sum)| sum).collect(),
        }
    }

    fn segment(&self, index: u64) -> Segment {
        let bytes = self.segments[usize::from(index > 0)].clone();
        self.parsed.segment(bytes, index, index * SEGMENT).unwrap()
    }
}

/// Who ends a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Its recorder.
    Recorder,
    /// Another invocation: the recorder was lost.
    Another,
}

/// What the end of a recording took.
#[derive(Debug)]
struct Measured {
    took: Duration,
    read: u64,
    /// Of this process from the first segment on, bytes.
    memory: u64,
}

/// Records so many segments, ends, and sees that the file plays.
async fn recorded(material: &Material, segments: u64, end: End) -> Measured {
    let bucket = Bucket::new().await;
    let aws = aws(&bucket.endpoint).await;
    let chunks = S3ChunkStore::new(&aws, &bucket.name, "").unwrap();
    let chunks = Arc::new(Counted { chunks, read: AtomicU64::new(0) });
    let recordings = S3Recordings::new(&aws, &bucket.name, None, Arc::new(SystemClock));
    let place = Place { dir: TASK.into(), name: Some("film.mp4".into()), ..Place::default() };
    let ground = Ground {
        recordings: Arc::new(recordings.clone()),
        chunks: Arc::clone(&chunks) as _,
        place: place.clone(),
        task: TASK.into(),
    };
    let mut seams = Seams::default();
    seams.cut(0, 1);
    let before = memory("VmRSS:");
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let object = ground.recordings.create(&place).await.unwrap();
    let mut growth = Growth::begin(object, &ground, seams.clone(), 1);
    growth.init(&material.init).unwrap();
    chunks.put(&chunk_key(TASK, 1, ChunkName::Init), material.init.clone()).await.unwrap();
    for index in 0..segments {
        let segment = material.segment(index);
        chunks.put(&chunk_key(TASK, 1, ChunkName::Segment(index)), segment.bytes.clone()).await.unwrap();
        growth.segment(&segment, index).await.unwrap();
        // Segments come every two seconds, and what is sent meanwhile arrives.
        if index + 3 >= segments {
            tokio::time::sleep(PACE).await;
        }
    }
    assert_eq!(chunks.read.load(Ordering::SeqCst), 0, "nothing is read while recording");
    // A recorder that is lost leaves it as it is.
    let growing = (end == End::Recorder).then_some(growth);
    let since = Instant::now();
    let growth = match growing {
        Some(growth) => growth,
        None => match Growth::take_over(&ground, &seams, 2, segments).await.unwrap() {
            Some(growth) => growth,
            // There was nothing lasting yet.
            None => Growth::resume(&ground, &seams, 2, segments, READ_BACK).await.unwrap(),
        },
    };
    let recorded = growth.recorded();
    let (key, size) = growth.finish(recorded, "film.mp4").await.unwrap().expect("a file");
    let first = bucket.client.get_object().bucket(&bucket.name).key(&key).range("bytes=0-65535").send().await.unwrap();
    assert!(first.body.collect().await.unwrap().to_vec()[4..].starts_with(b"ftyp"));
    let took = since.elapsed();
    let memory = memory("VmHWM:").saturating_sub(before);
    assert_eq!((recorded, key.as_str()), (segments * SEGMENT, "task/film.mp4"));
    let found = bucket.client.head_object().bucket(&bucket.name).key(&key).send().await.unwrap();
    assert_eq!(found.content_length().unwrap().cast_unsigned(), size);
    plays(material, &recordings.link(&place, &key, Duration::from_secs(3600)).await.unwrap(), segments);
    Measured { took, read: chunks.read.load(Ordering::SeqCst), memory }
}

/// Over HTTP, from its beginning and up to its end, with the pictures that were encoded.
fn plays(material: &Material, url: &str, segments: u64) {
    let url = Path::new(url);
    let seconds: f64 = tools::probe(url, &[], "format=duration").parse().unwrap();
    let wanted = (segments * SEGMENT) as f64 / 48_000.0;
    assert!((seconds - wanted).abs() < 0.001, "{seconds} s instead of {wanted} s");
    for end in [["-t", "4"], ["-sseof", "-4"]] {
        let pictures = tools::pictures(url, &end);
        assert!((115..=125).contains(&pictures.len()), "{} pictures in 4 s, {end:?}", pictures.len());
        assert!(pictures.iter().all(|(_, _, sum)| material.pictures.contains(sum)), "another picture, {end:?}");
    }
}

/// Of this process, bytes.
fn memory(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(what)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_back_at_the_end_does_not_grow_with_the_length_and_the_file_plays() {
    let bench = std::env::var_os("PANOREC_BENCH").is_some();
    let runs = match bench {
        true => [(5, "10 s"), (281, "10 min"), (10_125, "6 h")]
            .into_iter()
            .flat_map(|(segments, length)| [(segments, length, End::Recorder), (segments, length, End::Another)])
            .collect(),
        false => vec![(40, "", End::Recorder), (40, "", End::Another), (90, "", End::Another)],
    };
    let material = Material::encoded();
    let kb = material.segments[1].len() / 1000;
    if bench {
        println!("1280×720, 30 fps, {kb} kB a segment; SeaweedFS on this machine\n");
        println!("| length | ended by | from Stop to the file | read back | memory |\n| --- | --- | --- | --- | --- |");
    }
    for (segments, length, end) in runs {
        let Measured { took, read, memory } = recorded(&material, segments, end).await;
        assert!(read <= if end == End::Recorder { 0 } else { READ_BACK }, "{read} bytes of {segments} segments");
        if bench {
            let who = if end == End::Recorder { "its recorder" } else { "another invocation" };
            let (ms, mib) = (took.as_millis(), |bytes: u64| bytes as f64 / f64::from(1 << 20));
            println!("| {length} | {who} | {ms} ms | {:.1} MiB | {:.0} MiB |", mib(read), mib(memory));
        }
    }
}
