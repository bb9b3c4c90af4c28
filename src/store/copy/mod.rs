//! Moving house: every message of one database into another, in the order of arrival, while both go on serving. The
//! place that was reached is written with the rows, so a copy that was interrupted goes on where it stopped, and a copy
//! made again takes what came since.

mod beside;
mod postgres;
mod sqlite;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thiserror::Error;

use super::postgres::{Failure, TlsError};
use super::sqlite::locate;
use super::{OpenError, Store};
use crate::config::{Database, StoreConfig};
use crate::telemetry::Metrics;
use beside::Thing;
pub use beside::{Copied, Sort};
use postgres::PostgresEnd;
use sqlite::SqliteEnd;
pub use tally::{Day, Tally};

/// Rows that are read and written together.
const CHUNK_ROWS: i64 = 10_000;
/// Bytes of text behind which a chunk has no more rows.
const CHUNK_BYTES: i64 = 16 << 20;
/// Ids that are told of rows which the target cannot hold.
const TOLD_MAX: usize = 10;

/// Why a copy stopped, in one line.
#[derive(Debug, Error)]
pub enum CopyError {
    /// There is nothing to copy.
    #[error("source and target are the same database")]
    SameDatabase,
    /// The target could not be made a database of ours.
    #[error("{}", in_one_line(.0))]
    Open(OpenError),
    /// The store that made it did not end.
    #[error("the target did not close")]
    NotClosed,
    /// An SQLite file fails.
    #[error("{0}")]
    Sqlite(rusqlite::Error),
    /// A PostgreSQL database fails.
    #[error("{0}")]
    Postgres(Failure),
    /// A connection to a PostgreSQL database cannot be encrypted as it should.
    #[error("{0}")]
    Tls(TlsError),
}

impl From<rusqlite::Error> for CopyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Failure> for CopyError {
    fn from(failure: Failure) -> Self {
        Self::Postgres(failure)
    }
}

impl From<tokio_postgres::Error> for CopyError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error.into())
    }
}

impl From<TlsError> for CopyError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

/// A row as it is copied: every value as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Unique key.
    pub id: String,
    /// Who sent it.
    pub from: String,
    /// To whom it went.
    pub to: String,
    /// When the sender says it was sent.
    pub ts: String,
    /// What it says.
    pub text: Option<String>,
    /// When it was accepted.
    pub created_at: String,
}

/// A stretch of the source.
#[derive(Debug, Default)]
struct Chunk {
    rows: Vec<Row>,
    /// What stands for rows that are no text, as other programs may have left them in a file.
    odd: Vec<String>,
    /// Where the stretch ends; none where there was nothing.
    end: Option<i64>,
}

/// What a copy did.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Rows read this time.
    pub read: u64,
    /// Rows that were not in the target before.
    pub created: u64,
    /// How many rows could not be copied, and some of them.
    pub odd: (u64, Vec<String>),
    /// What was compared afterwards.
    pub tally: Tally,
    /// What was done with everything beside the messages.
    pub beside: BTreeMap<Sort, Copied>,
}

impl Summary {
    /// Whether everything that was compared is the same on both sides.
    pub fn agrees(&self) -> bool {
        self.tally.agrees() && self.beside.values().all(|copied| copied.compared.agrees())
    }
}

/// What is being done, for a progress bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Rows are copied.
    Copying,
    /// What providers told is copied and compared.
    Details,
    /// Copied rows are compared.
    Verifying,
}

/// One of the two databases.
enum End {
    Sqlite(SqliteEnd),
    Postgres(Box<PostgresEnd>),
}

/// Whether both are one file by two names.
fn same_file(one: &Database, other: &Database) -> bool {
    let (Database::Sqlite { path: one }, Database::Sqlite { path: other }) = (one, other) else { return false };
    locate(one).is_ok_and(|one| locate(other).is_ok_and(|other| one == other))
}

/// Copies `from` into `to`, then compares row by row what was copied, this time and before. `anew` forgets how far
/// earlier copies came. `tell` hears of rows done and rows in all.
pub async fn copy(
    from: &StoreConfig,
    to: &StoreConfig,
    anew: bool,
    mut tell: impl FnMut(Phase, u64, u64),
) -> Result<Summary, CopyError> {
    if from.database == to.database || same_file(&from.database, &to.database) {
        return Err(CopyError::SameDatabase);
    }
    let mut source = End::source(&from.database).await?;
    let mut target = End::target(to).await?;
    let name = from.database.to_string();
    let start = if anew { i64::MIN } else { target.position(&name).await?.unwrap_or(i64::MIN) };
    let (mut position, mut summary) = (start, Summary::default());
    let total = source.count_behind(position).await?;
    loop {
        let chunk = source.read(position, i64::MAX).await?;
        let Some(end) = chunk.end else { break };
        summary.read += (chunk.rows.len() + chunk.odd.len()) as u64;
        summary.created += target.write(&name, &chunk.rows, end).await?;
        summary.odd.0 += chunk.odd.len() as u64;
        summary.odd.1.extend(chunk.odd.into_iter().take(TOLD_MAX - summary.odd.1.len().min(TOLD_MAX)));
        position = end;
        tell(Phase::Copying, summary.read, total.max(summary.read));
    }
    summary.beside = beside::copy(&mut source, &mut target, &mut tell).await?;
    verify(&mut source, &mut target, position, &mut summary, &mut tell).await?;
    Ok(summary)
}

