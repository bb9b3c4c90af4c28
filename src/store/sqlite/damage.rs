//! Rows against the index. Every change of a row leaves a note, so a row that the index covers and that has no note says what it
//! said when it was taken in. Where it does not, it is damaged (or somebody changed it behind the notes), and is not served:
//! the read is an error, both are logged, and the index is kept, since it may be all that is left of what was stored.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row as SqlRow};
use thiserror::Error;

use super::covered::{Failure, value};
use super::reader::Snapshot;
use crate::runtime::log;
use crate::store::index::Index;
use crate::store::index::key;
use crate::store::index::segment::Section;
use crate::store::index::state::State;

/// Something stored that cannot be what was written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub(super) struct Damage(pub String);

impl Damage {
    /// Of a row of `messages`.
    pub fn of_row(row: i64) -> Self {
        Self(format!("row {row} of the table is not what was stored there"))
    }
}

/// On its way through what knows errors of SQLite only; `Reader::read` takes it out again.
impl From<Damage> for rusqlite::Error {
    fn from(damage: Damage) -> Self {
        Self::UserFunctionError(Box::new(damage))
    }
}

/// The damage that an error stands for, if it does.
pub(super) fn damage_of(error: &rusqlite::Error) -> Option<&Damage> {
    match error {
        rusqlite::Error::UserFunctionError(error) => error.downcast_ref(),
        _ => None,
    }
}

/// Whether an error says that a page cannot be read, or is no page of a database.
pub(super) fn is_unreadable(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::SystemIoFailure | ErrorCode::NotADatabase)
    )
}

/// Where the values of a message are in the columns of a statement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns {
    row: usize,
    id: usize,
    from: usize,
    to: usize,
    ts: usize,
    text: usize,
    created_at: usize,
}

impl Columns {
    /// Of `rowid, ts, message_id, from_msisdn, to_msisdn, text, created_at`: as rows are taken in.
    pub const TAKEN_IN: Self = Self { row: 0, ts: 1, id: 2, from: 3, to: 4, text: 5, created_at: 6 };
    /// Of `message_id, from_msisdn, to_msisdn, ts, text, rowid, created_at`: as rows are listed.
    pub const LISTED: Self = Self { id: 0, from: 1, to: 2, ts: 3, text: 4, row: 5, created_at: 6 };
    /// Of `message_id, from_msisdn, to_msisdn, ts, text, created_at, …, …, rowid`: as a message is shown with its details.
    pub const FULL: Self = Self { id: 0, from: 1, to: 2, ts: 3, text: 4, created_at: 5, row: 8 };

    /// A hash of all that a row says, as it is stored: values of another type are another row. A changed byte always changes it.
    pub fn hash(self, row: &SqlRow<'_>) -> rusqlite::Result<u32> {
        let mut hasher = crc32fast::Hasher::new();
        for column in [self.id, self.from, self.to, self.ts, self.text, self.created_at] {
            let mut put = |kind: u8, bytes: &[u8]| {
                hasher.update(&[kind]);
                hasher.update(&(bytes.len() as u64).to_le_bytes());
                hasher.update(bytes);
            };
            match row.get_ref(column)? {
                ValueRef::Null => put(0, &[]),
                ValueRef::Integer(number) => put(1, &number.to_le_bytes()),
                ValueRef::Real(number) => put(2, &number.to_bits().to_le_bytes()),
                ValueRef::Text(bytes) => put(3, bytes),
                ValueRef::Blob(bytes) => put(4, bytes),
            }
        }
        Ok(hasher.finalize())
    }

    /// The row's place in the order of listings.
    pub fn place(self, row: &SqlRow<'_>) -> rusqlite::Result<Vec<u8>> {
        Ok(key::place(value(row.get_ref(self.ts)?), value(row.get_ref(self.id)?)))
    }
}

/// Looks at rows on their way out, where the index was not what led to them.
pub(super) struct Verifier<'a> {
    connection: &'a Connection,
    state: &'a State,
    index: &'a Index,
}

impl<'a> Verifier<'a> {
    /// By a state that fits the snapshot.
    pub fn new(snapshot: &'a Snapshot<'_>, state: &'a State) -> Self {
        Self { connection: snapshot.connection, state, index: snapshot.index }
    }

    /// An error if the index covers the row and it is not what was taken in. What the index cannot tell passes.
    pub fn check(&self, row: &SqlRow<'_>, columns: Columns) -> Result<(), Failure> {
        let number: i64 = row.get(columns.row)?;
        if number > self.state.row {
            return Ok(());
        }
        if let Some((member, rank)) = self.state.locate(&columns.place(row)?, number)? {
            let (_, hash) = self.state.members[member].segment.rows().entry(rank)?;
            if hash == columns.hash(row)? {
                return Ok(());
            }
        }
        if is_noted(self.connection, self.state, number)? {
            return Ok(());
        }
        report(self.connection, self.state, self.index, number);
        Err(Damage::of_row(number).into())
    }

