//! Moves the log into the database file. In a small file most pages of a log are the same few
//! pages, and the writer moves them at once. In a large file each message changes a different
//! page, so a checkpoint takes long. There a thread moves a part at a time while the writer
//! continues; the writer moves the last few pages, so that the log restarts from the front.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};

use super::failure::Failure;
use super::schema::checkpoint;
use crate::StoreConfig;
use crate::observer::Observer;
use runtime::log;

/// A file is small if it is at most this many times as large as a log.
const SMALL: u64 = 2;
/// Bytes of a page.
const PAGE: u64 = 4096;
/// The part of a log that the thread moves at a time: small enough that no commit waits long for the disk.
const STRETCH: u32 = 32;
/// The part of a log that the writer moves itself: it takes about as long as a few commits.
const LAST: u32 = 64;
/// If a pass leaves more than this many quarters of the pages that the
/// previous pass left, the thread is too slow: the writer moves the rest.
const ENOUGH_LEFT_QUARTERS: u32 = 3;
/// The writer waits for the thread if the log has this many times the length at which it should be moved.
const PATIENCE: u32 = 4;

/// The state of a log and its checkpoints.
pub(super) struct Checkpoints {
    path: PathBuf,
    /// The thread's connection, while no pass is in progress.
    connection: Option<Connection>,
    pass: Option<JoinHandle<Pass>>,
    observer: Arc<dyn Observer>,
    /// Pages of a log at which all of it is moved.
    pages: u32,
    /// The length at which all of it is moved: larger while a reader holds an older snapshot.
    due: u32,
    /// Pages that the log had when the last pass began.
    seen: u32,
    /// Pages that are moved and synced.
    moved: u32,
    /// Remaining pages when a final pass began; initially the maximum.
    left: u32,
}

/// A finished pass: pages moved and synced, from the front of the log.
struct Pass {
    connection: Connection,
    moved: Result<u32, Failure>,
}

impl Checkpoints {
    /// For a file that the writer has open.
    pub fn open(path: &Path, config: &StoreConfig, observer: Arc<dyn Observer>) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = 1; SELECT 1 FROM sqlite_master;",
        )?;
        let (path, pages) = (path.to_owned(), config.checkpoint_pages);
        let (connection, pass) = (Some(connection), None);
        Ok(Self { path, connection, pass, observer, pages, due: pages, seen: 0, moved: 0, left: u32::MAX })
    }

    /// Called between two commits, after all results. `pages` is the log's length.
    pub fn go_on(&mut self, writer: &Connection, pages: u32) -> Result<(), Failure> {
        if self.pass.as_ref().is_some_and(|pass| pass.is_finished() || pages >= self.due.saturating_mul(PATIENCE)) {
            self.finish()?;
        }
        if pages < self.seen {
            // The log was restarted from the front.
            (self.seen, self.moved, self.left) = (0, 0, u32::MAX);
        }
        let is_due = pages >= self.due;
        if self.pass.is_some() || !is_due && pages - self.seen < self.pages / STRETCH {
            return Ok(());
        }
        if self.is_small() {
            return if is_due { self.move_all(writer, pages) } else { Ok(()) };
        }
        if is_due {
            let left = pages.saturating_sub(self.moved);
            // Each pass leaves fewer pages than the previous one, unless the disk is too slow, or a reader holds an older
            // snapshot.
            if left <= self.pages / LAST || left >= self.left / 4 * ENOUGH_LEFT_QUARTERS {
                return self.move_all(writer, pages);
            }
            self.left = left;
        }
        self.seen = pages;
        if self.begin_pass() { Ok(()) } else { self.move_all(writer, pages) }
    }

    fn is_small(&self) -> bool {
        let limit = u64::from(self.pages) * PAGE * SMALL;
        std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() <= limit)
    }

    /// Moves the rest, while nothing is written.
    fn move_all(&mut self, writer: &Connection, pages: u32) -> Result<(), Failure> {
        let started = Instant::now();
        let moved = checkpoint(writer, "PASSIVE");
        self.observer.checkpointed(started.elapsed());
        let is_whole = match moved.map_err(|error| Failure::of_checkpoint(error, writer)) {
            Ok(moved) => moved.is_whole,
            Err(failure) => survivable(failure).map(|()| false)?,
        };
        // A reader with an older snapshot makes the log grow until it releases the snapshot.
        self.due = self.pages.saturating_add(if is_whole { 0 } else { pages });
        (self.seen, self.moved, self.left) = (pages, 0, u32::MAX);
        Ok(())
    }

    /// Starts a pass. Returns whether it runs.
    fn begin_pass(&mut self) -> bool {
        let Some(connection) = self.connection.take() else { return false };
        let observer = Arc::clone(&self.observer);
        let pass = move || {
            let started = Instant::now();
            let moved = move_and_sync(&connection);
            observer.checkpointed(started.elapsed());
            Pass { connection, moved }
        };
        self.pass = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(pass).ok();
        self.pass.is_some()
    }

    /// Waits for the pass in progress.
    pub fn finish(&mut self) -> Result<(), Failure> {
        let Some(pass) = self.pass.take() else { return Ok(()) };
        let Pass { connection, moved } = pass.join().map_err(|_| Failure::Panic)?;
        self.connection = Some(connection);
        match moved {
            Ok(moved) => self.moved = moved,
            Err(failure) => survivable(failure)?,
        }
        Ok(())
    }

    /// Closes the connection without the final checkpoint. Returns the result of a pass in progress.
    pub fn give_up(mut self) -> Result<(), Failure> {
        let ended = self.finish();
        if let Some(connection) = self.connection {
            close_as_it_is(connection);
        }
        ended
    }
}

