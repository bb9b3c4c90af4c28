//! A PostgreSQL database as one side of a copy: COPY fills a temporary
//! table, and a statement inserts the missing rows into `messages`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::Row as StoredRow;

use super::chunk::{CHUNK_BYTES, CHUNK_ROWS, Chunk, Row};
use super::error::CopyError;
use super::table::{Cell, ColumnType, Table, TableRow};
use crate::postgres::accompanying::{BRING_PAYLOADS, BRING_STATUSES, recipient};
use crate::postgres::arrival::{horizon, within_bytes};
use crate::postgres::config::PostgresConfig;
use crate::postgres::insert_full::BRING_EVENTS;
use crate::postgres::parameters::Parameters;
use crate::postgres::{Connector, Session, batch};
use domain::State;

const COLUMNS: &str = "message_id, from_msisdn, to_msisdn, ts, text, text_exact, created_at";
/// Bytes per write to the server.
const PIECE_BYTES: usize = 1 << 16;

/// Begins the transaction of a copied segment.
const COPY_BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = 0; \
     CREATE TEMPORARY TABLE IF NOT EXISTS postroom_incoming (place BIGINT, message_id TEXT COLLATE \"C\", \
     from_msisdn TEXT, to_msisdn TEXT, ts TEXT, created_at TEXT, text TEXT, text_exact BYTEA) ON COMMIT DELETE ROWS";
const COPY_IN: &str = "COPY postroom_incoming \
     (place, message_id, from_msisdn, to_msisdn, ts, created_at, text, text_exact) FROM STDIN";
/// Sorted like every batch, so that it cannot deadlock with batches of running replicas.
const COPY_INSERT: &str = "\
    WITH first AS MATERIALIZED (SELECT postroom_first_arrival() AS number)
    INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, created_at, text, text_exact, arrival)
    SELECT i.message_id, i.from_msisdn, i.to_msisdn, i.ts, i.created_at, i.text, i.text_exact, first.number + i.place
    FROM postroom_incoming i, first ORDER BY i.message_id
    ON CONFLICT (message_id) DO NOTHING";
const COPY_POSITION: &str = "INSERT INTO postroom_copies (source, position) VALUES ($1, $2) \
     ON CONFLICT (source) DO UPDATE SET position = excluded.position";
/// Existing rows stay unchanged.
const COPY_DETAILS: &str = "\
    INSERT INTO postroom_details (message_id, provider_id, source, kind, fields, payload_id)
    SELECT d.message_id, d.provider_id, d.source, d.kind, d.fields, p.payload_id
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[])
        AS d (message_id, provider_id, source, kind, fields, digest)
    LEFT JOIN postroom_payloads p ON p.digest = d.digest ORDER BY message_id
    ON CONFLICT (message_id) DO NOTHING";

pub(super) struct PostgresEnd {
    session: Session,
}

impl PostgresEnd {
    pub async fn open(config: &PostgresConfig) -> Result<Self, CopyError> {
        let connector = Connector::new(Arc::new(config.clone()))?;
        Ok(Self { session: connector.connect().await? })
    }

    pub async fn count_behind(&self, position: i64) -> Result<u64, CopyError> {
        let sql = "SELECT count(*) FROM messages WHERE arrival > $1";
        let rows: i64 = Parameters::new().number(position).value(&self.session.client, sql).await?;
        Ok(rows.unsigned_abs())
    }

    pub async fn read(&self, position: i64, last: i64) -> Result<Chunk, CopyError> {
        let sql = format!(
            "SELECT {COLUMNS}, arrival FROM messages WHERE arrival > $1 AND arrival <= $2
             AND arrival < ({}) ORDER BY arrival LIMIT {CHUNK_ROWS}",
            horizon()
        );
        let stretch = Parameters::new().number(position).number(last);
        let rows = stretch.rows(&self.session.client, &within_bytes(&sql, CHUNK_BYTES)).await?;
        let end = rows.last().map(|row| row.get("arrival"));
        Ok(Chunk { rows: rows.iter().map(row_of).collect(), odd: Vec::new(), end })
    }

