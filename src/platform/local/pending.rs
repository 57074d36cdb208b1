//! A file that nobody can see until it is whole.
//!
//! Where the file system can (`O_TMPFILE`: ext4, xfs, btrfs, tmpfs), it has no name at all until it is published, so
//! it vanishes with the process however that ends. Elsewhere it has a hidden temporary name, removed on drop.

use super::unsupported;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Permissions before the umask: those of any new file.
const MODE: u32 = 0o666;

/// A file under construction in the directory of its target.
#[derive(Debug)]
pub(super) enum Pending {
    /// Without a name; the directory it will appear in.
    Anonymous(File, PathBuf),
    /// With a hidden one.
    Named(NamedTempFile),
}

impl Pending {
    /// A new empty file in `dir`.
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(dir, flags, Mode::from_raw_mode(MODE)) {
            // A name is given through /proc, which a jail may not have.
            Ok(file) if Path::new("/proc/self/fd").exists() => Ok(Self::Anonymous(file.into(), dir.to_path_buf())),
            Err(e) if !unsupported(&e.into()) => Err(e.into()),
            _ => Self::named(dir),
        }
    }

    /// The same with a hidden name, for file systems that need one.
    pub(super) fn named(dir: &Path) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(MODE);
        tempfile::Builder::new().prefix(".panorec-").suffix(".part").permissions(mode).tempfile_in(dir).map(Self::Named)
    }

    /// The open file.
    pub(super) fn file(&self) -> &File {
        match self {
            Self::Anonymous(file, _) => file,
            Self::Named(file) => file.as_file(),
        }
    }

    /// Gives the file its name, at once and whole. Without `replace`, an existing target stays as it is: the error is
    /// `AlreadyExists`, and the file comes back.
    pub(super) fn publish(self, target: &Path, replace: bool) -> Result<(), (io::Error, Self)> {
        match self {
            Self::Anonymous(file, dir) => match link(&file, &dir, target, replace) {
                Ok(()) => Ok(()),
                Err(e) => Err((e, Self::Anonymous(file, dir))),
            },
            Self::Named(file) => {
                let done = if replace { file.persist(target) } else { file.persist_noclobber(target) };
                done.map(drop).map_err(|e| (e.error, Self::Named(e.file)))
            }
        }
    }
}

fn link(file: &File, dir: &Path, target: &Path, replace: bool) -> io::Result<()> {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = |name: &Path| rustix::fs::linkat(CWD, own.as_str(), CWD, name, AtFlags::SYMLINK_FOLLOW);
    match link(target) {
        Err(e) if replace && e == rustix::io::Errno::EXIST => {
            // A link cannot replace, a rename can; the name in between exists for the moment between two calls.
            let hidden = dir.join(format!(".panorec-{}.part", uuid::Uuid::new_v4()));
            link(&hidden)?;
            std::fs::rename(&hidden, target).inspect_err(|_| drop(std::fs::remove_file(&hidden)))
        }
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn both_kinds_appear_whole_and_replace_only_when_asked() {
        for kind in [Pending::create, Pending::named] {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("x.mp4");
            let new = |text: &str| {
                let pending = kind(dir.path()).unwrap();
                pending.file().write_all(text.as_bytes()).unwrap();
                pending
            };
            new("one").publish(&target, false).unwrap();
            assert_eq!(std::fs::read(&target).unwrap(), b"one");
            let (error, back) = new("two").publish(&target, false).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(std::fs::read(&target).unwrap(), b"one");
            back.publish(&target, true).unwrap();
            assert_eq!(std::fs::read(&target).unwrap(), b"two");
            drop(new("three"));
            assert_eq!(names(dir.path()), ["x.mp4"], "nothing else is left");
        }
    }

    #[test]
    fn an_anonymous_file_has_no_name_and_the_usual_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let pending = Pending::create(dir.path()).unwrap();
        assert!(matches!(pending, Pending::Named(_)) || names(dir.path()).is_empty());
        let usual = dir.path().join("usual");
        File::create(&usual).unwrap();
        pending.publish(&dir.path().join("own"), false).unwrap();
        let mode = |p: &Path| p.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&dir.path().join("own")), mode(&usual));
    }
}
