//! A PostgreSQL database as one end of a copy: rows go there by COPY into a table of the session, and from there into
//! `messages`, as far as they are not there yet.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::Row as StoredRow;
use tokio_postgres::types::{ToSql, Type};

use super::chunk::{CHUNK_BYTES, CHUNK_ROWS, Chunk, CopyError, Row};
use super::thing::{Cell, Holds, Sort, Thing};
use crate::domain::State;
use crate::store::postgres::brought::recipient;
use crate::store::postgres::config::PostgresConfig;
use crate::store::postgres::{Connector, Failure, Session, batch, details_sql, sql};

const COLUMNS: &str = "message_id, from_msisdn, to_msisdn, ts, text, text_exact, created_at";
/// Bytes that are handed to the server at once.
const PIECE_BYTES: usize = 1 << 16;

pub(super) struct PostgresEnd {
    session: Session,
}

impl From<Failure> for CopyError {
    fn from(failure: Failure) -> Self {
        Self(failure.to_string())
    }
}

impl From<tokio_postgres::Error> for CopyError {
    fn from(error: tokio_postgres::Error) -> Self {
        Failure::from(error).into()
    }
}

impl PostgresEnd {
    pub async fn open(config: &PostgresConfig) -> Result<Self, CopyError> {
        let connector = Connector::new(Arc::new(config.clone())).map_err(CopyError)?;
        Ok(Self { session: connector.connect().await? })
    }

    pub async fn count_behind(&self, position: i64) -> Result<u64, CopyError> {
        let sql = "SELECT count(*) FROM messages WHERE arrival > $1";
        let row = self.session.client.query_typed_one(sql, &[(&position, Type::INT8)]).await?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
    }

    pub async fn read(&self, position: i64, last: i64) -> Result<Chunk, CopyError> {
        let sql = format!(
            "SELECT {COLUMNS}, arrival FROM messages WHERE arrival > $1 AND arrival <= $2
             AND arrival < ({}) ORDER BY arrival LIMIT {CHUNK_ROWS}",
            sql::HORIZON
        );
        let parameters = [(&position as _, Type::INT8), (&last as _, Type::INT8)];
        let rows = self.session.client.query_typed(&sql::within_bytes(&sql, CHUNK_BYTES), &parameters).await?;
        let end = rows.last().map(|row| row.get(7));
        Ok(Chunk { rows: rows.iter().map(row_of).collect(), odd: Vec::new(), end })
    }

    pub async fn position(&self, source: &str) -> Result<Option<i64>, CopyError> {
        let sql = "SELECT position FROM postroom_copies WHERE source = $1";
        let row = self.session.client.query_typed_opt(sql, &[(&source, Type::TEXT)]).await?;
        Ok(row.map(|row| row.get(0)))
    }

    pub async fn write(&self, source: &str, rows: &[Row], position: i64) -> Result<u64, CopyError> {
        let client = &self.session.client;
        client.batch_execute(sql::COPY_BEGIN).await?;
        let mut sink = pin!(client.copy_in::<_, Bytes>(sql::COPY_IN).await?);
        let mut piece = String::with_capacity(PIECE_BYTES);
        for (place, row) in rows.iter().enumerate() {
            write_line(&mut piece, place, row);
            if piece.len() >= PIECE_BYTES {
                sink.send(std::mem::take(&mut piece).into()).await?;
            }
        }
        sink.send(piece.into()).await?;
        sink.finish().await?;
        let created = client.execute_typed(sql::COPY_INSERT, &[]).await?;
        client.execute_typed(sql::COPY_POSITION, &[(&source, Type::TEXT), (&position, Type::INT8)]).await?;
        client.batch_execute("COMMIT").await?;
        Ok(created)
    }

    pub async fn find(&self, rows: &[Row]) -> Result<Vec<Row>, CopyError> {
        let ids: Vec<_> = rows.iter().map(|row| row.id.as_str()).collect();
        let sql = format!("SELECT {COLUMNS} FROM messages WHERE message_id = ANY($1) ORDER BY message_id");
        let rows = self.session.client.query_typed(&sql, &[(&ids, Type::TEXT_ARRAY)]).await?;
        Ok(rows.iter().map(row_of).collect())
    }

