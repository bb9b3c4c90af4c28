//! The meaning of an SQLite error for the store.

use rusqlite::ErrorCode;
use thiserror::Error;

use super::error_code::{is_out_of_space, is_unreadable};
use super::schema::OpenError;
use crate::StoreError;

/// Why a batch was not committed, by the required action.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// No space. Retry later on the same connection.
    #[error("no space is left for the database")]
    DiskFull(#[source] rusqlite::Error),
    /// The log has its maximum length. Retry later on the same connection.
    #[error("the write-ahead log is full: another program holds an old snapshot of the database open")]
    LogFull,
    /// Another process held its lock for too long. Nothing is broken.
    #[error("another process has locked the database")]
    Locked(#[source] rusqlite::Error),
    /// A foreign trigger rolled the transaction back. Nothing is broken.
    #[error("a trigger of another program rolled the transaction back")]
    RolledBack(#[source] rusqlite::Error),
    /// The database refuses all messages: a foreign constraint or trigger. Nothing is broken.
    #[error("the database refuses messages")]
    Refusing(#[source] rusqlite::Error),
    /// Any other error: the connection is closed and reopened.
    #[error("the database failed")]
    Broken(#[source] rusqlite::Error),
    /// The log could not be moved into the file. Pages that are recorded as
    /// moved may be missing there: the system drops pages whose sync failed.
    #[error("a checkpoint failed")]
    Checkpoint(#[source] rusqlite::Error),
    /// The path leads to another file, or to none: the commit is in a file that no later start opens.
    #[error("the database file was removed or replaced")]
    FileLost,
    /// A table, an index or a trigger was created or dropped since the connection was opened.
    #[error("the database's schema was changed")]
    SchemaChanged,
    /// The database could not be reopened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The writer panicked; its connection is in an unknown state.
    #[error("the writer panicked")]
    Panic,
}

impl Failure {
    /// Classifies an error of `connection`, the last one on it.
    pub fn of(error: rusqlite::Error, connection: &rusqlite::Connection) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull(error),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked(error),
            Some(ErrorCode::ConstraintViolation) => Self::RolledBack(error),
            Some(ErrorCode::SystemIoFailure) if is_out_of_space(connection) => Self::DiskFull(error),
            _ => Self::Broken(error),
        }
    }

    /// Classifies the error of a checkpoint. A write without space loses nothing,
    /// because the log has the data; a failed sync may lose pages, for any reason.
    pub fn of_checkpoint(error: rusqlite::Error, connection: &rusqlite::Connection) -> Self {
        let is_sync =
            error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_FSYNC);
        match Self::of(error, connection) {
            Self::DiskFull(error) if is_sync => Self::Checkpoint(error),
            Self::Broken(error) => Self::Checkpoint(error),
            other => other,
        }
    }

    /// Whether a sync of the database file may have failed.
    pub fn may_have_lost_pages(&self) -> bool {
        let is_io = |error: &rusqlite::Error| error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure);
        matches!(self, Self::Checkpoint(_)) || matches!(self, Self::Open(OpenError::Sqlite(error)) if is_io(error))
    }

    /// Whether a page could not be read, or is not a page.
    pub fn is_of_a_page(&self) -> bool {
        match self {
            Self::Broken(error) | Self::Checkpoint(error) | Self::Open(OpenError::Sqlite(error)) => {
                is_unreadable(error)
            }
            _ => false,
        }
    }

    /// The error for the requests of the batch.
    pub fn to_store_error(&self) -> StoreError {
        match self {
            Self::DiskFull(_) | Self::LogFull | Self::Open(OpenError::NoSpace(_)) => StoreError::DiskFull,
            other => StoreError::Unavailable(other.to_string()),
        }
    }
}
