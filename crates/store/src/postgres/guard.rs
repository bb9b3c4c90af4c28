//! Keeps the counters and the search index correct while other programs change the messages or the server.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::counting::FORGET_COUNTS;
use super::failure::Failure;
use super::indexing::FORGET_INDEX;
use super::limits::Limits;
use super::parameters::Parameters;
use super::round::Round;
use super::{arrival, schema};
use runtime::log;

/// Interval of comparing counters and index with the messages while other programs insert rows.
const VERIFY_INTERVAL: Duration = Duration::from_secs(60);

/// Whether the triggers show that no change of the messages was missed.
const WATCHED: &str = "SELECT postroom_watched()";
/// Recreates the triggers. It waits for writers, and others wait for it, so its lock timeout is short.
const WATCH: &str = "SET LOCAL lock_timeout = '200ms'; SELECT postroom_watch()";

/// Keeps derived data correct when other programs change the messages or the server.
pub(super) struct Guard {
    /// Maximum rows that get a number of arrival in one transaction.
    admitted_max: i64,
    /// The greatest number of arrival that may have been assigned, and the base of the numbers.
    seen: Cell<i64>,
    base: Cell<Option<i64>>,
    /// Whether counters and index must be compared with the messages, and the time of the last comparison.
    is_doubtful: Cell<bool>,
    verified: Cell<Option<Instant>>,
    /// Whether it was logged that a trigger cannot be created.
    is_told: Cell<bool>,
}

impl Guard {
    pub fn new(limits: &Limits) -> Self {
        Self {
            admitted_max: limits.admitted_max,
            seen: Cell::default(),
            base: Cell::default(),
            is_doubtful: Cell::default(),
            verified: Cell::default(),
            is_told: Cell::default(),
        }
    }

    /// Checks whether this cluster assigned the last numbers, gives numbers to rows without one, and
    /// compares the derived data if changes may have been missed.
    pub async fn round(&self, client: &Client, is_fresh: bool) -> Result<Round, Failure> {
        let base: i64 = Parameters::new().number(self.seen.get()).value(client, arrival::SETTLE).await?;
        if self.base.replace(Some(base)).is_some_and(|before| before != base) {
            schema::tell_of_another_cluster();
            self.is_doubtful.set(true);
            self.verified.set(None);
        }
        self.seen.set(Parameters::new().value(client, &arrival::horizon()).await?);
        let is_watched: bool = Parameters::new().value(client, WATCHED).await?;
        if !is_watched {
            self.watch(client).await?;
        }
        let admitted = admit(client, self.admitted_max).await?;
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

    /// Recreates the triggers, and counts changes made while they did not fire.
    async fn watch(&self, client: &Client) -> Result<(), Failure> {
        match client.batch_execute(WATCH).await.map_err(Failure::from) {
            Ok(()) => {}
            // Another transaction writes; the next round tries again.
            Err(Failure::Retry(_) | Failure::Deadline) => return Ok(()),
            Err(Failure::Broken(why)) => {
                if !self.is_told.replace(true) {
                    log::warning("a trigger of postroom on messages is missing or disabled, and cannot be created")
                        .text("error", &why)
                        .emit();
                }
                return Ok(());
            }
            Err(failure) => return Err(failure),
        }
        log::warning(
            "a trigger of postroom on messages was missing or disabled; it was recreated, and all is counted again",
        )
        .emit();
        forget(client).await
    }
}

/// Gives numbers of arrival to rows that wait for them.
const ADMIT: &str = "SELECT postroom_admit($1)";

/// Gives numbers of arrival to some rows that other programs inserted without one, or with one of their own.
pub(super) async fn admit(client: &Client, rows_max: i64) -> Result<Round, Failure> {
    let admitted: i64 = match Parameters::new().number(rows_max).value(client, ADMIT).await {
        // Another transaction changes these rows.
        Err(Failure::Retry(_)) => return Ok(Round::Done),
        admitted => admitted?,
    };
    if admitted > 0 {
        let message =
            "another program inserted messages without a number of arrival, or with one of its own; they get one now";
        log::info(message).value("messages", admitted).emit();
    }
    Ok(if admitted > 0 { Round::More } else { Round::Done })
}

/// Whether counters and search index match these messages: the number of rows in each of the counters'
/// tables, and a sample of the index from both sides. It detects rows that were inserted below a watermark.
const AGREES: &str = "\
    SELECT s.messages = (SELECT count(*) FROM messages WHERE arrival <= s.counted)
                        + (SELECT count(*) FROM postroom_gone WHERE arrival <= s.counted)
           AND s.messages = (SELECT coalesce(sum(messages), 0) FROM postroom_buckets WHERE level = 10)
           AND s.messages = (SELECT coalesce(sum(messages), 0) FROM postroom_senders)
           AND s.senders = (SELECT count(*) FROM postroom_senders)
           AND NOT EXISTS (
               SELECT 1 FROM (SELECT arrival FROM postroom_folded ORDER BY number DESC LIMIT 1000) f
               WHERE NOT EXISTS (SELECT 1 FROM messages m WHERE m.arrival = f.arrival)
                   AND NOT EXISTS (SELECT 1 FROM postroom_gone_texts g WHERE g.arrival = f.arrival))
           AND NOT EXISTS (
               SELECT 1 FROM (
                   SELECT arrival, text FROM messages WHERE arrival <= i.packed ORDER BY arrival DESC LIMIT 1000
               ) m
               WHERE m.text IS NOT NULL AND NOT EXISTS (SELECT 1 FROM postroom_folded f WHERE f.arrival = m.arrival))
           AS agrees
    FROM postroom_state s, postroom_search i";

/// Compares the counters and the index with the messages, and starts a rebuild of both if they differ.
async fn verify(client: &Client) -> Result<(), Failure> {
    // Without a time limit: nothing waits for it.
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0").await?;
    let agrees = client.query_typed_opt(AGREES, &[]).await;
    client.batch_execute("COMMIT").await?;
    if agrees?.is_none_or(|row| row.get::<_, Option<bool>>("agrees") == Some(true)) {
        return Ok(());
    }
    log::warning(
        "messages were added or deleted unnoticed, by a restore or another program; counters and search index are \
         rebuilt, and reads are exact and slower until then",
    )
    .emit();
    forget(client).await
}

/// Empties the counters and the search index, so that they are rebuilt.
async fn forget(client: &Client) -> Result<(), Failure> {
    // Statements that are sent together form one transaction.
    let forget = format!("SET LOCAL statement_timeout = 0; {}; {}", FORGET_COUNTS, FORGET_INDEX);
    Ok(client.batch_execute(&forget).await?)
}
