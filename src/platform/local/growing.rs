//! A file that is written head last.
//!
//! While recording, payload is appended to a file without a name in the target's directory ([`Pending`]). At the end
//! the head gets in front, by the first of three ways that works:
//! 1. insert a range (ext4, xfs): moves block references, not data, so it costs the same for ten seconds and ten hours;
//! 2. copy into a second file inside the system (btrfs and others share the blocks, so nothing is copied there either);
//! 3. move the payload back within the file, from its end: works everywhere, and with room for the head alone.
//!
//! Then data and name are flushed to disk, because the segments that the file was made of may be deleted next.
//!
//! In a store, the file becomes known to others now and then ([`Mark`]): another process goes on with it from there, or with
//! a copy made inside the system where the one before is still at it.
//!
//! A full disk must not cost the recording: room for the head is reserved from the start, grows with the payload, and is
//! given back at the end. Payload that does not fit is taken back whole.

mod target;

use self::target::{Target, acceptable, directory, explain, other_name};
use super::medium::{Disk, Medium};
use super::pending::Pending;
use super::recordings::{Directories, MAX_RACES};
use super::{blocking, store_error, unsupported};
use crate::platform::{HeadLastObject, Mark, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Room for a head of nothing but the fixed boxes, and for what the file system needs for itself to insert.
const RESERVE_BASE: u64 = 64 << 10;
/// Room for what one append adds to the head. An append is a segment: at 60 pictures a second and no two alike durations
/// in a row, 128 · (4 + 8) bytes for pictures, 100 · 4 for sound and about 150 for chunks, so half of this.
const RESERVE_PER_APPEND: u64 = 4 << 10;
/// The reserve grows in steps of this much, every nine minutes.
const RESERVE_STEP: u64 = 1 << 20;
/// Moved at once when payload must be moved by hand.
const MOVE_BYTES: u64 = 4 << 20;
/// Block size that is believed. What a network file system states is the size of its requests.
const MAX_BLOCK: u64 = 64 << 10;
/// Block size where none is believable: that of nearly every file system.
const USUAL_BLOCK: u64 = 4096;
/// Other names that are tried for a recording whose name was taken while it was made.
const MAX_OTHER_NAMES: u32 = 1000;

/// Payload between two marks, bytes: what is read back at most when another process goes on, and flushed to disk before.
const MARK_BYTES: u64 = 8 << 20;

/// What a mark says; the last one counts.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// In the directory of the target.
    name: String,
    payload: u64,
    appends: u64,
}

/// A file that gets its name once it is finished. Dropped before that, it leaves nothing behind.
pub struct GrowingFile {
    growing: Arc<Mutex<Option<Growing>>>,
    target: Target,
    alignment: u64,
}

struct Growing {
    medium: Arc<dyn Medium>,
    pending: Pending,
    /// Room for the head; given back when it is written.
    reserve: Option<File>,
    reserved: u64,
    appends: u64,
    payload: u64,
    marked: u64,
    marks: Vec<Mark>,
    replace: bool,
    /// Directories of a store that are no longer needed go when this goes: after `pending`, which may be in them.
    kept: Option<Directories>,
}

impl GrowingFile {
    /// Prepares everything, so that what would make the recording impossible is known before it begins: a missing or
    /// read-only directory, a full disk, an existing target without `replace`.
    pub fn create(target: &Path, replace: bool) -> Result<Self, StoreError> {
        Self::create_on(Arc::new(Disk), target, replace)
    }

    fn create_on(medium: Arc<dyn Medium>, target: &Path, replace: bool) -> Result<Self, StoreError> {
        let failed = |e| store_error("create", &target.display().to_string(), e);
        let path = acceptable(target, replace).map_err(failed)?;
        let dir = directory(&path).to_path_buf();
        let mut growing = Growing::create(medium, &dir).map_err(|e| failed(explain(e, &dir)))?;
        growing.replace = replace;
        Ok(Self::new(growing, Target::Fixed { path, given: target.to_path_buf() }))
    }

    /// An object of the store at `root`. Blocks.
    pub(super) fn below(root: &Arc<PathBuf>, name: super::recordings::Name) -> io::Result<Self> {
        let kept = Directories { root: root.clone(), dir: root.join(name.dir()) };
        let made = kept.having(|| Growing::create(Arc::new(Disk), &kept.dir));
        let mut growing = made.map_err(|e| explain(e, &kept.dir))?;
        growing.kept = Some(kept);
        Ok(Self::new(growing, Target::Key(root.clone(), name)))
    }

