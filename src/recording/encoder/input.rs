//! The two pipes into FFmpeg.
//!
//! Writing blocks, because that is how FFmpeg says that it is behind; it never blocks for ever. Both ends of the wait
//! are the caller's: it calls from a thread of its own and keeps a bounded queue in front of it.
//!
//! A picture that does not fit into the pipe is lent to it, not copied: FFmpeg reads from the picture's own pages
//! (vmsplice(2)): on a class at 720p the feeding thread takes 0.005 core instead of 0.012 to 0.017. It must stay as it is
//! until it has been read, so it is kept until the next one is in the pipe as a whole.

use super::Shared;
use crate::task::spec::Size;
use crate::task::timeline::{FrameRate, VIDEO_TIMESCALE, ticks};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{IoSliceRaw, SpliceFlags};
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Size asked of each pipe: the most that needs no privilege. 64 KiB would wake both ends 22 times per 720p picture.
const PIPE_BYTES: usize = 1 << 20;
/// Sound goes to FFmpeg in blocks of this many stereo frames: 50 ms. FFmpeg reads no picture that is 100 ms ahead of
/// the sound, so larger blocks would make pictures wait in their queue.
const SOUND_BATCH: usize = 2400;

/// How often a pipe is looked at until its last picture has been read.
const LAST_LOOK: Duration = Duration::from_millis(2);

/// An I420 picture that many may hold.
pub type SharedPicture = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The writing end of a pipe.
pub(super) struct Pipe {
    fd: OwnedFd,
    what: &'static str,
    shared: Arc<Shared>,
}

