//! An SQLite file as one side of a copy. It is read and written like by any other program;
//! the triggers that keep our own objects correct for other programs also work here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row as StoredRow, params, params_from_iter};

use super::chunk::{CHUNK_BYTES, CHUNK_ROWS, Chunk, Row};
use super::error::CopyError;
use super::table::{Cell, ColumnType, Table, TableRow};
use crate::sqlite::details;
use crate::sqlite::upgrade::has_column;
use domain::conflict::CONFLICT;
use domain::{ConflictKey, State};

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
        // The same durability as an acknowledgement of the service.
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

    pub fn read(&self, position: i64, last: i64) -> Result<Chunk, CopyError> {
        let sql = format!(
            "SELECT {COLUMNS}, rowid FROM messages WHERE rowid > ?1 AND rowid <= ?2 ORDER BY rowid LIMIT {CHUNK_ROWS}"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![position, last])?;
        let (mut chunk, mut bytes) = (Chunk::default(), 0);
        while bytes <= CHUNK_BYTES
            && let Some(row) = rows.next()?
        {
            chunk.end = Some(row.get(6)?);
            match row_of(row)? {
                Some(row) if !has_nul(&row) => {
                    bytes += row.text.as_ref().map_or(0, String::len) as i64;
                    chunk.rows.push(row);
                }
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

    /// A file of an earlier version has no tables for provider data.
    fn has_table(&self, sort: Table) -> Result<bool, CopyError> {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        Ok(self.connection.query_row(sql, [sort.table()], |row| row.get(0))?)
    }

    pub fn count_things(&self, sort: Table) -> Result<u64, CopyError> {
        if !self.has_table(sort)? {
            return Ok(0);
        }
        Ok(self.connection.query_row(&format!("SELECT count(*) FROM {}", sort.table()), [], |row| row.get(0))?)
    }

    pub fn read_things(&self, sort: Table, behind: Option<&[Cell]>) -> Result<Vec<TableRow>, CopyError> {
        if !self.has_table(sort)? {
            return Ok(Vec::new());
        }
        let has_added = match sort.added() {
            Some(column) => has_column(&self.connection, sort.table(), column)?,
            None => true,
        };
        let order = names(sort.order()).join(", ");
        let condition = match behind {
            Some(place) => format!("({order}) > ({})", vec!["?"; place.len()].join(", ")),
            None => "true".to_owned(),
        };
        let sql = format!(
            "SELECT {} FROM {} AS t WHERE {condition} ORDER BY {order} LIMIT {}",
            sort.selected(has_added),
            sort.table(),
            sort.limit()
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params_from_iter(behind.unwrap_or_default()), |row| thing_of(sort, row))?;
        let mut things: Vec<TableRow> = rows.collect::<Result<_, _>>()?;
        if sort == Table::Events {
            self.upgrade_conflicts(&mut things)?;
        }
        Ok(things)
    }

    /// A file that is not upgraded yet is copied as if it were: its conflicts get the keys that an upgrade gives
    /// them.
    fn upgrade_conflicts(&self, events: &mut [TableRow]) -> Result<(), CopyError> {
        let mut find = self.connection.prepare_cached("SELECT 1 FROM postroom_events WHERE event_key = ?1")?;
        for event in events {
            let [Cell::Text(key), _, _, Cell::Text(kind), Cell::Text(body), ..] = event.cells.as_slice() else {
                continue;
            };
            if kind != CONFLICT {
                continue;
            }
            if let Some(upgraded) = ConflictKey::upgraded(key, body, event.payload(Table::Events))
                && !find.exists([upgraded.as_str()])?
            {
                event.cells[0] = Cell::Text(upgraded.as_str().to_owned());
            }
        }
        Ok(())
    }

    pub fn write_things(&mut self, sort: Table, things: &[TableRow]) -> Result<u64, CopyError> {
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut created = 0;
        {
            let mut columns = names(sort.columns());
            let mut values = vec!["?".to_owned(); columns.len()];
            if sort.has_payload() {
                columns.push("payload_id");
                values.push("(SELECT payload_id FROM postroom_payloads WHERE digest = ?)".to_owned());
            }
            let (table, columns, values) = (sort.table(), columns.join(", "), values.join(", "));
            let sql = format!("INSERT INTO {table} ({columns}) VALUES ({values}) ON CONFLICT DO NOTHING");
            let mut insert = transaction.prepare_cached(&sql)?;
            let mut counts = BTreeMap::new();
            for thing in things {
                if insert.execute(params_from_iter(&thing.cells))? == 0 {
                    continue;
                }
                created += 1;
                if let (Table::Statuses, [Cell::Text(message), Cell::Text(recipient), Cell::Text(state)]) =
                    (sort, thing.key(sort))
                    && let Some(state) = State::named(state)
                {
                    details::raise(&transaction, message, recipient, state, &mut counts)?;
                }
            }
            details::add_counts(&transaction, counts)?;
        }
        transaction.commit()?;
        Ok(created)
    }

    pub fn find_things(&self, sort: Table, things: &[TableRow]) -> Result<Vec<TableRow>, CopyError> {
        let keys = names(&sort.columns()[..sort.key_columns()]);
        let condition = keys.iter().map(|name| format!("t.{name} = ?")).collect::<Vec<_>>().join(" AND ");
        let sql = format!("SELECT {} FROM {} AS t WHERE {condition}", sort.selected(true), sort.table());
        let mut find = self.connection.prepare_cached(&sql)?;
        let mut found = Vec::with_capacity(things.len());
        for thing in things {
            found.extend(find.query_row(params_from_iter(thing.key(sort)), |row| thing_of(sort, row)).optional()?);
        }
        Ok(found)
    }

    pub fn known_payloads(&self, digests: &BTreeSet<&[u8]>) -> Result<BTreeSet<Vec<u8>>, CopyError> {
        let mut find = self.connection.prepare_cached("SELECT 1 FROM postroom_payloads WHERE digest = ?1")?;
        let mut known = BTreeSet::new();
        for digest in digests {
            if find.exists([digest])? {
                known.insert(digest.to_vec());
            }
        }
        Ok(known)
    }
}

fn names(columns: &[(&'static str, ColumnType)]) -> Vec<&'static str> {
    columns.iter().map(|(name, _)| *name).collect()
}

fn thing_of(sort: Table, row: &StoredRow<'_>) -> rusqlite::Result<TableRow> {
    let cells = sort.selected_columns().enumerate().map(|(column, _)| {
        Ok(match row.get_ref(column)? {
            ValueRef::Null => Cell::Null,
            ValueRef::Integer(number) => Cell::Number(number),
            ValueRef::Real(number) => Cell::Text(number.to_string()),
            ValueRef::Text(bytes) => Cell::Text(String::from_utf8_lossy(bytes).into_owned()),
            ValueRef::Blob(bytes) => Cell::Bytes(bytes.to_vec()),
        })
    });
    Ok(TableRow::of(sort, cells.collect::<rusqlite::Result<_>>()?))
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Null => Ok(ToSqlOutput::Borrowed(ValueRef::Null)),
            Self::Text(text) => text.to_sql(),
            Self::Number(number) => number.to_sql(),
            Self::Bytes(bytes) => bytes.to_sql(),
        }
    }
}

/// A row as text, including numbers. None if a value is not text, or a required value is missing.
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

/// Whether a value other than the text contains NUL, which PostgreSQL's texts cannot contain.
fn has_nul(row: &Row) -> bool {
    [&row.id, &row.from, &row.to, &row.ts, &row.created_at].iter().any(|value| value.contains('\0'))
}
