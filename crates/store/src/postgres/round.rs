//! A round of background work: one transaction, which only one replica does at a time.

use tokio_postgres::{Client, Row};

use super::failure::Failure;

/// The result of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    /// There is more.
    More,
    /// Everything possible was done, here or by another replica.
    Done,
}

impl Round {
    /// Whether there is more: in any of these.
    pub fn of_all(rounds: &[Self]) -> Self {
        if rounds.contains(&Self::More) { Self::More } else { Self::Done }
    }
}

/// A replica that loses its way to the server in the middle must not keep the others from going on for long. And what
/// the server would compile for a statement takes longer than the statement.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL idle_in_transaction_session_timeout = '30s'; \
     SET LOCAL jit = off";

/// Runs `work` in a transaction of one snapshot, which is undone unless it ends well. One snapshot, so that a row which
/// somebody deletes meanwhile is counted by all statements, and taken from the counters later, or by none.
pub(super) async fn in_transaction<T>(
    client: &Client,
    work: impl AsyncFnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    client.batch_execute(BEGIN).await?;
    let result = work().await;
    let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
    client.batch_execute(end).await?;
    result
}

/// Locks a state row. None if another replica has it, or had it until just now.
pub(super) async fn lease(client: &Client, sql: &str) -> Result<Option<Row>, Failure> {
    match client.query_typed_opt(sql, &[]).await.map_err(Failure::from) {
        Err(Failure::Retry(_)) => Ok(None),
        row => row,
    }
}
