//! Task records in one SQLite file that the gateway and every recorder have open at once.
//!
//! Write-ahead log: readers never wait for a writer, nor a writer for readers; two writers wait for each other, for
//! microseconds. `synchronous = NORMAL`: a commit is in the system's cache when it returns, so no kill of any process
//! loses it; only a power failure may take the last seconds' commits (never the file's consistency), and it takes the
//! recordings that were running with it. `FULL` would flush the disk in every commit, beside recorders that fill it: that
//! is what made a Pause slow.
//!
//! Calls wait for a connection in order of arrival and then run on a blocking thread: as many threads as connections.

use super::{blocking, store_error};
use crate::platform::{Created, Cursor, Shelf, StoreError, StoreErrorKind, TaskPage, TaskStore, Versioned};
use crate::task::record::TaskRecord;
use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, TransactionBehavior, params};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How long a call waits for another process's transaction. Ours take microseconds; a checkpoint on a busy disk takes
/// a second, and a machine that sleeps longer answers nobody anyway.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// Pause between attempts where SQLite does not wait by itself: when the file is opened by several at once.
const OPEN_STEP: Duration = Duration::from_millis(10);
/// Connections for reading: a page of large records does not hold up a single read.
const READERS: usize = 2;
/// Records whose time is over that go with each new one: more than come in, few enough not to be felt.
const SWEEP: u32 = 16;
/// Bytes of write-ahead log that stay after a checkpoint; it grows beyond when a reader holds it up.
const LOG_BYTES: u32 = 16 << 20;
/// The layout below; another is another version's file.
const LAYOUT: i64 = 1;
/// Past every position in a listing: positions begin with a digit.
const PAST_ALL: &str = "~";

const SCHEMA: &str = "
    CREATE TABLE tasks (
        id TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL, shelf INTEGER NOT NULL, sort TEXT NOT NULL,
        expires INTEGER NOT NULL, body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX tasks_on_shelves ON tasks (shelf, sort);
    CREATE INDEX tasks_by_age ON tasks (sort);
    CREATE INDEX tasks_by_end ON tasks (expires);";

const FIND: &str = "SELECT version, expires, body FROM tasks WHERE id = ?1";
const PUT: &str =
    "INSERT OR REPLACE INTO tasks (id, version, shelf, sort, expires, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const SWEEP_OVER: &str =
    "DELETE FROM tasks WHERE rowid IN (SELECT rowid FROM tasks WHERE expires <= ?1 AND id <> ?2 LIMIT ?3)";
const SAVE: &str = "UPDATE tasks SET version = version + 1, shelf = ?3, sort = ?4, expires = ?5, body = ?6
    WHERE id = ?1 AND version = ?2";
const DELETE: &str = "DELETE FROM tasks WHERE id = ?1 AND version = ?2";
const LIST_SHELF: &str =
    "SELECT body FROM tasks WHERE sort < ?1 AND expires > ?2 AND shelf = ?4 ORDER BY sort DESC LIMIT ?3";
const LIST_ALL: &str = "SELECT body FROM tasks WHERE sort < ?1 AND expires > ?2 ORDER BY sort DESC LIMIT ?3";

/// Task records in a file.
pub struct SqliteTaskStore {
    path: Arc<PathBuf>,
    writer: Arc<Mutex<Connection>>,
    readers: [Arc<Mutex<Connection>>; READERS],
    turn: AtomicUsize,
}

/// What can go wrong with the file.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    #[error("the record is not one of this version")]
    Body(#[from] serde_json::Error),
    #[error(transparent)]
    File(#[from] io::Error),
    #[error("{0}")]
    Foreign(&'static str),
}

impl SqliteTaskStore {
    /// Opens or makes the file and the directory that it is in. Blocks.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_waiting(path, BUSY_WAIT)
    }

    fn open_waiting(path: &Path, wait: Duration) -> Result<Self, StoreError> {
        let failed = |broken| failure("open tasks", &path.display().to_string(), path, broken);
        let deadline = Instant::now() + wait;
        let connect = |reads_only| loop {
            match connect(path, reads_only, wait) {
                Err(broken) if is_busy(&broken) && Instant::now() < deadline => std::thread::sleep(OPEN_STEP),
                other => return other.map(|c| Arc::new(Mutex::new(c))).map_err(failed),
            }
        };
        let writer = connect(false)?;
        let readers = [connect(true)?, connect(true)?];
        Ok(Self { path: Arc::new(path.to_path_buf()), writer, readers, turn: AtomicUsize::new(0) })
    }

    async fn run<T: Send + 'static>(
        &self,
        connection: &Arc<Mutex<Connection>>,
        (op, key): (&'static str, &str),
        work: impl FnOnce(&mut Connection) -> Result<T, Broken> + Send + 'static,
    ) -> Result<T, StoreError> {
        let mut connection = connection.clone().lock_owned().await;
        let done = blocking(move || Ok(work(&mut connection))).await;
        match done {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(broken)) => Err(failure(op, key, &self.path, broken)),
            Err(e) => Err(store_error(op, key, e)),
        }
    }

    fn reader(&self) -> &Arc<Mutex<Connection>> {
        &self.readers[self.turn.fetch_add(1, Ordering::Relaxed) % READERS]
    }
}

fn connect(path: &Path, reads_only: bool, wait: Duration) -> Result<Connection, Broken> {
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    // Orders may hold keys. SQLite gives its other files the permissions of this one. A file that is there is left alone:
    // closing any descriptor of it would drop the locks of all our connections (fcntl(2)), and another process would
    // take itself for the last one and remove the log that we write to.
    match std::fs::OpenOptions::new().create_new(true).append(true).mode(0o600).open(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e.into()),
        Err(_) if path.is_dir() => return Err(io::Error::from(io::ErrorKind::IsADirectory).into()),
        _ => {}
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(wait)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Broken::Foreign("its file system cannot share memory between processes; use a local disk"));
    }
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    lay_out(&mut connection)?;
    connection.pragma_update(None, "query_only", reads_only)?;
    Ok(connection)
}

