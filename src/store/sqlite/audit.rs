//! Looking a database file over without changing it.

use std::path::Path;

use rusqlite::Connection;

use super::schema::{SCHEMA_VERSION, object_exists, open_for_reading, summaries_agree};

/// What was found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The version of our objects; 0 if there are none.
    pub schema_version: i64,
    /// Rows in `messages`.
    pub messages: u64,
    /// What is wrong, one sentence each.
    pub findings: Vec<String>,
}

/// Opens the file for reading and looks at its table; with `thorough`, reads everything: SQLite's own integrity check, and
/// the summaries against a recount.
pub fn audit(path: &Path, thorough: bool) -> rusqlite::Result<Audit> {
    let connection = open_for_reading(path)?;
    let schema_version = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let mut audit = Audit { schema_version, messages: 0, findings: Vec::new() };
    if !object_exists(&connection, "messages")? {
        audit.findings.push("there is no table 'messages'".to_owned());
        return Ok(audit);
    }
    audit.messages = connection.query_row("SELECT count(*) FROM messages", [], |row| row.get(0))?;
    if schema_version > SCHEMA_VERSION {
        audit.findings.push(format!("schema {schema_version} is newer than this program knows"));
    }
    if thorough {
        audit.findings.extend(integrity(&connection)?);
        if schema_version == SCHEMA_VERSION && !(summaries_agree(&connection)? && senders_agree(&connection)?) {
            audit.findings.push("the summaries differ from a recount; the next start counts anew".to_owned());
        }
    }
    Ok(audit)
}

/// SQLite's own complaints.
fn integrity(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("PRAGMA integrity_check")?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    Ok(lines.collect::<Result<Vec<_>, _>>()?.into_iter().filter(|line| line != "ok").collect())
}

/// Sender by sender.
fn senders_agree(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT NOT EXISTS (
             SELECT from_msisdn, count(*) FROM messages GROUP BY from_msisdn
             EXCEPT SELECT from_msisdn, messages FROM postroom_senders
         )",
        [],
        |row| row.get(0),
    )
}
