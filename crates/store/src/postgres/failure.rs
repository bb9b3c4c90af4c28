//! The meaning of a server or connection error for a batch and for the service.

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::tls::{self, TlsError};
use crate::{Health, StoreError};

/// An operator's limit on a whole transaction, since PostgreSQL
/// 17: it ends the session. The library has no name for it.
const TRANSACTION_TIMEOUT: &str = "25P04";

/// Why an operation failed, with one line for the log, without any of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The server has no space.
    DiskFull(String),
    /// The server refuses this content, from any client.
    Refused(String),
    /// The operation had no effect because of concurrent transactions; a retry may succeed now.
    Retry(String),
    /// The connection is lost; whether a commit happened is unknown.
    Lost(String),
    /// The statement reached its deadline.
    Deadline,
    /// The server responds, but cannot be used: read-only, tables missing, no privileges.
    Broken(String),
}

impl Failure {
    /// The resulting health; refused content does not affect it.
    pub fn health(&self) -> Option<Health> {
        match self {
            Self::Refused(_) | Self::Retry(_) | Self::Deadline => None,
            Self::DiskFull(_) => Some(Health::DiskFull),
            Self::Lost(_) | Self::Broken(_) => Some(Health::Broken),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::DiskFull(why) | Self::Refused(why) | Self::Retry(why) | Self::Lost(why) | Self::Broken(why) => {
                f.write_str(why)
            }
            Self::Deadline => f.write_str("the statement took too long"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::DiskFull(_) => Self::DiskFull,
            Failure::Deadline => Self::QueryDeadline,
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let Some(database) = error.as_db_error() else { return Self::Lost(chain(error)) };
        let code = database.code();
        // Only the message: detail and hint may contain data of a sender.
        let why = format!("{} ({})", one_line(database.message()), code.code());
        let class = code.code().get(..2).unwrap_or_default();
        match class {
            _ if *code == SqlState::DISK_FULL => Self::DiskFull(why),
            _ if *code == SqlState::QUERY_CANCELED || code.code() == TRANSACTION_TIMEOUT => Self::Deadline,
            // An operator's `lock_timeout`.
            _ if *code == SqlState::LOCK_NOT_AVAILABLE => Self::Retry(why),
            _ if *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => Self::Lost(why),
            // Serialization failures and deadlocks: the whole statement was rolled back.
            "40" => Self::Retry(why),
            // The connection, or the server behind it, is closing.
            "08" => Self::Lost(why),
            "57" => Self::Lost(why),
            // Data, constraints, limits of the engine, and errors that triggers of the operator raise.
            "22" | "23" | "54" | "P0" | "44" => Self::Refused(why),
            _ => Self::Broken(why),
        }
    }
}

/// An error with its causes, in one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    if let Some(remedy) = tls::remedy(&text) {
        text = format!("{}; {remedy}", one_line(&text));
    }
    one_line(&text)
}

fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_says_nothing_about_the_service() {
        assert_eq!(Failure::Refused("x".into()).health(), None);
        assert_eq!(Failure::DiskFull("x".into()).health(), Some(Health::DiskFull));
        assert_eq!(Failure::Lost("x".into()).health(), Some(Health::Broken));
        assert_eq!(StoreError::from(Failure::DiskFull("x".into())), StoreError::DiskFull);
        assert_eq!(StoreError::from(Failure::Deadline), StoreError::QueryDeadline);
    }
}
