//! A directory as store of finished recordings: keys are paths below it.

use super::{GrowingFile, blocking, store_error};
use crate::platform::{HeadLastObject, Place, RecordingStore, StoreError, key, on_domain};
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use url::Url;

/// How often a directory that was made may be gone before it is used, because the end of another recording found it
/// empty. Each round needs another end at the very moment.
pub(super) const MAX_RACES: usize = 64;

/// Recordings as files below a directory, fetched under `BASE/recordings/`.
#[derive(Debug, Clone)]
pub struct DirectoryRecordings {
    pub(super) root: Arc<PathBuf>,
    base: Url,
}

impl DirectoryRecordings {
    /// A store below `root`, which is created if it is not there. `base` is where its files are served, like
    /// `http://127.0.0.1:8080`.
    pub fn new(root: &Path, base: Url) -> Result<Self, StoreError> {
        let failed = |e| store_error("open recordings", &root.display().to_string(), e);
        if base.cannot_be_a_base() {
            let reason = format!("`{base}` is no address of a server; give one like http://127.0.0.1:8080");
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, reason)));
        }
        let root = std::fs::create_dir_all(root).and_then(|()| root.canonicalize()).map_err(failed)?;
        Ok(Self { root: Arc::new(root), base })
    }
}

#[async_trait]
impl RecordingStore for DirectoryRecordings {
    async fn create(&self, place: &Place) -> Result<Box<dyn HeadLastObject>, StoreError> {
        let name = acceptable("create", place)?;
        let shown = name.to_string();
        let root = self.root.clone();
        let made = blocking(move || GrowingFile::below(&root, name)).await;
        Ok(Box::new(made.map_err(|e| store_error("create", &shown, e))?))
    }

    async fn resume(
        &self,
        place: &Place,
        states: &[String],
        _held: Bytes,
    ) -> Result<Box<dyn HeadLastObject>, StoreError> {
        let name = acceptable("resume", place)?;
        let (shown, root, states) = (name.to_string(), self.root.clone(), states.to_vec());
        let found = blocking(move || GrowingFile::again(&root, name, &states)).await;
        Ok(Box::new(found.map_err(|e| store_error("resume", &shown, e))?))
    }

    fn url(&self, _place: &Place, key: &str, domain: Option<&str>) -> String {
        if let Some(domain) = domain {
            return on_domain(domain, key);
        }
        let mut url = self.base.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().push("recordings").extend(key.split('/'));
        }
        url.into()
    }
}

/// The name of a recording at a place that a directory can have.
fn acceptable(op: &'static str, place: &Place) -> Result<Name, StoreError> {
    let name = Name { dir: place.dir.clone(), name: place.name.clone() };
    let refused = |reason| store_error(op, &name.to_string(), io::Error::new(io::ErrorKind::InvalidInput, reason));
    if let Some(elsewhere) = place.bucket.as_ref().or(place.region.as_ref()) {
        return Err(refused(format!(
            "`{}` names a bucket or region, which a directory does not have; leave Output.Cos.Bucket and Region out",
            elsewhere.escape_debug()
        )));
    }
    // Any last part will do to check the directory.
    name.key("x").map_err(refused)?;
    Ok(name)
}

/// A key, perhaps without its last part yet.
#[derive(Debug, Clone)]
pub(super) struct Name {
    dir: String,
    name: Option<String>,
}

impl Name {
    /// The key; `last` is its last part if it was made without one.
    pub(super) fn key(&self, last: &str) -> Result<String, String> {
        let name = self.name.as_deref().unwrap_or(last);
        let key = if self.dir.is_empty() { name.to_string() } else { format!("{}/{name}", self.dir) };
        match name.contains('/') {
            true => Err("the name has a slash; put directories into the directory part".into()),
            false => key::check(&key).map(|()| key),
        }
    }

    /// Its directory.
    pub(super) fn dir(&self) -> &str {
        &self.dir
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.dir.escape_debug(), self.name.as_deref().unwrap_or("(no name yet)").escape_debug())
    }
}

/// The directory of an object and those above it, up to the root: made when needed, removed with the last that is in
/// them.
pub(super) struct Directories {
    pub(super) root: Arc<PathBuf>,
    pub(super) dir: PathBuf,
}

impl Directories {
    /// Makes them.
    pub(super) fn make(&self) -> io::Result<()> {
        std::fs::create_dir_all(&self.dir)
    }

    /// Does something that needs them to be there.
    pub(super) fn having<T>(&self, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let mut races = 0;
        loop {
            match self.make().and_then(|()| work()) {
                Err(e) if races < MAX_RACES && is_gone(&e) => races += 1,
                other => return other,
            }
        }
    }
}

/// Whether this is what a directory gives that goes while it is used.
fn is_gone(error: &io::Error) -> bool {
    // `create_dir_all` says that it exists; a new file without a name in it is not permitted.
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists)
        || error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error())
}

