//! Rows against the index. Every change of a row leaves a note, so a row that the index covers and that has no note says what it
//! said when it was taken in. Where it does not, it is damaged (or somebody changed it behind the notes), and is not served:
//! the read is an error, both are logged, and the index is kept, since it may be all that is left of what was stored.

use rusqlite::{Connection, OptionalExtension, Row as SqlRow};

use super::columns::Columns;
use super::covered::Failure;
use super::damage::Damage;
use super::queries::text;
use super::reader::Snapshot;
use crate::runtime::log;
use crate::store::index::Index;
use crate::store::index::key;
use crate::store::index::segment::Section;
use crate::store::index::state::State;

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
            let text = |column| Ok::<_, rusqlite::Error>(text(row, column)?.unwrap_or_default());
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