    pub async fn count_things(&self, sort: Sort) -> Result<u64, CopyError> {
        // A source may be of an earlier version, without tables for what providers told.
        let there = "SELECT to_regclass($1) IS NOT NULL";
        let there = self.session.client.query_typed_one(there, &[(&sort.table(), Type::TEXT)]).await?;
        if !there.get::<_, bool>(0) {
            return Ok(0);
        }
        let sql = format!("SELECT count(*) FROM {}", sort.table());
        let row = self.session.client.query_typed_one(&sql, &[]).await?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
    }

    pub async fn read_things(&self, sort: Sort, behind: Option<&[Cell]>) -> Result<Vec<Thing>, CopyError> {
        if behind.is_none() && self.count_things(sort).await? == 0 {
            return Ok(Vec::new());
        }
        let order: Vec<_> = sort.order().iter().map(|(name, _)| format!("t.{name}")).collect();
        let order = order.join(", ");
        let place: Vec<Thing> =
            behind.into_iter().map(|place| Thing { cells: place.to_vec(), place: Vec::new() }).collect();
        let columns = columns_of(&place, sort.order());
        // The place is the one row of arrays.
        let places: Vec<_> = (1..=columns.len()).map(|at| format!("${at}[1]")).collect();
        let condition = match behind {
            Some(_) => format!("({order}) > ({})", places.join(", ")),
            None => "true".to_owned(),
        };
        let sql = format!(
            "SELECT {} FROM {} t WHERE {condition} ORDER BY {order} LIMIT {}",
            sort.selected(self.has_added(sort).await?),
            sort.table(),
            sort.limit()
        );
        let parameters: Vec<_> = columns.iter().filter(|_| behind.is_some()).map(Column::typed).collect();
        let rows = self.session.client.query_typed(&sql, &parameters).await?;
        Ok(rows.iter().map(|row| thing_of(sort, row)).collect())
    }

    /// Whether the table has the column that a source of an earlier version lacks.
    async fn has_added(&self, sort: Sort) -> Result<bool, CopyError> {
        let Some(column) = sort.added() else { return Ok(true) };
        let sql = "SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2 AND NOT attisdropped";
        let parameters = [(&sort.table() as _, Type::TEXT), (&column as _, Type::TEXT)];
        Ok(self.session.client.query_typed_opt(sql, &parameters).await?.is_some())
    }

    pub async fn write_things(&self, sort: Sort, things: &[Thing]) -> Result<u64, CopyError> {
        let client = &self.session.client;
        client.batch_execute("BEGIN; SET LOCAL statement_timeout = 0").await?;
        let columns = columns_of(things, sort.columns());
        let mut parameters: Vec<_> = columns.iter().map(Column::typed).collect();
        let payloads: Vec<_> = things.iter().map(|thing| thing.payload(sort)).collect();
        if sort.has_payload() {
            parameters.push((&payloads, Type::BYTEA_ARRAY));
        }
        let no_forms: Vec<&str> = Vec::new();
        let states: Vec<_> = State::ALL.iter().map(|state| state.name()).collect();
        let created = match sort {
            Sort::Payloads => {
                let row = client.query_typed_one(details_sql::BRING_PAYLOADS, &parameters).await?;
                u64::try_from(row.get::<_, i64>(0)).unwrap_or(0)
            }
            Sort::Details => client.execute_typed(details_sql::COPY_DETAILS, &parameters).await?,
            Sort::Statuses => {
                // As they stand: no form is looked for.
                parameters.extend([(&None::<i64> as _, Type::INT8), (&states as _, Type::TEXT_ARRAY)]);
                parameters.push((&no_forms, Type::TEXT_ARRAY));
                client.query_typed(details_sql::BRING_STATUSES, &parameters).await?.len() as u64
            }
            Sort::Events => {
                parameters.push((&None::<i64>, Type::INT8));
                client.query_typed(details_sql::BRING_EVENTS, &parameters).await?.len() as u64
            }
        };
        client.batch_execute("COMMIT").await?;
        Ok(created)
    }

