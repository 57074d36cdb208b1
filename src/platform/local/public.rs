//! Objects beside recordings, as files in their directory.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};

use super::pending::Pending;
use super::recordings::Directories;
use super::{DirectoryRecordings, blocking, store_error};
use crate::platform::public::version;
use crate::platform::{Place, PublicObject, PublicStore, RecordingStore, StoreError, key};

impl DirectoryRecordings {
    /// Runs blocking work on the file of a key, below directories that are there.
    async fn on<T: Send + 'static>(
        &self,
        op: &'static str,
        key: &str,
        work: impl Fn(&Path, &Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let refused = |reason| io::Error::new(io::ErrorKind::InvalidInput, reason);
        key::check(key).map_err(|reason| store_error(op, &key.escape_debug().to_string(), refused(reason)))?;
        let (root, path) = (self.root.clone(), self.root.join(key));
        blocking(move || work(&root, &path)).await.map_err(|e| store_error(op, key, e))
    }
}

fn write(root: &Path, path: &Path, bytes: &[u8], replace: bool) -> io::Result<()> {
    let dir = path.parent().unwrap_or(root).to_path_buf();
    let directories = Directories { root: root.to_path_buf().into(), dir };
    directories.having(|| {
        let pending = Pending::create(&directories.dir)?;
        pending.file().write_all(bytes)?;
        pending.publish(path, replace).map_err(|(e, _)| e)
    })
}

fn found(path: &Path) -> io::Result<Option<Bytes>> {
    match std::fs::read(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        other => other.map(|bytes| Some(bytes.into())),
    }
}

/// Replaces a file if it still is what was seen. Gateway and recorders are processes of their own, and all of them lock the
/// root: a file cannot be compared and renamed in one step.
fn exchange(root: &Path, path: &Path, bytes: &[u8], seen: Option<&str>) -> io::Result<bool> {
    let lock = File::open(root)?;
    flock(&lock, FlockOperation::LockExclusive)?;
    if found(path)?.map(|bytes| version(&bytes)).as_deref() != seen {
        return Ok(false);
    }
    write(root, path, bytes, true).map(|()| true)
}

#[async_trait]
impl PublicStore for DirectoryRecordings {
    async fn put(&self, _place: &Place, key: &str, object: PublicObject) -> Result<(), StoreError> {
        self.on("put", key, move |root, path| write(root, path, &object.bytes, true)).await
    }

    async fn replace(
        &self,
        _place: &Place,
        key: &str,
        object: PublicObject,
        seen: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        let (new, seen) = (version(&object.bytes), seen.map(str::to_owned));
        let work = move |root: &Path, path: &Path| exchange(root, path, &object.bytes, seen.as_deref());
        Ok(self.on("replace", key, work).await?.then_some(new))
    }

    async fn read(&self, _place: &Place, key: &str) -> Result<Option<(Bytes, String)>, StoreError> {
        let found = self.on("read", key, |_, path| found(path)).await?;
        Ok(found.map(|bytes| (bytes.clone(), version(&bytes))))
    }

    async fn link(&self, place: &Place, key: &str, _lifetime: Duration) -> Result<String, StoreError> {
        Ok(self.url(place, key, None))
    }
}
