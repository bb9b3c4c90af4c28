//! Looking a database file over without changing it.

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::file::wal_path;
use super::schema::{SCHEMA_VERSION, is_ours, object_exists, open_for_reading};

/// What was found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The version of our objects; 0 if there are none.
    pub schema_version: i64,
    /// Rows in `messages`; none where there is no such table, which the next start would make.
    pub messages: Option<u64>,
    /// What is wrong, one sentence each.
    pub findings: Vec<String>,
}

/// Opens the file for reading and looks at its table; with `thorough`, reads everything: SQLite's own integrity check.
pub fn audit(path: &Path, thorough: bool) -> rusqlite::Result<Audit> {
    let connection = open_untouched(path)?;
    let schema_version =
        if is_ours(&connection)? { connection.query_row("PRAGMA user_version", [], |row| row.get(0))? } else { 0 };
    let mut audit = Audit { schema_version, messages: None, findings: Vec::new() };
    if thorough {
        audit.findings = integrity(&connection)?;
    }
    if object_exists(&connection, "messages")? {
        audit.messages = Some(connection.query_row("SELECT count(*) FROM messages", [], |row| row.get(0))?);
    }
    if schema_version > SCHEMA_VERSION {
        audit.findings.push(format!("schema {schema_version} is newer than this program knows"));
    }
    Ok(audit)
}

/// A connection that leaves nothing behind. Reading a file in WAL mode makes a log beside it, owned by whoever reads; where
/// nobody has the file open there is no log, and the file cannot change while it is only looked at.
fn open_untouched(path: &Path) -> rusqlite::Result<Connection> {
    if wal_path(path).exists() || !is_in_wal_mode(path) {
        return open_for_reading(path);
    }
    let mut uri = String::from("file:");
    for byte in std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(*byte)),
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(uri, flags)
}

/// Bytes 18 and 19 of the header are 2 in WAL mode (SQLite, "Database File Format", §1.3.3).
fn is_in_wal_mode(path: &Path) -> bool {
    let mut header = [0; 20];
    File::open(path).and_then(|mut file| file.read_exact(&mut header)).is_ok() && header[18..] == [2, 2]
}

/// SQLite's own complaints.
fn integrity(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("PRAGMA integrity_check")?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    Ok(lines.collect::<Result<Vec<_>, _>>()?.into_iter().filter(|line| line != "ok").collect())
}