    pub async fn find_things(&self, sort: Sort, things: &[Thing]) -> Result<Vec<Thing>, CopyError> {
        let keys = &sort.columns()[..sort.key_columns()];
        let columns = columns_of(things, keys);
        let given: Vec<_> = (1..=columns.len()).map(|at| format!("${at}")).collect();
        let names: Vec<_> = keys.iter().map(|(name, _)| *name).collect();
        let joined: Vec<_> = names.iter().map(|name| format!("t.{name} = g.{name}")).collect();
        let sql = format!(
            "SELECT {} FROM unnest({}) AS g ({}) JOIN {} t ON {}",
            sort.selected(true),
            given.join(", "),
            names.join(", "),
            sort.table(),
            joined.join(" AND ")
        );
        let parameters: Vec<_> = columns.iter().map(Column::typed).collect();
        let rows = self.session.client.query_typed(&sql, &parameters).await?;
        Ok(rows.iter().map(|row| thing_of(sort, row)).collect())
    }

    pub async fn known_payloads(&self, digests: &BTreeSet<&[u8]>) -> Result<BTreeSet<Vec<u8>>, CopyError> {
        let digests: Vec<_> = digests.iter().copied().collect();
        let sql = "SELECT digest FROM postroom_payloads WHERE digest = ANY($1)";
        let rows = self.session.client.query_typed(sql, &[(&digests, Type::BYTEA_ARRAY)]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

/// The values of one column.
enum Column {
    Texts(Vec<Option<String>>),
    Numbers(Vec<Option<i64>>),
    Bytes(Vec<Option<Vec<u8>>>),
}

impl Column {
    fn typed(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Texts(values) => (values, Type::TEXT_ARRAY),
            Self::Numbers(values) => (values, Type::INT8_ARRAY),
            Self::Bytes(values) => (values, Type::BYTEA_ARRAY),
        }
    }
}

/// The first columns of things, each as the server takes it.
fn columns_of(things: &[Thing], columns: &[(&'static str, Holds)]) -> Vec<Column> {
    let column = |(at, (name, holds)): (usize, &(&'static str, Holds))| {
        let cells = things.iter().map(|thing| &thing.cells[at]);
        match holds {
            Holds::Text => Column::Texts(cells.map(|cell| text_of(cell, name)).collect()),
            Holds::Number => Column::Numbers(
                cells.map(|cell| if let Cell::Number(number) = cell { Some(*number) } else { None }).collect(),
            ),
            Holds::Bytes => Column::Bytes(
                cells.map(|cell| if let Cell::Bytes(bytes) = cell { Some(bytes.clone()) } else { None }).collect(),
            ),
        }
    };
    columns.iter().enumerate().map(column).collect()
}

fn text_of(cell: &Cell, column: &str) -> Option<String> {
    let Cell::Text(text) = cell else { return None };
    Some(if column == "recipient" { recipient(text) } else { batch::held(text) }.into_owned())
}

fn thing_of(sort: Sort, row: &StoredRow) -> Thing {
    let cell = |(column, holds): (usize, Holds)| match holds {
        Holds::Text => {
            row.get::<_, Option<String>>(column).map_or(Cell::Null, |text| Cell::Text(batch::released(text)))
        }
        Holds::Number => row.get::<_, Option<i64>>(column).map_or(Cell::Null, Cell::Number),
        Holds::Bytes => row.get::<_, Option<Vec<u8>>>(column).map_or(Cell::Null, Cell::Bytes),
    };
    Thing::of(sort, sort.held().enumerate().map(cell).collect())
}

fn row_of(row: &StoredRow) -> Row {
    Row {
        id: row.get(0),
        from: row.get(1),
        to: row.get(2),
        ts: row.get(3),
        text: batch::exact(row.get(4), row.get(5)),
        created_at: row.get(6),
    }
}

/// A line of COPY's text format.
///
/// Source: PostgreSQL documentation, COPY, "Text Format".
fn write_line(out: &mut String, place: usize, row: &Row) {
    let text = row.text.as_deref().map(batch::storable);
    let _ = write!(out, "{place}");
    for value in [&row.id, &row.from, &row.to, &row.ts, &row.created_at] {
        out.push('\t');
        escape(value, out);
    }
    out.push('\t');
    match &text {
        Some((text, _)) => escape(text, out),
        None => out.push_str("\\N"),
    }
    out.push('\t');
    match text.and_then(|(_, bytes)| bytes) {
        Some(bytes) => {
            out.push_str("\\\\x");
            for byte in bytes {
                let _ = write!(out, "{byte:02x}");
            }
        }
        None => out.push_str("\\N"),
    }
    out.push('\n');
}

fn escape(value: &str, out: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            other => out.push(other),
        }
    }
}
