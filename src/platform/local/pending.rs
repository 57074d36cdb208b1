//! A file that nobody can see until it is whole.
//!
//! Where the file system can (`O_TMPFILE`: ext4, xfs, btrfs, tmpfs), it has no name at all until it is published, so
//! it vanishes with the process however that ends. Elsewhere it has a hidden temporary name, removed on drop. One that
//! another process may go on with has a hidden name in any case, and whoever works on it holds its lock.

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
    /// With a hidden one that others know.
    Shared(SharedFile),
}

/// See above.
#[derive(Debug)]
pub(super) struct SharedFile {
    file: File,
    path: PathBuf,
    /// It stays when this goes.
    stays: bool,
}

impl Drop for SharedFile {
    fn drop(&mut self) {
        if !self.stays {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What a file is called while it is finished: its bytes are not where others expect them.
fn in_work(path: &Path) -> PathBuf {
    path.with_extension("done")
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

    /// Gives it a hidden name that others can be told, and returns that.
    pub(super) fn share(self, dir: &Path) -> Result<(Self, String), (io::Error, Self)> {
        let named = match self {
            Self::Anonymous(file, dir) => {
                let path = dir.join(format!(".panorec-{}.part", uuid::Uuid::new_v4()));
                match link(&file, &dir, &path, false) {
                    Ok(()) => Ok((file, path)),
                    Err(e) => return Err((e, Self::Anonymous(file, dir))),
                }
            }
            Self::Named(file) => file.keep().map_err(|e| (e.error, Self::Named(e.file))),
            Self::Shared(mut shared) => {
                shared.stays = true;
                let name = shared.path.file_name().map(|n| n.to_string_lossy().into_owned());
                return Ok((Self::Shared(shared), name.unwrap_or_default()));
            }
        };
        let (file, path) = named?;
        let _ = flush_dir(dir);
        let shared = Self::Shared(SharedFile { file, path, stays: true });
        match shared.lock() {
            Ok(()) => shared.share(dir),
            Err(e) => Err((e, shared)),
        }
    }

    fn lock(&self) -> io::Result<()> {
        Ok(rustix::fs::flock(self.file(), rustix::fs::FlockOperation::NonBlockingLockExclusive)?)
    }

    /// One that another process shared; `None` for the second where that is still at it and holds the lock.
    pub(super) fn shared(dir: &Path, name: &str) -> io::Result<(File, Option<Self>)> {
        let path = dir.join(name);
        let open = std::fs::OpenOptions::new().read(true).write(true).open(&path);
        let file = open.inspect_err(|_| drop(std::fs::remove_file(in_work(&path))))?;
        let shared = Self::Shared(SharedFile { file: file.try_clone()?, path, stays: true });
        match shared.lock() {
            Ok(()) => Ok((file, Some(shared))),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok((file, None)),
            Err(e) => Err(e),
        }
    }

    /// Nobody else is to go on with it from now on: it goes when this goes.
    pub(super) fn unshare(&mut self) -> io::Result<()> {
        if let Self::Shared(shared) = self {
            let path = in_work(&shared.path);
            std::fs::rename(&shared.path, &path)?;
            (shared.path, shared.stays) = (path, false);
        }
        Ok(())
    }

    /// The open file.
    pub(super) fn file(&self) -> &File {
        match self {
            Self::Shared(shared) => &shared.file,
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
            Self::Shared(mut shared) => match rename(&shared.path, target, replace) {
                Ok(()) => {
                    shared.stays = true;
                    Ok(())
                }
                Err(e) => Err((e, Self::Shared(shared))),
            },
            Self::Named(file) => {
                let done = if replace { file.persist(target) } else { file.persist_noclobber(target) };
                done.map(drop).map_err(|e| (e.error, Self::Named(e.file)))
            }
        }
    }
}

fn rename(from: &Path, to: &Path, replace: bool) -> io::Result<()> {
    if replace {
        return std::fs::rename(from, to);
    }
    match rustix::fs::renameat_with(CWD, from, CWD, to, rustix::fs::RenameFlags::NOREPLACE) {
        // NFS does not know it, but links.
        Err(e) if unsupported(&e.into()) => std::fs::hard_link(from, to).and_then(|()| std::fs::remove_file(from)),
        other => Ok(other?),
    }
}

fn flush_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
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