/// Closes a connection without the final checkpoint, because its failure would not be reported.
pub(super) fn close_as_it_is(connection: Connection) {
    if let Err(error) = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
        log::error("the database was closed with a checkpoint").cause(&error).emit();
    }
}

/// The log still has all data, and grows until there is space; except after a possible loss of pages.
fn survivable(failure: Failure) -> Result<(), Failure> {
    if matches!(failure, Failure::Checkpoint(_)) {
        return Err(failure);
    }
    log::error("a checkpoint failed").cause(&failure).emit();
    Ok(())
}

/// Moves the content of the log now, while others may write to it. SQLite syncs the file only if nothing was
/// written meanwhile. Otherwise the checkpoint that reaches the log's end syncs it, and has little to sync.
fn move_and_sync(connection: &Connection) -> Result<u32, Failure> {
    let moved = checkpoint(connection, "PASSIVE").map_err(|error| Failure::of_checkpoint(error, connection))?;
    sync(connection).map_err(|error| Failure::of_checkpoint(error, connection))?;
    Ok(moved.pages)
}

/// Syncs the database file with SQLite's own descriptor: closing another one would release the locks of this process.
#[allow(unsafe_code)]
fn sync(connection: &Connection) -> rusqlite::Result<()> {
    let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
    // SAFETY: the handle belongs to an open connection that this thread holds.
    // SQLite fills in the pointer. It stays valid as long as the connection is
    // open, and its owner may call its methods (sqlite3_file_control,
    // FILE_POINTER).
    let code = unsafe {
        let target = (&raw mut file).cast();
        match ffi::sqlite3_file_control(connection.handle(), c"main".as_ptr(), ffi::SQLITE_FCNTL_FILE_POINTER, target) {
            ffi::SQLITE_OK => match file.as_ref().and_then(|file| file.pMethods.as_ref()?.xSync) {
                Some(sync) => sync(file, ffi::SQLITE_SYNC_NORMAL),
                None => ffi::SQLITE_MISUSE,
            },
            code => code,
        }
    };
    if code == ffi::SQLITE_OK { Ok(()) } else { Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)) }
}
