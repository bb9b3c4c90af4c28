//! Reasons why a database cannot be opened, checked or rebuilt, each in one line without password.

use thiserror::Error;

use super::failure::Failure;
use super::tls::TlsError;

/// Why the database could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The process could not create a runtime or a thread.
    #[error("cannot start: {0}")]
    Start(std::io::Error),
    /// The thread of the database ended before the database was open.
    #[error("the database thread ended")]
    ThreadEnded,
    /// The certificates to trust cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The encoding cannot hold all texts.
    #[error("the database's encoding is {0}; UTF8 is needed (createdb --encoding=UTF8)")]
    Encoding(String),
    /// The server is a standby.
    #[error(
        "the server is a standby, which is read-only; name the primary, or all servers with \
         target_session_attrs=read-write"
    )]
    Standby,
    /// An operator's setting prevents every replica from writing.
    #[error("{}; RESET it for the role and the database", super::engine::READ_ONLY)]
    ReadOnly,
    /// An operator's time limit is too short.
    #[error("statement_timeout or transaction_timeout is too short for the queries of a start")]
    StartDeadline,
    /// The tables cannot be used as they are.
    #[error("{0}")]
    Tables(String),
    /// A column sorts by the rules of a language; the contract requires bytewise order.
    #[error("column {0} of messages needs COLLATE \"C\"")]
    Collation(String),
    /// The server refuses an operation, or cannot be reached.
    #[error(transparent)]
    Server(#[from] Failure),
}

impl OpenError {
    /// A failure during the start, where our own time limits do not apply.
    pub(super) fn of_start(failure: Failure) -> Self {
        match failure {
            Failure::Deadline => Self::StartDeadline,
            other => Self::Server(other),
        }
    }
}

impl From<tokio_postgres::Error> for OpenError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error.into())
    }
}