    /// One of the store at `root` that another process began. Blocks.
    pub(super) fn again(root: &Arc<PathBuf>, name: super::recordings::Name, states: &[String]) -> io::Result<Self> {
        let state: State =
            states.last().and_then(|s| serde_json::from_str(s).ok()).ok_or(io::ErrorKind::InvalidInput)?;
        let kept = Directories { root: root.clone(), dir: root.join(name.dir()) };
        if state.name.contains('/') {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let growing = Growing::again(Arc::new(Disk), &kept.dir, &state)?;
        let growing = Growing { kept: Some(kept), ..growing };
        Ok(Self::new(growing, Target::Key(root.clone(), name)))
    }

    fn new(growing: Growing, target: Target) -> Self {
        let alignment = rustix::fs::fstatfs(growing.pending.file()).map_or(0, |s| s.f_bsize.unsigned_abs());
        let believable = alignment.is_power_of_two() && alignment <= MAX_BLOCK;
        let alignment = if believable { alignment } else { USUAL_BLOCK };
        Self { growing: Arc::new(Mutex::new(Some(growing))), target, alignment }
    }

    fn failed(&self, op: &'static str) -> impl FnOnce(io::Error) -> StoreError + use<> {
        let name = self.target.shown();
        move |e| store_error(op, &name, e)
    }
}

impl Growing {
    fn create(medium: Arc<dyn Medium>, dir: &Path) -> io::Result<Self> {
        let pending = Pending::create(dir)?;
        let mut growing = Self {
            medium,
            pending,
            reserve: Some(tempfile::tempfile_in(dir)?),
            reserved: 0,
            appends: 0,
            payload: 0,
            marked: 0,
            marks: Vec::new(),
            replace: false,
            kept: None,
        };
        growing.keep_reserve()?;
        Ok(growing)
    }

    fn again(medium: Arc<dyn Medium>, dir: &Path, state: &State) -> io::Result<Self> {
        let (file, shared) = Pending::shared(dir, &state.name)?;
        if file.metadata()?.len() < state.payload {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut growing = Self::create(medium, dir)?;
        (growing.payload, growing.marked, growing.appends) = (state.payload, state.payload, state.appends);
        match shared {
            Some(pending) => growing.pending = pending,
            // What lies before the mark does not change any more; what comes after it would be written by two.
            None => {
                growing.copy_from(&file, growing.pending.file(), 0)?;
                let _ = std::fs::remove_file(dir.join(&state.name));
            }
        }
        growing.medium.truncate(growing.pending.file(), growing.payload)?;
        growing.keep_reserve()?;
        Ok(growing)
    }

    /// Lets others know of what is there, if there is enough that they do not know of. Where that cannot be, nobody does.
    fn mark(mut self) -> Self {
        let Some(kept) = self.kept.as_ref().filter(|_| self.payload - self.marked >= MARK_BYTES) else { return self };
        self.marked = self.payload;
        if self.pending.file().sync_data().is_err() {
            return self;
        }
        match self.pending.share(&kept.dir) {
            Ok((pending, name)) => {
                self.pending = pending;
                let state = State { name, payload: self.payload, appends: self.appends };
                let state = serde_json::json!(state).to_string();
                self.marks.push(Mark { payload: self.payload, held: 0, state });
            }
            Err((error, pending)) => {
                tracing::debug!(%error, "no other process will be able to go on with this file");
                self.pending = pending;
            }
        }
        self
    }

    /// Copies all payload inside the system.
    fn copy_from(&self, from: &File, to: &File, to_at: u64) -> io::Result<()> {
        let mut at = 0;
        while at < self.payload {
            match self.medium.copy(from, at, to, to_at + at, self.payload - at)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => at += n,
            }
        }
        Ok(())
    }

