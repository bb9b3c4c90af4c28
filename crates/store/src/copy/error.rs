//! Reasons why a copy stops.

use thiserror::Error;

use crate::OpenError;
use crate::postgres::{Failure, TlsError};

/// Why a copy stopped, in one line.
#[derive(Debug, Error)]
pub enum CopyError {
    /// There is nothing to copy.
    #[error("source and target are the same database")]
    SameDatabase,
    /// The target could not be prepared as our database.
    #[error("{}", in_one_line(.0))]
    Open(OpenError),
    /// The store that created the target did not close.
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

fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