/// Makes the tables of a new file, and refuses one that is not ours.
fn lay_out(connection: &mut Connection) -> Result<(), Broken> {
    let layout = |c: &Connection| c.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    if layout(connection)? == LAYOUT {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match layout(&transaction)? {
        LAYOUT => return Ok(()),
        0 => {}
        _ => return Err(Broken::Foreign("it was written by another version of panorec; use that, or another file")),
    }
    if transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))? > 0 {
        return Err(Broken::Foreign("it is a database of another program; use another file"));
    }
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "user_version", LAYOUT)?;
    Ok(transaction.commit()?)
}

fn is_busy(broken: &Broken) -> bool {
    matches!(broken, Broken::Sql(e)
        if matches!(e.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)))
}

fn failure(op: &'static str, key: &str, path: &Path, broken: Broken) -> StoreError {
    let kind = match &broken {
        Broken::File(e) => super::kind_of(e),
        Broken::Body(_) | Broken::Foreign(_) => StoreErrorKind::Refused,
        Broken::Sql(_) if is_busy(&broken) => StoreErrorKind::Throttled,
        Broken::Sql(e) => match e.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreErrorKind::Full,
            Some(
                ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied,
            ) => StoreErrorKind::Refused,
            _ => StoreErrorKind::Unavailable,
        },
    };
    let damaged = matches!(&broken, Broken::Sql(e)
        if matches!(e.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)));
    let advice = if damaged { "; it is damaged: move it away to begin with no tasks" } else { "" };
    let file = path.display();
    let source = match broken {
        Broken::Body(e) => format!("task file `{file}`: {e}"),
        other => format!("task file `{file}`: {other}{advice}"),
    };
    StoreError { op, key: key.escape_debug().to_string(), kind, source: io::Error::other(source) }
}

