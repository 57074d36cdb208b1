//! The file operations that a growing file is made of, as a seam: tests stand a small or an old file system behind it, so
//! that a full disk and each way of finishing are exercised on every machine.

use rustix::fs::FallocateFlags;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What a file system does. Everything that takes or gives back room goes through here.
pub(super) trait Medium: Send + Sync {
    /// Writes some of `bytes` at a position.
    fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<usize>;
    /// Cuts a file off.
    fn truncate(&self, file: &File, len: u64) -> io::Result<()>;
    /// Makes a file at least `len` bytes long, with room on the medium for all of them.
    fn reserve(&self, file: &File, len: u64) -> io::Result<()>;
    /// Gives up a file that has no name, and its room.
    fn release(&self, file: File);
    /// Inserts `len` bytes at the front, moving what is there without copying it.
    fn insert(&self, file: &File, len: u64) -> io::Result<()>;
    /// Copies some of `len` bytes from one file to another inside the system.
    fn copy(&self, from: &File, from_at: u64, to: &File, to_at: u64, len: u64) -> io::Result<u64>;
}

/// The real one.
pub(super) struct Disk;

/// Zeros that are written at once where room cannot be reserved otherwise.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl Medium for Disk {
    fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
        file.write_at(bytes, at)
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn reserve(&self, file: &File, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
            Err(e) if super::unsupported(&e.into()) => fill(file, len),
            other => Ok(other?),
        }
    }

    fn release(&self, file: File) {
        drop(file);
    }

    fn insert(&self, file: &File, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(file, FallocateFlags::INSERT_RANGE, 0, len)?)
    }

    fn copy(&self, from: &File, mut from_at: u64, to: &File, mut to_at: u64, len: u64) -> io::Result<u64> {
        let len = usize::try_from(len.min(1 << 30)).unwrap_or(usize::MAX); // the system call's own bound is 2 GiB
        let copied = rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), len)?;
        Ok(copied as u64)
    }
}

/// Takes room by writing, for file systems without `fallocate`.
fn fill(file: &File, len: u64) -> io::Result<()> {
    let mut at = file.metadata()?.len();
    while at < len {
        let part = &ZEROS[..usize::try_from(len - at).unwrap_or(ZEROS.len()).min(ZEROS.len())];
        file.write_all_at(part, at)?;
        at += part.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
pub(super) use small::SmallDisk;

#[cfg(test)]
mod small {
    use super::*;
    use rustix::io::Errno;
    use std::sync::Mutex;

    /// A medium with little room that can do only some things: the real file system, counted.
    pub(in crate::platform::local) struct SmallDisk {
        pub room: Mutex<u64>,
        pub can_insert: bool,
        pub can_copy: bool,
    }

    impl SmallDisk {
        pub fn new(room: u64, can_insert: bool, can_copy: bool) -> Self {
            Self { room: Mutex::new(room), can_insert, can_copy }
        }

        /// Takes room for a file that grows to `len`; partly, if there is not enough and `partly` will do.
        fn grow(&self, file: &File, len: u64, partly: bool) -> io::Result<u64> {
            let is = file.metadata()?.len();
            let mut room = self.room.lock().unwrap();
            let granted = len.saturating_sub(is).min(*room);
            if is + granted < len && (granted == 0 || !partly) {
                return Err(Errno::NOSPC.into());
            }
            *room -= granted;
            Ok(len.min(is + granted))
        }
    }

    impl Medium for SmallDisk {
        fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
            let end = self.grow(file, at + bytes.len() as u64, true)?;
            Disk.write(file, &bytes[..(end - at) as usize], at)
        }
        fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
            *self.room.lock().unwrap() += file.metadata()?.len().saturating_sub(len);
            Disk.truncate(file, len)
        }
        fn reserve(&self, file: &File, len: u64) -> io::Result<()> {
            self.grow(file, len, false)?;
            Disk.reserve(file, len)
        }
        fn release(&self, file: File) {
            *self.room.lock().unwrap() += file.metadata().unwrap().len();
        }
        fn insert(&self, file: &File, len: u64) -> io::Result<()> {
            if !self.can_insert {
                return Err(Errno::OPNOTSUPP.into());
            }
            self.grow(file, file.metadata()?.len() + len, false)?;
            Disk.insert(file, len)
        }
        fn copy(&self, from: &File, from_at: u64, to: &File, to_at: u64, len: u64) -> io::Result<u64> {
            if !self.can_copy {
                return Err(Errno::XDEV.into());
            }
            let end = self.grow(to, to_at + len, true)?;
            Disk.copy(from, from_at, to, to_at, end - to_at)
        }
    }

    #[test]
    fn room_is_taken_by_writing_where_it_cannot_be_reserved() {
        let file = tempfile::tempfile().unwrap();
        fill(&file, 150_000).unwrap();
        fill(&file, 100_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 150_000);
    }
}
