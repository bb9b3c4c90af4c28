//! What an index covers of a database, and what it does not: the questions that are asked in SQL on the way.

use std::io;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};
use thiserror::Error;

use super::schema;
use crate::store::index::folder::Sample;
use crate::store::index::key::{self, Value};
use crate::store::index::senders::{Changes, count};
use crate::store::index::state::{Dead, Gone, State, digest};

/// Messages whose hashes are kept with the files.
const SAMPLES: u64 = 64;

/// Why something could not be read or covered.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The table.
    #[error("the database cannot be read")]
    Sqlite(#[from] rusqlite::Error),
    /// The index.
    #[error("the index cannot be used")]
    Index(#[from] io::Error),
}

/// How far a snapshot of the database reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    /// Changes when rows may have changed without notes.
    pub epoch: String,
    /// The names by which an index knows the file, the newest first.
    names: String,
    /// Changes with every table, index or trigger that anybody makes or drops, and when a whole database is restored in place.
    pub schema_version: i64,
    /// No less than any row that was given up.
    high_row: i64,
    /// The greatest row.
    last_row: Option<i64>,
    /// The last note that was ever made.
    pub last_note: i64,
    /// The first note that is still there.
    first_note: Option<i64>,
}

impl Extent {
    /// Reads it; none if our objects are not there.
    pub fn read(connection: &Connection) -> rusqlite::Result<Option<Self>> {
        let sql =
            "SELECT epoch, high_row, (SELECT max(rowid) FROM messages), (SELECT min(change) FROM postroom_changes),
                       ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'postroom_changes'), 0), names
                   FROM postroom_index, postroom_tie";
        let schema_version = schema::version(connection)?;
        let extent = connection.prepare_cached(sql)?.query_row([], |row| {
            Ok(Self {
                epoch: row.get(0)?,
                schema_version,
                high_row: row.get(1)?,
                last_row: row.get(2)?,
                first_note: row.get(3)?,
                last_note: row.get(4)?,
                names: row.get(5)?,
            })
        });
        extent.optional()
    }

    /// Whether a state tells of this database, and everything that it does not cover can be found.
    pub fn suits(&self, state: &State, database: (u64, u64)) -> bool {
        state.database == database && state.schema_version == self.schema_version && self.has_all_of(state)
    }

    /// Whether everything that a state covers was once in this database, and everything that it does not cover can be found.
    fn has_all_of(&self, state: &State) -> bool {
        let reached = self.last_row.unwrap_or(i64::MIN).max(self.high_row);
        let next_note = self.first_note.unwrap_or(self.last_note + 1);
        state.epoch == self.epoch
            && self.names.split_terminator(' ').any(|name| name == state.tie)
            && (state.row <= reached || state.members.is_empty())
            && state.note <= self.last_note
            && next_note <= state.note + 1
    }

    /// The newest of the names.
    pub fn tie(&self) -> &str {
        self.names.split_terminator(' ').next().unwrap_or_default()
    }

    /// How many rows there are at most behind a row.
    pub fn behind(&self, row: i64) -> i64 {
        self.last_row.map_or(0, |last| last.saturating_sub(row.max(0))).max(0)
    }
}

/// A value as the index sorts it.
pub(super) fn value(value: ValueRef<'_>) -> Value<'_> {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(bytes) => Value::Text(bytes),
        ValueRef::Blob(bytes) => Value::Blob(bytes),
    }
}

/// Calls `each` for everything that notes say is gone among the rows that a state covers, once for each row. Of several notes
/// of a row the first one tells what the state has; the others tell of what came and went since.
fn each_gone(
    connection: &Connection,
    state: &State,
    mut each: impl FnMut(Gone) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let sql = "SELECT row, ts, message_id, from_msisdn, min(change) FROM postroom_changes
               WHERE change > ?1 AND row <= ?2 GROUP BY row";
    let mut notes = connection.prepare_cached(sql)?;
    let mut rows = notes.query([state.note, state.row])?;
    while let Some(row) = rows.next()? {
        if let Some(gone) = gone(row)? {
            each(gone)?;
        }
    }
    Ok(())
}

/// What is dead in the segments of a state by the notes that it does not cover, and how the senders' counts change by that.
pub(super) fn dead_by_notes(connection: &Connection, state: &State) -> Result<(Dead, Changes), Failure> {
    by_notes(connection, state).map(|by_notes| (by_notes.dead, by_notes.changes))
}

