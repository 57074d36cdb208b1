//! Encoder output into the chunk store and, at the same time, into the growing file.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::admission::Admission;
use crate::delivery::mp4::{Movie, Mp4Error};
use crate::platform::{ChunkStore, HeadLastObject, StoreError};
use crate::recording::encoder::{EncoderError, EncoderOutput};
use crate::task::segment::{ChunkName, Segment, chunk_key};

/// Segments that wait for the store: half a minute. Beyond it the encoder waits, and the display skips slots.
pub const QUEUE: usize = 16;

/// Why media cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The store or the file.
    #[error("what was recorded cannot be stored")]
    Store(#[from] StoreError),
    /// A segment that does not fit the file.
    #[error("what was recorded cannot be assembled")]
    Assemble(#[from] Mp4Error),
}

/// Where media goes.
pub struct Media {
    /// Segments, one by one.
    pub chunks: Arc<dyn ChunkStore>,
    /// The file; without one, segments are all that is kept.
    pub target: Option<Box<dyn HeadLastObject>>,
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
    media: Media,
    /// With a file only.
    movie: Option<Movie>,
    /// Waits for a segment that is kept.
    init: Option<Bytes>,
    /// End of the last segment that was kept, on the recorder's own scale.
    kept: Option<u64>,
    keys: Vec<String>,
    /// How encoding ended.
    pub encoder: Result<(), EncoderError>,
    /// Why not everything was kept.
    pub error: Option<MediaError>,
}

/// What became of the file.
pub enum Made {
    /// It is there.
    File {
        /// Its key.
        key: String,
        /// Bytes.
        size: u64,
    },
    /// It could not be reached; all of it is in the chunk store.
    Elsewhere,
    /// There is nothing to make one of.
    Nothing,
}

/// Stores everything from `outputs` until they end.
pub async fn write(
    media: Media,
    mut outputs: mpsc::Receiver<EncoderOutput>,
    status: watch::Sender<MediaStatus>,
) -> MediaEnd {
    let (keys, encoder) = (Vec::new(), Ok(()));
    let mut end = MediaEnd { media, movie: None, init: None, kept: None, keys, encoder, error: None };
    while let Some(output) = outputs.recv().await {
        let result = match output {
            EncoderOutput::Ended(result) => {
                end.encoder = result;
                status.send_modify(|s| s.ended = true);
                continue;
            }
            // After a failure the rest is taken and dropped, so that the encoder can end.
            _ if end.error.is_some() => continue,
            EncoderOutput::Init(init) => end.init(init),
            EncoderOutput::Segment(segment) => end.segment(segment).await,
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
    async fn put(&mut self, name: ChunkName, bytes: Bytes) -> Result<(), StoreError> {
        let key = chunk_key(&self.media.task, self.media.generation, name);
        self.media.chunks.put(&key, bytes).await?;
        self.keys.push(key);
        Ok(())
    }

    fn init(&mut self, init: Bytes) -> Result<u64, MediaError> {
        if self.media.target.is_some() {
            self.movie = Some(Movie::new(&init)?);
        }
        self.init = Some(init);
        Ok(0)
    }

    async fn segment(&mut self, segment: Segment) -> Result<u64, MediaError> {
        let Some(index) = self.media.admission.admit(segment.index).await else { return Ok(0) };
        if let Some(init) = &self.init {
            self.put(ChunkName::Init, init.clone()).await?;
            self.init = None;
        }
        self.put(ChunkName::Segment(index), segment.bytes.clone()).await?;
        let start = self.kept.unwrap_or(segment.index * self.media.segment);
        let Some(movie) = &mut self.movie else {
            self.kept = Some(start + segment.samples);
            return Ok(segment.bytes.len() as u64);
        };
        // The movie takes the segment only once its payload is in the file: after a full disk the head must fit the file.
        let step = movie.prepare(&segment)?;
        let payload = step.payload();
        let bytes = payload.len() as u64;
        if let Some(target) = &mut self.media.target {
            match target.append(payload).await {
                Err(error) if error.kind.is_transient() => {
                    tracing::warn!(error = %super::chain(&error), "file not reached; it will be made of its chunks");
                    if let Some(target) = self.media.target.take() {
                        let _ = target.abort().await;
                    }
                }
                appended => appended?,
            }
        }
        step.commit();
        self.kept = Some(start + segment.samples);
        Ok(bytes)
    }

    /// Where what was kept ends, on the recorder's own scale.
    pub fn kept(&self) -> u64 {
        self.kept.unwrap_or(0)
    }

    /// Keys of the chunks that were stored. Once the file is known to whoever needs it, they can go.
    pub fn keys(&self) -> Vec<String> {
        self.keys.clone()
    }

    /// Puts the file together under `name` if it has none. Without media or without a name nothing is left behind.
    pub async fn finish(self, end: u64, name: Option<&str>) -> Result<Made, MediaError> {
        let Some(target) = self.media.target else {
            // Every segment is in the chunk store.
            return Ok(if name.is_some() { Made::Elsewhere } else { Made::Nothing });
        };
        let recorded = end.min(self.movie.as_ref().map_or(0, Movie::recorded));
        match (self.movie, name) {
            (Some(movie), Some(name)) if recorded > 0 => {
                let head = movie.head(recorded, target.head_alignment())?;
                let size = head.len() as u64 + movie.payload();
                match target.finish(head, name).await {
                    Ok(key) => Ok(Made::File { key, size }),
                    Err(error) if error.kind.is_transient() => {
                        tracing::warn!(error = %super::chain(&error), "file not finished; it will be made of its chunks");
                        Ok(Made::Elsewhere)
                    }
                    Err(error) => Err(error.into()),
                }
            }
            _ => {
                // Nobody sees it, and what was recorded is in the chunk store.
                if let Err(error) = target.abort().await {
                    tracing::warn!(error = %super::chain(&error), "file that was begun not removed");
                }
                Ok(Made::Nothing)
            }
        }
    }
}
