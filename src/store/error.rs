//! Why the store did not do what a caller asked.

use thiserror::Error;

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
