//! Looking a database file over without changing it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rusqlite::Connection;

use super::batch::message;
use super::columns::value;
use super::covered::{Extent, Failure, compare_samples, dead_by_notes};
use super::details_read;
use super::file::{is_in_wal_mode, is_mounted_alone, locate, wal_path};
use super::reading::{open_for_reading, open_immutable};
use super::schema::{SCHEMA_VERSION, is_ours, object_exists, sort_beside};
use super::verifier::Difference;
use super::{leftover, log_scan};
use crate::store::Leftovers;
use crate::store::index::build::Row;
use crate::store::index::folder::Folder;
use crate::store::index::key;
use crate::store::index::state::State;
use crate::store::index::verify;

/// What was found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The version of our objects; 0 if there are none.
    pub schema_version: i64,
    /// Rows in `messages`; none where there is no such table, which the next start would make.
    pub messages: Option<u64>,
    /// How the index beside the file stands to it.
    pub index: IndexAudit,
    /// What deleted messages left behind; only looked for thoroughly.
    pub leftovers: Leftovers,
    /// What is wrong, one sentence each.
    pub findings: Vec<String>,
}

/// Rows that differ are named one by one, up to so many.
const NAMED_MAX: usize = 10;

/// What was found of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexAudit {
    /// There is none, or it is of another version or content: the next start builds it.
    Absent,
    /// It covers so many messages.
    Covers(u64),
}

/// Opens the file for reading and looks at its table; with `thorough`, reads everything: SQLite's own integrity check, and the
/// index against the table.
pub fn audit(path: &Path, thorough: bool) -> rusqlite::Result<Audit> {
    let path = &locate(path).unwrap_or_else(|_| path.to_owned());
    // Before it is opened: whoever has it open may write to it.
    let log = log_scan::scan(path).ok().flatten().filter(|finding| finding.is_certain);
    let connection = open_untouched(path, log.is_some())?;
    // A copy may lie where nobody may write; then SQLite looks for another place. Either way its files are gone at once.
    drop(sort_beside(&connection, path));
    let schema_version =
        if is_ours(&connection)? { connection.query_row("PRAGMA user_version", [], |row| row.get(0))? } else { 0 };
    let mut audit = Audit {
        schema_version,
        messages: None,
        index: IndexAudit::Absent,
        leftovers: Leftovers::default(),
        findings: Vec::new(),
    };
    if thorough {
        audit.findings = integrity(&connection)?;
    }
    if is_mounted_alone(path) {
        audit.findings.push(
            "the file is a mount by itself: mount its folder, or messages in its log are lost with the container"
                .to_owned(),
        );
    }
    if let Some(finding) = log {
        let what = "the next start keeps a copy of it; everything else here is told of the file without its log";
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
                Err(error) => audit.findings.push(format!("what providers sent cannot be read: {error}")),
            }
            audit.leftovers = leftover::count(&connection)?;
        }
    }
    Ok(audit)
}

/// Looks at the index that lies beside the file.
fn audit_index(path: &Path, connection: &Connection, thorough: bool, audit: &mut Audit) -> rusqlite::Result<()> {
    let (mut state, samples) = match Folder::load(&Folder::path_of(path)) {
        Ok(loaded) => loaded,
        Err(error) => {
            if thorough && error.kind() == std::io::ErrorKind::InvalidData {
                audit.findings.push(format!("the index on disk is damaged ({error}); the next start builds it anew"));
            }
            return Ok(());
        }
    };
    // One moment for all that is compared.
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
                audit.findings.push(format!("{error:#}; `postroom reindex` builds the index anew"));
            }
        }
    }
    Ok(())
}

fn file_numbers(path: &Path) -> (u64, u64) {
    std::fs::metadata(path).map_or((0, 0), |metadata| (metadata.dev(), metadata.ino()))
}

/// What a person can do about rows that differ.
const ACCEPT: &str =
    "restore these rows, or the file, from a backup; `postroom reindex` accepts what the table has now";

/// What is wrong with an index, or with the rows that it covers.
fn compare(connection: &Connection, state: &State) -> Result<Vec<String>, Failure> {
    let mut found = differing_rows(connection, state)?;
    if found.is_empty() {
        let of_index = compare_totals(connection, state)?;
        found.extend(of_index.map(|finding| format!("{finding}; `postroom reindex` builds it anew")));
    }
    Ok(found)
}

/// Rows that are not what was taken in; and, where there are none, lists that are not of these rows.
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
            return Ok(vec![format!("{what}; `postroom reindex` builds it anew")]);
        }
    }
    if differing > 0 {
        found.push(format!("{differing} messages are not what was stored, or are gone without a note: {ACCEPT}"));
    }
    Ok(found)
}

/// What is wrong with the totals and the counts of senders, if anything is.
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
            return Ok(Some("the index counts the messages of a sender otherwise".to_owned()));
        }
    }
    Ok((distinct != senders.distinct()).then(|| "the index has another number of senders".to_owned()))
}

/// A connection that leaves nothing behind. Reading a file in WAL mode makes a log beside it, owned by whoever reads; where
/// nobody has the file open there is no log, and the file cannot change while it is only looked at.
/// With `without_log` the log is left out of it: SQLite would note beside it how much of it can be read, and what is known of the rest
/// would be gone.
fn open_untouched(path: &Path, without_log: bool) -> rusqlite::Result<Connection> {
    if !without_log && (wal_path(path).exists() || !is_in_wal_mode(path)) {
        return open_for_reading(path);
    }
    open_immutable(path)
}

/// SQLite's own complaints.
fn integrity(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("PRAGMA integrity_check")?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    Ok(lines.collect::<Result<Vec<_>, _>>()?.into_iter().filter(|line| line != "ok").collect())
}
