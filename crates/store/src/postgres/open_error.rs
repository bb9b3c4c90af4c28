//! Reasons why a database cannot be opened, checked or rebuilt, each in one line without password.

use thiserror::Error;

use super::failure::Failure;
use super::tls::TlsError;

/// Why the database could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// This process got no runtime or no thread.
    #[error("cannot start: {0}")]
    Start(std::io::Error),
    /// The thread that speaks to the database ended before it was open.
    #[error("the database thread ended")]
    ThreadEnded,
    /// The certificates to trust cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Texts would not fit.
    #[error("the database's encoding is {0}; UTF8 is needed (createdb --encoding=UTF8)")]
    Encoding(String),
    /// It follows another server.
    #[error(
        "the server is a standby, which is read-only; name the primary, or all servers with \
         target_session_attrs=read-write"
    )]
    Standby,
    /// An operator's setting keeps every replica from writing.
    #[error("{}; RESET it for the role and the database", super::engine::READ_ONLY)]
    ReadOnly,
    /// A limit of the operator's on time is too short.
    #[error("statement_timeout or transaction_timeout is too short for the queries of a start")]
    StartDeadline,
    /// The tables cannot be used as they are.
    #[error("{0}")]
    Tables(String),
    /// A column sorts by a language's rules, and the contract promises the order of bytes.
    #[error("column {0} of messages needs COLLATE \"C\"")]
    Collation(String),
    /// The server refuses something, or cannot be reached.
    #[error(transparent)]
    Server(#[from] Failure),
}

impl OpenError {
    /// A failure during the start, when no limit of ours holds.
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