/// Times are SQLite's signed integers; one beyond them is as good as the last.
fn time(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn sort(created: u64, id: &str) -> String {
    format!("{created:020}/{id}")
}

/// What is kept beside the body.
fn columns(record: &TaskRecord) -> Result<(i64, String, i64, String), Broken> {
    let shelf = shelf_number(if record.running() { Shelf::Running } else { Shelf::Finished });
    let body = serde_json::to_string(record)?;
    Ok((shelf.unwrap_or_default(), sort(record.created, &record.id), time(record.expires), body))
}

fn shelf_number(shelf: Shelf) -> Option<i64> {
    match shelf {
        Shelf::All => None,
        Shelf::Running => Some(0),
        Shelf::Finished => Some(1),
    }
}

/// A row of [`FIND`].
fn found(row: &Row<'_>) -> rusqlite::Result<(u64, i64, String)> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

#[async_trait]
impl TaskStore for SqliteTaskStore {
    async fn create(&self, record: &TaskRecord, now: u64) -> Result<Created, StoreError> {
        let (id, now, row) = (record.id.clone(), time(now), columns(record));
        let work = move |connection: &mut Connection| {
            let (shelf, sort, expires, body) = row?;
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let there = transaction.prepare_cached(FIND)?.query_row([&id], found).optional()?;
            let version = match there {
                Some((version, expires, body)) if expires > now => {
                    let record = serde_json::from_str(&body)?;
                    return Ok(Created::Exists(Box::new(Versioned { record, version })));
                }
                // Counts on, so that whoever still has the old record cannot replace the new one.
                Some((version, ..)) => version + 1,
                None => 1,
            };
            transaction.prepare_cached(PUT)?.execute(params![id, version, shelf, sort, expires, body])?;
            transaction.prepare_cached(SWEEP_OVER)?.execute(params![now, id, SWEEP])?;
            transaction.commit()?;
            Ok(Created::New(version))
        };
        self.run(&self.writer, ("create", &record.id), work).await
    }

    async fn load(&self, id: &str, now: u64) -> Result<Option<Versioned>, StoreError> {
        let (own, now) = (id.to_owned(), time(now));
        let work = move |connection: &mut Connection| {
            let there = connection.prepare_cached(FIND)?.query_row([own], found).optional()?;
            match there {
                Some((version, expires, body)) if expires > now => {
                    Ok(Some(Versioned { record: serde_json::from_str(&body)?, version }))
                }
                Some(_) | None => Ok(None),
            }
        };
        self.run(self.reader(), ("load", id), work).await
    }

    async fn save(&self, record: &TaskRecord, version: u64) -> Result<Option<u64>, StoreError> {
        let (id, row) = (record.id.clone(), columns(record));
        let work = move |connection: &mut Connection| {
            let (shelf, sort, expires, body) = row?;
            // One statement is a transaction of its own.
            let row = params![id, time(version), shelf, sort, expires, body];
            let saved = connection.prepare_cached(SAVE)?.execute(row)?;
            Ok((saved > 0).then_some(version + 1))
        };
        self.run(&self.writer, ("save", &record.id), work).await
    }

    async fn delete(&self, id: &str, version: u64) -> Result<bool, StoreError> {
        let own = id.to_owned();
        let work = move |connection: &mut Connection| {
            Ok(connection.prepare_cached(DELETE)?.execute(params![own, time(version)])? > 0)
        };
        self.run(&self.writer, ("delete", id), work).await
    }

    async fn list(&self, shelf: Shelf, limit: u32, after: Option<&Cursor>, now: u64) -> Result<TaskPage, StoreError> {
        let from = after.map_or_else(|| PAST_ALL.to_owned(), |c| sort(c.created, &c.id));
        let limit = limit.max(1);
        let work = move |connection: &mut Connection| {
            // One more than wanted says whether there are more.
            let (now, rows) = (time(now), i64::from(limit) + 1);
            let body = |row: &Row<'_>| row.get::<_, String>(0);
            let bodies: Vec<String> = match shelf_number(shelf) {
                Some(shelf) => {
                    let mut list = connection.prepare_cached(LIST_SHELF)?;
                    list.query_map(params![from, now, rows, shelf], body)?.collect::<Result<_, _>>()?
                }
                None => {
                    let mut list = connection.prepare_cached(LIST_ALL)?;
                    list.query_map(params![from, now, rows], body)?.collect::<Result<_, _>>()?
                }
            };
            let more = bodies.len() > limit as usize;
            let bodies = bodies.iter().take(limit as usize);
            let records: Vec<TaskRecord> = bodies.map(|body| serde_json::from_str(body)).collect::<Result<_, _>>()?;
            let last = records.last().filter(|_| more);
            let next = last.map(|r| Cursor { created: r.created, id: r.id.clone() });
            Ok(TaskPage { records, next })
        };
        self.run(self.reader(), ("list", "tasks"), work).await
    }
}

#[cfg(test)]
mod tests;
