//! Opens a database file: checks its origin and whether it can be served, and adds missing objects first.
//!
//! Other programs may use the table `messages`, and it keeps its six columns. All other objects are ours,
//! begin with `postroom_`, and are versioned by `PRAGMA user_version` (0 in files of the original service).

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, OptionalExtension, TransactionBehavior};
use thiserror::Error;

use super::error_code::is_out_of_space;
use super::file::{NoRight, is_mounted_alone, trace_of_messages, wal_path};
pub use super::upgrade::SCHEMA_VERSION;
use super::upgrade::{STEPS_PER_LOOK, build, keep_going, needs_upgrade, upgrade};
use crate::StoreConfig;
use index::file::{OWNER_ONLY, make_folder};
use runtime::log;

const MESSAGES: &str = "CREATE TABLE IF NOT EXISTS messages (message_id TEXT PRIMARY KEY, from_msisdn TEXT NOT NULL, \
     to_msisdn TEXT NOT NULL, ts TEXT NOT NULL, text TEXT, created_at TEXT NOT NULL)";
/// At least one of these is in every file that any version of ours has opened.
const OURS: [&str; 2] = ["postroom_index", "postroom_totals"];
/// One of our objects that is dropped with the table.
pub(super) const FIRST_TO_GO: &str = "postroom_note_insert";
const COLUMNS: [&str; 6] = ["message_id", "from_msisdn", "to_msisdn", "ts", "text", "created_at"];

/// Why a database cannot be served.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The folder of the file cannot be created, or the log cannot be synced.
    #[error("cannot use the folder of the database")]
    Folder(#[source] std::io::Error),
    /// Messages can be read, but not stored.
    #[error("the database file cannot be written by this user")]
    ReadOnly,
    /// A file of the database, or the folder.
    #[error(transparent)]
    NoRight(NoRight),
    /// A database existed here, and a new one would replace it.
    #[error(
        "there is no database file, but {} next to it contains messages of one; put the file back, or, to begin with an empty database, move it \
         away",
        .0.display()
    )]
    Traces(PathBuf),
    /// The log of such a file would stay in the container.
    #[error(
        "the file {} is a mount by itself, so the write-ahead log next to it is lost with the container, and acknowledged messages with \
         it; mount the folder that the file is in",
        .0.display()
    )]
    MountedAlone(PathBuf),
    /// Existing data can be read.
    #[error("no space is left to open the database for writing")]
    NoSpace(#[source] rusqlite::Error),
    /// An error of SQLite.
    #[error("cannot open the database")]
    Sqlite(#[from] rusqlite::Error),
    /// The file has our objects in a later version.
    #[error("the database was created by a newer postroom (schema {found}; this one supports up to {SCHEMA_VERSION})")]
    Newer {
        /// The file's version.
        found: i64,
    },
    /// The table `messages` is missing, and the file is not new.
    #[error(
        "the table 'messages' is missing from the database; restore it, or move the file away to begin with an empty one"
    )]
    NoTable,
    /// A table `messages` that violates the contract.
    #[error("the table 'messages' {0}")]
    ForeignTable(String),
    /// The file system does not support write-ahead logging.
    #[error("the database cannot use write-ahead logging (journal mode stays '{0}'); is it on a network file system?")]
    NoWal(String),
    /// The file or the log disappeared while it was being opened.
    #[error("the database file is missing")]
    FileLost,
    /// A checkpoint failed, and another program has the file open.
    #[error("a checkpoint failed, and the database can only be repaired while no other program has it open")]
    NotAlone,
    /// Another file replaced ours next to our log.
    #[error("the log next to the database belongs to another file; remove it")]
    StrayLog,
    /// The log is damaged, and opening would delete it.
    #[error(transparent)]
    DamagedLog(#[from] super::log_scan::NoCopy),
    /// The system has no more threads.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// Whether a missing table is created: at the first start yes, later its absence is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Create,
    Refuse,
    /// A missing table is an error too, but an invalid table is accepted, in order to repair it.
    Repair,
}

/// Opens the file for writing, with all of our objects, in WAL mode with
/// `synchronous=FULL`. All data that can be read from it is durable then.
pub(super) fn open_for_writing(path: &Path, config: &StoreConfig, missing: Missing) -> Result<Connection, OpenError> {
    let is_new = missing == Missing::Create && begin_file(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(|error| explained(path, error))?;
    let has_made_table = match prepare(&mut connection, path, config, missing) {
        Ok(has_made_table) => has_made_table,
        Err(OpenError::Sqlite(error)) if is_for_want_of_space(&error, &connection) => {
            return Err(OpenError::NoSpace(error));
        }
        Err(OpenError::Sqlite(error)) => return Err(explained(path, error)),
        Err(error) => return Err(error),
    };
    if has_made_table {
        let what = if is_new { "database at" } else { "table 'messages' in" };
        log::info(&format!("created a new, empty {what} {}", path.display())).value("messages", 0).emit();
    }
    Ok(connection)
}

/// Creates a missing file, for its owner only. Returns whether it is new; an empty file counts as new.
fn begin_file(path: &Path) -> Result<bool, OpenError> {
    if is_mounted_alone(path) {
        return Err(OpenError::MountedAlone(path.to_owned()));
    }
    if std::fs::metadata(path).is_ok_and(|file| file.len() > 0) {
        return Ok(false);
    }
    if let Some(trace) = trace_of_messages(path) {
        return Err(OpenError::Traces(trace));
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    make_folder(folder).map_err(OpenError::Folder)?;
    match File::options().write(true).create_new(true).mode(OWNER_ONLY).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(OpenError::NoRight(NoRight { path: folder.to_owned(), is_folder: true }))
        }
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(OpenError::Folder(error)),
        _ => Ok(true),
    }
}

