//! Encoder output into the chunk store and, at the same time, into the growing file.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::admission::Admission;
use super::backlog::Outlet;
use super::growth::{Ground, Growth, MOST, ResumeError};
use crate::delivery::ledger::LedgerError;
use crate::delivery::mp4::Mp4Error;
use crate::delivery::recovery::RecoveryError;
use crate::platform::{ChunkStore, Clock, HeadLastObject, StoreError, StoreErrorKind, TaskStore};
use crate::recording::encoder::{EncoderError, EncoderOutput};
use crate::task::segment::{ChunkName, Segment, chunk_key};

/// Why media cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The store or the file.
    #[error("what was recorded cannot be stored")]
    Store(#[from] StoreError),
    /// A segment that does not fit the file.
    #[error("what was recorded cannot be assembled")]
    Assemble(#[from] Mp4Error),
    /// What is kept beside it.
    #[error("what was recorded cannot be written down")]
    Ledger(#[from] LedgerError),
}

impl MediaError {
    /// The same of a chunk that was stored.
    pub fn at(self, key: &str) -> ResumeError {
        match self {
            Self::Store(error) => error.into(),
            Self::Assemble(source) => RecoveryError::Unfit { key: key.into(), source }.into(),
            Self::Ledger(error) => error.into(),
        }
    }
}

/// The file.
pub enum Target {
    /// A file of this recorder alone.
    Own(Box<dyn HeadLastObject>),
    /// That of a task, which other generations began or go on with.
    Task(Shared),
    /// None grows; chunks are what is kept.
    None,
}

/// See above.
pub struct Shared {
    /// Where it is.
    pub ground: Ground,
    /// Whose segments are in it.
    pub tasks: Arc<dyn TaskStore>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// It begins with this generation.
    pub begun: Option<Box<dyn HeadLastObject>>,
}

/// Where media goes.
pub struct Media {
    /// Segments, one by one.
    pub chunks: Arc<dyn ChunkStore>,
    /// The file.
    pub target: Target,
    /// Which of them, and as which of the file.
    pub admission: Arc<Admission>,
    /// Task and generation, for the names of chunks.
    pub task: String,
    /// See `task`.
    pub generation: u32,
    /// Length of a segment, samples.
    pub segment: u64,
}

/// What the writer reports while it runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct MediaStatus {
    /// Bytes of media kept.
    pub bytes: u64,
    /// Nothing more can be kept.
    pub failed: bool,
    /// The encoder has ended.
    pub ended: bool,
}

/// What is left when the encoder has said its last.
pub struct MediaEnd {
    chunks: Arc<dyn ChunkStore>,
    admission: Arc<Admission>,
    task: String,
    generation: u32,
    length: u64,
    file: File,
    init: Option<Bytes>,
    /// It is stored, once a segment is kept.
    init_stored: bool,
    /// End of the last segment that was kept, on the recorder's own scale.
    kept: Option<u64>,
    keys: Vec<String>,
    /// How the task's file is taken up again.
    shared: Option<Shared>,
    /// How encoding ended.
    pub encoder: Result<(), EncoderError>,
    /// Why not everything was kept.
    pub error: Option<MediaError>,
}

/// The file as the writer has it.
enum File {
    /// It grows.
    Growing(Box<Growth>),
    /// A task's, not taken up yet: there was nothing to append so far, or it could not be reached.
    Waiting(Box<Shared>),
    /// If one is wanted, it is made of the chunks at the end.
    Lost,
}

/// What became of the file.
pub enum Made {
    /// It is there.
    File {
        /// Its key.
        key: String,
        /// Bytes.
        size: u64,
        /// Recorded samples in it, those of earlier generations included.
        recorded: u64,
    },
    /// It could not be reached; all of it is in the chunk store.
    Elsewhere,
    /// There is nothing to make one of.
    Nothing,
}

/// Stores everything from `outputs` until they end.
pub async fn write(media: Media, mut outputs: Outlet, status: watch::Sender<MediaStatus>) -> MediaEnd {
    let mut end = MediaEnd::new(media);
    while let Some(output) = outputs.recv().await {
        let result = match output {
            Ok(EncoderOutput::Ended(result)) => {
                end.encoder = result;
                status.send_modify(|s| s.ended = true);
                continue;
            }
            // After a failure the rest is taken and dropped, so that the encoder can end.
            _ if end.error.is_some() => continue,
            Err(error) => Err(error.into()),
            Ok(EncoderOutput::Init(init)) => end.init(init),
            Ok(EncoderOutput::Segment(segment)) => end.segment(segment).await,
        };
        match result {
            Ok(bytes) => status.send_modify(|s| s.bytes += bytes),
            Err(error) => {
                end.error = Some(error);
                status.send_modify(|s| s.failed = true);
            }
        }
    }
    end
}

impl MediaEnd {
    fn new(media: Media) -> Self {
        let Media { chunks, target, admission, task, generation, segment } = media;
        let file = match target {
            Target::Own(object) => File::Growing(Box::new(Growth::new(object))),
            Target::Task(shared) => File::Waiting(Box::new(shared)),
            Target::None => File::Lost,
        };
        Self {
            chunks,
            admission,
            task,
            generation,
            length: segment,
            file,
            init: None,
            init_stored: false,
            kept: None,
            keys: Vec::new(),
            shared: None,
            encoder: Ok(()),
            error: None,
        }
    }

    async fn put(&mut self, name: ChunkName, bytes: Bytes) -> Result<(), StoreError> {
        let key = chunk_key(&self.task, self.generation, name);
        self.chunks.put(&key, bytes).await?;
        self.keys.push(key);
        Ok(())
    }

    fn init(&mut self, init: Bytes) -> Result<u64, MediaError> {
        if let File::Growing(growth) = &mut self.file {
            growth.init(&init)?;
        }
        (self.init, self.init_stored) = (Some(init), false);
        Ok(0)
    }

    async fn segment(&mut self, segment: Segment) -> Result<u64, MediaError> {
        let Some(index) = self.admission.admit(segment.index).await else { return Ok(0) };
        if let Some(init) = self.init.clone().filter(|_| !self.init_stored) {
            self.put(ChunkName::Init, init).await?;
            self.init_stored = true;
        }
        self.put(ChunkName::Segment(index), segment.bytes.clone()).await?;
        let start = self.kept.unwrap_or(segment.index * self.length);
        let grown = self.grow(&segment, index).await;
        self.kept = Some(start + segment.samples);
        grown
    }

    /// The segment is kept, whatever happens; into the file with it. An error: it can be neither there nor elsewhere.
    async fn grow(&mut self, segment: &Segment, index: u64) -> Result<u64, MediaError> {
        self.take_up(index).await;
        let File::Growing(growth) = &mut self.file else { return Ok(segment.bytes.len() as u64) };
        let error = match growth.segment(segment, index).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        let shared = self.shared.as_ref().map(Shared::again);
        match (&error, shared) {
            // What did not arrive is read back from the chunks with the next segment.
            (MediaError::Store(store), Some(shared)) if store.kind.is_transient() => {
                tracing::warn!(error = %super::chain(&error), "file not reached; it will be taken up again");
                self.give_up(File::Waiting(Box::new(shared))).await;
                Ok(segment.bytes.len() as u64)
            }
            (MediaError::Store(store), _) if store.kind.is_transient() || store.kind == StoreErrorKind::NotFound => {
                tracing::warn!(error = %super::chain(&error), "file lost; it will be made of its chunks");
                self.give_up(File::Lost).await;
                Ok(segment.bytes.len() as u64)
            }
            _ => Err(error),
        }
    }

    async fn give_up(&mut self, instead: File) {
        if let File::Growing(growth) = std::mem::replace(&mut self.file, instead) {
            self.keys.extend(growth.pages.iter().cloned());
            match self.shared {
                Some(_) => growth.leave().await,
                None => drop(growth.abort().await),
            }
        }
    }

    /// Goes on with the task's file, or begins it, if that has not been done.
    async fn take_up(&mut self, index: u64) {
        let File::Waiting(shared) = &mut self.file else { return };
        let begun = shared.begun.take();
        let found = shared.tasks.load(&self.task, shared.clock.now()).await;
        let grown = match found {
            Ok(Some(found)) if found.record.seams.generation_of(index) == Some(self.generation) => {
                let (seams, ground) = (found.record.seams, &shared.ground);
                match begun.filter(|_| index == 0) {
                    Some(object) => Ok(Growth::begin(object, ground, seams, self.generation)),
                    None => Growth::resume(ground, &seams, self.generation, index, MOST).await,
                }
            }
            // The task is somebody else's.
            Ok(_) => Err(ResumeError::Unknown),
            Err(error) => Err(error.into()),
        };
        let init = self.init.clone().unwrap_or_default();
        let grown = grown.and_then(|mut growth| match growth.init(&init) {
            Ok(()) => Ok(growth),
            Err(error) => Err(error.at("init")),
        });
        match grown {
            Ok(growth) => {
                self.shared = Some(shared.again());
                self.file = File::Growing(Box::new(growth));
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(error = %super::chain(&error), "file not taken up; trying again with the next segment");
            }
            Err(error) => {
                tracing::warn!(error = %super::chain(&error), "file not taken up; it will be made of its chunks");
                self.file = File::Lost;
            }
        }
    }

    /// Where what was kept ends, on the recorder's own scale.
    pub fn kept(&self) -> u64 {
        self.kept.unwrap_or(0)
    }

    /// Keys of what was stored beside the file. Once that is known to whoever needs it, they can go.
    pub fn keys(&self) -> Vec<String> {
        let pages = match &self.file {
            File::Growing(growth) => growth.pages.as_slice(),
            File::Waiting(_) | File::Lost => &[],
        };
        self.keys.iter().chain(pages).cloned().collect()
    }

    /// Puts the file together under `name` if it has none. Without a name it is left to others, without media there is none.
    /// `end`: of the recording, on the recorder's own scale.
    pub async fn finish(self, end: u64, name: Option<&str>) -> Result<Made, MediaError> {
        let (kept, shared) = (self.kept(), self.shared.is_some());
        let growth = match self.file {
            File::Growing(growth) => growth,
            File::Waiting(shared) if kept == 0 && shared.begun.is_some() => {
                // Nobody sees it, and nothing was recorded.
                if let Some(object) = shared.begun
                    && let Err(error) = object.abort().await
                {
                    tracing::warn!(error = %super::chain(&error), "file that was begun not removed");
                }
                return Ok(Made::Nothing);
            }
            // Every segment is in the chunk store.
            File::Waiting(_) | File::Lost => {
                return Ok(if name.is_some() { Made::Elsewhere } else { Made::Nothing });
            }
        };
        let Some(name) = name else {
            match shared {
                true => growth.leave().await,
                false => growth.abort().await?,
            }
            return Ok(Made::Nothing);
        };
        let recorded = growth.recorded().saturating_sub(kept - end.min(kept));
        match growth.finish(recorded, name).await {
            Ok(Some((key, size))) => Ok(Made::File { key, size, recorded }),
            Ok(None) => Ok(Made::Nothing),
            Err(MediaError::Store(error)) if error.kind.is_transient() || shared => {
                tracing::warn!(error = %super::chain(&error), "file not finished; it will be made of its chunks");
                Ok(Made::Elsewhere)
            }
            Err(error) => Err(error),
        }
    }
}

impl Shared {
    fn again(&self) -> Self {
        Self {
            ground: self.ground.clone(),
            tasks: Arc::clone(&self.tasks),
            clock: Arc::clone(&self.clock),
            begun: None,
        }
    }
}
