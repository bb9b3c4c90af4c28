//! What follows the rows in the background: counters and the search index. Any replica does it for all of them, one at a time;
//! a row of state is locked for it, which nobody else waits for. Reads add what is not done yet, so answers are exact all the
//! time and storing a message touches no row that another replica touches.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::Shared;
use super::batch::exact;
use super::failure::Failure;
use super::runs::{self, Stretch, Text};
use super::session::{Connector, Session};
use super::{details_sql, schema, sql};
use crate::runtime::log;

/// How often rows are looked for that other replicas stored.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long rows gather before they are counted together: the longer, the fewer changes to one counter; what a read has to add up
/// itself grows with it.
const GATHER: Duration = Duration::from_millis(if cfg!(test) { 2 } else { 150 });
/// The same before they are indexed together: a stretch of fewer rows costs more for each.
const GATHER_TEXTS: Duration = Duration::from_millis(if cfg!(test) { 2 } else { 500 });
/// How long counting a stretch shall take. A transaction that writes holds back listings by arrival for as long as it lasts; and the
/// more rows are counted together, the less each costs, since they share counters.
const STRETCH_TIME: Duration = Duration::from_millis(500);
/// Rows that are counted in one transaction: at first, and at least and at most later.
const COUNTED_FIRST: i64 = if cfg!(test) { 3 } else { 10_000 };
const COUNTED_LEAST: i64 = if cfg!(test) { 1 } else { 500 };
const COUNTED_MOST: i64 = if cfg!(test) { 4 } else { 250_000 };
/// Fewest rows that are indexed, unless their texts are long: until so many have come, searches look at them one by one.
pub(super) const INDEXED_LEAST: i64 = if cfg!(test) { 3 } else { 1_000 };
/// Most rows indexed in one transaction.
const INDEXED_MAX: i64 = if cfg!(test) { 5 } else { 10_000 };
/// Bytes of text behind which no more rows are indexed in the same transaction: of a text that never repeats itself the index takes
/// thirty times as much while it is built.
const INDEXED_BYTES: i64 = if cfg!(test) { 40 } else { 1 << 20 };
/// Most rows that are gone which are taken from the counters, or from the index, in one transaction.
const GONE_MAX: i64 = if cfg!(test) { 2 } else { 10_000 };
/// How often counters and index are compared with the messages where rows come by other programs.
const VERIFY_INTERVAL: Duration = Duration::from_secs(60);
/// Most rows that get a number of arrival in one transaction.
const ADMITTED_MAX: i64 = if cfg!(test) { 3 } else { 10_000 };
/// Most changes to the counts of states that are added in one transaction.
const FOLDED_MAX: i64 = if cfg!(test) { 3 } else { 10_000 };

/// What a round did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Round {
    /// There is more.
    More,
    /// Everything that can be done was done, here or by another replica.
    Done,
}

