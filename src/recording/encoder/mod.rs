//! Pictures and sound to segments: one FFmpeg child, fed through two pipes and read through a third.
//!
//! [`PictureInput`] and [`SoundInput`] write from threads of the caller's; a thread of ours reads FFmpeg's fragmented
//! MP4, takes it apart (`demux`) and puts it together again on the grid (`grid`), so that a segment holds exactly
//! the pictures and AAC frames of its span, however FFmpeg interleaved them. No temporary files.
//!
//! The child may die or get stuck. Both end in one [`EncoderOutput::Ended`] with the reason; every frame that arrived
//! before is delivered first. Nothing here restarts anything: that is a decision.

mod boxes;
mod demux;
mod grid;
mod input;
mod settings;
#[cfg(test)]
mod tests;

pub use boxes::Malformed;
pub use input::{PictureInput, SharedPicture, SoundInput};

use crate::recording::priority::NICE;
use crate::recording::process::{Child, Command, Guard};
use crate::task::segment::Segment;
use crate::task::spec::{Bitrates, Size};
use crate::task::timeline::FrameRate;
use bytes::Bytes;
use demux::{Demuxer, Piece};
use grid::Grid;
use input::Pipe;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{ChildStdout, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use thiserror::Error;

/// From the end of its output to FFmpeg's own end.
const EXIT: Duration = Duration::from_secs(2);
/// Read at once: a fragment's worth at common bit rates.
const READ_BYTES: usize = 256 << 10;

/// What to encode.
#[derive(Debug, Clone)]
pub struct EncoderConfig {
    /// FFmpeg.
    pub ffmpeg: PathBuf,
    /// Picture size.
    pub size: Size,
    /// The grid.
    pub rate: FrameRate,
    /// Ceiling of the picture's bit rate, and the sound's bit rate.
    pub bitrates: Bitrates,
    /// Recorded sample of the first picture and sound; a multiple of the rate's segment.
    pub start: u64,
}

/// What comes out, in this order: `Init` once, segments in sequence, `Ended` once.
#[derive(Debug)]
pub enum EncoderOutput {
    /// `ftyp` + `moov`, with the edit list that takes AAC priming off.
    Init(Bytes),
    /// A complete segment. The last one is cut at the end of the recording, or of what could be kept.
    Segment(Segment),
    /// Nothing more will come.
    Ended(Result<(), EncoderError>),
}

/// What becomes of the AAC frame that the end lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// It lasts up to the end: nothing follows.
    Cut,
    /// It is left whole: another recorder goes on, and sound has no other steps than whole frames. Whoever joins the two knows
    /// which of the frames fit.
    Whole,
}

