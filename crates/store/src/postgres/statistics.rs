//! Numbers that need no full count: the counters that are maintained in the background,
//! and the short tail of rows that they do not contain yet, added up in the same
//! snapshot. So every number is exact, and concurrent inserts never contend for a row.

use tokio_postgres::Client;

use super::arrival;
use super::failure::Failure;
use super::query::Query;
use super::snapshot::Snapshot;
use domain::stats::TOP_SENDERS_MAX;
use domain::{Filter, SenderCount, Stats, Timestamp};

/// Sorts after every text with the same prefix.
const BEHIND: char = char::MAX;

/// The watermarks of counting and indexing, in a snapshot.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct State {
    /// The counters contain rows up to this arrival.
    pub counted: i64,
    /// Messages and senders up to there.
    pub messages: i64,
    pub senders: i64,
    /// The search index contains rows up to this arrival.
    pub indexed: i64,
    /// Whether it contains texts of deleted rows.
    pub is_stale: bool,
    /// Every transaction that could add a row below this arrival has ended.
    pub horizon: i64,
}

impl State {
    pub async fn read(client: &Client) -> Result<Self, Failure> {
        let sql = format!(
            "SELECT counted, messages, senders, {} AS horizon, s.packed,
                    EXISTS (SELECT 1 FROM postroom_gone_texts g WHERE g.arrival <= s.packed) AS is_stale
             FROM postroom_state LEFT JOIN postroom_search s ON true",
            arrival::settled()
        );
        let row = client.query_typed_one(&sql, &[]).await?;
        Ok(Self {
            counted: row.get("counted"),
            messages: row.get("messages"),
            senders: row.get("senders"),
            indexed: row.get::<_, Option<i64>>("packed").unwrap_or(0),
            is_stale: row.get("is_stale"),
            horizon: row.get("horizon"),
        })
    }
}

/// The difference to the counters, as rows `m` of sender, time and `n`: one for each
/// row after the watermark, and minus one for each deleted row that they still contain.
fn uncounted(counted: &str) -> String {
    format!(
        "(SELECT from_msisdn, ts, 1 AS n FROM messages WHERE arrival > {counted}
          UNION ALL SELECT from_msisdn, ts, -1 FROM postroom_gone WHERE arrival <= {counted}) m"
    )
}

/// Runs a small part of all queries of counters.
pub(super) async fn probe(client: &Client) -> Result<(), Failure> {
    let first = "SELECT from_msisdn, messages FROM postroom_senders ORDER BY messages DESC, from_msisdn LIMIT 1";
    client.query_typed(first, &[]).await?;
    Ok(())
}

/// Whether the counters support a filter. None distinguishes recipients, sources or kinds.
pub(super) fn is_counted(filter: &Filter) -> bool {
    filter.to.is_none() && filter.source.is_none() && filter.kind.is_none()
}

/// How many rows match the column parts of a filter.
pub(super) async fn total(client: &Client, state: &State, filter: &Filter) -> Result<u64, Failure> {
    if !is_counted(filter) {
        let mut query = Query::default();
        let columns = query.columns(filter);
        query.text = format!("SELECT count(*) FROM messages m WHERE true{columns}");
        return query.number(client).await;
    }
    let total = total_since(client, state, filter).await?;
    match filter.until {
        None => Ok(total),
        // The rows since the start, minus the rows since the end.
        Some(until) => {
            let behind = Filter { since: filter.since.max(Some(until)), ..filter.clone() };
            Ok(total.saturating_sub(total_since(client, state, &behind).await?))
        }
    }
}

