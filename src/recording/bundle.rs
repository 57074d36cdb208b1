//! A program that travels compressed: a function's layers may not hold Chromium as it is.
//!
//! A bundle is a directory with `index.json` and frames, written by `layers/chromium/pack.py`: the contents of all files,
//! one after the other, cut into pieces that are compressed by themselves. [`Bundle::unpack`] puts the files where the
//! index says, on all processors, while the caller does other things; who needs them waits with [`Bundle::ready`]. A tree
//! that an earlier process has unpacked is used as it is; one that is half there, or of another layer, is made again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use rustix::process::nice;
use serde::Deserialize;
use tokio::sync::watch;

/// The file that describes a bundle.
pub const INDEX: &str = "index.json";
/// Holds the index of what was unpacked, written last.
const COMPLETE: &str = ".complete";
/// Unpacking gives way to answering an event, which is what a function's first moments may be for.
const NICE: i32 = 5;
/// More threads find no more processors on the platforms that need this.
const MAX_THREADS: usize = 8;
/// Larger frames than this are nobody's; the writer makes 16 MiB.
const MAX_FRAME_BYTES: u64 = 256 << 20;

/// A bundle that is not what it should be, or has no room.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file of the layer or of the tree.
    #[error("{} cannot be {done}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What was to be done with it.
        done: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The layer is damaged.
    #[error("{}: {reason}; build the layer again", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What is in a bundle.
#[derive(Debug, Deserialize)]
struct Index {
    version: u32,
    /// Where the tree belongs. The loader's path in its programs depends on that.
    target: PathBuf,
    /// Bytes of a piece before compression; the last one may be shorter.
    frame_bytes: u64,
    frames: Vec<String>,
    files: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Entry {
    Link { path: PathBuf, link: PathBuf },
    File { path: PathBuf, bytes: u64, executable: bool },
}

/// An open file and where its content begins in the whole.
struct Place {
    file: File,
    path: PathBuf,
    begin: u64,
    bytes: u64,
}

type Result<T> = std::result::Result<T, Arc<BundleError>>;

/// A tree that is being unpacked, or has been.
#[derive(Debug, Clone)]
pub struct Bundle {
    state: watch::Receiver<Option<Result<PathBuf>>>,
}

impl Bundle {
    /// Begins to unpack the bundle in `layer`.
    pub fn unpack(layer: &Path) -> Self {
        let (sender, state) = watch::channel(None);
        let layer = layer.to_path_buf();
        thread::spawn(move || {
            let since = Instant::now();
            let done = unpack(&layer).map_err(Arc::new);
            match &done {
                Ok((target, true)) => {
                    tracing::info!(target = %target.display(), ms = since.elapsed().as_millis() as u64, "layer unpacked");
                }
                Ok(_) => {}
                Err(error) => tracing::error!(error = error as &dyn std::error::Error, "layer cannot be unpacked"),
            }
            sender.send_replace(Some(done.map(|(target, _)| target)));
        });
        Self { state }
    }

    /// Waits for the tree, and says where it is.
    pub async fn ready(&self) -> Result<PathBuf> {
        let mut state = self.state.clone();
        let ended = || {
            let source = io::Error::other("its thread ended");
            Arc::new(BundleError::File { path: INDEX.into(), done: "unpacked", source })
        };
        let done = state.wait_for(Option::is_some).await.map_err(|_| ended())?;
        done.clone().unwrap_or_else(|| Err(ended()))
    }
}

fn at<T>(path: &Path, done: &'static str, result: io::Result<T>) -> std::result::Result<T, BundleError> {
    result.map_err(|source| BundleError::File { path: path.to_owned(), done, source })
}

/// The tree, and whether it had to be made.
fn unpack(layer: &Path) -> std::result::Result<(PathBuf, bool), BundleError> {
    let path = layer.join(INDEX);
    let text = at(&path, "read", fs::read(&path))?;
    let index = read_index(&path, &text)?;
    let target = index.target.clone();
    let complete = target.join(COMPLETE);
    if fs::read(&complete).is_ok_and(|unpacked| unpacked == text) {
        return Ok((target, false));
    }
    match fs::remove_dir_all(&target) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return at(&target, "removed", Err(e)),
        _ => {}
    }
    let places = lay_out(&index)?;
    write_all(layer, &index, &places)?;
    at(&complete, "written", fs::write(&complete, &text))?;
    Ok((target, true))
}

