//! A PostgreSQL database as one end of a copy: rows go there by COPY into a table of the session, and from there into
//! `messages`, as far as they are not there yet.

use std::fmt::Write;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::Row as StoredRow;
use tokio_postgres::types::Type;

use super::{CHUNK_ROWS, Chunk, CopyError, Row};
use crate::config::PostgresConfig;
use crate::store::postgres::{Connector, Failure, Session, batch, sql};

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
        let rows = self.session.client.query_typed(&sql, &parameters).await?;
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
