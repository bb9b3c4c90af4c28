//! Opening a database file: whose it is, whether it can be served, and what has to be added to it first.
//!
//! The table `messages` belongs to everybody and keeps its six columns. All other objects are ours, begin with `postroom_`,
//! and are versioned by `PRAGMA user_version` (0 in files that the original service made).

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};
use thiserror::Error;

use super::file::wal_path;
use crate::config::StoreConfig;
use crate::telemetry::log;

/// The version of our objects that this program makes and understands.
pub const SCHEMA_VERSION: i64 = 3;

const MESSAGES: &str = "CREATE TABLE IF NOT EXISTS messages (message_id TEXT PRIMARY KEY, from_msisdn TEXT NOT NULL, \
     to_msisdn TEXT NOT NULL, ts TEXT NOT NULL, text TEXT, created_at TEXT NOT NULL)";
/// Makes what version 2 has of any file, whatever came before.
const NOTES: &str = include_str!("migrations/0002_notes.sql");
/// What is not derived from the table: made where it is absent, never dropped.
const DETAILS: &str = include_str!("migrations/0003_details.sql");
/// Columns of ours that came later. Each may be null, and a build that does not know it need not write it; so the version stays, and
/// such a build goes on working beside this one.
const ADDED: [(&str, &str); 2] = [("postroom_statuses", "extra"), ("postroom_events", "message")];
/// One of these is in every file that we opened, whichever version of ours did.
const OURS: [&str; 2] = ["postroom_index", "postroom_totals"];
/// One of our objects that goes when the table goes.
pub(super) const FIRST_TO_GO: &str = "postroom_note_insert";
const COLUMNS: [&str; 6] = ["message_id", "from_msisdn", "to_msisdn", "ts", "text", "created_at"];
/// How often an upgrade that takes long says that it is still at work.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Steps of SQLite's virtual machine between two looks at the clock while something long is done.
const STEPS_PER_LOOK: i32 = 100_000;

/// Why a database cannot be served.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The folder of the file cannot be made, or the log beside it cannot be synced.
    #[error("cannot use the folder of the database")]
    Folder(#[source] std::io::Error),
    /// Messages could be read, and none be stored.
    #[error("the database file cannot be written by this user")]
    ReadOnly,
    /// SQLite refuses.
    #[error("cannot open the database")]
    Sqlite(#[from] rusqlite::Error),
    /// The file has our version number, but a later one.
    #[error("the database was made by a newer postroom (schema {found}; this one knows up to {SCHEMA_VERSION})")]
    Newer {
        /// The file's version.
        found: i64,
    },
    /// There is no table `messages`, and the file is not new.
    #[error("the database has no table 'messages'")]
    NoTable,
    /// A table `messages` that is not the contract's.
    #[error("the table 'messages' {0}")]
    ForeignTable(String),
    /// The file system cannot do write-ahead logging.
    #[error("the database cannot use write-ahead logging (journal mode stays '{0}'); is it on a network file system?")]
    NoWal(String),
    /// The file, or the log beside it, went away while it was being opened.
    #[error("the database file is gone")]
    FileLost,
    /// A checkpoint failed, and somebody else has the file open.
    #[error("a checkpoint failed, and the database can only be mended while no other program has it open")]
    NotAlone,
    /// Another file was put in the place of ours, and our log left beside it.
    #[error("the log beside the database belongs to another file; remove it")]
    StrayLog,
    /// The system has no more threads.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// Whether a missing table is made: at the first start yes, later its absence is a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Create,
    Refuse,
}

/// Opens the file for writing, with all of our objects in place, in WAL mode with `synchronous=FULL`, and with everything
/// that can be read from it safe on disk.
pub(super) fn open_for_writing(path: &Path, config: &StoreConfig, missing: Missing) -> Result<Connection, OpenError> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if missing == Missing::Create {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(OpenError::Folder)?;
        }
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let mut connection = Connection::open_with_flags(path, flags)?;
    // SQLite opens a file that it may only read for reading, whatever it was asked for.
    if connection.is_readonly(MAIN_DB)? {
        return Err(OpenError::ReadOnly);
    }
    connection.busy_timeout(config.lock_timeout)?;
    sort_beside(&connection, path)?;
    check_version(&connection)?;
    check_table(&connection, missing)?;
    if needs_upgrade(&connection)? {
        upgrade(&mut connection)?;
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(OpenError::NoWal(mode));
    }
    // FULL, not NORMAL: a Receipt promises that the message survives power loss, and NORMAL may lose the last commits.
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = 67108864;
         PRAGMA cache_size = -16384;",
    )?;
    // A process that was killed between its write and its fsync leaves rows that can be read but are not on disk yet; so does
    // a failed fsync. A duplicate of such a row is answered 200 without a write of its own, so they are made durable here.
    if !checkpoint(&connection, "TRUNCATE")?.is_whole {
        // Another process reads an older state; then the log itself is synced.
        std::fs::File::open(wal_path(path)).and_then(|log| log.sync_all()).map_err(OpenError::Folder)?;
    }
    // Our own triggers need not fire for us: the writer only appends, beyond every rowid that was ever used. Somebody else's on
    // this table must.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, has_foreign_triggers(&connection)?)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// What does not fit in memory while something is sorted lies beside the database: the place that is known to be writable, and
