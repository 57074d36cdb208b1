//! What there is to see of a task while it runs: noted down by whoever puts it there, and where callers find it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::tasks::place;
use crate::platform::{Platform, StoreError};
use crate::task::output::Preview;
use crate::task::record::TaskRecord;

/// How long addresses are good: long enough to be passed on and opened, and asked for anew with each Describe.
pub(super) const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// What a generation has put there so far.
#[derive(Debug, Clone, Default)]
pub struct Showing(Arc<Mutex<Preview>>);

impl Showing {
    fn preview(&self) -> MutexGuard<'_, Preview> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a playlist.
    pub fn playlist(&self, key: &str) {
        self.preview().playlist.get_or_insert_with(|| key.into());
    }

    /// There is a picture.
    pub fn picture(&self, key: &str) {
        self.preview().picture.get_or_insert_with(|| key.into());
    }

    /// Has a record say so.
    pub fn tell(&self, preview: &mut Preview) {
        let now = self.preview().clone();
        preview.playlist = now.playlist.or(preview.playlist.take());
        preview.picture = now.picture.or(preview.picture.take());
    }
}

/// Where whoever has the addresses finds what there is to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// The growing playlist.
    pub playlist: Option<String>,
    /// The newest picture.
    pub picture: Option<String>,
    /// Until when these addresses are good, unix milliseconds.
    pub expires: u64,
}

/// What there is to see of a task that runs; `None` if there is nothing.
pub async fn preview(platform: &Platform, record: &TaskRecord) -> Result<Option<Links>, StoreError> {
    if !record.running() || record.preview.is_empty() {
        return Ok(None);
    }
    let place = place(record);
    let link = async |key: &Option<String>| match key {
        Some(key) => platform.public.link(&place, key, LIFETIME).await.map(Some),
        None => Ok(None),
    };
    let expires = platform.clock.now() + LIFETIME.as_millis() as u64;
    let (playlist, picture) = (link(&record.preview.playlist).await?, link(&record.preview.picture).await?);
    Ok(Some(Links { playlist, picture, expires }))
}
