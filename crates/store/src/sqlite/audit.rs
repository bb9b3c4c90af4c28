//! Checking a database file without changing it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rusqlite::Connection;

use super::batch::message;
use super::columns::value;
use super::coverage::{Extent, Failure, compare_samples, dead_by_notes};
use super::details_read;
use super::file::{is_in_wal_mode, is_mounted_alone, locate, wal_path};
use super::reading::{open_for_reading, open_immutable};
use super::schema::{SCHEMA_VERSION, is_ours, object_exists, sort_beside};
use super::verifier::Difference;
use super::{log_scan, orphans};
use crate::Orphans;
use index::build::Row;
use index::folder::Folder;
use index::key;
use index::state::State;
use index::verify;

/// The findings about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The version of our objects; 0 if there are none.
    pub schema_version: i64,
    /// Rows in `messages`; none if the table is missing, which the next start would create.
    pub messages: Option<u64>,
    /// The state of the index.
    pub index: IndexAudit,
    /// Orphans of deleted messages; only with `thorough`.
    pub orphans: Orphans,
    /// The problems, one sentence each.
    pub findings: Vec<String>,
}

/// Maximum differing rows that are named one by one.
const NAMED_MAX: usize = 10;

/// The findings about the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexAudit {
    /// There is no index, or it has another version or content: the next start builds it.
    Absent,
    /// It covers this many messages.
    Covers(u64),
}

/// Opens the file for reading and checks its table. With `thorough`, reads
/// everything: SQLite's integrity check, and the index against the table.
pub fn audit(path: &Path, thorough: bool) -> rusqlite::Result<Audit> {
    let path = &locate(path).unwrap_or_else(|_| path.to_owned());
    // The log is read before the file is opened: a process that has it open may write to it.
    let log = log_scan::scan(path).ok().flatten().filter(|finding| finding.is_certain);
    let connection = open_untouched(path, log.is_some())?;
    // The folder of a copy may be read-only; then SQLite uses another
    // folder. In both cases its temporary files are deleted immediately.
    drop(sort_beside(&connection, path));
    let schema_version =
        if is_ours(&connection)? { connection.query_row("PRAGMA user_version", [], |row| row.get(0))? } else { 0 };
    let mut audit = Audit {
        schema_version,
        messages: None,
        index: IndexAudit::Absent,
        orphans: Orphans::default(),
        findings: Vec::new(),
    };
    if thorough {
        audit.findings = integrity(&connection)?;
    }
    if is_mounted_alone(path) {
        audit.findings.push(
            "the file is a mount by itself: mount its folder; otherwise messages in its log are lost with the container"
                .to_owned(),
        );
    }
    if let Some(finding) = log {
        let what = "the next start keeps a copy of it; all other findings ignore the log";
        audit.findings.push(format!("{finding}: {what}"));
    }
    if object_exists(&connection, "messages")? {
        audit.messages = Some(connection.query_row("SELECT count(*) FROM messages", [], |row| row.get(0))?);
    }
    if schema_version > SCHEMA_VERSION {
        audit.findings.push(format!("schema {schema_version} is newer than this program knows"));
    } else if audit.messages.is_some() && schema_version == SCHEMA_VERSION {
        audit_index(path, &connection, thorough, &mut audit)?;
        if thorough {
            match details_read::audit(&connection) {
                Ok(findings) => audit.findings.extend(findings),
                Err(error) => audit.findings.push(format!("provider data cannot be read: {error}")),
            }
            audit.orphans = orphans::count(&connection)?;
        }
    }
    Ok(audit)
}

/// Checks the index next to the file.
fn audit_index(path: &Path, connection: &Connection, thorough: bool, audit: &mut Audit) -> rusqlite::Result<()> {
    let (mut state, samples) = match Folder::load(&Folder::path_of(path)) {
        Ok(loaded) => loaded,
        Err(error) => {
            if thorough && error.kind() == std::io::ErrorKind::InvalidData {
                audit.findings.push(format!("the index on disk is damaged ({error}); the next start rebuilds it"));
            }
            return Ok(());
        }
    };
    // All comparisons use one snapshot.
    let _snapshot = connection.unchecked_transaction()?;
    let Some(extent) = Extent::read(connection)? else { return Ok(()) };
    (state.database, state.schema_version) = (file_numbers(path), extent.schema_version);
    if !extent.suits(&state, state.database) || !compare_samples(connection, &state, &samples)?.is_of_this_database() {
        return Ok(());
    }
    audit.index = IndexAudit::Covers(state.live());
    if thorough {
        match compare(connection, &state) {
            Ok(findings) => audit.findings.extend(findings),
            Err(Failure::Sqlite(error)) => audit.findings.push(format!("the table cannot be read: {error}")),
            Err(failure) => {
                let error = anyhow::Error::new(failure);
                audit.findings.push(format!("{error:#}; `postroom reindex` rebuilds the index"));
            }
        }
    }
    Ok(())
}