    pub async fn position(&self, source: &str) -> Result<Option<i64>, CopyError> {
        let sql = "SELECT position FROM postroom_copies WHERE source = $1";
        let row = Parameters::new().text(source).row_if_any(&self.session.client, sql).await?;
        Ok(row.map(|row| row.get("position")))
    }

    pub async fn write(&self, source: &str, rows: &[Row], position: i64) -> Result<u64, CopyError> {
        let client = &self.session.client;
        client.batch_execute(COPY_BEGIN).await?;
        let mut sink = pin!(client.copy_in::<_, Bytes>(COPY_IN).await?);
        let mut piece = String::with_capacity(PIECE_BYTES);
        for (place, row) in rows.iter().enumerate() {
            write_line(&mut piece, place, row);
            if piece.len() >= PIECE_BYTES {
                sink.send(std::mem::take(&mut piece).into()).await?;
            }
        }
        sink.send(piece.into()).await?;
        sink.finish().await?;
        let created = client.execute_typed(COPY_INSERT, &[]).await?;
        Parameters::new().text(source).number(position).execute(client, COPY_POSITION).await?;
        client.batch_execute("COMMIT").await?;
        Ok(created)
    }

    pub async fn find(&self, rows: &[Row]) -> Result<Vec<Row>, CopyError> {
        let ids = rows.iter().map(|row| row.id.as_str());
        let sql = format!("SELECT {COLUMNS} FROM messages WHERE message_id = ANY($1) ORDER BY message_id");
        let rows = Parameters::new().texts(ids).rows(&self.session.client, &sql).await?;
        Ok(rows.iter().map(row_of).collect())
    }

    pub async fn count_things(&self, sort: Table) -> Result<u64, CopyError> {
        // A source of an earlier version may lack the tables for provider data.
        let client = &self.session.client;
        let there = "SELECT to_regclass($1) IS NOT NULL";
        if !Parameters::new().text(sort.table()).value::<bool>(client, there).await? {
            return Ok(0);
        }
        let rows: i64 = Parameters::new().value(client, &format!("SELECT count(*) FROM {}", sort.table())).await?;
        Ok(rows.unsigned_abs())
    }

    pub async fn read_things(&self, sort: Table, behind: Option<&[Cell]>) -> Result<Vec<TableRow>, CopyError> {
        if behind.is_none() && self.count_things(sort).await? == 0 {
            return Ok(Vec::new());
        }
        let order: Vec<_> = sort.order().iter().map(|(name, _)| format!("t.{name}")).collect();
        let order = order.join(", ");
        let place: Vec<TableRow> =
            behind.into_iter().map(|place| TableRow { cells: place.to_vec(), place: Vec::new() }).collect();
        // The position is passed as one row of arrays.
        let places: Vec<_> = (1..=sort.order().len()).map(|at| format!("${at}[1]")).collect();
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
        let place = if behind.is_some() { columns_of(&place, sort.order()) } else { Parameters::new() };
        let rows = place.rows(&self.session.client, &sql).await?;
        Ok(rows.iter().map(|row| thing_of(sort, row)).collect())
    }

    /// Whether the table has the column that a database of an earlier version lacks.
    async fn has_added(&self, sort: Table) -> Result<bool, CopyError> {
        let Some(column) = sort.added() else { return Ok(true) };
        let sql = "SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2 AND NOT attisdropped";
        let names = Parameters::new().text(sort.table()).text(column);
        Ok(names.row_if_any(&self.session.client, sql).await?.is_some())
    }