/// Counts, indexes and adds up, until dropped.
pub(super) async fn run(shared: Arc<Shared>, connector: Connector) {
    let (counting, guard) = (Counting::default(), Guard::default());
    let count = async |client: &Client, is_fresh: bool| {
        let guarded = guard.round(client, is_fresh).await?;
        let (counted, folded) = (counting.round(client).await?.1, fold_states(client, FOLDED_MAX).await?);
        Ok(if [guarded, counted, folded].contains(&Round::More) { Round::More } else { Round::Done })
    };
    let index = async |client: &Client, _| {
        let (indexed, merged) = (index(client, INDEXED_LEAST, INDEXED_MAX).await?.1, merge(client).await?);
        Ok(if [indexed, merged].contains(&Round::More) { Round::More } else { Round::Done })
    };
    let counting = follow(&shared, &connector, "counting", GATHER, count);
    join(counting, follow(&shared, &connector, "indexing", GATHER_TEXTS, index)).await;
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
            // The writers' and the readers' to tell: they meet the same.
            Err(Failure::Lost(_) | Failure::DiskFull(_) | Failure::Retry(_)) => told,
            // Nobody else may meet it, and without it everything gets slow.
            Err(failure) => {
                if told.as_ref() != Some(&failure) {
                    let message = format!("{what} fails; answers stay exact and get slower");
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

/// Runs `work` in a transaction of one snapshot, which is undone unless it ends well. One snapshot, so that a row which somebody deletes
/// meanwhile is counted by all statements, and taken from the counters later, or by none.
async fn in_transaction<T>(client: &Client, work: impl AsyncFnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // A replica that loses its way to the server in the middle must not keep the others from going on for long.
    // And what the server would compile for a statement takes longer than the statement.
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL idle_in_transaction_session_timeout = '30s'; SET LOCAL jit = off").await?;
    let result = work().await;
    let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
    client.batch_execute(end).await?;
    result
}

/// Keeps what is derived true, whatever others do to the messages and to the server.
#[derive(Default)]
struct Guard {
    /// The greatest number of arrival that can have been given, and what numbers began at.
    seen: Cell<i64>,
    base: Cell<Option<i64>>,
    /// Whether counters and index are to be compared with the messages, and when they were.
    is_doubtful: Cell<bool>,
    verified: Cell<Option<Instant>>,
    /// Whether it was logged that a trigger cannot be made.
    is_told: Cell<bool>,
}

impl Guard {
    /// Looks whether this is the cluster that gave the last numbers, gives numbers to rows that wait for one, and
    /// compares where anything may have happened meanwhile.
    async fn round(&self, client: &Client, is_fresh: bool) -> Result<Round, Failure> {
        let base: i64 = client.query_typed_one(sql::SETTLE, &[(&self.seen.get(), Type::INT8)]).await?.get(0);
        if self.base.replace(Some(base)).is_some_and(|before| before != base) {
            schema::tell_of_another_cluster();
            self.is_doubtful.set(true);
            self.verified.set(None);
        }
        self.seen.set(client.query_typed_one(sql::HORIZON, &[]).await?.get(0));
        let is_watched: bool = client.query_typed_one(sql::WATCHED, &[]).await?.get(0);
        if !is_watched {
            self.watch(client).await?;
        }
        let admitted = admit(client).await?;
        if admitted == Round::More {
            self.is_doubtful.set(true);
            return Ok(Round::More);
        }
        let is_due = self.verified.get().is_none_or(|at| at.elapsed() >= VERIFY_INTERVAL);
        if is_fresh || (self.is_doubtful.get() && is_due) {
            self.is_doubtful.set(true);
            verify(client).await?;
            self.is_doubtful.set(false);
            self.verified.set(Some(Instant::now()));
        }
        Ok(Round::Done)
    }

    /// Makes the triggers anew, and what was done while they did not fire is counted.
    async fn watch(&self, client: &Client) -> Result<(), Failure> {
        match client.batch_execute(sql::WATCH).await.map_err(Failure::from) {
            Ok(()) => {}
            // Somebody writes; the next round tries again.
            Err(Failure::Retry(_) | Failure::Deadline) => return Ok(()),
            Err(Failure::Broken(why)) => {
                if !self.is_told.replace(true) {
                    log::warning("a trigger of ours on messages is missing or disabled, and cannot be made")
                        .text("error", &why)
                        .emit();
                }
                return Ok(());
            }
            Err(failure) => return Err(failure),
        }
        log::warning(
            "a trigger of ours on messages was missing or disabled; it was made anew, and all is counted anew",
        )
        .emit();
        forget(client).await
    }
}

/// Gives numbers of arrival to some rows that other programs brought without one, or with one of their own.
pub(super) async fn admit(client: &Client) -> Result<Round, Failure> {
    let admitted: i64 =
        match client.query_typed_one(sql::ADMIT, &[(&ADMITTED_MAX, Type::INT8)]).await.map_err(Failure::from) {
            // Somebody changes them.
            Err(Failure::Retry(_)) => return Ok(Round::Done),
            row => row?.get(0),
        };
    if admitted > 0 {
        let message =
            "another program brought messages without a number of arrival, or with one of its own; they arrive now";
        log::info(message).value("messages", admitted).emit();
    }
    Ok(if admitted > 0 { Round::More } else { Round::Done })
}

/// Compares the counters and the index with the messages, and has both made anew where they differ.
async fn verify(client: &Client) -> Result<(), Failure> {
    // However long it takes: nobody waits for it.
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0").await?;
    let agrees = client.query_typed_opt(sql::AGREES, &[]).await;
    client.batch_execute("COMMIT").await?;
    if agrees?.is_none_or(|row| row.get::<_, Option<bool>>(0) == Some(true)) {
        return Ok(());
    }
    log::warning(
        "messages came in or went unnoticed, by a restore or another program; counters and search index are made anew, and answers \
         are exact and slower until then",
    )
    .emit();
    forget(client).await
}

/// Throws the counters and the search index away, to be made anew.
async fn forget(client: &Client) -> Result<(), Failure> {
    // Sent together, these are one transaction.
    let forget = format!("SET LOCAL statement_timeout = 0; {}; {}", sql::FORGET_COUNTS, sql::FORGET_INDEX);
    Ok(client.batch_execute(&forget).await?)
}

/// Counts stretches of rows that are as long as the server is quick.
pub(in crate::store) struct Counting {
    /// Rows of the next stretch.
    most: Cell<i64>,
}

impl Default for Counting {
    fn default() -> Self {
        Self { most: Cell::new(COUNTED_FIRST) }
    }
}

impl Counting {
    /// Adds a stretch of rows to the counters. Answers how many they were.
    pub async fn round(&self, client: &Client) -> Result<(i64, Round), Failure> {
        let (most, began) = (self.most.get(), Instant::now());
        match count(client, most).await {
            Ok((rows, gone)) if rows < most => Ok((rows, if gone < GONE_MAX { Round::Done } else { Round::More })),
            Ok((rows, _)) => {
                self.most.set(next_length(most, began.elapsed()));
                Ok((rows, Round::More))
            }
            // Too much for the operator's limit on statements: less may do.
            Err(Failure::Deadline) if most > COUNTED_LEAST => {
                self.most.set((most / 4).max(COUNTED_LEAST));
                Ok((0, Round::More))
            }
            Err(failure) => Err(failure),
        }
    }
}

/// How long the next stretch is where one of `rows` took so long: changed by half or to twice as much, since the time of a single one
/// says little.
fn next_length(rows: i64, took: Duration) -> i64 {
    let factor = STRETCH_TIME.as_secs_f64() / took.as_secs_f64();
    ((rows as f64 * factor.clamp(0.5, 2.0)) as i64).clamp(COUNTED_LEAST, COUNTED_MOST)
}

/// Takes a row of state. None where another replica has it, or had it until a moment ago.
async fn lease(client: &Client, sql: &str) -> Result<Option<Row>, Failure> {
    match client.query_typed_opt(sql, &[]).await.map_err(Failure::from) {
        Err(Failure::Retry(_)) => Ok(None),
        row => row,
    }
}

/// Adds up to `most` rows to the counters, and takes some from them that are gone. Answers how many there were of each.
async fn count(client: &Client, most: i64) -> Result<(i64, i64), Failure> {
    in_transaction(client, async || {
        let Some(locked) = lease(client, sql::COUNT_FROM).await? else { return Ok((0, 0)) };
        let (from, horizon, is_any_gone): (i64, i64, bool) = (locked.get(0), locked.get(1), locked.get(2));
        let stretch = [(&from as _, Type::INT8), (&horizon as _, Type::INT8), (&most as _, Type::INT8)];
        let row = client.query_typed_one(sql::COUNT_TO, &stretch).await?;
        let (to, rows): (Option<i64>, i64) = (row.get(0), row.get(1));
        let to = to.unwrap_or(from);
        let stretch = [(&from as _, Type::INT8), (&to as _, Type::INT8)];
        let (mut gone, mut senders) = (0_i64, 0_i64);
        if is_any_gone {
            client.execute_typed(sql::GONE_UNCOUNTED, &[(&from, Type::INT8)]).await?;
            let counted = [(&from as _, Type::INT8), (&GONE_MAX as _, Type::INT8)];
            let row = client.query_typed_one(sql::COUNT_GONE, &counted).await?;
            (gone, senders) = (row.get(0), -row.get::<_, i64>(1));
        }
        if rows > 0 {
            client.execute_typed(sql::COUNT_BUCKETS, &stretch).await?;
            senders += client.query_typed_one(sql::COUNT_SENDERS, &stretch).await?.get::<_, i64>(0);
        }
        if rows > 0 || gone > 0 {
            let more = rows - gone;
            let totals = [(&to as _, Type::INT8), (&more as _, Type::INT8), (&senders as _, Type::INT8)];
            client.execute_typed(sql::COUNT_TOTALS, &totals).await?;
        }
        Ok((rows, gone))
    })
    .await
}

/// Adds some changes to the counts of states.
async fn fold_states(client: &Client, most: i64) -> Result<Round, Failure> {
    let folded: i64 = client.query_typed_one(details_sql::FOLD_STATES, &[(&most, Type::INT8)]).await?.get(0);
    Ok(if folded < most { Round::Done } else { Round::More })
}

/// Adds a stretch of rows to the search index, if at least so many, or long texts, wait for it. Answers how many they were.
pub(super) async fn index(client: &Client, least: i64, most: i64) -> Result<(i64, Round), Failure> {
    in_transaction(client, async || {
        let Some(locked) = lease(client, sql::INDEX_FROM).await? else { return Ok((0, Round::Done)) };
        let [from, horizon, known]: [i64; 3] = [0, 1, 2].map(|column| locked.get(column));
        let is_any_gone: bool = locked.get(3);
        if is_any_gone {
            client.execute_typed(sql::GONE_UNINDEXED, &[(&from, Type::INT8)]).await?;
            if runs::take_out(client, from, GONE_MAX, INDEXED_BYTES).await? {
                return Ok((0, Round::More));
            }
        }
        let stretch = |limit| [(&from as _, Type::INT8), (&horizon as _, Type::INT8), (limit as _, Type::INT8)];
        let waiting = client.query_typed_one(sql::INDEX_WAITING, &stretch(&least)).await?;
        if waiting.get::<_, i64>(0) < least && waiting.get::<_, i64>(1) <= INDEXED_BYTES {
            return Ok((0, Round::Done));
        }
        let rows = sql::within_bytes(sql::INDEX_ROWS, INDEXED_BYTES);
        let rows = client.query_typed(&rows, &stretch(&most)).await?;
        let Some(to) = rows.last().map(|row| row.get::<_, i64>(0)) else { return Ok((0, Round::Done)) };
        let bytes: usize = rows.iter().map(|row| row.get::<_, Option<&str>>(3).map_or(0, str::len)).sum();
        let text = |row: &Row| {
            let text = exact(row.get(3), row.get(4))?;
            Some(Text { arrival: row.get(0), from: row.get(1), ts: row.get(2), text })
        };
        let texts: Vec<Text> = rows.iter().filter_map(text).collect();
        // On a thread for such work: batches that wait for this one shall not.
        let stretch = tokio::task::spawn_blocking(move || Stretch::of(texts, known)).await;
        let stretch = stretch.map_err(|_| Failure::Broken("a text could not be indexed".to_owned()))?;
        stretch.write(client).await?;
        client.execute_typed(sql::INDEXED, &[(&to, Type::INT8), (&stretch.len(), Type::INT8)]).await?;
        let rows = rows.len() as i64;
        Ok((rows, if rows == most || bytes as i64 > INDEXED_BYTES { Round::More } else { Round::Done }))
    })
    .await
}

/// Merges a piece of the search index, if enough of its stretches are as small as each other.
pub(super) async fn merge(client: &Client) -> Result<Round, Failure> {
    in_transaction(client, async || {
        let is_ours = lease(client, sql::INDEX_FROM).await?.is_some();
        Ok(if is_ours && runs::merge(client).await? { Round::More } else { Round::Done })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_as_long_as_the_server_is_quick() {
        // A server that takes so long for a row, and a little more for the stretch.
        let length = |microseconds: i64| {
            (0..20).fold(COUNTED_FIRST, |rows, _| {
                next_length(rows, Duration::from_micros((rows * microseconds + 1_000).cast_unsigned()))
            })
        };
        assert_eq!(length(0), COUNTED_MOST);
        assert_eq!(length(1_000_000), COUNTED_LEAST);
        assert_eq!(length(249_000), 2);
        assert_eq!(next_length(2, STRETCH_TIME), 2, "just right");
        assert_eq!((next_length(2, Duration::ZERO), next_length(4, Duration::MAX)), (4, 2), "no great leap");
    }
}