/// large enough, where there may be no /tmp at all. Holds for every connection of the process.
pub(super) fn sort_beside(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    match path.parent().and_then(Path::to_str) {
        Some(folder) => connection.pragma_update(None, "temp_store_directory", folder),
        None => Ok(()),
    }
}

/// Opens the file for reading only.
pub(super) fn open_for_reading(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(1))?;
    // What is hot is in the system's cache.
    connection.execute_batch("PRAGMA query_only = 1; PRAGMA cache_size = -2048;")?;
    connection.set_prepared_statement_cache_capacity(64);
    super::queries::add_functions(&connection)?;
    Ok(connection)
}

/// Moves the whole log into the file, whatever counts as moved already, and syncs the file. A checkpoint that a reader
/// stops halfway writes pages without a sync, and the next one does not write them again: if that one's sync fails, only the
/// log has them. What counts as moved is noted in memory that all who have the file open share; so nobody else may.
pub(super) fn move_whole_log(path: &Path) -> Result<(), OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_millis(100))?;
    // Set before the first read, this makes a memory of our own, built from the log.
    connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = FULL;")?;
    match checkpoint(&connection, "TRUNCATE") {
        Ok(moved) if moved.is_whole => Ok(()),
        Ok(_) => Err(OpenError::NotAlone),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Err(OpenError::NotAlone),
        Err(error) => Err(error.into()),
    }
}

/// How far the log has been moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moved {
    /// Pages from its front that were moved.
    pub pages: u32,
    /// Whether that is all of it.
    pub is_whole: bool,
}

/// Moves the write-ahead log into the database file. `mode` is PASSIVE (never waits) or TRUNCATE (all of it, if nobody reads
/// an older state).
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<Moved> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        let (busy, log, moved): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Moved { pages: u32::try_from(moved).unwrap_or(0), is_whole: busy == 0 && log == moved })
    })
}

fn check_version(connection: &Connection) -> Result<(), OpenError> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    // The file of another program may carry a version of that program's; only with our objects in it is the number ours.
    if is_ours(connection)? && found > SCHEMA_VERSION { Err(OpenError::Newer { found }) } else { Ok(()) }
}

/// Whether we, of any version, have opened this file for writing before.
pub(super) fn is_ours(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(object_exists(connection, OURS[0])? || object_exists(connection, OURS[1])?)
}

fn check_table(connection: &Connection, missing: Missing) -> Result<(), OpenError> {
    if !object_exists(connection, "messages")? {
        if missing == Missing::Refuse {
            return Err(OpenError::NoTable);
        }
        connection.execute_batch(MESSAGES)?;
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
            let problem = format!("has a further column '{name}' that may be neither null nor left out");
            return Err(OpenError::ForeignTable(problem));
        }
    }
    // Notes name a row by its rowid, and so do listings.
    if columns.iter().any(|(name, ..)| name.eq_ignore_ascii_case("rowid")) {
        return Err(OpenError::ForeignTable("has a column 'rowid'".to_owned()));
    }
    if connection.prepare("SELECT rowid FROM messages").is_err() {
        return Err(OpenError::ForeignTable("is one without rowids".to_owned()));
    }
    let key: Option<String> = connection
        .query_row("SELECT name FROM pragma_table_info('messages') WHERE pk = 1", [], |row| row.get(0))
        .optional()?;
    if key.as_deref() != Some("message_id") {
        return Err(OpenError::ForeignTable("has another primary key than 'message_id'".to_owned()));
    }
    Ok(())
}

/// A number that changes with the schema, whoever changes it.
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

