//! The counters of messages, senders, times and states. Rows are added in segments, in the order of arrival.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::arrival;
use super::failure::Failure;
use super::limits::Limits;
use super::parameters::Parameters;
use super::round::{Round, in_transaction, lease};

/// Target time of counting a segment. A transaction that writes delays listings by arrival until its end, so
/// it must be short. But the more rows are counted together, the less each costs, since rows share counters.
const STRETCH_TIME: Duration = Duration::from_millis(500);

/// Counts segments of rows, sized by the server's speed.
pub(crate) struct Counting {
    limits: Limits,
    /// Rows of the next segment.
    most: Cell<i64>,
}

impl Counting {
    pub fn new(limits: &Limits) -> Self {
        Self { limits: *limits, most: Cell::new(limits.counted_first) }
    }

    /// Adds a segment of rows to the counters. Returns how many they were.
    pub async fn round(&self, client: &Client) -> Result<(i64, Round), Failure> {
        let (most, gone_max, began) = (self.most.get(), self.limits.gone_max, Instant::now());
        match count(client, most, gone_max).await {
            Ok((rows, gone)) if rows < most => Ok((rows, if gone < gone_max { Round::Done } else { Round::More })),
            Ok((rows, _)) => {
                self.most.set(next_length(&self.limits, most, began.elapsed()));
                Ok((rows, Round::More))
            }
            // The segment exceeds the operator's statement timeout; a smaller one may fit.
            Err(Failure::Deadline) if most > self.limits.counted_least => {
                self.most.set((most / 4).max(self.limits.counted_least));
                Ok((0, Round::More))
            }
            Err(failure) => Err(failure),
        }
    }
}

/// The length of the next segment, if one of `rows` took this time. It changes by
/// at most half or to twice the length, since a single measurement is not reliable.
fn next_length(limits: &Limits, rows: i64, took: Duration) -> i64 {
    let factor = STRETCH_TIME.as_secs_f64() / took.as_secs_f64();
    ((rows as f64 * factor.clamp(0.5, 2.0)) as i64).clamp(limits.counted_least, limits.counted_max)
}

/// Locks the counters, unless another replica has them. Returns their watermark, and the horizon.
fn count_from() -> String {
    let horizon = arrival::settled();
    format!(
        "SELECT counted, {horizon} AS horizon, EXISTS (SELECT 1 FROM postroom_gone) AS is_any_gone
         FROM postroom_state FOR UPDATE SKIP LOCKED"
    )
}
/// The last arrival of a segment, and its number of rows.
const COUNT_TO: &str = "\
    SELECT max(arrival) AS last, count(*) AS rows FROM
        (SELECT arrival FROM messages WHERE arrival > $1 AND arrival < $2 ORDER BY arrival LIMIT $3) stretch";
/// Hours and days are sums of minutes, so each row is read once. Sorted, like the counters of senders below:
/// neighbours in the index are then updated one after the other, and a page is read and logged once.
const COUNT_BUCKETS: &str = "\
    WITH minutes AS MATERIALIZED (
        SELECT left(ts, 16) AS bucket, count(*) AS messages FROM messages
        WHERE arrival > $1 AND arrival <= $2 GROUP BY 1
    )
    INSERT INTO postroom_buckets (level, bucket, messages)
    SELECT level, left(bucket, level), sum(messages) FROM minutes, unnest(ARRAY[10, 13, 16]) AS level
    GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (level, bucket) DO UPDATE SET messages = postroom_buckets.messages + excluded.messages";
/// Returns the number of new senders: only an inserted row has no deleting transaction.
const COUNT_SENDERS: &str = "\
    WITH days AS MATERIALIZED (
        SELECT from_msisdn, left(ts, 10) AS bucket, count(*) AS messages FROM messages
        WHERE arrival > $1 AND arrival <= $2 GROUP BY 1, 2
    ), by_day AS (
        INSERT INTO postroom_sender_days (from_msisdn, bucket, messages)
        SELECT from_msisdn, bucket, messages FROM days ORDER BY 1, 2
        ON CONFLICT (from_msisdn, bucket) DO UPDATE SET messages = postroom_sender_days.messages + excluded.messages
    ), counted AS (
        INSERT INTO postroom_senders (from_msisdn, messages)
        SELECT from_msisdn, sum(messages) FROM days GROUP BY 1 ORDER BY 1
        ON CONFLICT (from_msisdn) DO UPDATE SET messages = postroom_senders.messages + excluded.messages
        RETURNING (xmax = 0) AS is_new
    )
    SELECT count(*) FILTER (WHERE is_new) AS new_senders FROM counted";