/// The same without `to` and `until`.
async fn total_since(client: &Client, state: &State, filter: &Filter) -> Result<u64, Failure> {
    let mut query = Query::default();
    let uncounted = uncounted(&query.bind_number(state.counted));
    query.text = match (&filter.from, &filter.since) {
        (None, None) => {
            format!("SELECT {} + coalesce(sum(m.n), 0)::bigint FROM {uncounted}", state.messages)
        }
        (Some(from), None) => {
            let from = query.bind_text(from);
            format!(
                "SELECT coalesce((SELECT messages FROM postroom_senders WHERE from_msisdn = {from}), 0)
                      + (SELECT coalesce(sum(m.n), 0)::bigint FROM {uncounted} WHERE m.from_msisdn = {from})"
            )
        }
        (None, Some(since)) => {
            let bounds = Bounds::bind(&mut query, since);
            let Bounds { since, day, hour, minute, day_end, hour_end, minute_end } = bounds;
            let sum = |level, from: &str, to: &str| {
                let to = if to.is_empty() { String::new() } else { format!("AND bucket < {to}") };
                format!(
                    "coalesce((SELECT sum(messages) FROM postroom_buckets
                               WHERE level = {level} AND bucket > {from} {to}), 0)::bigint"
                )
            };
            let (days, hours, minutes) = (sum(10, &day, ""), sum(13, &hour, &day_end), sum(16, &minute, &hour_end));
            format!(
                "SELECT {days} + {hours} + {minutes}
                      + (SELECT count(*) FROM messages m WHERE m.ts >= {since} AND m.ts < {minute_end})
                      + (SELECT coalesce(sum(m.n), 0)::bigint FROM {uncounted} WHERE m.ts >= {minute_end})"
            )
        }
        (Some(from), Some(since)) => {
            let from = query.bind_text(from);
            let Bounds { since, day, day_end, .. } = Bounds::of_day(&mut query, since);
            format!(
                "SELECT coalesce((SELECT sum(messages) FROM postroom_sender_days
                                  WHERE from_msisdn = {from} AND bucket > {day}), 0)::bigint
                      + (SELECT count(*) FROM messages m
                         WHERE m.from_msisdn = {from} AND m.ts >= {since} AND m.ts < {day_end})
                      + (SELECT coalesce(sum(m.n), 0)::bigint FROM {uncounted}
                         WHERE m.from_msisdn = {from} AND m.ts >= {day_end})"
            )
        }
    };
    query.number(client).await
}

/// The keys of a time's parts: day, hour and minute, and the key after all of each.
#[derive(Default)]
struct Bounds {
    since: String,
    day: String,
    hour: String,
    minute: String,
    day_end: String,
    hour_end: String,
    minute_end: String,
}

impl Bounds {
    fn of_day(query: &mut Query, since: &Timestamp) -> Self {
        let day = &since.as_str()[..10];
        Self {
            since: query.bind_text(since.as_str()),
            day: query.bind_text(day),
            day_end: query.bind_text(&format!("{day}{BEHIND}")),
            ..Self::default()
        }
    }

    fn bind(query: &mut Query, since: &Timestamp) -> Self {
        let (hour, minute) = (&since.as_str()[..13], &since.as_str()[..16]);
        Self {
            hour: query.bind_text(hour),
            minute: query.bind_text(minute),
            hour_end: query.bind_text(&format!("{hour}{BEHIND}")),
            minute_end: query.bind_text(&format!("{minute}{BEHIND}")),
            ..Self::of_day(query, since)
        }
    }
}

/// A start time and how many rows to skip from there, instead of skipping `offset` rows from the start.
pub(super) struct Sought {
    pub not_before: String,
    pub skip: u64,
}

