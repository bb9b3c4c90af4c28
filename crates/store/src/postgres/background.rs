//! The background work after an insert: counters and the search index. Any replica does it for all, one at a
//! time; it locks a row of state that nothing else waits for. Reads add the rows that are not processed yet,
//! so results are exact at any time, and storing a message touches no row that another replica touches.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use tokio_postgres::Client;

use super::counting::{Counting, fold_states};
use super::failure::Failure;
use super::guard::Guard;
use super::indexing::{index, merge};
use super::round::Round;
use super::session::{Connector, Session};
use super::shared::Shared;
use runtime::log;

/// Interval of checks for rows that other replicas stored.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Counts, indexes and adds up, until dropped.
pub(super) async fn run(shared: Arc<Shared>, connector: Connector) {
    let limits = &shared.limits;
    let (counting, guard) = (Counting::new(limits), Guard::new(limits));
    let count = async |client: &Client, is_fresh: bool| {
        let guarded = guard.round(client, is_fresh).await?;
        let (counted, folded) = (counting.round(client).await?.1, fold_states(client, limits.folded_max).await?);
        Ok(Round::of_all(&[guarded, counted, folded]))
    };
    let index = async |client: &Client, _| {
        let indexed = index(client, limits, limits.indexed_least, limits.indexed_max).await?.1;
        Ok(Round::of_all(&[indexed, merge(client, limits).await?]))
    };
    let counting = follow(&shared, &connector, "counting", limits.gather, count);
    join(counting, follow(&shared, &connector, "indexing", limits.gather_texts, index)).await;
}

async fn follow(
    shared: &Shared,
    connector: &Connector,
    what: &str,
    gather: Duration,
    round: impl AsyncFn(&Client, bool) -> Result<Round, Failure>,
) {
    let mut stored = shared.stored.subscribe();
    let (mut session, mut told): (Option<Session>, Option<Failure>) = (None, None);
    loop {
        let open = match session.take().filter(Session::is_open) {
            Some(open) => Ok((open, false)),
            None => connector.connect().await.map(|open| (open, true)),
        };
        let done = match open {
            Ok((open, is_fresh)) => round(&open.client, is_fresh).await.inspect(|_| session = Some(open)),
            Err(failure) => Err(failure),
        };
        let is_more = matches!(done, Ok(Round::More));
        told = match done {
            Ok(_) => None,
            // Writers and readers meet the same failure and report it.
            Err(Failure::Lost(_) | Failure::DiskFull(_) | Failure::Retry(_)) => told,
            // Possibly only this task meets it, and without this task reads become slow.
            Err(failure) => {
                if told.as_ref() != Some(&failure) {
                    let message = format!("{what} fails; reads stay exact and get slower");
                    log::error(&message).text("error", &failure.to_string()).emit();
                }
                Some(failure)
            }
        };
        if !is_more {
            stored.mark_unchanged();
            let _ = tokio::time::timeout(LOOK_INTERVAL, stored.changed()).await;
            tokio::time::sleep(gather).await;
        }
    }
}
