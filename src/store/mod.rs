//! Where messages are kept. A `Receipt` can only be built here, after the commit, so nothing is acknowledged before it
//! is safe on disk. `DESIGN.md` beside this file explains the protocol between requests, queue and writer.

#[cfg(test)]
mod contract;
pub mod copy;
mod extras;
mod index;
mod leftovers;
pub mod postgres;
mod queue;
pub mod sqlite;

use std::sync::Arc;

use thiserror::Error;

use crate::config::{Database, StoreConfig};
use crate::domain::event::{EventRequest, StoredEvent};
use crate::domain::message::FullMessage;
use crate::domain::payload::StoredPayload;
use crate::domain::status::MessageStatus;
use crate::domain::{Page, PageRequest, State, Stats};
use crate::providers::Parsed;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{Gauges, Outcome};
pub use leftovers::Leftovers;
use postgres::PostgresStore;
use sqlite::SqliteStore;

/// Proof that a commit which survives power loss has happened, with the outcome of each message, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Receipt {
    outcomes: Vec<Outcome>,
    statuses: Vec<Outcome>,
    events: Vec<Outcome>,
}

impl Receipt {
    /// What became of each message.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// What became of each status: created, or a duplicate.
    pub fn statuses(&self) -> &[Outcome] {
        &self.statuses
    }

    /// What became of each event: created, or a duplicate.
    pub fn events(&self) -> &[Outcome] {
        &self.events
    }

    /// Whether anything was written for it.
    fn has_created(&self) -> bool {
        [&self.outcomes, &self.statuses, &self.events].iter().any(|outcomes| outcomes.contains(&Outcome::Created))
    }
}

/// What was found under an id: a key, or a provider's id, which may stand for several messages.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup<T> {
    /// This.
    Found(T),
    /// Nothing.
    Absent,
    /// Several, with these keys; at most ten are told.
    Ambiguous(Vec<String>),
}

/// Why the store did not do what it was asked. Nothing was acknowledged; asking again is safe.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// As many as may wait are waiting.
    #[error("the queue is full")]
    QueueFull,
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
    /// There is no space for what was to be written.
    #[error("the disk is full")]
    DiskFull,
    /// The database does not answer as it should; the text is for the log.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// What was to be read is not what was stored; the text is for the log.
    #[error("something stored is damaged: {0}")]
    Damaged(String),
    /// A read was given up because it took too long.
    #[error("the query took too long")]
    QueryDeadline,
}

/// Why a store could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// An SQLite file.
    #[error(transparent)]
    Sqlite(#[from] sqlite::schema::OpenError),
    /// A PostgreSQL database.
    #[error(transparent)]
    Postgres(#[from] postgres::OpenError),
}

/// The store's state, as readiness tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Writes and reads work, as far as is known.
    Ready,
    /// The last write found no space.
    DiskFull,
    /// The write-ahead log is as long as it may be, and another program's open read keeps it from being moved.
    LogFull,
    /// The database, its file or its table is gone or broken.
    Broken,
    /// The database itself refuses messages, whoever sends them: a constraint or a trigger of another program.
    Refusing,
}

/// A store of either kind; both keep the same promises and pass the same contract suite.
#[derive(Debug)]
pub enum Store {
    /// An SQLite file on this machine.
    Sqlite(SqliteStore),
    /// A PostgreSQL database that replicas share.
    Postgres(PostgresStore),
}

/// Does the same with the store of either engine.
macro_rules! on_engine {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Store::Sqlite($store) => $call,
            Store::Postgres($store) => $call,
        }
    };
}

impl Store {
    /// Opens or makes the database and starts the store's threads. Blocks, for as long as an upgrade takes. Must be
    /// called within a Tokio runtime, which delivers the receipts.
    pub fn open(config: &StoreConfig, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        Self::open_limited(config, metrics, postgres::Limits::PRODUCTION)
    }

    /// The same with other limits of the background work and of searches: tests choose small ones.
    pub fn open_limited(
        config: &StoreConfig,
        metrics: Arc<Metrics>,
        limits: postgres::Limits,
    ) -> Result<Self, OpenError> {
        match &config.database {
            Database::Sqlite { path } => Ok(Self::Sqlite(SqliteStore::open(path, config, metrics)?)),
            Database::Postgres(postgres) => Ok(Self::Postgres(PostgresStore::open(postgres, config, metrics, limits)?)),
        }
    }

    /// What an acknowledged message survives, in words for the operator.
    pub fn durability(&self) -> &str {
        match self {
            Self::Sqlite(_) => "WAL, synchronous=FULL: a 200 survives power loss",
            Self::Postgres(store) => store.durability(),
        }
    }

    /// Whether a message would be taken now: for refusing early, before any work on it.
    pub fn has_room(&self) -> Result<(), StoreError> {
        on_engine!(self, store => store.has_room())
    }

    /// Stores what a request brought, and answers after the commit.
    pub async fn append(&self, parsed: Parsed) -> Result<Receipt, StoreError> {
        on_engine!(self, store => store.append(parsed).await)
    }

    /// A page of messages and the total, of one snapshot.
    pub async fn page(&self, request: PageRequest) -> Result<Page, StoreError> {
        on_engine!(self, store => store.page(request).await)
    }

    /// The inbox in a few numbers, of one snapshot.
    pub async fn stats(&self) -> Result<Stats, StoreError> {
        on_engine!(self, store => store.stats().await)
    }

    /// A message with its details, by its key, or by the provider's id if only one message has it.
    pub async fn message(&self, id: String) -> Result<Lookup<FullMessage>, StoreError> {
        on_engine!(self, store => store.message(id).await)
    }

    /// How far a message came, by its key, or by the provider's id if only one message has it.
    pub async fn statuses(&self, id: String) -> Result<Lookup<MessageStatus>, StoreError> {
        on_engine!(self, store => store.statuses(id).await)
    }

    /// How many messages are in each state, by recipient, in the order of the states.
    pub async fn status_counts(&self) -> Result<Vec<(State, u64)>, StoreError> {
        on_engine!(self, store => store.status_counts().await)
    }

    /// Events, the newest first.
    pub async fn events(&self, request: EventRequest) -> Result<Vec<StoredEvent>, StoreError> {
        on_engine!(self, store => store.events(request).await)
    }

    /// An event by its number.
    pub async fn event(&self, number: i64) -> Result<Option<StoredEvent>, StoreError> {
        on_engine!(self, store => store.event(number).await)
    }

    /// A raw body.
    pub async fn payload(&self, number: i64) -> Result<Option<StoredPayload>, StoreError> {
        on_engine!(self, store => store.payload(number).await)
    }

    /// Raw bodies of which something could not be read (or all), by number, behind a number.
    pub async fn unreadable_payloads(
        &self,
        after: i64,
        all: bool,
        limit: u32,
    ) -> Result<Vec<StoredPayload>, StoreError> {
        on_engine!(self, store => store.unreadable_payloads(after, all, limit).await)
    }

    /// Asks the database whether it is there, and whether it has its table.
    pub async fn health(&self) -> Health {
        on_engine!(self, store => store.health().await)
    }

    /// Sizes, for metrics.
    pub async fn gauges(&self) -> Gauges {
        on_engine!(self, store => store.gauges().await)
    }

    /// Writes what is queued, and leaves one complete file. Blocks.
    pub fn close(self) {
        on_engine!(self, store => store.close())
    }
}
