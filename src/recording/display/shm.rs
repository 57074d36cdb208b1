//! Shared memory of the clients: pools and the buffers in them.

use std::ffi::c_void;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::planes::Pixels;

/// Largest pool that is mapped: eight frames of the largest picture, twice over.
const MAX_POOL_BYTES: usize = 512 * 1024 * 1024;

/// A mapped range of a client's memory, for reading.
#[derive(Debug)]
struct Mapping {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: the mapping is only read, and unmapped once, by its owner.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: &OwnedFd, len: i32) -> Option<Self> {
        let len = usize::try_from(len).ok().filter(|len| (1..=MAX_POOL_BYTES).contains(len))?;
        // A file shorter than it claims would kill us at the first read beyond its end.
        let size = rustix::fs::fstat(fd).ok()?.st_size;
        if usize::try_from(size).ok()? < len {
            return None;
        }
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
        let start = unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, fd, 0) }.ok()?;
        Some(Self { start: NonNull::new(start)?, len })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped for `len` bytes until drop. The client may write at any time, which can garble a picture but
        // nothing else: bytes have no invalid values and nothing is decided by reading one twice.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what was mapped; no slice outlives `self`.
        let _ = unsafe { munmap(self.start.as_ptr(), self.len) };
    }
}

/// A `wl_shm_pool`.
#[derive(Debug)]
pub struct Pool {
    fd: OwnedFd,
    mapping: Mutex<Option<Arc<Mapping>>>,
}

impl Pool {
    /// Maps a client's memory; `None` if the size is impossible or the memory is shorter than it.
    pub fn new(fd: OwnedFd, len: i32) -> Option<Self> {
        let mapping = Mapping::new(&fd, len)?;
        Some(Self { fd, mapping: Mutex::new(Some(Arc::new(mapping))) })
    }

    /// Maps it anew after the client made it larger.
    pub fn resize(&self, len: i32) {
        let mut mapping = self.mapping.lock().unwrap_or_else(PoisonError::into_inner);
        *mapping = Mapping::new(&self.fd, len).map(Arc::new);
    }
}

/// A `wl_buffer`: a rectangle of pixels in a pool.
#[derive(Debug)]
pub struct Buffer {
    pool: Arc<Pool>,
    offset: usize,
    stride: u32,
    width: u32,
    height: u32,
    /// The fourth byte is alpha.
    pub alpha: bool,
}

impl Buffer {
    /// A buffer, if its numbers make sense; whether it lies inside its pool is seen at each use, since pools grow.
    pub fn new(pool: Arc<Pool>, offset: i32, width: i32, height: i32, stride: i32, alpha: bool) -> Option<Self> {
        let (width, height) = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
        let stride = u32::try_from(stride).ok()?;
        let sound = width > 0 && height > 0 && u64::from(stride) >= u64::from(width) * 4;
        sound.then_some(Self { pool, offset: usize::try_from(offset).ok()?, stride, width, height, alpha })
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Lets `read` see the pixels, if they are all inside the pool.
    pub fn read<R>(&self, read: impl FnOnce(Pixels<'_>) -> R) -> Option<R> {
        let mapping = self.pool.mapping.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let len = self.stride as usize * self.height as usize;
        let bytes = mapping.bytes().get(self.offset..self.offset.checked_add(len)?)?;
        Some(read(Pixels { bytes, stride: self.stride, width: self.width, height: self.height }))
    }
}
