//! Provider data beyond the messages, as rows that are the same in every database.

use super::chunk::CHUNK_ROWS;
use super::tally::{Value, row_sum};

/// Bodies that are read and written together; also events, because some contain a body.
pub(super) const CHUNK_BODIES: i64 = 100;

/// The table of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Raw bodies.
    Payloads,
    /// Details of messages.
    Details,
    /// Statuses of sent messages.
    Statuses,
    /// Everything else.
    Events,
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnType {
    Text,
    Number,
    Bytes,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    Text(String),
    Number(i64),
    Bytes(Vec<u8>),
}

/// A row: its columns, followed by the digest of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableRow {
    pub cells: Vec<Cell>,
    /// Its position in its table.
    pub place: Vec<Cell>,
}

impl Table {
    /// In the order of copying: referenced tables come first.
    pub const ALL: [Self; 4] = [Self::Payloads, Self::Details, Self::Statuses, Self::Events];

    /// Display names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Payloads => "bodies",
            Self::Details => "details",
            Self::Statuses => "statuses",
            Self::Events => "events",
        }
    }

    pub(super) fn table(self) -> &'static str {
        match self {
            Self::Payloads => "postroom_payloads",
            Self::Details => "postroom_details",
            Self::Statuses => "postroom_statuses",
            Self::Events => "postroom_events",
        }
    }

    /// The columns that are the same in every database. Payload numbers differ, so digests replace them.
    pub(super) fn columns(self) -> &'static [(&'static str, ColumnType)] {
        use ColumnType::{Bytes, Number, Text};
        match self {
            Self::Payloads => &[
                ("digest", Bytes),
                ("source", Text),
                ("provider", Text),
                ("headers", Text),
                ("encoding", Text),
                ("bytes", Number),
                ("body", Bytes),
                ("received_at", Text),
            ],
            Self::Details => {
                &[("message_id", Text), ("provider_id", Text), ("source", Text), ("kind", Text), ("fields", Text)]
            }
            Self::Statuses => &[
                ("message_id", Text),
                ("recipient", Text),
                ("state", Text),
                ("at", Text),
                ("error", Text),
                ("provider_id", Text),
                ("source", Text),
                ("received_at", Text),
                ("extra", Text),
            ],
            Self::Events => &[
                ("event_key", Text),
                ("source", Text),
                ("provider", Text),
                ("kind", Text),
                ("body", Text),
                ("received_at", Text),
                ("message", Text),
            ],
        }
    }

    /// The column that a database of an earlier version lacks.
    pub(super) fn added(self) -> Option<&'static str> {
        match self {
            Self::Payloads | Self::Details => None,
            Self::Statuses => Some("extra"),
            Self::Events => Some("message"),
        }
    }

    /// The number of leading columns that form the key.
    pub(super) fn key_columns(self) -> usize {
        if self == Self::Statuses { 3 } else { 1 }
    }

    /// Whether each row belongs to a body.
    pub(super) fn has_payload(self) -> bool {
        self != Self::Payloads
    }

    /// The columns of the reading order, and their types.
    pub(super) fn order(self) -> &'static [(&'static str, ColumnType)] {
        match self {
            Self::Payloads => &[("payload_id", ColumnType::Number)],
            Self::Events => &[("event_id", ColumnType::Number)],
            Self::Details | Self::Statuses => &self.columns()[..self.key_columns()],
        }
    }

    /// The columns for a SELECT from the table with the alias `t`: those
    /// of a row, the digest, the position. A missing added column is null.
    pub(super) fn selected(self, has_added: bool) -> String {
        let columns = self.columns().iter().map(|(name, _)| match self.added() {
            Some(added) if added == *name && !has_added => "CAST(NULL AS TEXT)".to_owned(),
            _ => format!("t.{name}"),
        });
        let digest = "(SELECT p.digest FROM postroom_payloads p WHERE p.payload_id = t.payload_id)".to_owned();
        let digest = self.has_payload().then_some(digest);
        let place = self.order().iter().map(|(name, _)| format!("t.{name}"));
        columns.chain(digest).chain(place).collect::<Vec<_>>().join(", ")
    }

    /// The names and types of the selected columns.
    pub(super) fn selected_columns(self) -> impl Iterator<Item = (&'static str, ColumnType)> {
        let digest = self.has_payload().then_some(("digest", ColumnType::Bytes));
        self.columns().iter().copied().chain(digest).chain(self.order().iter().copied())
    }

    pub(super) fn limit(self) -> i64 {
        if matches!(self, Self::Payloads | Self::Events) { CHUNK_BODIES } else { CHUNK_ROWS }
    }
}

impl TableRow {
    /// Builds a row from the selected columns.
    pub fn of(sort: Table, mut cells: Vec<Cell>) -> Self {
        let place = cells.split_off(cells.len() - sort.order().len());
        Self { cells, place }
    }

    /// Its key.
    pub fn key(&self, sort: Table) -> &[Cell] {
        &self.cells[..sort.key_columns()]
    }

    /// The digest of its body.
    pub fn payload(&self, sort: Table) -> Option<&[u8]> {
        match self.cells.last() {
            Some(Cell::Bytes(digest)) if sort.has_payload() => Some(digest),
            _ => None,
        }
    }

    /// A hash of all values; the sum over rows does not depend on their order.
    pub fn sum(&self) -> u64 {
        let value = |cell| match cell {
            &Cell::Null => Value::Null,
            Cell::Text(text) => Value::Text(text),
            &Cell::Number(number) => Value::Number(number),
            Cell::Bytes(bytes) => Value::Bytes(bytes),
        };
        row_sum(&self.cells.iter().map(value).collect::<Vec<_>>())
    }
}