impl Pipe {
    pub(super) fn new(fd: OwnedFd, what: &'static str, shared: Arc<Shared>) -> io::Result<Self> {
        widen(&fd);
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd, what, shared })
    }

    fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|p| IoSlice::new(p)).collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            match rustix::io::writev(&self.fd, left) {
                Ok(n) => IoSlice::advance_slices(&mut left, n),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait()?,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Has the pipe refer to `bytes` instead of holding a copy. `Unsupported` if that cannot be done, with nothing written.
    ///
    /// # Safety
    /// `bytes` must neither change nor go before they have been read.
    unsafe fn lend(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let part = [IoSliceRaw::from_slice(&bytes[done..])];
            // SAFETY: the descriptor is a pipe's writing end, whose reader cannot write to the pages; they are not given away.
            match unsafe { rustix::pipe::vmsplice(&self.fd, &part, SpliceFlags::NONBLOCK) } {
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait()?,
                Err(Errno::PERM | Errno::NOSYS | Errno::INVAL) if done == 0 => {
                    return Err(io::ErrorKind::Unsupported.into());
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Bytes that it holds at most; unknown if the system does not say.
    fn capacity(&self) -> Option<usize> {
        rustix::pipe::fcntl_getpipe_size(&self.fd).ok()
    }

    /// Waits, within the bound of a stall, until everything has been read or nobody reads any more.
    fn drain(&self) {
        let until = Instant::now() + self.shared.limits.stall;
        while rustix::io::ioctl_fionread(&self.fd).is_ok_and(|left| left > 0) && Instant::now() < until {
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            let mut fd = [PollFd::new(&self.fd, PollFlags::empty())];
            if poll(&mut fd, Some(&now)).is_err() || fd[0].revents().contains(PollFlags::ERR) {
                return;
            }
            std::thread::sleep(LAST_LOOK);
        }
    }

    fn wait(&self) -> io::Result<()> {
        let stall = self.shared.limits.stall;
        let limit = Timespec { tv_sec: stall.as_secs() as i64, tv_nsec: stall.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.fd, PollFlags::OUT)], Some(&limit)) {
            Ok(0) => {
                self.shared.stuck(&format!("it took no {}", self.what), stall);
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("ffmpeg takes no {} any more", self.what)))
            }
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// Best effort: a refused size costs wake-ups only.
pub(super) fn widen(fd: &impl std::os::fd::AsFd) {
    let _ = rustix::pipe::fcntl_setpipe_size(fd, PIPE_BYTES);
}

/// Pictures into FFmpeg. Dropping it ends the stream.
pub struct PictureInput {
    pipe: Pipe,
    size: Size,
    rate: FrameRate,
    start: u64,
    last: Option<u64>,
    /// Pictures are lent to the pipe: one is larger than all that the pipe holds, so that what came before one has been read
    /// when it is in the pipe.
    lends: bool,
    /// The pipe may still refer to it.
    lent: Option<SharedPicture>,
}

impl PictureInput {
    pub(super) fn new(pipe: Pipe, size: Size, rate: FrameRate, start: u64) -> Self {
        let lends = pipe.capacity().is_some_and(|capacity| picture_bytes(size) >= capacity);
        Self { pipe, size, rate, start, last: None, lends, lent: None }
    }

    /// Writes the picture that is shown from recorded sample `slot` on, until the next one. Blocks while FFmpeg is
    /// busy. Slots rise, the first is the encoder's start, and no segment start is left out (`InvalidInput`
    /// otherwise, nothing written). `BrokenPipe` and `TimedOut` mean that the encoder is gone; its output says why.
    pub fn write(&mut self, slot: u64, picture: &SharedPicture) -> io::Result<()> {
        let i420 = (**picture).as_ref();
        self.check(slot, i420.len())
            .map_err(|reason| io::Error::new(io::ErrorKind::InvalidInput, format!("picture at {slot}: {reason}")))?;
        let mut head = [0; 12];
        head[..4].copy_from_slice(&(i420.len() as u32).to_le_bytes());
        head[4..].copy_from_slice(&ticks(slot - self.start).to_le_bytes());
        let stream_head = if self.last.is_none() { &ivf_header(self.size)[..] } else { &[] };
        if self.lends {
            self.pipe.write(&[stream_head, &head])?;
            // SAFETY: `before` is kept for as long as the pipe may refer to it, then `picture` is; nobody writes to a picture
            // that is shared.
            let before = self.lent.replace(Arc::clone(picture));
            match unsafe { self.pipe.lend(i420) } {
                Err(e) if e.kind() == io::ErrorKind::Unsupported => {
                    self.lends = false;
                    self.pipe.write(&[i420])?;
                }
                lent => lent?,
            }
            drop(before);
        } else {
            self.pipe.write(&[stream_head, &head, i420])?;
        }
        self.last = Some(slot);
        Ok(())
    }

    /// A segment's start before `slot` that still has no picture, because the display had none to spare for it.
    pub fn owed(&self, slot: u64) -> Option<u64> {
        let segment = self.rate.segment();
        let start = (self.last? / segment + 1) * segment;
        (start < slot).then_some(start)
    }

    fn check(&self, slot: u64, bytes: usize) -> Result<(), String> {
        let expected = picture_bytes(self.size);
        if bytes != expected {
            return Err(format!("{bytes} bytes instead of {expected}"));
        }
        if !slot.is_multiple_of(self.rate.slot()) {
            return Err("not on a slot".into());
        }
        let segment = self.rate.segment();
        let expected = match self.last {
            None => self.start..=self.start,
            Some(last) => last + 1..=(last / segment + 1) * segment,
        };
        if !expected.contains(&slot) {
            return Err(format!("outside {expected:?}, which reaches to the next segment's start"));
        }
        Ok(())
    }
}

impl Drop for PictureInput {
    fn drop(&mut self) {
        if self.lent.is_some() {
            self.pipe.drain();
        }
    }
}

/// Length of an I420 picture.
fn picture_bytes(size: Size) -> usize {
    (size.width * size.height * 3 / 2) as usize
}

fn ivf_header(size: Size) -> [u8; 32] {
    let mut head = [0; 32];
    head[..4].copy_from_slice(b"DKIF");
    head[6..8].copy_from_slice(&32u16.to_le_bytes());
    head[8..12].copy_from_slice(b"I420");
    head[12..14].copy_from_slice(&(size.width as u16).to_le_bytes());
    head[14..16].copy_from_slice(&(size.height as u16).to_le_bytes());
    head[16..20].copy_from_slice(&VIDEO_TIMESCALE.to_le_bytes());
    head[20..24].copy_from_slice(&1u32.to_le_bytes());
    head
}

/// Sound into FFmpeg. Dropping it ends the stream.
pub struct SoundInput {
    pipe: Pipe,
    batch: Vec<u8>,
}

impl SoundInput {
    pub(super) fn new(pipe: Pipe) -> Self {
        Self { pipe, batch: Vec::with_capacity(2 * 4 * SOUND_BATCH) }
    }

    /// Writes the recorded samples that follow those written before, left and right in turn; the first belong to the
    /// encoder's start. Blocks while FFmpeg is busy or waits for the next picture. Errors as for pictures.
    pub fn write(&mut self, samples: &[f32]) -> io::Result<()> {
        for block in samples.chunks(2 * SOUND_BATCH) {
            // 16 bits: half the pipe, and no less than what AAC keeps.
            self.batch.extend(block.iter().flat_map(|s| ((s * 32768.0).round() as i16).to_le_bytes()));
            if self.batch.len() >= 4 * SOUND_BATCH {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.pipe.write(&[&self.batch]);
        self.batch.clear();
        result
    }
}

impl Drop for SoundInput {
    fn drop(&mut self) {
        // An encoder that is gone says so in its output.
        let _ = self.flush();
    }
}
