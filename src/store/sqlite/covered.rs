//! What an index covers of a database, and what it does not: the questions that are asked in SQL on the way.

use std::io;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};
use thiserror::Error;

use super::damage::{Columns, Damage, Sampled, is_unreadable};
use crate::store::index::folder::Sample;
use crate::store::index::key::{self, Value};
use crate::store::index::senders::{Changes, count};
use crate::store::index::state::{Dead, Gone, State};

/// Why something could not be read or covered.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The table.
    #[error("the database cannot be read")]
    Sqlite(#[from] rusqlite::Error),
    /// The index.
    #[error("the index cannot be used")]
    Index(#[from] io::Error),
    /// A row is not what the index took in.
    #[error(transparent)]
    Damage(#[from] Damage),
}

/// How far a snapshot of the database reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    /// Changes when rows may have changed without notes.
    pub epoch: String,
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
                       ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'postroom_changes'), 0)
                   FROM postroom_index";
        let extent = connection.prepare_cached(sql)?.query_row([], |row| {
            Ok(Self {
                epoch: row.get(0)?,
                high_row: row.get(1)?,
                last_row: row.get(2)?,
                first_note: row.get(3)?,
                last_note: row.get(4)?,
            })
        });
        extent.optional()
    }

    /// Whether a state tells of this database, and everything that it does not cover can be found.
    pub fn suits(&self, state: &State, database: (u64, u64)) -> bool {
        let reached = self.last_row.unwrap_or(i64::MIN).max(self.high_row);
        let next_note = self.first_note.unwrap_or(self.last_note + 1);
        state.epoch == self.epoch
            && state.database == database
            && (state.row <= reached || state.members.is_empty())
            && state.note <= self.last_note
            && next_note <= state.note + 1
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
    let (mut dead, mut changes) = (Dead::new(), Changes::new());
    each_gone(connection, state, |gone| {
        if let Some((member, rank)) = state.find(&gone)? {
            dead.entry(member).or_default().push(rank);
            count(&mut changes, &gone.sender, -1);
        }
        Ok(())
    })?;
    Ok((dead, changes))
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

/// A hash of all that a row says; none if the row is not there or cannot be read, or has a note that the state does not cover.
pub(super) fn row_hash(connection: &Connection, state: &State, row: i64) -> rusqlite::Result<Option<u32>> {
    let sql = "SELECT rowid, ts, message_id, from_msisdn, to_msisdn, text, created_at FROM messages WHERE rowid = ?1
                   AND NOT EXISTS (SELECT 1 FROM postroom_changes WHERE change > ?2 AND row = ?1)";
    let hash = connection.prepare_cached(sql)?.query_row([row, state.note], |row| Columns::TAKEN_IN.hash(row));
    hash.optional()
}

/// Which rows are not what they were when their samples were taken, and have no note that tells otherwise. What cannot be read
/// tells nothing.
pub(super) fn compare_samples(connection: &Connection, state: &State, samples: &[Sample]) -> rusqlite::Result<Sampled> {
    let sql = "SELECT EXISTS (SELECT 1 FROM postroom_changes WHERE change > ?1 AND row = ?2)";
    let mut is_noted = connection.prepare_cached(sql)?;
    let mut sampled = Sampled::default();
    for sample in samples {
        let is_true = match row_hash(connection, state, sample.row) {
            Ok(Some(hash)) => hash == sample.hash,
            Ok(None) => is_noted.query_row([state.note, sample.row], |row| row.get(0))?,
            Err(error) if is_unreadable(&error) => continue,
            Err(error) => return Err(error),
        };
        sampled.rows += 1;
        if !is_true {
            sampled.differing.push(sample.row);
        }
    }
    Ok(sampled)
}
