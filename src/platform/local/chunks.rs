//! A directory as chunk store: the local default, and a mounted network file system.
//!
//! Whole or not at all: an object is written to a file without a name, its data are flushed, then it gets its name in one
//! step. The flush makes this hold when the power fails too (a name may otherwise be on disk before what it names); it
//! costs one flush per segment on a thread of its own. The directory is not flushed: after a power failure the last
//! seconds may be absent, never broken. A killed process loses nothing that was put.

use super::pending::Pending;
use super::{blocking, store_error, unsupported};
use crate::platform::{ChunkStore, StoreError, StoreErrorKind, key};
use async_trait::async_trait;
use bytes::Bytes;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How often a put may find its directory gone because a delete emptied it in between. Each round needs another delete
/// at the very moment; a recording deletes from one place only.
const MAX_RACES: usize = 64;
/// Deepest directory that is listed: far below any key that passes the check of its length.
const MAX_DEPTH: usize = 32;

/// Objects as files below a directory.
#[derive(Debug, Clone)]
pub struct DirectoryChunkStore {
    root: Arc<PathBuf>,
}

impl DirectoryChunkStore {
    /// A store below `root`, which is created if it is not there.
    pub fn new(root: &Path) -> Result<Self, StoreError> {
        let made = std::fs::create_dir_all(root).and_then(|()| root.canonicalize());
        match made {
            Ok(root) => Ok(Self { root: Arc::new(root) }),
            Err(e) => Err(store_error("open chunk store", &root.display().to_string(), e)),
        }
    }

    /// Runs blocking work on the file of a key.
    async fn on<T: Send + 'static>(
        &self,
        op: &'static str,
        key: &str,
        work: impl FnOnce(&Path, &Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        key::check(key).map_err(|reason| refused(op, key, reason))?;
        let (root, path) = (self.root.clone(), self.root.join(key));
        blocking(move || work(&root, &path)).await.map_err(|e| store_error(op, key, e))
    }
}

fn refused(op: &'static str, key: &str, reason: String) -> StoreError {
    let source = io::Error::new(io::ErrorKind::InvalidInput, reason);
    StoreError { op, key: key.escape_debug().to_string(), kind: StoreErrorKind::Refused, source }
}

#[async_trait]
impl ChunkStore for DirectoryChunkStore {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.on("put", key, move |_, path| put(path, &bytes)).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.on("get", key, |_, path| std::fs::read(path).map(Bytes::from)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        key::check_prefix(prefix).map_err(|reason| refused("list", prefix, reason))?;
        let (root, own) = (self.root.clone(), prefix.to_string());
        let listed = blocking(move || {
            let dir = own.rsplit_once('/').map_or("", |(dir, _)| dir);
            let mut keys = Vec::new();
            list(&root, dir, &own, MAX_DEPTH, &mut keys)?;
            keys.sort_unstable();
            Ok(keys)
        });
        listed.await.map_err(|e| store_error("list", prefix, e))
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.on("delete", key, delete).await
    }
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(path);
    let mut races = 0;
    loop {
        let done = std::fs::create_dir_all(dir).and_then(|()| {
            let pending = Pending::create(dir)?;
            pending.file().write_all(bytes)?;
            match pending.file().sync_data() {
                Err(e) if !unsupported(&e) => return Err(e),
                _ => {}
            }
            pending.publish(path, true).map_err(|(e, _)| e)
        });
        match done {
            // `create_dir_all` says the latter of a directory that goes while it looks.
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) && races < MAX_RACES =>
            {
                races += 1;
            }
            other => return other,
        }
    }
}

fn delete(root: &Path, path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
        other => other?,
    }
    // A directory that holds nothing is no part of the store; one that is not empty stays.
    let parents = path.ancestors().skip(1).take_while(|dir| *dir != root);
    for dir in parents {
        if std::fs::remove_dir(dir).is_err() {
            break;
        }
    }
    Ok(())
}

fn list(root: &Path, dir: &str, prefix: &str, depth: usize, keys: &mut Vec<String>) -> io::Result<()> {
    let entries = match std::fs::read_dir(root.join(dir)) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let name = if dir.is_empty() { name } else { format!("{dir}/{name}") };
        if key::check(&name).is_err() {
            continue; // not ours: a hidden or foreign file
        }
        let kind = entry.file_type()?;
        let is_ahead = name.starts_with(prefix) || prefix.starts_with(&format!("{name}/"));
        if kind.is_dir() && is_ahead && depth > 0 {
            list(root, &name, prefix, depth - 1, keys)?;
        } else if kind.is_file() && name.starts_with(prefix) {
            keys.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::conformance;

    #[tokio::test]
    async fn a_directory_keeps_what_the_port_promises() {
        for root in [None, Some("/dev/shm")] {
            let dir = match root {
                None => tempfile::tempdir(),
                Some(root) => tempfile::tempdir_in(root), // tmpfs
            };
            let dir = dir.unwrap();
            conformance::chunk_store(&DirectoryChunkStore::new(&dir.path().join("a/b")).unwrap()).await;
            let left = std::fs::read_dir(dir.path().join("a/b")).unwrap().count();
            assert_eq!(left, 0, "empty directories are removed");
        }
    }

    #[tokio::test]
    async fn errors_name_the_object_and_say_why() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryChunkStore::new(dir.path()).unwrap();
        store.put("a", Bytes::from_static(b"x")).await.unwrap();
        let below_a_file = store.put("a/b", Bytes::new()).await.unwrap_err();
        assert_eq!(below_a_file.kind, StoreErrorKind::Refused, "{below_a_file:?}");
        let bad = store.get("a/../../etc/passwd").await.unwrap_err();
        assert!(bad.to_string().contains("get `a/../../etc/passwd`"), "{bad}");
        assert!(bad.source.to_string().contains("dot"), "{}", bad.source);
        let no_dir = DirectoryChunkStore::new(&dir.path().join("a/c")).unwrap_err();
        assert_eq!(no_dir.kind, StoreErrorKind::Refused, "{no_dir:?}");
    }

    #[tokio::test]
    async fn foreign_files_and_links_out_of_the_store_are_not_objects() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        std::fs::write(dir.path().join(".hidden"), "x").unwrap();
        let store = DirectoryChunkStore::new(dir.path()).unwrap();
        store.put("real", Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(store.list("").await.unwrap(), ["real"]);
    }
}
