//! What the encoder puts out, on its way to the writer: while the store is away segments wait here, the first of them in
//! memory, the others in a file, so that nobody has to drop pictures and memory stays as it is.
//!
//! The file has no name: it is gone with this process, however that ends. Nothing that waits is lasting; whoever goes on
//! after a crash lists it as missing.
//!
//! Order is that of the queue, wherever the bytes are. When there is no room left, [`Inlet`] waits: then the encoder does,
//! the display skips slots, and after some seconds the encoder is taken for stuck.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::platform::{StoreError, StoreErrorKind};
use crate::recording::encoder::EncoderOutput;
use crate::task::segment::Segment;

/// What is counted: room is given and taken in whole KiB.
const BLOCK: usize = 1024;

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// KiB in memory.
    pub memory: u32,
    /// KiB in the file.
    pub disk: u32,
    /// Segments in all: a kilobyte or two of each, its index, stays in memory.
    pub segments: usize,
}

impl Default for Bounds {
    /// In memory 4 MiB, 12 s of 720p at its default bit rate: a store that is slow for a moment costs no writing. In the file
    /// 384 MiB: at the highest bit rates 2.5 minutes, which is longer than storing a chunk is tried again for; a function
    /// with the smallest `/tmp` that the template takes (1,024 MB) has them beside Chromium and its profile (550 MB). A
    /// thousand segments are half an hour.
    fn default() -> Self {
        Self { memory: 4 << 10, disk: 384 << 10, segments: 1024 }
    }
}

/// A queue within `bounds`.
pub fn backlog(bounds: Bounds) -> (Inlet, Outlet) {
    let (sender, queue) = mpsc::channel(bounds.segments);
    let room = |blocks: u32| Arc::new(Semaphore::new(blocks as usize));
    let shared = Arc::new(Shared {
        bounds,
        memory: room(bounds.memory),
        disk: room(bounds.disk),
        capacity: u64::from(bounds.disk) * BLOCK as u64,
        ring: Mutex::default(),
    });
    (Inlet { sender, shared: Arc::clone(&shared) }, Outlet { queue, shared })
}

/// Where outputs come in.
pub struct Inlet {
    sender: mpsc::Sender<Waiting>,
    shared: Arc<Shared>,
}

/// Where they come out, in order.
pub struct Outlet {
    queue: mpsc::Receiver<Waiting>,
    shared: Arc<Shared>,
}

/// An output in the queue, and the room that it takes.
enum Waiting {
    Here(EncoderOutput, Option<OwnedSemaphorePermit>),
    InFile(Segment, Span, OwnedSemaphorePermit),
}

/// Where the bytes of a segment are.
#[derive(Debug, Clone, Copy)]
struct Span {
    at: u64,
    length: usize,
}

struct Shared {
    bounds: Bounds,
    memory: Arc<Semaphore>,
    disk: Arc<Semaphore>,
    /// Bytes of the file at most; positions in it are modulo this.
    capacity: u64,
    ring: Mutex<Ring>,
}

/// The file, which is written behind what was written last, and again from its beginning where it would be too long.
#[derive(Default)]
struct Ring {
    file: Option<Arc<File>>,
    /// Where the next segment goes.
    next: u64,
    /// Segments in it.
    waiting: u64,
}

impl Inlet {
    /// Takes an output in; waits for room if there is none. What nobody will take out any more is dropped.
    pub async fn send(&mut self, output: EncoderOutput) {
        let waiting = match output {
            EncoderOutput::Segment(segment) => self.keep(segment).await,
            other @ (EncoderOutput::Init(_) | EncoderOutput::Ended(_)) => Some(Waiting::Here(other, None)),
        };
        if let Some(waiting) = waiting {
            let _ = self.sender.send(waiting).await;
        }
    }

    /// The same on a thread that may block.
    pub fn blocking_send(&mut self, runtime: &Handle, output: EncoderOutput) {
        runtime.block_on(self.send(output));
    }

