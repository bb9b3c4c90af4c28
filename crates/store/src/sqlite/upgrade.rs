//! The additions to a database file before it is served: our objects,
//! in one transaction, and a new epoch for all derived data.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use domain::ConflictKey;
use domain::conflict::CONFLICT;
use runtime::log;

/// The version of our objects that this program creates and supports.
pub const SCHEMA_VERSION: i64 = 5;
/// Since this version no change affected the derived index.
const SAME_INDEX_SINCE: i64 = 4;

/// Creates the objects of version 2 in any earlier file.
const NOTES: &str = include_str!("migrations/0002_notes.sql");
/// Objects that are not derived from the table: created if missing, never dropped.
const DETAILS: &str = include_str!("migrations/0003_details.sql");
/// The tie between index and file.
const TIE: &str = include_str!("migrations/0004_tie.sql");
/// Columns that were introduced later. They may be null, so an earlier build need not write them.
const ADDED: [(&str, &str); 2] = [("postroom_statuses", "extra"), ("postroom_events", "message")];
/// Interval of progress lines of a long upgrade.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Steps of SQLite's virtual machine between two checks of the clock during long operations.
pub(super) const STEPS_PER_LOOK: i32 = 100_000;

/// Whether one of our objects is missing, or a trigger of ours is on another
/// table. In both cases changes may have been made without change records.
pub(super) fn needs_upgrade(connection: &Connection) -> rusqlite::Result<bool> {
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
    let has_rows = "SELECT 1 FROM postroom_index, postroom_tie";
    Ok(!connection.prepare(has_rows)?.exists([])?)
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
pub(crate) fn has_column(connection: &Connection, table: &str, column: &str) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2")?;
    statement.exists([table, column])
}

/// The names of all objects that the migration creates, read from its text.
fn created_names() -> Vec<&'static str> {
    [NOTES, DETAILS, TIE]
        .into_iter()
        .flat_map(str::lines)
        .filter(|line| line.starts_with("CREATE "))
        .filter_map(|line| line.split_once("IF NOT EXISTS ")?.1.split_ascii_whitespace().next())
        .collect()
}

/// Adds missing objects, in one transaction: a crash leaves the file as it was.
pub(super) fn upgrade(connection: &mut Connection) -> rusqlite::Result<()> {
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
    // Another process may have upgraded the file during the wait for the lock.
    let version = user_version(&transaction)?;
    if !(SAME_INDEX_SINCE..=SCHEMA_VERSION).contains(&version) || lacks_object(&transaction)? {
        build(&transaction)?;
    } else {
        add_underived(&transaction)?;
    }
    transaction.commit()?;
    connection.progress_handler(0, None::<fn() -> bool>)?;
    let seconds = format!("{:.3}", started.elapsed().as_secs_f64());
    log::info("prepared the database").value("elapsed_seconds", seconds).emit();
    Ok(())
}

/// Creates all of our objects. With the new epoch old change records are invalid,
/// and the greatest possible rowid of a deleted row need not be avoided any longer.
pub(super) fn build(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(NOTES)?;
    transaction.execute_batch(DETAILS)?;
    transaction.execute_batch(TIE)?;
    begin_epoch(transaction)?;
    transaction.execute_batch(
        "UPDATE postroom_index SET high_row = CASE high_row WHEN 9223372036854775807 THEN 0 ELSE high_row END;",
    )?;
    add_underived(transaction)
}

/// Adds objects that the derived index does not depend on, so the index stays valid.
fn add_underived(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    add_columns(transaction)?;
    if user_version(transaction)? != SCHEMA_VERSION {
        rename_conflicts(transaction)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)
}

/// Invalidates all data that was derived before, including change records.
pub(super) fn begin_epoch(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "DELETE FROM postroom_changes;
         UPDATE postroom_index SET epoch = lower(hex(randomblob(16)));
         DELETE FROM postroom_tie;
         INSERT INTO postroom_tie (only_row, names) VALUES (1, lower(hex(randomblob(16))) || ' ');",
    )
}

fn add_columns(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    for (table, column) in ADDED {
        if !has_column(transaction, table, column)? {
            transaction.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} TEXT"))?;
        }
    }
    Ok(())
}

/// Version 5: the key of a conflict ends with the digest of the copy's body. Before, it ended with the number
/// of the body, and a copied database numbers its bodies differently. If the body is missing, the event keeps
/// its key: if the same conflict occurs again, it is recorded once more, because its body is stored again.
fn rename_conflicts(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let sql = "SELECT events.event_id, events.event_key, events.body, payloads.digest FROM postroom_events AS events
               LEFT JOIN postroom_payloads AS payloads ON payloads.payload_id = events.payload_id
               WHERE events.kind = ?1";
    let mut renamed = Vec::new();
    let mut statement = transaction.prepare(sql)?;
    let mut rows = statement.query([CONFLICT])?;
    while let Some(row) = rows.next()? {
        let (Ok(key), Ok(body)) = (row.get_ref(1)?.as_str(), row.get_ref(2)?.as_str()) else { continue };
        let digest = row.get_ref(3)?.as_blob().ok();
        if let Some(key) = ConflictKey::upgraded(key, body, digest) {
            renamed.push((row.get::<_, i64>(0)?, key));
        }
    }
    for (event, key) in renamed {
        let sql = "UPDATE OR IGNORE postroom_events SET event_key = ?2 WHERE event_id = ?1";
        if transaction.prepare_cached(sql)?.execute(params![event, key.as_str()])? == 0 {
            // It was recorded under both keys; the other one comes from a copy of this database.
            transaction.prepare_cached("DELETE FROM postroom_events WHERE event_id = ?1")?.execute([event])?;
        }
    }
    Ok(())
}

/// A progress handler that never stops the operation.
pub(super) fn keep_going(mut look: impl FnMut() + Send + 'static) -> impl FnMut() -> bool + Send + 'static {
    move || {
        look();
        false
    }
}
