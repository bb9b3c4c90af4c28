//! One of the two databases, whichever engine it has.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::chunk::{Chunk, Row};
use super::error::CopyError;
use super::postgres::PostgresEnd;
use super::sqlite::SqliteEnd;
use super::table::{Cell, Table, TableRow};
use crate::{Database, Store, StoreConfig, Unobserved};

/// One of the two databases.
pub(super) enum End {
    Sqlite(SqliteEnd),
    Postgres(Box<PostgresEnd>),
}

impl End {
    pub async fn source(database: &Database) -> Result<Self, CopyError> {
        Ok(match database {
            Database::Sqlite { path } => Self::Sqlite(SqliteEnd::source(path)?),
            Database::Postgres(config) => Self::Postgres(Box::new(PostgresEnd::open(config).await?)),
        })
    }

    /// Opens the target, and creates our objects first, like a start of the service.
    pub async fn target(config: &StoreConfig) -> Result<Self, CopyError> {
        let store = Store::open(config, Arc::new(Unobserved)).map_err(CopyError::Open)?;
        let closed = tokio::task::spawn_blocking(move || store.close()).await;
        closed.map_err(|_| CopyError::NotClosed)?;
        Ok(match &config.database {
            Database::Sqlite { path } => Self::Sqlite(SqliteEnd::target(path, config.lock_timeout)?),
            Database::Postgres(config) => Self::Postgres(Box::new(PostgresEnd::open(config).await?)),
        })
    }

    pub async fn count_behind(&mut self, position: i64) -> Result<u64, CopyError> {
        match self {
            Self::Sqlite(end) => end.count_behind(position),
            Self::Postgres(end) => end.count_behind(position).await,
        }
    }

    /// A segment of the rows after `position` up to `last`, in the order of arrival, up to the horizon.
    pub async fn read(&mut self, position: i64, last: i64) -> Result<Chunk, CopyError> {
        match self {
            Self::Sqlite(end) => end.read(position, last),
            Self::Postgres(end) => end.read(position, last).await,
        }
    }

    /// The stored position of copies from that source.
    pub async fn position(&mut self, source: &str) -> Result<Option<i64>, CopyError> {
        match self {
            Self::Sqlite(end) => end.position(source),
            Self::Postgres(end) => end.position(source).await,
        }
    }

    /// Stores the missing rows and the position in one transaction. Returns how many were missing.
    pub async fn write(&mut self, source: &str, rows: &[Row], position: i64) -> Result<u64, CopyError> {
        match self {
            Self::Sqlite(end) => end.write(source, rows, position),
            Self::Postgres(end) => end.write(source, rows, position).await,
        }
    }

    /// The number of rows of a table.
    pub async fn count_things(&self, sort: Table) -> Result<u64, CopyError> {
        match self {
            Self::Sqlite(end) => end.count_things(sort),
            Self::Postgres(end) => end.count_things(sort).await,
        }
    }

    /// A segment of a table, after a position.
    pub async fn read_things(&self, sort: Table, behind: Option<&[Cell]>) -> Result<Vec<TableRow>, CopyError> {
        match self {
            Self::Sqlite(end) => end.read_things(sort, behind),
            Self::Postgres(end) => end.read_things(sort, behind).await,
        }
    }

    /// Stores the missing rows. Returns how many were missing.
    pub async fn write_things(&mut self, sort: Table, things: &[TableRow]) -> Result<u64, CopyError> {
        match self {
            Self::Sqlite(end) => end.write_things(sort, things),
            Self::Postgres(end) => end.write_things(sort, things).await,
        }
    }

    /// The rows with the same keys.
    pub async fn find_things(&self, sort: Table, things: &[TableRow]) -> Result<Vec<TableRow>, CopyError> {
        match self {
            Self::Sqlite(end) => end.find_things(sort, things),
            Self::Postgres(end) => end.find_things(sort, things).await,
        }
    }

    /// Which of these bodies exist.
    pub async fn known_payloads(&self, digests: &BTreeSet<&[u8]>) -> Result<BTreeSet<Vec<u8>>, CopyError> {
        match self {
            Self::Sqlite(end) => end.known_payloads(digests),
            Self::Postgres(end) => end.known_payloads(digests).await,
        }
    }

    /// The rows with the same ids, sorted by id.
    pub async fn find(&mut self, rows: &[Row]) -> Result<Vec<Row>, CopyError> {
        match self {
            Self::Sqlite(end) => end.find(rows),
            Self::Postgres(end) => end.find(rows).await,
        }
    }
}