    async fn keep(&self, segment: Segment) -> Option<Waiting> {
        let Shared { bounds, memory, disk, .. } = &*self.shared;
        let blocks = u32::try_from(segment.bytes.len().div_ceil(BLOCK)).unwrap_or(u32::MAX);
        // One that is larger than all of it has it for itself.
        let in_memory = blocks.min(bounds.memory);
        if let Ok(permit) = Arc::clone(memory).try_acquire_many_owned(in_memory) {
            return Some(Waiting::Here(EncoderOutput::Segment(segment), Some(permit)));
        }
        if blocks <= bounds.disk {
            let permit = match Arc::clone(disk).try_acquire_many_owned(blocks) {
                Ok(permit) => permit,
                Err(_) => {
                    tracing::warn!(
                        "no room for what waits for the store: the encoder waits, and pictures will be lost"
                    );
                    Arc::clone(disk).acquire_many_owned(blocks).await.ok()?
                }
            };
            match self.shared.write(&segment.bytes) {
                Ok(span) => return Some(Waiting::InFile(Segment { bytes: Bytes::new(), ..segment }, span, permit)),
                Err(error) => tracing::warn!(%error, "a segment that waits for the store finds no room on disk"),
            }
        }
        let permit = Arc::clone(memory).acquire_many_owned(in_memory).await.ok()?;
        Some(Waiting::Here(EncoderOutput::Segment(segment), Some(permit)))
    }
}

impl Outlet {
    /// The next output; `None` when no more will come. An error: a segment that waited cannot be read.
    pub async fn recv(&mut self) -> Option<Result<EncoderOutput, StoreError>> {
        let (segment, span, room) = match self.queue.recv().await? {
            Waiting::Here(output, room) => {
                drop(room);
                return Some(Ok(output));
            }
            Waiting::InFile(segment, span, room) => (segment, span, room),
        };
        let shared = Arc::clone(&self.shared);
        let read = tokio::task::spawn_blocking(move || shared.take(span)).await;
        drop(room);
        let bytes = read.map_err(io::Error::other).and_then(|read| read);
        Some(match bytes {
            Ok(bytes) => Ok(EncoderOutput::Segment(Segment { bytes, ..segment })),
            Err(source) => {
                let key = format!("segment {}", segment.index);
                Err(StoreError { op: "read back", key, kind: StoreErrorKind::Refused, source })
            }
        })
    }
}

impl Shared {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a segment for which there is room.
    fn write(&self, bytes: &Bytes) -> io::Result<Span> {
        let length = bytes.len();
        let (file, span) = {
            let mut ring = self.ring();
            let file = match &ring.file {
                Some(file) => Arc::clone(file),
                None => {
                    tracing::warn!("the store is slow or away: segments wait on disk");
                    Arc::clone(ring.file.insert(Arc::new(tempfile::tempfile()?)))
                }
            };
            let span = Span { at: ring.next, length };
            ring.next += (length.div_ceil(BLOCK) * BLOCK) as u64;
            ring.waiting += 1;
            (file, span)
        };
        let written =
            self.pieces(span).into_iter().try_for_each(|(at, from, to)| file.write_all_at(&bytes[from..to], at));
        if let Err(error) = written {
            // Nobody else takes places: this one was the last.
            let mut ring = self.ring();
            ring.next = span.at;
            ring.left();
            return Err(error);
        }
        Ok(span)
    }

    /// Reads a segment, of which nothing is needed there any more.
    fn take(&self, span: Span) -> io::Result<Bytes> {
        let file = self.ring().file.clone().ok_or_else(|| io::Error::other("nothing was written"))?;
        let mut bytes = vec![0; span.length];
        let read =
            self.pieces(span).into_iter().try_for_each(|(at, from, to)| file.read_exact_at(&mut bytes[from..to], at));
        self.ring().left();
        read.map(|()| bytes.into())
    }

    /// Place in the file, and from where to where in the segment: up to the file's longest, and on from its beginning.
    fn pieces(&self, span: Span) -> [(u64, usize, usize); 2] {
        let at = span.at % self.capacity;
        let first = usize::try_from(self.capacity - at).map_or(span.length, |left| left.min(span.length));
        [(at, 0, first), (0, first, span.length)]
    }
}

impl Ring {
    /// A segment has gone. With the last one the disk gets its room back.
    fn left(&mut self) {
        self.waiting -= 1;
        if self.waiting == 0 {
            self.next = 0;
            self.file = None;
        }
    }
}

#[cfg(test)]
mod tests;