impl Drop for Directories {
    fn drop(&mut self) {
        // One that holds something stays.
        for dir in self.dir.ancestors().take_while(|dir| *dir != self.root.as_path()) {
            if std::fs::remove_dir(dir).is_err() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::StoreErrorKind;
    use crate::platform::conformance::{self, HeadLastPlace};

    struct Seen {
        store: DirectoryRecordings,
        dir: tempfile::TempDir,
    }

    fn store(base: &str) -> Seen {
        let dir = tempfile::tempdir().unwrap();
        Seen { store: DirectoryRecordings::new(&dir.path().join("a/b"), base.parse().unwrap()).unwrap(), dir }
    }

    fn walk(dir: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.display().to_string());
            if path.is_dir() {
                walk(&path, found);
            }
        }
    }

    #[async_trait]
    impl HeadLastPlace for Seen {
        async fn create(&self, name: &str) -> Box<dyn HeadLastObject> {
            let place = Place { dir: "d".into(), name: Some(name.into()), ..Place::default() };
            self.store.create(&place).await.unwrap()
        }
        async fn read(&self, key: &str) -> Option<Vec<u8>> {
            std::fs::read(self.store.root.join(key)).ok()
        }
        async fn everything(&self) -> Vec<String> {
            let mut found = Vec::new();
            walk(self.dir.path(), &mut found);
            found.sort();
            found
        }
    }

    #[tokio::test]
    async fn a_directory_keeps_what_the_ports_promise() {
        let seen = store("http://127.0.0.1:8080");
        conformance::head_last_object(&seen).await;
        let seen = store("http://127.0.0.1:8080");
        conformance::recording_store(&seen.store, &seen).await;
        conformance::recordings_are_gone_on_with(&seen.store, &seen).await;
        conformance::public_store(&seen.store).await;
    }

    #[tokio::test]
    async fn addresses_are_below_the_base_whatever_it_is() {
        let place = Place::default();
        for (base, url) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/recordings/a%20b/100%25%3F%23.mp4"),
            ("https://h/rec/", "https://h/rec/recordings/a%20b/100%25%3F%23.mp4"),
        ] {
            assert_eq!(store(base).store.url(&place, "a b/100%?#.mp4", None), url);
        }
        let dir = tempfile::tempdir().unwrap();
        let error = DirectoryRecordings::new(dir.path(), "data:x".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Refused);
    }

    #[tokio::test]
    async fn a_directory_has_no_buckets() {
        let seen = store("http://h");
        for place in [
            Place { bucket: Some("b".into()), ..Place::default() },
            Place { region: Some("r".into()), ..Place::default() },
        ] {
            let error = seen.store.create(&place).await.err().unwrap();
            assert_eq!(error.kind, StoreErrorKind::Refused);
            assert!(error.source.to_string().contains("Output.Cos.Bucket"), "{}", error.source);
        }
    }

    #[tokio::test]
    async fn recordings_in_one_directory_do_not_take_it_from_each_other() {
        let seen = store("http://h");
        let each = (0..24).map(|n| {
            let seen = &seen;
            async move {
                let place = Place { dir: "d/e".into(), ..Place::default() };
                let mut object = seen.store.create(&place).await.unwrap();
                object.append(Bytes::from_static(b"x")).await.unwrap();
                match n % 3 {
                    0 => object.abort().await.map(|()| None).unwrap(),
                    _ => Some(object.finish(Bytes::from_static(b"H"), &format!("{}.mp4", n % 2)).await.unwrap()),
                }
            }
        });
        let mut keys: Vec<_> = futures_util::future::join_all(each).await.into_iter().flatten().collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 16);
        for key in &keys {
            assert_eq!(seen.read(key).await.unwrap(), b"Hx", "{key}");
        }
        assert_eq!(seen.everything().await.len(), 16 + 4, "{keys:?} and their directories");
    }

    #[tokio::test]
    async fn a_directory_that_was_removed_meanwhile_costs_nothing() {
        let seen = store("http://h");
        let place = Place { dir: "d/e".into(), name: Some("x".into()), ..Place::default() };
        let object = seen.store.create(&place).await.unwrap();
        let _ = std::fs::remove_dir(seen.store.root.join("d/e"));
        let _ = std::fs::remove_dir(seen.store.root.join("d"));
        assert_eq!(object.finish(Bytes::from_static(b"H"), "").await.unwrap(), "d/e/x");
        assert_eq!(seen.read("d/e/x").await.unwrap(), b"H");
    }

    #[tokio::test]
    async fn a_long_name_that_is_taken_becomes_another_acceptable_key() {
        let seen = store("http://h");
        let name = format!("{}.mp4", "é".repeat(98));
        for taken in 0..3 {
            let place = Place { name: Some(name.clone()), ..Place::default() };
            let object = seen.store.create(&place).await.unwrap();
            let key = object.finish(Bytes::from_static(b"H"), "").await.unwrap();
            assert_eq!(key::check(&key), Ok(()));
            assert!(key.ends_with(".mp4") && (taken == 0 || key.ends_with(&format!("-{taken}.mp4"))), "{key}");
        }
    }
}