/// An SQLite error without a file name: its cause may be the log, the log's index, or the folder.
fn explained(path: &Path, error: rusqlite::Error) -> OpenError {
    let may_be_a_right = matches!(
        error.sqlite_error_code(),
        // SQLite reports the last one for a folder without space for temporary sort files.
        Some(
            ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::SystemIoFailure
                | ErrorCode::Unknown
        )
    );
    match NoRight::beside(path).filter(|_| may_be_a_right) {
        Some(no_right) => OpenError::NoRight(no_right),
        None => OpenError::Sqlite(error),
    }
}

/// Whether a file cannot be opened because nothing can be written. A failed sync is a different case.
fn is_for_want_of_space(error: &rusqlite::Error, connection: &Connection) -> bool {
    let code = error.sqlite_error().map_or(0, |error| error.extended_code);
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => true,
        _ if code == rusqlite::ffi::SQLITE_IOERR_FSYNC => false,
        // The log's index could not be extended to the required length.
        _ if code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE => true,
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => is_out_of_space(connection),
        _ => false,
    }
}

/// Prepares a connection for writing. Returns whether the table had to be created.
fn prepare(
    connection: &mut Connection,
    path: &Path,
    config: &StoreConfig,
    missing: Missing,
) -> Result<bool, OpenError> {
    // SQLite opens a file without write permission for reading, even if writing was requested.
    if connection.is_readonly(MAIN_DB)? {
        return Err(OpenError::ReadOnly);
    }
    connection.busy_timeout(config.lock_timeout)?;
    sort_beside(connection, path)?;
    check_version(connection)?;
    let has_made_table = check_table(connection, missing)?;
    if needs_upgrade(connection)? {
        upgrade(connection)?;
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(OpenError::NoWal(mode));
    }
    // FULL, not NORMAL: a Receipt promises that the message survives power loss, and NORMAL may lose the last commits.
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = 67108864;
         PRAGMA cache_size = -16384; PRAGMA cell_size_check = 1;",
    )?;
    // A process that was killed between its write and its fsync
    // leaves rows that can be read but are not on disk yet; so does
    // a failed fsync. A duplicate of such a row gets 200 without a
    // write of its own, so these rows are made durable here.
    if !checkpoint(connection, "TRUNCATE")?.is_whole {
        // Another process reads an older snapshot; then the log itself is synced.
        File::open(wal_path(path)).and_then(|log| log.sync_all()).map_err(OpenError::Folder)?;
    }
    // Our own triggers need not fire for our writes: the
    // writer only appends, above every rowid that was ever
    // used. Foreign triggers on this table must fire.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, has_foreign_triggers(connection)?)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(has_made_table)
}

/// SQLite's temporary sort files are next to the database: that folder is writable and
/// large enough, and /tmp may not exist. This applies to every connection of the process.
pub(super) fn sort_beside(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    match path.parent().and_then(Path::to_str) {
        Some(folder) => connection.pragma_update(None, "temp_store_directory", folder),
        None => Ok(()),
    }
}

/// Moves the whole log into the file, including moved pages, and syncs it. If a reader stops a checkpoint
/// halfway, it writes pages without a sync, and the next one skips them. If that one's sync fails, only the
/// log has them. Moved pages are recorded in memory shared by all users of the file, so access is exclusive.
pub(super) fn move_whole_log(path: &Path) -> Result<(), OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_millis(100))?;
    // Set before the first read, this creates private memory for the log's index, built from the log.
    connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = FULL;")?;
    match checkpoint(&connection, "TRUNCATE") {
        Ok(moved) if moved.is_whole => Ok(()),
        Ok(_) => Err(OpenError::NotAlone),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Err(OpenError::NotAlone),
        Err(error) => Err(error.into()),
    }
}

/// The progress of moving the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moved {
    /// Number of pages moved from its front.
    pub pages: u32,
    /// Whether all pages were moved.
    pub is_whole: bool,
}

/// Moves the write-ahead log into the database file. `mode` is PASSIVE (never waits) or TRUNCATE (everything, unless
/// a reader holds an older snapshot).
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<Moved> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        let (busy, log, moved): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Moved { pages: u32::try_from(moved).unwrap_or(0), is_whole: busy == 0 && log == moved })
    })
}

fn check_version(connection: &Connection) -> Result<(), OpenError> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    // The file may carry the version number of another program; only with our objects in it is the number
    // ours.
    if is_ours(connection)? && found > SCHEMA_VERSION { Err(OpenError::Newer { found }) } else { Ok(()) }
}