/// Whether another program hung triggers of its own on `messages`.
fn has_foreign_triggers(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_master
               WHERE type = 'trigger' AND tbl_name = 'messages' AND name NOT LIKE 'postroom@_%' ESCAPE '@')";
    connection.query_row(sql, [], |row| row.get(0))
}

/// Whether one of our objects is absent, or a trigger of ours hangs on another table: then somebody may have written without
/// leaving notes.
fn needs_upgrade(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(user_version(connection)? != SCHEMA_VERSION || lacks_object(connection)? || lacks_column(connection)?)
}

fn user_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn lacks_object(connection: &Connection) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare(
        "SELECT 1 FROM sqlite_master
         WHERE name = ?1 AND (type <> 'trigger' OR lower(tbl_name) IN ('messages', 'postroom_changes'))",
    )?;
    for name in created_names() {
        if !statement.exists([name])? {
            return Ok(true);
        }
    }
    Ok(!connection.prepare("SELECT 1 FROM postroom_index")?.exists([])?)
}

fn lacks_column(connection: &Connection) -> rusqlite::Result<bool> {
    for (table, column) in ADDED {
        if !has_column(connection, table, column)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a table has a column.
pub(in crate::store) fn has_column(connection: &Connection, table: &str, column: &str) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2")?;
    statement.exists([table, column])
}

/// The names of everything that the migration creates, read off its text.
fn created_names() -> Vec<&'static str> {
    [NOTES, DETAILS]
        .into_iter()
        .flat_map(str::lines)
        .filter(|line| line.starts_with("CREATE "))
        .filter_map(|line| line.split_once("IF NOT EXISTS ")?.1.split_ascii_whitespace().next())
        .collect()
}

/// Adds what is missing, in one transaction: a crash leaves the file as it was.
fn upgrade(connection: &mut Connection) -> Result<(), OpenError> {
    let started = Instant::now();
    let mut told = started;
    let tell = move || {
        if told.elapsed() >= PROGRESS_INTERVAL {
            told = Instant::now();
            log::info("preparing the database").value("elapsed_seconds", started.elapsed().as_secs()).emit();
        }
    };
    connection.progress_handler(STEPS_PER_LOOK, Some(keep_going(tell)))?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have done it while we waited for the lock.
    if user_version(&transaction)? != SCHEMA_VERSION || lacks_object(&transaction)? {
        build(&transaction)?;
    }
    // Nothing of it is derived, so what is derived stays.
    add_columns(&transaction)?;
    transaction.commit()?;
    connection.progress_handler(0, None::<fn() -> bool>)?;
    let seconds = format!("{:.3}", started.elapsed().as_secs_f64());
    log::info("prepared the database").value("elapsed_seconds", seconds).emit();
    Ok(())
}

/// Builds the primary key's index anew, and takes away the meaning of all that is derived. `tell` is called now and then
/// meanwhile. Answers how many messages there are.
pub(super) fn rebuild_key(
    path: &Path,
    config: &StoreConfig,
    tell: impl FnMut() + Send + 'static,
) -> Result<u64, OpenError> {
    let mut connection = open_for_writing(path, config, Missing::Refuse)?;
    connection.progress_handler(STEPS_PER_LOOK, Some(keep_going(tell)))?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    build(&transaction)?;
    transaction.execute_batch("REINDEX messages")?;
    let messages = transaction.query_row("SELECT count(*) FROM messages", [], |row| row.get(0))?;
    transaction.commit()?;
    Ok(messages)
}

/// Puts every object of ours in place. With the new epoch the old notes say nothing any more; and a greatest possible rowid,
/// which a row once had that is gone, need not be avoided any longer.
fn build(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(NOTES)?;
    transaction.execute_batch(DETAILS)?;
    transaction.execute_batch(
        "DELETE FROM postroom_changes;
         UPDATE postroom_index SET
             epoch = lower(hex(randomblob(16))),
             high_row = CASE high_row WHEN 9223372036854775807 THEN 0 ELSE high_row END;",
    )?;
    add_columns(transaction)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)
}

fn add_columns(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    for (table, column) in ADDED {
        if !has_column(transaction, table, column)? {
            transaction.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} TEXT"))?;
        }
    }
    Ok(())
}

/// A progress handler that only looks.
fn keep_going(mut look: impl FnMut() + Send + 'static) -> impl FnMut() -> bool + Send + 'static {
    move || {
        look();
        false
    }
}
