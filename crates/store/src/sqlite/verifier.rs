//! Compares rows with the index. Every change of a row leaves a change record, so a covered row without one
//! has its indexed values. Otherwise it is damaged (or was changed with triggers off), and is not returned:
//! the read fails, both values are logged, and the index is kept, because it may have the only correct value.

use rusqlite::{Connection, OptionalExtension, Row as SqlRow};

use super::columns::Columns;
use super::coverage::Failure;
use super::damage::Damage;
use super::queries::text;
use super::reader::Snapshot;
use index::Index;
use index::key;
use index::segment::Section;
use index::state::State;
use runtime::log;

/// Checks returned rows that were found without the index.
pub(super) struct Verifier<'a> {
    connection: &'a Connection,
    state: &'a State,
    index: &'a Index,
}

impl<'a> Verifier<'a> {
    /// Creates one with a state that matches the snapshot.
    pub fn new(snapshot: &'a Snapshot<'_>, state: &'a State) -> Self {
        Self { connection: snapshot.connection, state, index: snapshot.index }
    }

    /// An error if the index covers the row and its indexed values differ. Uncovered rows pass.
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

    /// The same, but an unreadable index lets the row pass.
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

/// Whether a row has a change record that a state does not cover.
fn is_noted(connection: &Connection, state: &State, row: i64) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM postroom_changes WHERE change > ?1 AND row = ?2)";
    connection.prepare_cached(sql)?.query_row([state.note, row], |row| row.get(0))
}

/// Logs, once, the values of table and index for a differing row.
pub(super) fn report(connection: &Connection, state: &State, index: &Index, row: i64) {
    if !index.is_news(row) {
        return;
    }
    let mut line = log::error("a message in the database differs from what was stored; the index is kept");
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

/// The values of table and index for a row, for comparison by a person. Texts are shown as digests.
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
    /// The digest of the whole row.
    digest: String,
}

impl Known {
    fn named(&self) -> [(&'static str, &str); 5] {
        let Self { message_id, from, to, ts, digest } = self;
        [("message_id", message_id), ("from", from), ("to", to), ("ts", ts), ("digest", digest)]
    }
}

impl Difference {
    /// Reads the values of both.
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

    /// The differing columns; if no column that is stored verbatim differs, it is the text (or `created_at`).
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
