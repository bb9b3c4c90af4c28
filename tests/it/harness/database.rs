//! Reads a database file from outside, like any other program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::Connection;

/// The table as the original service creates it.
pub const MESSAGES: &str = "CREATE TABLE IF NOT EXISTS messages (message_id TEXT PRIMARY KEY, from_msisdn TEXT NOT NULL, \
     to_msisdn TEXT NOT NULL, ts TEXT NOT NULL, text TEXT, created_at TEXT NOT NULL)";

/// A connection like that of any other program.
pub fn open(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("the file opens");
    connection.busy_timeout(super::server::PATIENCE).expect("a timeout can be set");
    connection
}

/// All ids in the table, read from the rows and not from an index.
pub fn ids(connection: &Connection) -> BTreeSet<String> {
    let mut statement = connection.prepare("SELECT message_id FROM messages NOT INDEXED").expect("the table is there");
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).expect("it can be read");
    let all: Vec<String> = rows.map(|id| id.expect("an id is text")).collect();
    let ids: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(ids.len(), all.len(), "no id is there twice");
    ids
}

/// Asserts that SQLite's own check finds no damage.
pub fn assert_sound(connection: &Connection) {
    let integrity: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("it can be read");
    assert_eq!(integrity, "ok");
}

/// Messages, senders, and messages by sender.
pub type Summaries = (i64, i64, BTreeMap<String, i64>);

/// Counted from the table.
pub fn recount(connection: &Connection) -> Summaries {
    // Without an index, which might be wrong in the same way.
    let sql = "SELECT from_msisdn, count(*) FROM messages NOT INDEXED GROUP BY from_msisdn";
    let mut statement = connection.prepare(sql).expect("the table is there");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("it can be read");
    summed(rows.map(|row| row.expect("a sender and a number")))
}

/// The summaries of a number of messages per sender.
pub fn summed(counts: impl Iterator<Item = (String, i64)>) -> Summaries {
    let by_sender: BTreeMap<String, i64> = counts.collect();
    (by_sender.values().sum(), by_sender.len() as i64, by_sender)
}

/// Asserts that every acknowledged message is stored, and nothing that was not sent.
pub fn assert_holds(connection: &Connection, sent: &super::load::Sent) {
    sent.assert_are_all_of(&ids(connection));
}

/// Whether the write-ahead log exists next to the file.
pub fn log_exists(path: &Path) -> bool {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    Path::new(&name).exists()
}
