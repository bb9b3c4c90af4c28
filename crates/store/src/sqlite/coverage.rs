//! SQL queries for the part of a database that an index covers, and for the rest.

use std::io;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};
use thiserror::Error;

use super::columns::{Columns, value};
use super::damage::Damage;
use super::error_code::is_unreadable;
use super::schema;
use index::Sample;
use index::key;
use index::senders::{Changes, count};
use index::state::{Dead, State, Tombstone, digest};

/// At most one sample row in this many is damaged in the same database; with more, it is another one.
const DAMAGED_SHARE: usize = 8;
/// Messages whose hashes are stored with the files.
const SAMPLES: u64 = 64;

/// Why a read or a comparison failed.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The table cannot be read.
    #[error("the database cannot be read")]
    Sqlite(#[from] rusqlite::Error),
    /// The index cannot be read.
    #[error("the index cannot be used")]
    Index(#[from] io::Error),
    /// A row differs from its indexed values.
    #[error(transparent)]
    Damage(#[from] Damage),
}

/// How far a snapshot of the database reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    /// Changes when rows may have changed without change records.
    pub epoch: String,
    /// The names in the file that tie an index to it, the newest first.
    names: String,
    /// Changes whenever a table, index or trigger is created or dropped, and when a database is restored in place.
    pub schema_version: i64,
    /// Not less than any freed row number.
    high_row: i64,
    /// The greatest row.
    last_row: Option<i64>,
    /// The last change record ever written.
    pub last_note: i64,
    /// The first change record that still exists.
    first_note: Option<i64>,
}

impl Extent {
    /// Reads the extent; none if our objects are missing.
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

    /// Whether a state belongs to this database, and everything that it does not cover can be found.
    pub fn suits(&self, state: &State, database: (u64, u64)) -> bool {
        state.database == database && state.schema_version == self.schema_version && self.has_all_of(state)
    }

    /// Whether this database once had everything that a state covers, and the rest can be found.
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

    /// Maximum number of rows above a row.
    pub fn behind(&self, row: i64) -> i64 {
        self.last_row.map_or(0, |last| last.saturating_sub(row.max(0))).max(0)
    }
}

/// Calls `each` for every tombstone among the rows that a state covers, once for each row. Of several change records
/// of a row the first one has the values of the state; the others are later changes.
fn each_gone(
    connection: &Connection,
    state: &State,
    mut each: impl FnMut(Tombstone) -> Result<(), Failure>,
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

/// Deleted ranks in the segments of a state, by later change records, and the changes of the senders' counts.
pub(super) fn dead_by_notes(connection: &Connection, state: &State) -> Result<(Dead, Changes), Failure> {
    by_notes(connection, state).map(|by_notes| (by_notes.dead, by_notes.changes))
}

/// The effect of change records that a state does not cover.
#[derive(Debug, Default)]
pub(super) struct ByNotes {
    /// Deleted ranks in its segments.
    pub dead: Dead,
    /// Changes of the senders' counts.
    pub changes: Changes,
    /// Number of these messages.
    messages: u64,
    /// Their part of the state's digest.
    pub digest: u64,
}

/// Reads these change records.
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

/// A comparison of samples with the table.
#[derive(Debug, Default)]
pub(super) struct Sampled {
    /// Compared rows.
    pub rows: usize,
    /// Rows that differ from their samples.
    pub differing: Vec<i64>,
}

impl Sampled {
    /// Whether the samples are from this database. In another database, or an older state, more than a few rows
    /// differ; if only a few differ, they are damaged.
    pub fn is_of_this_database(&self) -> bool {
        let few = self.rows.max(DAMAGED_SHARE) / DAMAGED_SHARE;
        self.differing.is_empty() || self.differing.len() < self.rows && self.differing.len() <= few
    }
}

/// The result of comparing the rows that a state covers.
pub(super) enum Compared {
    /// The rows are unchanged, as far as they can be read.
    Same,
    /// The number of rows is the same, and these differ from their indexed values.
    Differing(Vec<i64>),
    /// The number of rows differs; a description.
    Other(String),
}

impl From<Sampled> for Compared {
    fn from(sampled: Sampled) -> Self {
        if sampled.differing.is_empty() { Self::Same } else { Self::Differing(sampled.differing) }
    }
}

/// Compares a matching state with all rows that it covers, because they may have changed unrecorded.
/// Reads the whole table. Unreadable pages are skipped; reads that need them report them.
pub(super) fn compare(connection: &Connection, state: &State) -> Result<Compared, Failure> {
    match compare_all(connection, state) {
        Err(Failure::Sqlite(error)) if is_unreadable(&error) => Ok(Compared::Same),
        compared => compared,
    }
}

/// The rows that a state covers and that have no change record.
const COVERED_ROWS: &str = "SELECT rowid, ts, message_id, from_msisdn, to_msisdn, text, created_at FROM messages
    WHERE rowid <= ?1 AND rowid NOT IN (SELECT row FROM postroom_changes WHERE change > ?2)";

fn compare_all(connection: &Connection, state: &State) -> Result<Compared, Failure> {
    let gone = by_notes(connection, state)?;
    let (expected, expected_digest) = (state.live() - gone.messages, state.digest.wrapping_sub(gone.digest));
    let mut statement = connection.prepare_cached(COVERED_ROWS)?;
    let mut rows = statement.query([state.row, state.note])?;
    let (mut found, mut found_digest) = (0, 0_u64);
    while let Some(row) = rows.next()? {
        let place = Columns::TAKEN_IN.place(row)?;
        let sender = key::single(value(row.get_ref(3)?));
        found += 1;
        found_digest = found_digest.wrapping_add(digest(row.get(0)?, &place, &sender));
    }
    Ok(match (found == expected, found_digest == expected_digest) {
        (false, _) => Compared::Other(format!("it has {expected} messages where the table has {found}")),
        (true, false) => differing_rows(connection, state)?.into(),
        (true, true) => Compared::Same,
    })
}

/// Which rows differ from their indexed values.
fn differing_rows(connection: &Connection, state: &State) -> Result<Sampled, Failure> {
    let mut statement = connection.prepare_cached(COVERED_ROWS)?;
    let mut rows = statement.query([state.row, state.note])?;
    let mut sampled = Sampled::default();
    while let Some(row) = rows.next()? {
        let number: i64 = row.get(0)?;
        let known = match state.locate(&Columns::TAKEN_IN.place(row)?, number)? {
            Some((member, rank)) => Some(state.members[member].segment.rows().entry(rank)?.1),
            None => None,
        };
        sampled.rows += 1;
        if known != Some(Columns::TAKEN_IN.hash(row)?) {
            sampled.differing.push(number);
        }
    }
    Ok(sampled)
}

/// The old values in a change record; none if there was no row.
fn gone(row: &Row<'_>) -> rusqlite::Result<Option<Tombstone>> {
    let ts = row.get_ref(1)?;
    if ts == ValueRef::Null {
        return Ok(None);
    }
    Ok(Some(Tombstone {
        row: row.get(0)?,
        place: key::place(value(ts), value(row.get_ref(2)?)),
        sender: key::single(value(row.get_ref(3)?)),
    }))
}

/// A hash of the row; none if it is missing or unreadable, or has a change record that the state does not cover.
pub(super) fn row_hash(connection: &Connection, state: &State, row: i64) -> rusqlite::Result<Option<u32>> {
    let sql = "SELECT rowid, ts, message_id, from_msisdn, to_msisdn, text, created_at FROM messages WHERE rowid = ?1
                   AND NOT EXISTS (SELECT 1 FROM postroom_changes WHERE change > ?2 AND row = ?1)";
    let hash = connection.prepare_cached(sql)?.query_row([row, state.note], |row| Columns::TAKEN_IN.hash(row));
    hash.optional()
}

/// Some messages of a state, evenly spread, including the last one.
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
    wanted.sort_unstable();
    wanted.dedup();
    for row in wanted {
        match row_hash(connection, state, row) {
            Ok(Some(hash)) => samples.push(Sample { row, hash }),
            Ok(None) => {}
            // An unreadable row is not used as a sample; the rest of the index is still valid.
            Err(error) if is_unreadable(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(samples)
}

/// Which rows differ from their samples without a change record. Unreadable ones
/// are skipped.
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