/// Compares everything in the source up to `last` with the rows of the same ids in the target.
async fn verify(
    source: &mut End,
    target: &mut End,
    last: i64,
    summary: &mut Summary,
    tell: &mut impl FnMut(Phase, u64, u64),
) -> Result<(), CopyError> {
    let (mut position, mut done) = (i64::MIN, 0);
    let total = source.count_behind(i64::MIN).await?;
    // What came to the source behind that is not missing.
    while position < last {
        let mut chunk = source.read(position, last).await?;
        let Some(end) = chunk.end else { break };
        done += chunk.rows.len() as u64;
        chunk.rows.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let found = target.find(&chunk.rows).await?;
        summary.tally.add(&chunk.rows, &found);
        position = end;
        tell(Phase::Verifying, done, total.max(done));
    }
    Ok(())
}

impl End {
    async fn source(database: &Database) -> Result<Self, CopyError> {
        Ok(match database {
            Database::Sqlite { path } => Self::Sqlite(SqliteEnd::source(path)?),
            Database::Postgres(config) => Self::Postgres(Box::new(PostgresEnd::open(config).await?)),
        })
    }

    /// Opens the target, and makes it one of ours first, as a start of the service would.
    async fn target(config: &StoreConfig) -> Result<Self, CopyError> {
        let metrics = Arc::new(Metrics::new(Vec::new(), config.queue_max, 1));
        let store = Store::open(config, metrics).map_err(CopyError::Open)?;
        let closed = tokio::task::spawn_blocking(move || store.close()).await;
        closed.map_err(|_| CopyError::NotClosed)?;
        Ok(match &config.database {
            Database::Sqlite { path } => Self::Sqlite(SqliteEnd::target(path, config.lock_timeout)?),
            Database::Postgres(config) => Self::Postgres(Box::new(PostgresEnd::open(config).await?)),
        })
    }

    async fn count_behind(&mut self, position: i64) -> Result<u64, CopyError> {
        match self {
            Self::Sqlite(end) => end.count_behind(position),
            Self::Postgres(end) => end.count_behind(position).await,
        }
    }

    /// A stretch of the rows behind `position` and not behind `last`, in the order of arrival, as far as that is
    /// settled.
    async fn read(&mut self, position: i64, last: i64) -> Result<Chunk, CopyError> {
        match self {
            Self::Sqlite(end) => end.read(position, last),
            Self::Postgres(end) => end.read(position, last).await,
        }
    }

    /// How far copies from that source have come.
    async fn position(&mut self, source: &str) -> Result<Option<i64>, CopyError> {
        match self {
            Self::Sqlite(end) => end.position(source),
            Self::Postgres(end) => end.position(source).await,
        }
    }

    /// Stores the rows that are not there, and the place reached, at once. Answers how many were not there.
    async fn write(&mut self, source: &str, rows: &[Row], position: i64) -> Result<u64, CopyError> {
        match self {
            Self::Sqlite(end) => end.write(source, rows, position),
            Self::Postgres(end) => end.write(source, rows, position).await,
        }
    }

    /// How many there are of a sort.
    async fn count_things(&self, sort: Sort) -> Result<u64, CopyError> {
        match self {
            Self::Sqlite(end) => end.count_things(sort),
            Self::Postgres(end) => end.count_things(sort).await,
        }
    }

    /// A stretch of a sort, behind a place.
    async fn read_things(&self, sort: Sort, behind: Option<&[beside::Cell]>) -> Result<Vec<Thing>, CopyError> {
        match self {
            Self::Sqlite(end) => end.read_things(sort, behind),
            Self::Postgres(end) => end.read_things(sort, behind).await,
        }
    }

    /// Stores those that are not there. Answers how many were not.
    async fn write_things(&mut self, sort: Sort, things: &[Thing]) -> Result<u64, CopyError> {
        match self {
            Self::Sqlite(end) => end.write_things(sort, things),
            Self::Postgres(end) => end.write_things(sort, things).await,
        }
    }

    /// Those with the same keys.
    async fn find_things(&self, sort: Sort, things: &[Thing]) -> Result<Vec<Thing>, CopyError> {
        match self {
            Self::Sqlite(end) => end.find_things(sort, things),
            Self::Postgres(end) => end.find_things(sort, things).await,
        }
    }

    /// Which of these bodies are there.
    async fn known_payloads(&self, digests: &BTreeSet<&[u8]>) -> Result<BTreeSet<Vec<u8>>, CopyError> {
        match self {
            Self::Sqlite(end) => end.known_payloads(digests),
            Self::Postgres(end) => end.known_payloads(digests).await,
        }
    }

    /// The rows with the same ids, sorted by id.
    async fn find(&mut self, rows: &[Row]) -> Result<Vec<Row>, CopyError> {
        match self {
            Self::Sqlite(end) => end.find(rows),
            Self::Postgres(end) => end.find(rows).await,
        }
    }
}

fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