/// Whether any version of ours has opened this file for writing before.
pub(super) fn is_ours(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(object_exists(connection, OURS[0])? || object_exists(connection, OURS[1])?)
}

/// Whether the table can be served. It is created if it never existed. Returns whether it was created.
fn check_table(connection: &Connection, missing: Missing) -> Result<bool, OpenError> {
    let is_missing = !object_exists(connection, "messages")?;
    if is_missing {
        // If our objects exist, the table existed too: another program has
        // removed it with its messages, and an empty table would hide that.
        if missing != Missing::Create || is_ours(connection)? {
            return Err(OpenError::NoTable);
        }
        connection.execute_batch(MESSAGES)?;
    }
    if missing != Missing::Repair {
        check_collations(connection)?;
    }
    let mut statement =
        connection.prepare("SELECT name, \"notnull\", dflt_value FROM pragma_table_info('messages')")?;
    let columns = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?, row.get::<_, Option<String>>(2)?))
    })?;
    let columns: Vec<_> = columns.collect::<Result<_, _>>()?;
    if let Some(lacking) = COLUMNS.iter().find(|column| !columns.iter().any(|(name, ..)| name == *column)) {
        return Err(OpenError::ForeignTable(format!("has no column '{lacking}'")));
    }
    for (name, not_null, default) in &columns {
        if !COLUMNS.contains(&name.as_str()) && *not_null && default.is_none() {
            let problem = format!("has an additional column '{name}' that must not be null or left out");
            return Err(OpenError::ForeignTable(problem));
        }
    }
    // Change records and listings identify a row by its rowid.
    if columns.iter().any(|(name, ..)| name.eq_ignore_ascii_case("rowid")) {
        return Err(OpenError::ForeignTable("has a column 'rowid'".to_owned()));
    }
    if connection.prepare("SELECT rowid FROM messages").is_err() {
        return Err(OpenError::ForeignTable("is a table without rowids".to_owned()));
    }
    let key: Option<String> = connection
        .query_row("SELECT name FROM pragma_table_info('messages') WHERE pk = 1", [], |row| row.get(0))
        .optional()?;
    if key.as_deref() != Some("message_id") {
        return Err(OpenError::ForeignTable("has another primary key than 'message_id'".to_owned()));
    }
    Ok(is_missing)
}

/// A collation other than BINARY sorts differently from the index, and treats different ids as equal.
fn check_collations(connection: &Connection) -> Result<(), OpenError> {
    let refused = |column: &str, collation: &str| {
        Err(OpenError::ForeignTable(format!("compares '{column}' with the collation {collation}, not with BINARY")))
    };
    for column in COLUMNS {
        // No pragma returns a column's collation; the compiled program of a comparison contains it.
        let comparison = format!("EXPLAIN SELECT \"{column}\" = ?1 FROM messages");
        // A missing column is reported later.
        let Ok(mut statement) = connection.prepare(&comparison) else { continue };
        let mut steps = statement.query([""])?;
        while let Some(step) = steps.next()? {
            let is_comparison = matches!(step.get_ref(1)?.as_str(), Ok("Eq" | "Ne"));
            let collation = if is_comparison { step.get::<_, Option<String>>(5)? } else { None };
            if let Some(other) = collation.filter(|collation| !collation.starts_with("BINARY")) {
                return refused(column, other.trim_end_matches("-8"));
            }
        }
    }
    let of_key =
        "SELECT column.coll FROM pragma_index_list('messages') AS list, pragma_index_xinfo(list.name) AS column
                  WHERE list.origin = 'pk' AND column.key = 1 AND column.coll <> 'BINARY'";
    match connection.query_row(of_key, [], |row| row.get::<_, String>(0)).optional()? {
        Some(collation) => refused("message_id", &collation),
        None => Ok(()),
    }
}

/// A number that changes with every change of the schema.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))
}

/// A number that changes with every commit of another connection, and not with our own.
pub(super) fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

/// Whether an object of this name is in the file.
pub(super) fn object_exists(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM sqlite_master WHERE name = ?1")?;
    statement.exists([name])
}

/// Whether `messages` has foreign triggers.
fn has_foreign_triggers(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_master
               WHERE type = 'trigger' AND tbl_name = 'messages' AND name NOT LIKE 'postroom@_%' ESCAPE '@')";
    connection.query_row(sql, [], |row| row.get(0))
}

/// Rebuilds the primary key's index, and invalidates all derived data. Calls `tell` periodically.
/// Returns the number of messages.
pub(super) fn rebuild_key(
    path: &Path,
    config: &StoreConfig,
    tell: impl FnMut() + Send + 'static,
) -> Result<u64, OpenError> {
    let mut connection = open_for_writing(path, config, Missing::Repair)?;
    connection.progress_handler(STEPS_PER_LOOK, Some(keep_going(tell)))?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    build(&transaction)?;
    transaction.execute_batch("REINDEX messages")?;
    let messages = transaction.query_row("SELECT count(*) FROM messages", [], |row| row.get(0))?;
    transaction.commit()?;
    Ok(messages)
}