    /// Reserves room for the head of what has been appended so far, ahead of need.
    fn keep_reserve(&mut self) -> io::Result<()> {
        let needed = (RESERVE_BASE + self.appends * RESERVE_PER_APPEND).next_multiple_of(RESERVE_STEP);
        if needed > self.reserved
            && let Some(reserve) = &self.reserve
        {
            self.medium.reserve(reserve, needed)?;
            self.reserved = needed;
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.appends += 1;
        let written = self.keep_reserve().and_then(|()| self.write(self.pending.file(), bytes, self.payload));
        match written {
            Ok(()) => {
                self.payload += bytes.len() as u64;
                Ok(())
            }
            Err(e) => {
                self.appends -= 1;
                // What follows is written at `payload` in any case: a tail that cannot be cut off is overwritten or
                // cut off at the end.
                let _ = self.medium.truncate(self.pending.file(), self.payload);
                Err(e)
            }
        }
    }

    fn write(&self, file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.medium.write(file, bytes, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    bytes = &bytes[n..];
                    at += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Returns the path that it got.
    fn finish(mut self, head: &[u8], target: &Path, alignment: u64) -> io::Result<PathBuf> {
        self.pending.unshare()?;
        self.medium.truncate(self.pending.file(), self.payload)?;
        if let Some(reserve) = self.reserve.take() {
            self.medium.release(reserve);
        }
        if !(self.payload > 0 && self.insert(head, alignment)?) {
            let copied = match &self.kept {
                Some(kept) => kept.having(|| self.copy(head, &kept.dir)),
                None => self.copy(head, directory(target)),
            };
            match copied {
                Ok(copy) => self.pending = copy,
                Err(_) => self.shift(head)?,
            }
        }
        self.pending.file().sync_data()?;
        publish(self.pending, target, self.replace, self.kept.as_ref())
    }

    /// Way 1. `false` when the file system does not know it.
    fn insert(&self, head: &[u8], alignment: u64) -> io::Result<bool> {
        if !(head.len() as u64).is_multiple_of(alignment) || head.is_empty() {
            return Ok(false);
        }
        match self.medium.insert(self.pending.file(), head.len() as u64) {
            Ok(()) => self.write(self.pending.file(), head, 0).map(|()| true),
            Err(e) if unsupported(&e) || super::kind_of(&e) == crate::platform::StoreErrorKind::Full => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Way 2.
    fn copy(&self, head: &[u8], dir: &Path) -> io::Result<Pending> {
        let to = Pending::create(dir)?;
        let written = self.write(to.file(), head, 0);
        let done = written.and_then(|()| self.copy_from(self.pending.file(), to.file(), head.len() as u64));
        match done {
            Ok(()) => Ok(to),
            Err(e) => {
                // Gives its room back before the next way needs it.
                let _ = self.medium.truncate(to.file(), 0);
                Err(e)
            }
        }
    }

    /// Way 3.
    fn shift(&self, head: &[u8]) -> io::Result<()> {
        let (file, by) = (self.pending.file(), head.len() as u64);
        let mut buffer = vec![0; MOVE_BYTES.min(self.payload) as usize];
        let mut end = self.payload;
        while end > 0 {
            let start = end.saturating_sub(MOVE_BYTES);
            let part = &mut buffer[..(end - start) as usize];
            file.read_exact_at(part, start)?;
            self.write(file, part, start + by)?;
            end = start;
        }
        self.write(file, head, 0)
    }
}

/// Gives the finished file its name, or another where that was taken in the meantime, and flushes that. Returns what it
/// got.
fn publish(mut pending: Pending, target: &Path, replace: bool, kept: Option<&Directories>) -> io::Result<PathBuf> {
    let (mut taken, mut races) = (0, 0);
    loop {
        let name = if taken == 0 { target.to_path_buf() } else { other_name(target, taken) };
        let (error, back) = match pending.publish(&name, replace) {
            Ok(()) => return flush(directory(&name)).map(|()| name),
            Err(back) => back,
        };
        pending = back;
        match (error.kind(), kept) {
            (io::ErrorKind::AlreadyExists, _) if taken < MAX_OTHER_NAMES => taken += 1,
            // Somebody else's empty directory looks abandoned while its recording has no name yet.
            (io::ErrorKind::NotFound, Some(kept)) if races < MAX_RACES => {
                races += 1;
                kept.make()?;
            }
            _ => return Err(error),
        }
    }
}

fn flush(dir: &Path) -> io::Result<()> {
    match File::open(dir).and_then(|d| d.sync_all()) {
        Err(e) if !unsupported(&e) => Err(e),
        _ => Ok(()),
    }
}

#[async_trait]
impl HeadLastObject for GrowingFile {
    fn head_alignment(&self) -> u64 {
        self.alignment
    }

    async fn append(&mut self, payload: Bytes) -> Result<(), StoreError> {
        let growing = self.growing.clone();
        let done = blocking(move || {
            let mut growing = growing.lock().unwrap_or_else(PoisonError::into_inner);
            growing.as_mut().ok_or(io::ErrorKind::NotFound)?.append(&payload)?;
            *growing = growing.take().map(Growing::mark);
            Ok(())
        });
        done.await.map_err(self.failed("append to"))
    }

    async fn finish(self: Box<Self>, head: Bytes, name: &str) -> Result<String, StoreError> {
        let path = self.target.path(name).map_err(self.failed("finish"))?;
        let (growing, alignment) = (self.growing.clone(), self.alignment);
        let done = blocking(move || {
            let growing = growing.lock().unwrap_or_else(PoisonError::into_inner).take();
            growing.ok_or(io::ErrorKind::NotFound)?.finish(&head, &path, alignment)
        });
        done.await.map(|path| self.target.key(&path)).map_err(self.failed("finish"))
    }

    async fn abort(self: Box<Self>) -> Result<(), StoreError> {
        let growing = self.growing.clone();
        let done = blocking(move || match growing.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(mut growing) => growing.pending.unshare(),
            None => Ok(()),
        });
        done.await.map_err(self.failed("abort"))
    }

    fn marks(&mut self) -> Vec<Mark> {
        let mut growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        growing.as_mut().map_or_else(Vec::new, |growing| std::mem::take(&mut growing.marks))
    }

    async fn settle(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