    pub async fn write_things(&self, sort: Table, things: &[TableRow]) -> Result<u64, CopyError> {
        let client = &self.session.client;
        client.batch_execute("BEGIN; SET LOCAL statement_timeout = 0").await?;
        let mut columns = columns_of(things, sort.columns());
        if sort.has_payload() {
            columns = columns.bytes(things.iter().map(|thing| thing.payload(sort)));
        }
        // No ingest id of a writer.
        let no_id = None::<i64>;
        let created = match sort {
            Table::Payloads => u64::try_from(columns.value::<i64>(client, BRING_PAYLOADS).await?).unwrap_or(0),
            Table::Details => columns.execute(client, COPY_DETAILS).await?,
            Table::Statuses => {
                // Recipients are stored as they are; other forms are not looked up.
                let no_forms = [""; 0];
                let columns = columns.number(no_id).texts(State::ALL.iter().map(|state| state.name())).texts(no_forms);
                columns.rows(client, BRING_STATUSES).await?.len() as u64
            }
            Table::Events => columns.number(no_id).rows(client, BRING_EVENTS).await?.len() as u64,
        };
        client.batch_execute("COMMIT").await?;
        Ok(created)
    }

    pub async fn find_things(&self, sort: Table, things: &[TableRow]) -> Result<Vec<TableRow>, CopyError> {
        let keys = &sort.columns()[..sort.key_columns()];
        let given: Vec<_> = (1..=keys.len()).map(|at| format!("${at}")).collect();
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
        let rows = columns_of(things, keys).rows(&self.session.client, &sql).await?;
        Ok(rows.iter().map(|row| thing_of(sort, row)).collect())
    }

    pub async fn known_payloads(&self, digests: &BTreeSet<&[u8]>) -> Result<BTreeSet<Vec<u8>>, CopyError> {
        let sql = "SELECT digest FROM postroom_payloads WHERE digest = ANY($1)";
        let rows = Parameters::new().bytes(digests).rows(&self.session.client, sql).await?;
        Ok(rows.iter().map(|row| row.get("digest")).collect())
    }
}

/// The first columns of rows, each in the server's type.
fn columns_of<'a>(things: &'a [TableRow], columns: &[(&'static str, ColumnType)]) -> Parameters<'a> {
    let mut parameters = Parameters::new();
    for (at, (name, holds)) in columns.iter().enumerate() {
        let cells = things.iter().map(move |thing| &thing.cells[at]);
        parameters =
            match holds {
                ColumnType::Text => parameters.texts(cells.map(|cell| text_of(cell, name))),
                ColumnType::Number => parameters
                    .numbers(cells.map(|cell| if let Cell::Number(number) = cell { Some(*number) } else { None })),
                ColumnType::Bytes => parameters
                    .bytes(cells.map(|cell| if let Cell::Bytes(bytes) = cell { Some(&bytes[..]) } else { None })),
            };
    }
    parameters
}

/// The column of ids, which contain no NUL and are stored as they are.
const MESSAGE_ID: &str = "message_id";

fn text_of(cell: &Cell, column: &str) -> Option<String> {
    let Cell::Text(text) = cell else { return None };
    Some(match column {
        "recipient" => recipient(text).into_owned(),
        MESSAGE_ID if !text.contains('\0') => text.clone(),
        _ => batch::escape_nul(text).into_owned(),
    })
}

fn thing_of(sort: Table, row: &StoredRow) -> TableRow {
    let cell = |(column, (name, holds)): (usize, (&str, ColumnType))| match holds {
        ColumnType::Text => row
            .get::<_, Option<String>>(column)
            .map_or(Cell::Null, |text| Cell::Text(if name == MESSAGE_ID { text } else { batch::unescape_nul(text) })),
        ColumnType::Number => row.get::<_, Option<i64>>(column).map_or(Cell::Null, Cell::Number),
        ColumnType::Bytes => row.get::<_, Option<Vec<u8>>>(column).map_or(Cell::Null, Cell::Bytes),
    };
    TableRow::of(sort, sort.selected_columns().enumerate().map(cell).collect())
}

fn row_of(row: &StoredRow) -> Row {
    Row {
        id: row.get("message_id"),
        from: row.get("from_msisdn"),
        to: row.get("to_msisdn"),
        ts: row.get("ts"),
        text: batch::exact(row.get("text"), row.get("text_exact")),
        created_at: row.get("created_at"),
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
