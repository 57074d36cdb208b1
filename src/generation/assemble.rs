//! A file from the segments that a recording left behind which could not finish it.

use bytes::Bytes;

use super::outcome::Saved;
use crate::delivery::mp4::{Movie, Mp4Error};
use crate::platform::{ChunkStore, HeadLastObject, StoreError};
use crate::task::fragment::FragmentError;
use crate::task::init::Init;
use crate::task::timeline::seconds;

/// Why no file can be made.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// There is nothing.
    #[error("no recording was left behind there: no init segment under raw/")]
    Nothing,
    /// More than one task; which one is meant is not ours to guess.
    #[error("{0} recordings were left behind there; keep the directory under raw/ of the one that is meant")]
    Several(usize),
    /// The chunks or the file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A chunk that is not what its name says.
    #[error("chunk `{key}` cannot be read")]
    Chunk {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: FragmentError,
    },
    /// Segments that do not fit together.
    #[error("the segments do not make a file")]
    Movie(#[from] Mp4Error),
}

/// Puts the file together from everything up to the first segment that is missing. The chunks stay.
pub async fn assemble(chunks: &dyn ChunkStore, mut target: Box<dyn HeadLastObject>) -> Result<Saved, AssembleError> {
    let (movie, head) = match fill(chunks, &mut *target).await {
        Ok(filled) => filled,
        Err(error) => {
            target.abort().await?;
            return Err(error);
        }
    };
    let size = head.len() as u64 + movie.payload();
    target.finish(head).await?;
    Ok(Saved { duration: seconds(movie.recorded()), size })
}

async fn fill(chunks: &dyn ChunkStore, target: &mut dyn HeadLastObject) -> Result<(Movie, Bytes), AssembleError> {
    let keys = chunks.list("raw/").await?;
    let inits: Vec<&String> = keys.iter().filter(|k| k.ends_with("/init.mp4")).collect();
    let init_key = match inits.as_slice() {
        [] => return Err(AssembleError::Nothing),
        [one] => *one,
        several => return Err(AssembleError::Several(several.len())),
    };
    let prefix = init_key.trim_end_matches("init.mp4");
    let init_bytes = chunks.get(init_key).await?;
    let init = Init::read(&init_bytes).map_err(|source| AssembleError::Chunk { key: init_key.clone(), source })?;
    let mut movie = Movie::new(&init_bytes)?;
    let segments = keys.iter().filter(|k| k.starts_with(prefix) && k.ends_with(".m4s"));
    for (index, key) in (0..).zip(segments) {
        let number = key[prefix.len()..].trim_end_matches(".m4s").parse::<u64>();
        if number != Ok(index) {
            tracing::warn!(missing = index, "segments after a missing one are left out");
            break;
        }
        let bytes = chunks.get(key).await?;
        let segment = init.segment(bytes, index, movie.recorded());
        let segment = segment.map_err(|source| AssembleError::Chunk { key: key.clone(), source })?;
        let payload = movie.push(&segment)?;
        target.append(payload).await?;
    }
    let head = movie.head(movie.recorded(), target.head_alignment())?;
    Ok((movie, head))
}