/// Why encoding ended otherwise than asked.
#[derive(Debug, Error)]
pub enum EncoderError {
    /// The start position is not on the grid; a fault of the caller's.
    #[error("encoder cannot start at sample {start}: segments start at multiples of {segment}")]
    Start {
        /// Asked for.
        start: u64,
        /// The grid.
        segment: u64,
    },
    /// FFmpeg cannot be started.
    #[error("`{program}` cannot be started")]
    Spawn {
        /// Its path.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// FFmpeg ended before the recording did.
    #[error("ffmpeg ended too early ({status}): {stderr}")]
    Exited {
        /// Exit status or signal.
        status: String,
        /// Its last words.
        stderr: String,
    },
    /// FFmpeg does not take its input or does not end; it has been killed.
    #[error("ffmpeg is stuck: {what} within {limit:?}; last words: {stderr}")]
    Stuck {
        /// What did not happen.
        what: String,
        /// The bound.
        limit: Duration,
        /// Its last words.
        stderr: String,
    },
    /// FFmpeg's output cannot be read.
    #[error("output of ffmpeg cannot be read")]
    Read(#[source] io::Error),
    /// FFmpeg's output is not what was asked for; perhaps a version that is not supported.
    #[error("output of ffmpeg is not understood")]
    Output(#[source] Malformed),
}

/// A running encoder. Dropping it is [`kill`](Self::kill).
pub struct Encoder {
    shared: Arc<Shared>,
    end: Option<Sender<(u64, Tail)>>,
    done: Receiver<()>,
    reader: Option<JoinHandle<()>>,
}

impl Encoder {
    /// Starts FFmpeg and the thread that reads it and calls `out`, which must not block for long: FFmpeg waits.
    pub fn start(
        config: &EncoderConfig,
        guard: &Arc<Guard>,
        out: impl FnMut(EncoderOutput) + Send + 'static,
    ) -> Result<(Self, PictureInput, SoundInput), EncoderError> {
        Self::start_within(Limits::default(), config, guard, out)
    }

    fn start_within(
        limits: Limits,
        config: &EncoderConfig,
        guard: &Arc<Guard>,
        out: impl FnMut(EncoderOutput) + Send + 'static,
    ) -> Result<(Self, PictureInput, SoundInput), EncoderError> {
        let segment = config.rate.segment();
        if !config.start.is_multiple_of(segment) {
            return Err(EncoderError::Start { start: config.start, segment });
        }
        Self::spawn(limits, config, guard, out)
            .map_err(|source| EncoderError::Spawn { program: config.ffmpeg.display().to_string(), source })
    }

    fn spawn(
        limits: Limits,
        config: &EncoderConfig,
        guard: &Arc<Guard>,
        out: impl FnMut(EncoderOutput) + Send + 'static,
    ) -> io::Result<(Self, PictureInput, SoundInput)> {
        let (sound_read, sound_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let mut child = Command::new(&config.ffmpeg, "ffmpeg")
            .args(settings::arguments(config))
            .priority(NICE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .fd(sound_read, settings::SOUND_FD)
            .spawn(guard)?;
        let missing = || io::Error::other("child has no pipes");
        let stdin = child.take_stdin().ok_or_else(missing)?;
        let stdout = child.take_stdout().ok_or_else(missing)?;
        input::widen(&stdout);

        let shared =
            Arc::new(Shared { limits, state: Mutex::new(State { child: Some(child), verdict: None, killed: false }) });
        let pictures = Pipe::new(stdin.into(), "pictures", Arc::clone(&shared))?;
        let pictures = PictureInput::new(pictures, config.size, config.rate, config.start);
        let sound = SoundInput::new(Pipe::new(sound_write, "sound", Arc::clone(&shared))?);

        let (end, end_at_reader) = mpsc::channel();
        let (running, done) = mpsc::channel();
        let reader = Reader {
            shared: Arc::clone(&shared),
            end: end_at_reader,
            out,
            demuxer: Demuxer::default(),
            grid: Grid::new(config.rate, config.start),
        };
        let reader = thread::Builder::new().name("encoder-out".into()).spawn(move || {
            reader.run(stdout);
            drop(running);
        })?;
        Ok((Self { shared, end: Some(end), done, reader: Some(reader) }, pictures, sound))
    }

    /// Ends the recording at recorded sample `end`. Both inputs must have been dropped or be dropped soon. Returns
    /// when the last output has been delivered, which a stuck FFmpeg delays by a bounded time.
    pub fn finish(mut self, end: u64, tail: Tail) {
        if let Some(sender) = self.end.take() {
            // A reader that has ended has said why.
            let _ = sender.send((end, tail));
        }
        let limit = self.shared.limits.finish;
        if self.done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            self.shared.stuck("it did not end after its input", limit);
        }
        self.join();
    }

    /// Ends FFmpeg at once. What is not out yet is lost, and nothing more comes, not even `Ended`.
    pub fn kill(self) {
        drop(self);
    }

    fn join(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.end = None;
        if self.reader.is_some() {
            let child = {
                let mut state = self.shared.state();
                state.killed = true;
                state.child.take()
            };
            drop(child); // kills and reaps
            self.join();
        }
    }
}

/// What the encoder, its inputs and its reader have in common.
struct Shared {
    limits: Limits,
    state: Mutex<State>,
}

/// How long FFmpeg may take.
struct Limits {
    /// A pipe into which nothing can be written has a stuck reader. Sound may rightly wait for the next picture,
    /// which is a segment away at most (2.7 s); the rest is room for a machine that stands still for a while.
    stall: Duration,
    /// From the inputs' end to FFmpeg's: at 720p it takes about 50 ms. FFmpeg may hold some 30 pictures, which take a
    /// few seconds at the largest size on a slow machine.
    finish: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { stall: Duration::from_secs(10), finish: Duration::from_secs(10) }
    }
}

struct State {
    child: Option<Child>,
    verdict: Option<EncoderError>,
    killed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something did not happen in time: kills FFmpeg, which wakes whoever waits for it.
    fn stuck(&self, what: &str, limit: Duration) {
        let mut state = self.state();
        if let Some(child) = state.child.take() {
            let (what, stderr) = (what.to_owned(), child.stderr_tail());
            state.verdict = Some(EncoderError::Stuck { what, limit, stderr });
            child.end(Duration::ZERO);
        }
    }
}

/// The thread behind FFmpeg's output.
struct Reader<F> {
    shared: Arc<Shared>,
    end: Receiver<(u64, Tail)>,
    out: F,
    demuxer: Demuxer,
    grid: Grid,
}

impl<F: FnMut(EncoderOutput)> Reader<F> {
    fn run(mut self, stdout: ChildStdout) {
        let result = self.read(stdout).and_then(|()| self.exit());
        let (verdict, child) = {
            let mut state = self.shared.state();
            (state.verdict.take(), state.child.take())
        };
        drop(child); // still there only if its output is of no use
        let ((end, tail), result) = match verdict.map_or(result, Err) {
            // With nobody left to say where the recording ends, it has been given up.
            Ok(()) => match self.end.recv() {
                Ok(end) => (end, Ok(())),
                Err(_) => return,
            },
            Err(error) => ((self.grid.reach(), Tail::Cut), Err(error)),
        };
        if self.shared.state().killed {
            return;
        }
        let result = match (self.grid.finish(end, tail), result) {
            (Ok(rest), result) => {
                rest.into_iter().for_each(|segment| (self.out)(EncoderOutput::Segment(segment)));
                result
            }
            (Err(malformed), result) => result.and(Err(EncoderError::Output(malformed))),
        };
        (self.out)(EncoderOutput::Ended(result));
    }

    /// Reads to the end of the output.
    fn read(&mut self, mut stdout: ChildStdout) -> Result<(), EncoderError> {
        let mut block = vec![0; READ_BYTES];
        loop {
            match stdout.read(&mut block) {
                Ok(0) => return Ok(()),
                Ok(n) => self.take(&block[..n]).map_err(EncoderError::Output)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(EncoderError::Read(e)),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        self.demuxer.push(bytes);
        while let Some(piece) = self.demuxer.next()? {
            match piece {
                Piece::Init(init) => (self.out)(EncoderOutput::Init(init)),
                Piece::Frames(frames) => frames.into_iter().try_for_each(|frame| self.grid.push(frame))?,
            }
            while let Some(segment) = self.grid.next()? {
                (self.out)(EncoderOutput::Segment(segment));
            }
        }
        Ok(())
    }

    /// Waits for FFmpeg's own end, which follows that of its output.
    fn exit(&self) -> Result<(), EncoderError> {
        let mut state = self.shared.state();
        let Some(mut child) = state.child.take() else { return Ok(()) };
        match child.wait_timeout(EXIT) {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(EncoderError::Exited { status: status.to_string(), stderr: child.stderr_tail() }),
            Ok(None) => {
                let what = "it did not end after its output".to_owned();
                Err(EncoderError::Stuck { what, limit: EXIT, stderr: child.stderr_tail() })
            }
            Err(e) => Err(EncoderError::Read(e)),
        }
    }
}