/// Finds the minute (for one sender: the day) of the row at `offset`, with the counters. They must
/// support the filter; the rows after `filter.since` must be more than `offset`.
pub(super) async fn seek(client: &Client, state: &State, filter: &Filter, offset: u64) -> Result<Sought, Failure> {
    let whole = Filter { since: None, ..filter.clone() };
    let before = match filter.since {
        Some(_) => {
            let all = total_since(client, state, &whole).await?;
            all.saturating_sub(total_since(client, state, filter).await?)
        }
        None => 0,
    };
    let levels: &[usize] = if filter.from.is_some() { &[10] } else { &[10, 13, 16] };
    let mut sought = Sought { not_before: String::new(), skip: offset + before };
    for level in levels {
        let mut query = Query::default();
        let uncounted = uncounted(&query.bind_number(state.counted));
        let (low, high) =
            (query.bind_text(&sought.not_before), query.bind_text(&format!("{}{BEHIND}", sought.not_before)));
        let (table, condition, tail) = match &filter.from {
            Some(from) => {
                let from = query.bind_text(from);
                ("postroom_sender_days", format!("from_msisdn = {from}"), format!("AND m.from_msisdn = {from}"))
            }
            None => ("postroom_buckets", format!("level = {level}"), String::new()),
        };
        query.text = format!(
            "SELECT bucket, sum(messages)::bigint AS messages FROM (
                 SELECT bucket, messages FROM {table} WHERE {condition} AND bucket >= {low} AND bucket < {high}
                 UNION ALL
                 SELECT left(m.ts, {level}), sum(m.n) FROM {uncounted}
                 WHERE m.ts >= {low} AND m.ts < {high} {tail} GROUP BY 1
             ) counts GROUP BY bucket ORDER BY bucket"
        );
        for row in query.rows(client).await? {
            let here = u64::try_from(row.get::<_, i64>("messages")).unwrap_or(0);
            if sought.skip < here {
                sought.not_before = row.get("bucket");
                break;
            }
            sought.skip -= here;
        }
    }
    Ok(sought)
}

/// The statistics of the inbox.
pub(super) async fn stats(snapshot: &Snapshot<'_>) -> Result<Stats, Failure> {
    let client = snapshot.client;
    let state = State::read(client).await?;
    let mut query = Query::default();
    let uncounted = uncounted(&query.bind_number(state.counted));
    // A sender of the final top list is in the top list of the counters, or has rows in the tail. For
    // each sender whose rows in the tail were deleted, one more of the counters is needed. The count
    // of each sender is looked up one by one: the tail is short, and a join would read all senders.
    query.text = format!(
        "WITH tail AS MATERIALIZED (
             SELECT t.from_msisdn, t.n,
                    (SELECT s.messages FROM postroom_senders s WHERE s.from_msisdn = t.from_msisdn) AS known
             FROM (SELECT m.from_msisdn, sum(m.n) AS n FROM {uncounted} GROUP BY m.from_msisdn) t
         ), first AS MATERIALIZED (
             SELECT from_msisdn, messages FROM postroom_senders ORDER BY messages DESC, from_msisdn
             LIMIT {TOP_SENDERS_MAX} + (SELECT count(*) FROM tail WHERE n < 0)
         )
         SELECT from_msisdn, n::bigint AS messages, (SELECT coalesce(sum(n), 0)::bigint FROM tail) AS more_messages,
                (SELECT count(*) FILTER (WHERE known IS NULL AND n > 0)
                        - count(*) FILTER (WHERE known + n = 0) FROM tail) AS more_senders,
                (SELECT min(ts) FROM messages) AS first_ts, (SELECT max(ts) FROM messages) AS last_ts
         FROM (
             SELECT from_msisdn, n + coalesce(known, 0) AS n FROM tail
             UNION ALL
             SELECT from_msisdn, messages FROM first WHERE from_msisdn NOT IN (SELECT from_msisdn FROM tail)
         ) both_of_them WHERE n > 0 ORDER BY n DESC, from_msisdn LIMIT {TOP_SENDERS_MAX}"
    );
    let senders = query.rows(client).await?;
    let Some(any) = senders.first() else { return Ok(Stats::default()) };
    let sum = |known: i64, more: i64| u64::try_from(known + more).unwrap_or(0);
    Ok(Stats {
        total_messages: sum(state.messages, any.get("more_messages")),
        senders_count: sum(state.senders, any.get("more_senders")),
        first_ts: any.get("first_ts"),
        last_ts: any.get("last_ts"),
        top_senders: senders
            .iter()
            .map(|row| SenderCount { from: row.get("from_msisdn"), count: sum(row.get("messages"), 0) })
            .collect(),
    })
}
