//! The laptop: directories, files and processes.
//!
//! Files that are not finished have no name (`pending`), so a recorder that is killed leaves no rubbish. All blocking
//! calls run on the runtime's blocking threads.

mod children;
mod chunks;
mod growing;
mod medium;
mod pending;
mod public;
mod recordings;
mod tasks;

pub use children::ChildContinuation;
pub use chunks::DirectoryChunkStore;
pub use growing::GrowingFile;
pub use recordings::DirectoryRecordings;
pub use tasks::SqliteTaskStore;

use super::{StoreError, StoreErrorKind};
use rustix::io::Errno;
use std::io;

/// The class of a failed file operation.
fn kind_of(error: &io::Error) -> StoreErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => StoreErrorKind::NotFound,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => StoreErrorKind::Full,
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::InvalidFilename
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::AlreadyExists => StoreErrorKind::Refused,
        _ => StoreErrorKind::Unavailable,
    }
}

fn store_error(op: &'static str, key: &str, source: io::Error) -> StoreError {
    StoreError { op, key: key.to_string(), kind: kind_of(&source), source }
}

/// Whether the system or the file system does not know the operation: another way must be taken.
fn unsupported(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    // EPERM: a jail's system call filter. EINVAL, EISDIR: kernels and file systems that do not know a flag.
    matches!(errno, Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::ISDIR | Errno::PERM | Errno::XDEV))
}

/// Runs blocking file work off the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