    /// The same, where an index that cannot be read means that nothing can be told.
    pub fn check_row(&self, row: &SqlRow<'_>, columns: Columns) -> rusqlite::Result<()> {
        match self.check(row, columns) {
            Ok(()) => Ok(()),
            Err(Failure::Sqlite(error)) => Err(error),
            Err(Failure::Damage(damage)) => Err(damage.into()),
            Err(Failure::Index(error)) => {
                log::error("the index is wrong").cause(&error).emit();
                self.index.distrust();
                Ok(())
            }
        }
    }
}

/// Whether a row has a note that a state does not cover.
fn is_noted(connection: &Connection, state: &State, row: i64) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM postroom_changes WHERE change > ?1 AND row = ?2)";
    connection.prepare_cached(sql)?.query_row([state.note, row], |row| row.get(0))
}

/// Logs, once, what table and index have of a row that differs.
pub(super) fn report(connection: &Connection, state: &State, index: &Index, row: i64) {
    if !index.is_news(row) {
        return;
    }
    let mut line = log::error("a message in the database is not what was stored; the index is kept as it is");
    match Difference::find(connection, state, row) {
        Ok(difference) => {
            line = line.value("row", row).text("differs", &difference.columns().join(","));
            for (side, known) in [("table", &difference.table), ("index", &difference.index)] {
                let Some(known) = known else { continue };
                for (name, value) in known.named() {
                    line = line.text(&format!("{side}_{name}"), value);
                }
            }
        }
        Err(error) => line = line.value("row", row).cause(&error),
    }
    line.emit();
}

/// What table and index have of a row, for a person to compare. Of texts nothing but a digest is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    row: i64,
    table: Option<Known>,
    index: Option<Known>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    message_id: String,
    from: String,
    to: String,
    ts: String,
    /// Of the whole row.
    digest: String,
}

impl Known {
    fn named(&self) -> [(&'static str, &str); 5] {
        let Self { message_id, from, to, ts, digest } = self;
        [("message_id", message_id), ("from", from), ("to", to), ("ts", ts), ("digest", digest)]
    }
}

impl Difference {
    /// Looks at both.
    pub fn find(connection: &Connection, state: &State, row: i64) -> Result<Self, Failure> {
        let columns = Columns::TAKEN_IN;
        let sql =
            "SELECT rowid, ts, message_id, from_msisdn, to_msisdn, text, created_at FROM messages WHERE rowid = ?1";
        let read = |row: &SqlRow<'_>| {
            let text = |column| Ok::<_, rusqlite::Error>(super::queries::text(row, column)?.unwrap_or_default());
            Ok(Known {
                message_id: text(columns.id)?,
                from: text(columns.from)?,
                to: text(columns.to)?,
                ts: text(columns.ts)?,
                digest: format!("{:08x}", columns.hash(row)?),
            })
        };
        let table = connection.prepare_cached(sql)?.query_row([row], read).optional()?;
        let Some((member, rank)) = state.locate_row(row)? else { return Ok(Self { row, table, index: None }) };
        let segment = &state.members[member].segment;
        let shown = |key: Option<Vec<u8>>| {
            let bytes = key.as_deref().and_then(key::text_of).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let place = segment.entries().at(rank.into())?.0.to_vec();
        let behind_ts = key::length_of_first(&place);
        let index = Some(Known {
            message_id: shown(Some(place[behind_ts..].to_vec())),
            from: shown(segment.key_of(Section::Senders, rank)?),
            to: shown(segment.key_of(Section::Recipients, rank)?),
            ts: shown(Some(place)),
            digest: format!("{:08x}", segment.rows().entry(rank)?.1),
        });
        Ok(Self { row, table, index })
    }

    /// The columns that differ; where none of those that the index knows word by word does, it is the text (or when it was stored).
    fn columns(&self) -> Vec<&'static str> {
        match (&self.table, &self.index) {
            (Some(table), Some(index)) => {
                let named = table.named().into_iter().zip(index.named());
                let differing = named.filter(|(table, index)| table.1 != index.1).map(|(table, _)| table.0);
                let mut columns: Vec<_> = differing.filter(|name| *name != "digest").collect();
                if columns.is_empty() {
                    columns.push("text or created_at");
                }
                columns
            }
            _ => vec!["row"],
        }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "row {} differs from what was stored ({})", self.row, self.columns().join(", "))?;
        for (side, known) in [("table", &self.table), ("index", &self.index)] {
            match known {
                None => write!(f, "; {side}: nothing")?,
                Some(known) => {
                    let named = known.named().map(|(name, value)| format!("{name} {value}"));
                    write!(f, "; {side}: {}", named.join(", "))?;
                }
            }
        }
        Ok(())
    }
}

/// A sample of rows against the table.
#[derive(Debug, Default)]
pub(super) struct Sampled {
    /// Rows that were looked at.
    pub rows: usize,
    /// Those that say something else than they did.
    pub differing: Vec<i64>,
}

impl Sampled {
    /// Whether this is the database that the samples were taken of. In another one, or one of another time, more than a few rows
    /// differ; where few do, they are damaged.
    pub fn is_of_this_database(&self) -> bool {
        self.differing.is_empty() || self.differing.len() < self.rows && self.differing.len() * 8 <= self.rows.max(8)
    }
}
