//! A round of background work: one transaction, which only one replica runs at a time.

use tokio_postgres::{Client, Row};

use super::failure::Failure;

/// The result of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    /// There is more.
    More,
    /// Everything possible was done, by this or another replica.
    Done,
}

impl Round {
    /// Whether any of these rounds has more work.
    pub fn of_all(rounds: &[Self]) -> Self {
        if rounds.contains(&Self::More) { Self::More } else { Self::Done }
    }
}

/// The timeout limits how long a replica that loses its connection in the middle blocks the others. JIT
/// compilation of a statement takes longer than the statement.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL idle_in_transaction_session_timeout = '30s'; \
     SET LOCAL jit = off";

/// Runs `work` in a transaction of one snapshot, which is rolled back on an error. With one snapshot, a row
/// that is deleted meanwhile is either counted by all statements, and subtracted later, or counted by none.
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

/// Locks a state row. None if another replica has locked it, or changed it just now.
pub(super) async fn lease(client: &Client, sql: &str) -> Result<Option<Row>, Failure> {
    match client.query_typed_opt(sql, &[]).await.map_err(Failure::from) {
        Err(Failure::Retry(_)) => Ok(None),
        row => row,
    }
}
