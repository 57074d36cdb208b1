//! Names of files: which are acceptable, and which are tried when one is taken.

use super::super::recordings::Name;
use crate::platform::key::MAX_PART_BYTES;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the file will be called.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// This, whatever it is called at the end; a link that was given is followed.
    Fixed { path: PathBuf, given: PathBuf },
    /// A key below the root of a store.
    Key(Arc<PathBuf>, Name),
}

impl Target {
    /// The full path, with the name that was given at the end.
    pub(super) fn path(&self, last: &str) -> io::Result<PathBuf> {
        match self {
            Self::Fixed { path, .. } => Ok(path.clone()),
            Self::Key(root, name) => match name.key(last) {
                Ok(key) => Ok(root.join(key)),
                Err(reason) => refuse(io::ErrorKind::InvalidInput, reason),
            },
        }
    }

    /// What is returned for a path.
    pub(super) fn key(&self, path: &Path) -> String {
        match self {
            Self::Key(root, _) => path.strip_prefix(&**root).unwrap_or(path).display().to_string(),
            Self::Fixed { path: own, given } if path == own => given.display().to_string(),
            Self::Fixed { .. } => path.display().to_string(),
        }
    }

    /// What errors call it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Fixed { given, .. } => given.display().to_string(),
            Self::Key(_, name) => name.to_string(),
        }
    }
}

/// The directory of a file name.
pub(super) fn directory(target: &Path) -> &Path {
    match target.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    }
}

fn refuse<T>(kind: io::ErrorKind, reason: String) -> io::Result<T> {
    Err(io::Error::new(kind, reason))
}

/// Checks a target; a link to a file that may be replaced is followed.
pub(super) fn acceptable(target: &Path, replace: bool) -> io::Result<PathBuf> {
    let dir = directory(target);
    match dir.metadata() {
        Ok(m) if m.is_dir() => {}
        Ok(_) => return refuse(io::ErrorKind::NotADirectory, format!("`{}` is not a directory", dir.display())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let reason = format!("the directory `{}` does not exist; create it first", dir.display());
            return refuse(io::ErrorKind::InvalidInput, reason);
        }
        Err(e) => return Err(e),
    }
    if target.file_name().is_none_or(|name| name == OsStr::new(".."))
        || target.as_os_str().as_encoded_bytes().ends_with(b"/")
    {
        return refuse(io::ErrorKind::InvalidInput, "this names a directory; name a file in it".into());
    }
    match target.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(target.to_path_buf()),
        Err(e) => Err(e),
        Ok(_) => match target.metadata() {
            Ok(m) if m.is_dir() => refuse(io::ErrorKind::IsADirectory, "it is a directory; name a file in it".into()),
            Ok(m) if !m.is_file() => refuse(
                io::ErrorKind::AlreadyExists,
                "it is not a regular file and cannot be replaced; choose another name".into(),
            ),
            Ok(_) if replace => target.canonicalize(),
            _ => {
                refuse(io::ErrorKind::AlreadyExists, "it exists; choose another name or allow it to be replaced".into())
            }
        },
    }
}

/// Adds the directory to a refusal that names only the deed.
pub(super) fn explain(error: io::Error, dir: &Path) -> io::Error {
    match error.kind() {
        kind @ (io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotFound) => {
            let reason =
                format!("no file can be created in `{}` ({error}); choose a writable directory", dir.display());
            io::Error::new(if kind == io::ErrorKind::NotFound { io::ErrorKind::PermissionDenied } else { kind }, reason)
        }
        _ => error,
    }
}

/// `NAME-n.EXT`, no longer than a part of a key may be.
pub(super) fn other_name(target: &Path, n: u32) -> PathBuf {
    let part = |p: Option<&OsStr>| p.map(|p| p.to_string_lossy().into_owned());
    let mut stem = part(target.file_stem()).unwrap_or_default();
    let end = format!("-{n}{}", part(target.extension()).map_or(String::new(), |e| format!(".{e}")));
    while stem.len() + end.len() > MAX_PART_BYTES && stem.pop().is_some() {}
    target.with_file_name(stem + &end)
}
