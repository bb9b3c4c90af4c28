//! Errors of the store.

use thiserror::Error;

/// Why an operation of the store failed. Nothing was acknowledged; a retry is safe.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The queue is full.
    #[error("the queue is full")]
    QueueFull,
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
    /// There is no space for the write.
    #[error("the disk is full")]
    DiskFull,
    /// The database failed; the text is for the log.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// Stored data differ from what was stored; the text is for the log.
    #[error("stored data are damaged: {0}")]
    Damaged(String),
    /// A read was cancelled at its deadline.
    #[error("the query took too long")]
    QueryDeadline,
}
