//! Rows of the table for the index: a limited number per batch, with limited text.

use std::time::Duration;

use rusqlite::{Connection, Row as SqlRow};

use super::columns::{Columns, value};
use super::damage::Damage;
use super::queries::shown;
use index;
use index::build::Row;
use index::key;

/// The batch sizes of the index, and its memory limits. Tests use smaller numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Messages that are added per batch.
    pub batch: usize,
    /// Bytes of text after which no more rows are added: a text without repetitions takes thirty times as
    /// much memory while it is indexed.
    pub batch_bytes: usize,
    /// Messages in memory before they are written to a file.
    pub save_at: u64,
    /// The same limit in bytes.
    pub save_at_bytes: u64,
    /// The idle time after which a smaller number is written, too.
    pub rest: Duration,
    /// An index with at most this many messages is compared with
    /// the table before its use. A larger one is compared too,
    /// unless its files are known to belong to the database.
    pub compared_first: u64,
    /// The limits of segments.
    pub index: index::Limits,
}

impl Pace {
    /// The limits of the service.
    pub const PRODUCTION: Self = Self {
        batch: 8_192,
        batch_bytes: 1 << 20,
        save_at: 65_536,
        save_at_bytes: 32 << 20,
        rest: Duration::from_secs(5),
        compared_first: 65_536,
        index: index::Limits::PRODUCTION,
    };
}

/// Messages that are added together.
pub(super) struct Batch {
    pub rows: Vec<Row>,
    bytes: usize,
    pace: Pace,
}

impl Batch {
    pub fn new(pace: Pace) -> Self {
        Self { rows: Vec::new(), bytes: 0, pace }
    }

    pub fn push(&mut self, row: Row) {
        self.bytes += row.text.as_ref().map_or(0, String::len);
        self.rows.push(row);
    }

    pub fn is_full(&self) -> bool {
        self.rows.len() >= self.pace.batch || self.bytes >= self.pace.batch_bytes
    }
}

/// The next rows after a row.
pub(super) fn tail(connection: &Connection, row: i64, pace: Pace) -> rusqlite::Result<Batch> {
    let sql = "SELECT rowid, ts, message_id, from_msisdn, to_msisdn, text, created_at FROM messages
               WHERE rowid > ?1 AND +rowid > ?1 ORDER BY rowid LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([row, pace.batch as i64])?;
    let mut found = Batch::new(pace);
    while !found.is_full()
        && let Some(row) = rows.next()?
    {
        let message = message(row)?;
        if found.rows.last().is_some_and(|last| last.row >= message.row) {
            // The pages that lead to the rows are damaged: the rows in between would never be indexed.
            return Err(Damage::of_row(message.row).into());
        }
        found.push(message);
    }
    Ok(found)
}

/// A message from the columns of `Columns::TAKEN_IN`.
pub(super) fn message(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    let get = |column: usize| row.get_ref(column);
    Ok(Row {
        row: row.get(0)?,
        place: key::place(value(get(1)?), value(get(2)?)),
        sender: key::single(value(get(3)?)),
        recipient: key::single(value(get(4)?)),
        text: shown(get(5)?).map(|text| text.into_owned()),
        hash: Columns::TAKEN_IN.hash(row)?,
    })
}
