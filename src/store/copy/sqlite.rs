//! An SQLite file as one end of a copy. It is read and written as any other program would: what keeps our own objects true
//! for other programs does so here.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row as StoredRow, params};

use super::{CHUNK_ROWS, Chunk, CopyError, Row};

const COLUMNS: &str = "message_id, from_msisdn, to_msisdn, ts, text, created_at";

pub(super) struct SqliteEnd {
    connection: Connection,
}

impl SqliteEnd {
    pub fn source(path: &Path) -> Result<Self, CopyError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        Ok(Self { connection })
    }

    pub fn target(path: &Path, patience: Duration) -> Result<Self, CopyError> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(patience.max(Duration::from_secs(1)))?;
        // As durable as what the service itself acknowledges.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS postroom_copies (source TEXT PRIMARY KEY, position INTEGER NOT NULL)",
        )?;
        Ok(Self { connection })
    }

    pub fn count_behind(&self, position: i64) -> Result<u64, CopyError> {
        let sql = "SELECT count(*) FROM messages WHERE rowid > ?1";
        Ok(self.connection.query_row(sql, [position], |row| row.get(0))?)
    }

    /// Details, statuses and events. A file of an earlier version has no tables for them.
    pub fn beside_messages(&self) -> Result<u64, CopyError> {
        let mut count = 0;
        for table in ["postroom_details", "postroom_statuses", "postroom_events"] {
            let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
            if self.connection.query_row(sql, [table], |row| row.get::<_, bool>(0))? {
                let sql = format!("SELECT count(*) FROM {table}");
                count += self.connection.query_row(&sql, [], |row| row.get::<_, u64>(0))?;
            }
        }
        Ok(count)
    }

    pub fn read(&self, position: i64, last: i64) -> Result<Chunk, CopyError> {
        let sql = format!(
            "SELECT {COLUMNS}, rowid FROM messages WHERE rowid > ?1 AND rowid <= ?2 ORDER BY rowid LIMIT {CHUNK_ROWS}"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![position, last])?;
        let mut chunk = Chunk::default();
        while let Some(row) = rows.next()? {
            chunk.end = Some(row.get(6)?);
            match row_of(row)? {
                Some(row) if !has_nul(&row) => chunk.rows.push(row),
                _ => chunk.odd.push(format!("row {} ({:?})", row.get::<_, i64>(6)?, row.get_ref(0)?)),
            }
        }
        Ok(chunk)
    }

    pub fn position(&self, source: &str) -> Result<Option<i64>, CopyError> {
        let sql = "SELECT position FROM postroom_copies WHERE source = ?1";
        Ok(self.connection.query_row(sql, [source], |row| row.get(0)).optional()?)
    }

    pub fn write(&mut self, source: &str, rows: &[Row], position: i64) -> Result<u64, CopyError> {
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut created = 0;
        {
            let sql =
                format!("INSERT INTO messages ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING");
            let mut insert = transaction.prepare_cached(&sql)?;
            for row in rows {
                created += insert.execute(params![row.id, row.from, row.to, row.ts, row.text, row.created_at])? as u64;
            }
            let sql = "INSERT INTO postroom_copies VALUES (?1, ?2) ON CONFLICT (source) DO UPDATE SET position = ?2";
            transaction.prepare_cached(sql)?.execute(params![source, position])?;
        }
        transaction.commit()?;
        Ok(created)
    }

    pub fn find(&self, rows: &[Row]) -> Result<Vec<Row>, CopyError> {
        let sql = format!("SELECT {COLUMNS} FROM messages WHERE message_id = ?1");
        let mut find = self.connection.prepare_cached(&sql)?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            if let Some(Some(row)) = find.query_row([&row.id], row_of).optional()? {
                found.push(row);
            }
        }
        Ok(found)
    }
}

/// A row as text, numbers too; none where a value is no text, or absent where it must not be.
fn row_of(row: &StoredRow<'_>) -> rusqlite::Result<Option<Row>> {
    let text = |column| -> rusqlite::Result<Option<String>> {
        Ok(match row.get_ref(column)? {
            ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
            ValueRef::Integer(number) => Some(number.to_string()),
            ValueRef::Real(number) => Some(number.to_string()),
            ValueRef::Null | ValueRef::Blob(_) => None,
        })
    };
    let content = text(4)?;
    if content.is_none() && !matches!(row.get_ref(4)?, ValueRef::Null) {
        return Ok(None);
    }
    let (id, from, to, ts, created_at) = (text(0)?, text(1)?, text(2)?, text(3)?, text(5)?);
    let all = id.zip(from).zip(to).zip(ts).zip(created_at);
    Ok(all.map(|((((id, from), to), ts), created_at)| Row { id, from, to, ts, text: content, created_at }))
}

/// Whether a value other than the text holds NUL, which no text of PostgreSQL can.
fn has_nul(row: &Row) -> bool {
    [&row.id, &row.from, &row.to, &row.ts, &row.created_at].iter().any(|value| value.contains('\0'))
}
