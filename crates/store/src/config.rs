//! The location of the database, and the limits of the store.

use std::path::PathBuf;
use std::time::Duration;

use super::postgres::config::PostgresConfig;

/// The store and its limits.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The engine and its location.
    pub database: Database,
    /// Maximum messages waiting for the writer.
    pub queue_max: usize,
    /// Maximum messages in one commit.
    pub batch_max: usize,
    /// Maximum wait of a write for another process's lock.
    pub lock_timeout: Duration,
    /// Maximum time of one read.
    pub query_timeout: Duration,
    /// Number of reader threads.
    pub readers: usize,
    /// Pages in the write-ahead log before a checkpoint.
    pub checkpoint_pages: u32,
    /// Maximum pages in the write-ahead log; above it writes stop while a reader prevents a checkpoint.
    pub log_pages_max: u32,
}

/// The database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// An SQLite file on this machine.
    Sqlite {
        /// The path as given, relative to the working directory or absolute.
        path: PathBuf,
    },
    /// A PostgreSQL server, which any number of replicas share.
    Postgres(Box<PostgresConfig>),
}

impl std::fmt::Display for Database {
    /// The address without user and password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite { path } => write!(f, "{}", path.display()),
            Self::Postgres(config) => f.write_str(&config.place()),
        }
    }
}