/// Drops tombstones of rows that were deleted before they were counted.
const GONE_UNCOUNTED: &str = "DELETE FROM postroom_gone WHERE arrival > $1";
/// Subtracts some deleted rows from the counters that contain them. Returns
/// the number of these rows, and of senders without any remaining row.
const COUNT_GONE: &str = "\
    WITH taken AS MATERIALIZED (
        DELETE FROM postroom_gone WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM postroom_gone WHERE arrival <= $1 ORDER BY arrival LIMIT $2))
        RETURNING from_msisdn, ts
    ), buckets AS MATERIALIZED (
        SELECT level::smallint, left(ts, level) AS bucket, count(*) AS n
        FROM taken, unnest(ARRAY[10, 13, 16]) AS level GROUP BY 1, 2
    ), less AS (
        UPDATE postroom_buckets b SET messages = b.messages - t.n FROM buckets t
        WHERE b.level = t.level AND b.bucket = t.bucket AND b.messages > t.n
    ), none AS (
        DELETE FROM postroom_buckets b USING buckets t
        WHERE b.level = t.level AND b.bucket = t.bucket AND b.messages <= t.n
    ), days AS MATERIALIZED (
        SELECT from_msisdn, left(ts, 10) AS bucket, count(*) AS n FROM taken GROUP BY 1, 2
    ), less_by_day AS (
        UPDATE postroom_sender_days d SET messages = d.messages - t.n FROM days t
        WHERE d.from_msisdn = t.from_msisdn AND d.bucket = t.bucket AND d.messages > t.n
    ), none_by_day AS (
        DELETE FROM postroom_sender_days d USING days t
        WHERE d.from_msisdn = t.from_msisdn AND d.bucket = t.bucket AND d.messages <= t.n
    ), senders AS MATERIALIZED (
        SELECT from_msisdn, sum(n)::bigint AS n FROM days GROUP BY 1
    ), less_by_sender AS (
        UPDATE postroom_senders s SET messages = s.messages - t.n FROM senders t
        WHERE s.from_msisdn = t.from_msisdn AND s.messages > t.n
    ), none_by_sender AS (
        DELETE FROM postroom_senders s USING senders t
        WHERE s.from_msisdn = t.from_msisdn AND s.messages <= t.n RETURNING 1
    )
    SELECT (SELECT count(*) FROM taken) AS taken, (SELECT count(*) FROM none_by_sender) AS lost_senders";
const COUNT_TOTALS: &str = "\
    UPDATE postroom_state SET counted = $1, messages = messages + $2, senders = senders + $3";

/// Adds up to `most` rows to the counters, and subtracts up to `gone_max` deleted rows. Returns the number of
/// both.
async fn count(client: &Client, most: i64, gone_max: i64) -> Result<(i64, i64), Failure> {
    in_transaction(client, async || {
        let Some(locked) = lease(client, &count_from()).await? else { return Ok((0, 0)) };
        let (from, horizon): (i64, i64) = (locked.get("counted"), locked.get("horizon"));
        let segment = Parameters::new().number(from).number(horizon).number(most).row(client, COUNT_TO).await?;
        let (to, rows): (Option<i64>, i64) = (segment.get("last"), segment.get("rows"));
        let to = to.unwrap_or(from);
        let (mut gone, mut senders) = (0_i64, 0_i64);
        if locked.get("is_any_gone") {
            Parameters::new().number(from).execute(client, GONE_UNCOUNTED).await?;
            let row = Parameters::new().number(from).number(gone_max).row(client, COUNT_GONE).await?;
            (gone, senders) = (row.get("taken"), -row.get::<_, i64>("lost_senders"));
        }
        if rows > 0 {
            let segment = Parameters::new().number(from).number(to);
            segment.execute(client, COUNT_BUCKETS).await?;
            senders += segment.row(client, COUNT_SENDERS).await?.get::<_, i64>("new_senders");
        }
        if rows > 0 || gone > 0 {
            let totals = Parameters::new().number(to).number(rows - gone).number(senders);
            totals.execute(client, COUNT_TOTALS).await?;
        }
        Ok((rows, gone))
    })
    .await
}

/// Empties the counters. They are deleted, not truncated: a reader of an older snapshot still sees the rows.
pub(super) const FORGET_COUNTS: &str = "UPDATE postroom_state SET counted = 0, messages = 0, senders = 0; \
     DELETE FROM postroom_buckets; DELETE FROM postroom_senders; DELETE FROM postroom_sender_days; \
     DELETE FROM postroom_gone";

/// Adds some changes to the counts of states. Several replicas may do it at once, each with its own changes.
const FOLD_STATES: &str = "\
    WITH taken AS MATERIALIZED (
        SELECT change_id FROM postroom_state_changes ORDER BY change_id LIMIT $1 FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM postroom_state_changes changes USING taken WHERE changes.change_id = taken.change_id
        RETURNING changes.state, changes.messages
    ), folded AS (
        INSERT INTO postroom_state_counts AS known (state, messages)
        SELECT state, sum(messages) FROM gone GROUP BY state ORDER BY state
        ON CONFLICT (state) DO UPDATE SET messages = known.messages + excluded.messages
    )
    SELECT count(*) AS changes FROM gone";

/// Adds some changes to the counts of states.
pub(super) async fn fold_states(client: &Client, most: i64) -> Result<Round, Failure> {
    let folded: i64 = Parameters::new().number(most).row(client, FOLD_STATES).await?.get("changes");
    Ok(if folded < most { Round::Done } else { Round::More })
}

/// Counts the states again while the table of statuses is locked.
pub(super) const RECOUNT_STATES: &str = "BEGIN; LOCK TABLE postroom_states IN SHARE MODE; \
     DELETE FROM postroom_state_changes; DELETE FROM postroom_state_counts; \
     INSERT INTO postroom_state_counts SELECT state, count(*) FROM postroom_states GROUP BY state; COMMIT";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_as_long_as_the_server_is_quick() {
        let limits = Limits { counted_first: 3, counted_least: 1, counted_max: 4, ..Limits::PRODUCTION };
        // A server that needs this time per row, plus a little per segment.
        let length = |microseconds: i64| {
            (0..20).fold(limits.counted_first, |rows, _| {
                next_length(&limits, rows, Duration::from_micros((rows * microseconds + 1_000).cast_unsigned()))
            })
        };
        assert_eq!(length(0), limits.counted_max);
        assert_eq!(length(1_000_000), limits.counted_least);
        assert_eq!(length(249_000), 2);
        assert_eq!(next_length(&limits, 2, STRETCH_TIME), 2, "just right");
        let leaps = (next_length(&limits, 2, Duration::ZERO), next_length(&limits, 4, Duration::MAX));
        assert_eq!(leaps, (4, 2), "no great leap");
    }
}