fn read_index(path: &Path, text: &[u8]) -> std::result::Result<Index, BundleError> {
    let malformed = |reason: String| BundleError::Malformed { path: path.to_owned(), reason };
    let index: Index = serde_json::from_slice(text).map_err(|e| malformed(e.to_string()))?;
    if index.version != 1 {
        return Err(malformed(format!("version {}, where 1 is known", index.version)));
    }
    if !(1..=MAX_FRAME_BYTES).contains(&index.frame_bytes) {
        return Err(malformed(format!("frames of {} bytes, where 1 to {MAX_FRAME_BYTES} can be", index.frame_bytes)));
    }
    let inside = |path: &Path| path.components().all(|c| matches!(c, Component::Normal(_)));
    let paths = index.files.iter().map(|(Entry::Link { path, .. } | Entry::File { path, .. })| path.as_path());
    if let Some(outside) = paths.chain(index.frames.iter().map(Path::new)).find(|p| !inside(p)) {
        return Err(malformed(format!("`{}` leads out of its directory", outside.display())));
    }
    let whole: u64 = index.files.iter().map(|e| if let Entry::File { bytes, .. } = e { *bytes } else { 0 }).sum();
    if whole.div_ceil(index.frame_bytes) != index.frames.len() as u64 {
        return Err(malformed(format!("{} frames for {whole} bytes", index.frames.len())));
    }
    Ok(index)
}

/// Makes every file, empty, and every link.
fn lay_out(index: &Index) -> std::result::Result<Vec<Place>, BundleError> {
    let mut places = Vec::new();
    let mut begin = 0;
    for entry in &index.files {
        let (Entry::Link { path, .. } | Entry::File { path, .. }) = entry;
        let path = index.target.join(path);
        if let Some(parent) = path.parent() {
            at(parent, "made", fs::create_dir_all(parent))?;
        }
        match entry {
            Entry::Link { link, .. } => at(&path, "made", symlink(link, &path))?,
            Entry::File { bytes, executable, .. } => {
                let mode = if *executable { 0o755 } else { 0o644 };
                let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
                let file = at(&path, "made", file)?;
                places.push(Place { file, path, begin, bytes: *bytes });
                begin += bytes;
            }
        }
    }
    Ok(places)
}

/// Decompresses all frames, as many at a time as there are processors. The first failure ends it.
fn write_all(layer: &Path, index: &Index, places: &[Place]) -> std::result::Result<(), BundleError> {
    let whole = places.last().map_or(0, |p| p.begin + p.bytes);
    let threads = thread::available_parallelism().map_or(1, usize::from).clamp(1, MAX_THREADS);
    let (next, failed, failure) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
    let work = || {
        let _ = nice(NICE);
        let (mut packed, mut buffer) = (Vec::new(), Vec::with_capacity(index.frame_bytes as usize));
        while !failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(name) = index.frames.get(number) else { break };
            let begin = number as u64 * index.frame_bytes;
            let bytes = index.frame_bytes.min(whole - begin);
            let done = read_frame(&layer.join(name), bytes, &mut packed, &mut buffer);
            let done = done.and_then(|()| write(&buffer, begin, places));
            if let Err(error) = done {
                failed.store(true, Ordering::Relaxed);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Decompresses a frame into `buffer`; `packed` is what it is read into.
fn read_frame(
    path: &Path,
    bytes: u64,
    packed: &mut Vec<u8>,
    buffer: &mut Vec<u8>,
) -> std::result::Result<(), BundleError> {
    let malformed = |reason: String| BundleError::Malformed { path: path.to_owned(), reason };
    packed.clear();
    at(path, "read", File::open(path).and_then(|mut file| file.read_to_end(packed)))?;
    buffer.clear();
    let decompress = zstd::bulk::Decompressor::new().and_then(|mut zstd| zstd.decompress_to_buffer(packed, buffer));
    let got = decompress.map_err(|e| malformed(e.to_string()))?;
    if got as u64 != bytes {
        return Err(malformed(format!("{got} bytes instead of {bytes}")));
    }
    Ok(())
}

/// Writes a piece into the files that it belongs to.
fn write(piece: &[u8], begin: u64, places: &[Place]) -> std::result::Result<(), BundleError> {
    let end = begin + piece.len() as u64;
    let first = places.partition_point(|p| p.begin + p.bytes <= begin);
    for place in places[first..].iter().take_while(|p| p.begin < end) {
        let (from, to) = (begin.max(place.begin), end.min(place.begin + place.bytes));
        let content = &piece[(from - begin) as usize..(to - begin) as usize];
        at(&place.path, "written", place.file.write_all_at(content, from - place.begin))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
