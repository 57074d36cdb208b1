//! A file from the segments that a recording left behind which could not finish it.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::outcome::Saved;
use crate::delivery::recovery::{Recovery, RecoveryError, order};
use crate::platform::{ChunkStore, HeadLastObject, StoreError};
use crate::task::seam::Seams;
use crate::task::timeline::seconds;

/// Why no file can be made.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// More than one task; which one is meant is not ours to guess.
    #[error("{0} recordings were left behind there; keep only the directory under raw/ of the one that is meant")]
    Several(usize),
    /// The chunks or the file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is there makes no file.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// It was to leave before all of it was there.
    #[error("there was no time left to make the file")]
    OutOfTime,
}

/// Puts the file together from everything up to the first segment that is missing or damaged. The chunks stay.
///
/// Chunks are those below `prefix` that `seams` has in the file; where nobody knows the seams, all of them. The file gets
/// `name` if it has none. `leave`: when to give it up, if it is not there by then.
pub async fn assemble(
    chunks: &dyn ChunkStore,
    prefix: &str,
    seams: Option<&Seams>,
    mut target: Box<dyn HeadLastObject>,
    name: &str,
    leave: Option<Instant>,
) -> Result<Saved, AssembleError> {
    let mut recovery = Recovery::new();
    let size = match fill(chunks, prefix, seams, &mut *target, &mut recovery, leave).await {
        Ok(payload) => recovery.head(target.head_alignment()).map(|head| (payload, head)).map_err(AssembleError::from),
        Err(error) => Err(error),
    };
    match size {
        Ok((payload, head)) => {
            let size = payload + head.len() as u64;
            let key = target.finish(head, name).await?;
            Ok(Saved { key, duration: seconds(recovery.recorded()), size })
        }
        Err(error) => {
            // What ended the upload may well forbid to tidy up, too; it is the reason.
            if let Err(left) = target.abort().await {
                tracing::warn!(error = %super::chain(&left), "an unfinished upload is left behind");
            }
            Err(error)
        }
    }
}

/// Appends the payload of every usable segment. Returns its length.
async fn fill(
    chunks: &dyn ChunkStore,
    prefix: &str,
    seams: Option<&Seams>,
    target: &mut dyn HeadLastObject,
    recovery: &mut Recovery,
    leave: Option<Instant>,
) -> Result<u64, AssembleError> {
    let keys = chunks.list(prefix).await?;
    let tasks: BTreeSet<_> = keys.iter().filter_map(|k| k.split('/').nth(1)).collect();
    if tasks.len() > 1 {
        return Err(AssembleError::Several(tasks.len()));
    }
    let keys = match seams {
        Some(seams) => seams.select(keys),
        None => keys,
    };
    let mut bytes = 0;
    for chunk in order(keys) {
        if leave.is_some_and(|leave| leave <= Instant::now()) {
            return Err(AssembleError::OutOfTime);
        }
        match recovery.take(&chunk, chunks.get(&chunk.key).await?) {
            Ok(Some(payload)) => {
                bytes += payload.len() as u64;
                target.append(payload).await?;
            }
            Ok(None) => {}
            // What came before it is whole, and a file.
            Err(error) if recovery.recorded() > 0 => {
                tracing::warn!(error = %super::chain(&error), "the rest is left out");
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}
