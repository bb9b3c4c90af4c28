//! Stores messages. Only this crate can build a `Receipt`, after the commit. Nothing is acknowledged before
//! it is safe on disk. `DESIGN.md` next to this file explains the protocol of requests, queue and writer.

mod config;
#[cfg(test)]
mod contract;
pub mod copy;
mod error;
mod extras;
mod health;
mod lookup;
mod observer;
mod orphans;
pub mod postgres;
mod queue;
mod receipt;
pub mod sqlite;

use std::sync::Arc;

use thiserror::Error;

pub use config::{Database, StoreConfig};
use domain::event::{EventRequest, StoredEvent};
use domain::message::FullMessage;
use domain::payload::StoredPayload;
use domain::status::MessageStatus;
use domain::{Intake, Page, PageRequest, State, Stats};
pub use error::StoreError;
pub use health::Health;
pub use lookup::Lookup;
pub use observer::{Commits, DamageKind, Gauges, Observer, Unobserved};
pub use orphans::Orphans;
use postgres::PostgresStore;
pub use receipt::Receipt;
use sqlite::SqliteStore;

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

/// The version of SQLite that is built in.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// A store of either kind; both give the same guarantees and pass the same contract suite.
#[derive(Debug)]
pub enum Store {
    /// An SQLite file on this machine.
    Sqlite(SqliteStore),
    /// A PostgreSQL database that replicas share.
    Postgres(PostgresStore),
}

/// Runs the same expression with the store of either engine.
macro_rules! on_engine {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Store::Sqlite($store) => $call,
            Store::Postgres($store) => $call,
        }
    };
}

impl Store {
    /// Opens or creates the database and starts the store's threads. Blocks, for the time of an upgrade. Must be
    /// called within a Tokio runtime, which delivers the receipts.
    pub fn open(config: &StoreConfig, observer: Arc<dyn Observer>) -> Result<Self, OpenError> {
        Self::open_limited(config, observer, postgres::Limits::PRODUCTION)
    }

    /// The same with other limits of the background work and of searches: tests use small ones.
    pub fn open_limited(
        config: &StoreConfig,
        observer: Arc<dyn Observer>,
        limits: postgres::Limits,
    ) -> Result<Self, OpenError> {
        match &config.database {
            Database::Sqlite { path } => Ok(Self::Sqlite(SqliteStore::open(path, config, observer)?)),
            Database::Postgres(postgres) => {
                Ok(Self::Postgres(PostgresStore::open(postgres, config, observer, limits)?))
            }
        }
    }

    /// The durability of an acknowledged message, in words for the operator.
    pub fn durability(&self) -> &str {
        match self {
            Self::Sqlite(_) => "WAL, synchronous=FULL: a 200 survives power loss",
            Self::Postgres(store) => store.durability(),
        }
    }

    /// Whether a message would be accepted now: for an early refusal, before any work on it.
    pub fn has_room(&self) -> Result<(), StoreError> {
        on_engine!(self, store => store.has_room())
    }

    /// Stores the content of a request, and returns after the commit.
    pub async fn append(&self, intake: Intake) -> Result<Receipt, StoreError> {
        on_engine!(self, store => store.append(intake).await)
    }

    /// A page of messages and the total, from one snapshot.
    pub async fn page(&self, request: PageRequest) -> Result<Page, StoreError> {
        on_engine!(self, store => store.page(request).await)
    }

    /// The statistics of the inbox, from one snapshot.
    pub async fn stats(&self) -> Result<Stats, StoreError> {
        on_engine!(self, store => store.stats().await)
    }

    /// A message with its details, by its key, or by the provider's id if only one message has it.
    pub async fn message(&self, id: String) -> Result<Lookup<FullMessage>, StoreError> {
        on_engine!(self, store => store.message(id).await)
    }

    /// The delivery of a message, by its key, or by the provider's id if only one message has it.
    pub async fn statuses(&self, id: String) -> Result<Lookup<MessageStatus>, StoreError> {
        on_engine!(self, store => store.statuses(id).await)
    }

    /// The number of messages in each state, per recipient, in the order of the states.
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

    /// Raw bodies with unreadable parts (or all), by number, after a number.
    pub async fn unreadable_payloads(
        &self,
        after: i64,
        all: bool,
        limit: u32,
    ) -> Result<Vec<StoredPayload>, StoreError> {
        on_engine!(self, store => store.unreadable_payloads(after, all, limit).await)
    }

    /// Checks that the database responds and has its table.
    pub async fn health(&self) -> Health {
        on_engine!(self, store => store.health().await)
    }

    /// Sizes, for metrics.
    pub async fn gauges(&self) -> Gauges {
        on_engine!(self, store => store.gauges().await)
    }

    /// Writes the queue, and leaves one complete file. Blocks.
    pub fn close(self) {
        on_engine!(self, store => store.close())
    }
}
