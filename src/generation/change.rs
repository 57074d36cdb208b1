//! Changes to a task record that others change at the same time: read, change, write if it is still what was read.

use std::time::Duration;

use crate::platform::{Platform, StoreError};
use crate::task::record::{Refused, TaskRecord};

/// Tries before giving up. Each lost try means that somebody else's write went through; callers and one recorder that
/// writes a few times a second lose a few in a row, not this many.
const TRIES: u32 = 20;
/// Longest wait after the first lost try; it grows with each.
const WAIT: Duration = Duration::from_millis(8);

/// Why a record was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It does not exist.
    #[error("task `{0}` does not exist")]
    Unknown(String),
    /// The record does not allow it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store.
    #[error("the task record cannot be changed")]
    Store(#[from] StoreError),
    /// Others were faster each time.
    #[error("task `{0}` was changed by others {TRIES} times in a row")]
    Contended(String),
}

/// Applies `edit` to the record exactly as it stands and stores the result. An edit that changes nothing is not written.
pub async fn change(
    platform: &Platform,
    id: &str,
    mut edit: impl FnMut(&mut TaskRecord) -> Result<(), Refused> + Send,
) -> Result<TaskRecord, ChangeError> {
    for attempt in 1..=TRIES {
        let found = platform.tasks.load(id, platform.clock.now()).await?;
        let found = found.ok_or_else(|| ChangeError::Unknown(id.into()))?;
        let mut record = found.record.clone();
        edit(&mut record)?;
        if record == found.record || platform.tasks.save(&record, found.version).await?.is_some() {
            return Ok(record);
        }
        // Which of two that met waits longer is chance, so that they do not meet again.
        let bound = WAIT.as_micros() as u64 * u64::from(attempt);
        let chance = uuid::Uuid::new_v4().as_u64_pair().0 % bound;
        tokio::time::sleep(Duration::from_micros(chance)).await;
    }
    Err(ChangeError::Contended(id.into()))
}