/// What notes that a state does not cover do to it.
#[derive(Debug, Default)]
pub(super) struct ByNotes {
    /// What is dead in its segments.
    pub dead: Dead,
    /// How the senders' counts change by that.
    pub changes: Changes,
    /// How many messages that are.
    messages: u64,
    /// Their share of the state's digest.
    pub digest: u64,
}

/// Reads these notes.
pub(super) fn by_notes(connection: &Connection, state: &State) -> Result<ByNotes, Failure> {
    let mut found = ByNotes::default();
    each_gone(connection, state, |gone| {
        if let Some((member, rank)) = state.find(&gone)? {
            found.dead.entry(member).or_default().push(rank);
            count(&mut found.changes, &gone.sender, -1);
            found.messages += 1;
            found.digest = found.digest.wrapping_add(digest(gone.row, &gone.place, &gone.sender));
        }
        Ok(())
    })?;
    Ok(found)
}

/// Why a state that suits is not of these rows all the same, if it is not: rows may have changed without notes. Reads the whole
/// table.
pub(super) fn difference(connection: &Connection, state: &State) -> Result<Option<String>, Failure> {
    let gone = by_notes(connection, state)?;
    let (expected, expected_digest) = (state.live() - gone.messages, state.digest.wrapping_sub(gone.digest));
    let sql = "SELECT rowid, ts, message_id, from_msisdn FROM messages
               WHERE rowid <= ?1 AND rowid NOT IN (SELECT row FROM postroom_changes WHERE change > ?2)";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([state.row, state.note])?;
    let (mut found, mut found_digest) = (0, 0_u64);
    while let Some(row) = rows.next()? {
        let place = key::place(value(row.get_ref(1)?), value(row.get_ref(2)?));
        let sender = key::single(value(row.get_ref(3)?));
        found += 1;
        found_digest = found_digest.wrapping_add(digest(row.get(0)?, &place, &sender));
    }
    Ok(match (found == expected, found_digest == expected_digest) {
        (false, _) => Some(format!("it has {expected} messages where the table has {found}")),
        (_, false) => Some("it has other messages than the table".to_owned()),
        _ => None,
    })
}

/// What a note says was there before; none where there was nothing.
fn gone(row: &Row<'_>) -> rusqlite::Result<Option<Gone>> {
    let ts = row.get_ref(1)?;
    if ts == ValueRef::Null {
        return Ok(None);
    }
    Ok(Some(Gone {
        row: row.get(0)?,
        place: key::place(value(ts), value(row.get_ref(2)?)),
        sender: key::single(value(row.get_ref(3)?)),
    }))
}

/// A hash of what the index knows of a row; none if the row is not there, or has a note that the state does not cover.
pub(super) fn row_hash(connection: &Connection, state: &State, row: i64) -> rusqlite::Result<Option<u32>> {
    let sql = "SELECT ts, message_id, from_msisdn, text FROM messages WHERE rowid = ?1
                   AND NOT EXISTS (SELECT 1 FROM postroom_changes WHERE change > ?2 AND row = ?1)";
    let hash = connection.prepare_cached(sql)?.query_row([row, state.note], |row| {
        let mut all = Vec::new();
        for column in 0..4 {
            key::put(value(row.get_ref(column)?), &mut all);
        }
        Ok(crc32fast::hash(&all))
    });
    hash.optional()
}

/// Some messages of a state, evenly spread, the last one among them.
pub(super) fn samples(connection: &Connection, state: &State) -> Result<Vec<Sample>, Failure> {
    let mut samples = Vec::new();
    let step = (state.live() / SAMPLES).max(1) as usize;
    let mut wanted: Vec<i64> = vec![state.row];
    for member in &state.members {
        let mut rows = member.segment.rows();
        for rank in (0..member.segment.count()).step_by(step) {
            wanted.push(rows.row(rank)?);
        }
    }
    for row in wanted {
        if let Some(hash) = row_hash(connection, state, row)? {
            samples.push(Sample { row, hash });
        }
    }
    Ok(samples)
}

/// Whether each row still is what it was when its sample was taken, or has a note that tells otherwise.
pub(super) fn samples_are_true(connection: &Connection, state: &State, samples: &[Sample]) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM postroom_changes WHERE change > ?1 AND row = ?2)";
    let mut is_noted = connection.prepare_cached(sql)?;
    for sample in samples {
        let is_true = match row_hash(connection, state, sample.row)? {
            Some(hash) => hash == sample.hash,
            None => is_noted.query_row([state.note, sample.row], |row| row.get(0))?,
        };
        if !is_true {
            return Ok(false);
        }
    }
    Ok(true)
}
