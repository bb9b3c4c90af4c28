//! A read-only snapshot of the database: the argument of every read.

use tokio_postgres::Client;

use super::limits::Limits;

/// One read-only snapshot. All statements of a read see the same rows.
pub(crate) struct Snapshot<'a> {
    /// In a REPEATABLE READ transaction with a limit on the time of each statement.
    pub client: &'a Client,
    pub limits: &'a Limits,
}