fn file_numbers(path: &Path) -> (u64, u64) {
    std::fs::metadata(path).map_or((0, 0), |metadata| (metadata.dev(), metadata.ino()))
}

/// The advice for rows that differ.
const ACCEPT: &str =
    "restore these rows, or the file, from a backup; `postroom reindex` accepts the table's present values";

/// The problems of an index, or of the rows that it covers.
fn compare(connection: &Connection, state: &State) -> Result<Vec<String>, Failure> {
    let mut found = differing_rows(connection, state)?;
    if found.is_empty() {
        let of_index = compare_totals(connection, state)?;
        found.extend(of_index.map(|finding| format!("{finding}; `postroom reindex` rebuilds it")));
    }
    Ok(found)
}

/// Rows that differ from their indexed values; and, if there are none, lists that do not match these rows.
fn differing_rows(connection: &Connection, state: &State) -> Result<Vec<String>, Failure> {
    let (dead, _) = dead_by_notes(connection, state)?;
    let members = state.without(&dead);
    let sql = "SELECT rowid, ts, message_id, from_msisdn, to_msisdn, text, created_at FROM messages WHERE rowid = ?1";
    let mut statement = connection.prepare(sql)?;
    let mut row = |number: i64| -> Result<Option<Row>, Failure> {
        let mut rows = statement.query([number])?;
        Ok(rows.next()?.map(message).transpose()?)
    };
    let (mut found, mut differing) = (Vec::new(), 0);
    for member in &members {
        let compared = verify::compare(member, &mut row)?;
        differing += compared.differing;
        for row in compared.named.into_iter().take(NAMED_MAX.saturating_sub(found.len())) {
            found.push(Difference::find(connection, state, row)?.to_string());
        }
        if compared.wrong_texts > 0 || !compared.lists_agree {
            let what = "the texts or lists of the index differ from the messages";
            return Ok(vec![format!("{what}; `postroom reindex` rebuilds it")]);
        }
    }
    if differing > 0 {
        found.push(format!("{differing} messages differ from what was stored, or were deleted unnoticed: {ACCEPT}"));
    }
    Ok(found)
}

/// The problems of the totals and the counts of senders, if any.
fn compare_totals(connection: &Connection, state: &State) -> Result<Option<String>, Failure> {
    let (dead, changes) = dead_by_notes(connection, state)?;
    let members = state.without(&dead);
    let sql = "SELECT count(*) FROM messages WHERE rowid <= ?1
                   AND rowid NOT IN (SELECT row FROM postroom_changes WHERE change > ?2)";
    let expected: u64 = connection.query_row(sql, [state.row, state.note], |row| row.get(0))?;
    let found: u64 = members.iter().map(|member| member.live()).sum();
    if found != expected {
        return Ok(Some(format!("the index has {found} of {expected} messages")));
    }
    let mut senders = state.senders.clone();
    senders.apply(&changes)?;
    let sql = "SELECT from_msisdn, count(*) FROM messages WHERE rowid <= ?1
                   AND rowid NOT IN (SELECT row FROM postroom_changes WHERE change > ?2) GROUP BY from_msisdn";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([state.row, state.note])?;
    let mut distinct = 0;
    while let Some(row) = rows.next()? {
        distinct += 1;
        if senders.count(&key::single(value(row.get_ref(0)?)))? != row.get::<_, u64>(1)? {
            return Ok(Some("the index has another count of a sender's messages".to_owned()));
        }
    }
    Ok((distinct != senders.distinct()).then(|| "the index has another number of senders".to_owned()))
}

/// A connection that leaves no files behind. Reading a file in WAL mode creates a log with the
/// reader as its owner. If no process has the file open, there is no log, and the file cannot
/// change while it is only read. With `without_log` the log is ignored: otherwise SQLite would
/// record how much of it can be read, and information about the rest would be lost.
fn open_untouched(path: &Path, without_log: bool) -> rusqlite::Result<Connection> {
    if !without_log && (wal_path(path).exists() || !is_in_wal_mode(path)) {
        return open_for_reading(path);
    }
    open_immutable(path)
}

/// The findings of SQLite's own check.
fn integrity(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("PRAGMA integrity_check")?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    Ok(lines.collect::<Result<Vec<_>, _>>()?.into_iter().filter(|line| line != "ok").collect())
}
