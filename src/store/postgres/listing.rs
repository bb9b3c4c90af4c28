//! Pages of the inbox: how many match, which way to them is shortest, and the rows. Everything here runs in one snapshot.

use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_postgres::{Client, Row};

use super::batch::exact;
use super::failure::Failure;
use super::query::{Query, Value};
use super::runs;
use super::statistics::{self, State};
use crate::domain::{Filter, Message, Needle, Order, Page, PageRequest, Position, Start, Stored};

/// Rows that are skipped one by one; from there on the counters tell where to begin.
const SKIPPED_MAX: u64 = if cfg!(test) { 2 } else { 1_000 };
/// Matches of a search that are remembered one by one; more are looked for again along the order of the listing.
const MATCHES_MAX: usize = if cfg!(test) { 2 } else { 20_000 };

/// The rows that a filter lets through, as far as they are known.
enum Found {
    /// So many; their columns tell which.
    ByColumns(u64),
    /// These arrivals, all of them.
    These(Vec<i64>),
    /// At least so many; each row's text must be looked at. `tail` are the matches that the index does not hold yet.
    ByText { total: u64, is_bound: bool, tail: Vec<i64> },
}

impl Found {
    fn total(&self) -> u64 {
        match self {
            Self::ByColumns(total) | Self::ByText { total, .. } => *total,
            Self::These(arrivals) => arrivals.len() as u64,
        }
    }
}

/// A page and its total. `patience` is how long counting may take where the request is content with a lower bound.
pub(super) async fn page(client: &Client, request: &PageRequest, patience: Duration) -> Result<Page, Failure> {
    if excludes_all(&request.filter) {
        return Ok(Page::default());
    }
    let state = State::read(client).await?;
    let found = match &request.filter.search {
        None => Found::ByColumns(statistics::total(client, &state, &request.filter).await?),
        Some(needle) => {
            let patience = request.bounded_total.then_some(patience);
            search(client, &state, &request.filter, needle, patience).await?
        }
    };
    let total_is_bound = matches!(found, Found::ByText { is_bound: true, .. });
    let mut page = Page { total: found.total(), total_is_bound, ..Page::default() };
    let offset = match request.start {
        Start::Offset(offset) => offset,
        Start::Behind(_) => 0,
    };
    if !total_is_bound && offset >= page.total {
        return Ok(page);
    }
    let rows = rows(client, &state, request, &found, offset).await?;
    for row in rows {
        if page.messages.len() == request.limit as usize {
            return Ok(page);
        }
        page.next = Some(position(&row, request.order));
        page.messages.push(message(row));
    }
    if request.order == Order::Time {
        // Nothing was left over: this is the last page.
        page.next = None;
    }
    Ok(page)
}

/// Whether nothing can match, whatever is stored: nobody, and no door, has a name with NUL, which the server could not even be
/// asked about.
fn excludes_all(filter: &Filter) -> bool {
    let is_nobody = |name: &Option<String>| name.as_ref().is_some_and(|name| name.contains('\0'));
    is_nobody(&filter.from) || is_nobody(&filter.to) || is_nobody(&filter.source)
}

/// The rows of a page, and one more where there is one.
async fn rows(
    client: &Client,
    state: &State,
    request: &PageRequest,
    found: &Found,
    offset: u64,
) -> Result<Vec<Row>, Failure> {
    let mut query = Query::default();
    let (mut condition, mut skip) = (String::from("true"), offset);
    match found {
        Found::ByColumns(_) => {
            if offset > SKIPPED_MAX && request.order == Order::Time && statistics::is_counted(&request.filter) {
                // Counted from the first of all rows, so those before `since` are among the skipped ones.
                let sought = statistics::seek(client, state, &request.filter, offset).await?;
                condition = format!("m.ts >= {}", query.bind_text(&sought.not_before));
                condition.push_str(&query.columns(&Filter { since: None, ..request.filter.clone() }));
                skip = sought.skip;
            } else {
                condition.push_str(&query.columns(&request.filter));
            }
        }
        Found::These(arrivals) => {
            condition = format!("m.arrival = ANY({})", query.bind(Value::Numbers(arrivals.clone())));
        }
        Found::ByText { tail, .. } => {
            condition.push_str(&query.columns(&request.filter));
            let needle = request.filter.search.as_ref().map_or("", Needle::folded);
            let needle = query.bind(Value::Bytes(needle.into()));
            let tail = query.bind(Value::Numbers(tail.clone()));
            condition = format!(
                "{condition} AND (m.arrival = ANY({tail}) OR (SELECT position({needle} IN t.folded)
                                  FROM postroom_folded t WHERE t.arrival = m.arrival) > 0)"
            );
            // Many match, so the way along the index meets them soon; no other order of steps does.
            let walk = "SET LOCAL enable_sort = off; SET LOCAL enable_incremental_sort = off; \
                        SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off";
            client.batch_execute(walk).await?;
        }
    }
    match &request.start {
        Start::Offset(_) => {}
        Start::Behind(Position::Time { ts, id }) => {
            let (ts, id) = (query.bind_text(&text_of(ts)), query.bind_text(&text_of(id)));
            condition = format!("{condition} AND (m.ts, m.message_id) > ({ts}, {id})");
        }
        Start::Behind(Position::Arrival(arrival)) => {
            condition = format!("{condition} AND m.arrival > {}", query.bind(Value::Number(*arrival)));
        }
    }
    let order = match request.order {
        Order::Time => "m.ts, m.message_id",
        Order::Arrival => {
            // Behind the oldest transaction in flight a row could still appear before one that is there already.
            condition = format!("{condition} AND m.arrival < {}", query.bind(Value::Number(state.horizon)));
            "m.arrival"
        }
    };
    let limit = query.bind(Value::Number(i64::from(request.limit) + 1));
    let skip = query.bind(Value::Number(i64::try_from(skip).unwrap_or(i64::MAX)));
    query.text = format!(
        "SELECT m.message_id, m.from_msisdn, m.to_msisdn, m.ts, m.text, m.text_exact, m.arrival FROM messages m
         WHERE {condition} ORDER BY {order} LIMIT {limit} OFFSET {skip}"
    );
    query.rows(client).await
}

/// Finds what a search matches: by the index what it holds, by reading the rest.
async fn search(
    client: &Client,
    state: &State,
    filter: &Filter,
    needle: &Needle,
    patience: Option<Duration>,
) -> Result<Found, Failure> {
    let tail = matches_of_tail(client, state, filter, needle).await?;
    let mut query = Query::default();
    let term = query.bind(Value::Bytes(needle.folded().into()));
    let mut condition = format!("position({term} IN t.folded) > 0");
    if let Some(candidates) = runs::candidates(client, needle.folded(), state.messages.unsigned_abs()).await? {
        if candidates.is_empty() {
            return Ok(Found::These(tail));
        }
        condition = format!("t.arrival = ANY({}) AND {condition}", query.bind(Value::Numbers(candidates)));
    }
    let columns = query.columns(filter);
    let join = if columns.is_empty() { "" } else { "JOIN messages m USING (arrival)" };
    let matching = format!("FROM postroom_folded t {join} WHERE {condition}{columns}");
    query.text = format!("SELECT t.arrival {matching} LIMIT {}", MATCHES_MAX + 1);
    let first: Vec<i64> = query.rows(client).await?.iter().map(|row| row.get(0)).collect();
    if first.len() <= MATCHES_MAX {
        return Ok(Found::These([first, tail].concat()));
    }
    query.text = format!("SELECT count(*) {matching}");
    let (counted, is_bound) = match patience {
        None => (query.number(client).await?, false),
        Some(patience) => match number_within(client, &query, patience).await? {
            Some(count) => (count, false),
            None => (first.len() as u64, true),
        },
    };
    Ok(Found::ByText { total: counted + tail.len() as u64, is_bound, tail })
}

/// Counts until the time is over; the snapshot outlives that.
async fn number_within(client: &Client, query: &Query, patience: Duration) -> Result<Option<u64>, Failure> {
    let row = client.query_typed_one("SELECT current_setting('statement_timeout')", &[]).await?;
    let milliseconds = patience.as_millis().max(1);
    client.batch_execute(&format!("SAVEPOINT count; SET LOCAL statement_timeout = {milliseconds}")).await?;
    match query.number(client).await {
        Ok(count) => {
            let restore = format!("RELEASE count; SET LOCAL statement_timeout = '{}'", row.get::<_, &str>(0));
            client.batch_execute(&restore).await?;
            Ok(Some(count))
        }
        Err(Failure::Deadline) => {
            // Undoes the setting too.
            client.batch_execute("ROLLBACK TO count").await?;
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

/// The matches among the rows that are not indexed yet, looked at one by one.
async fn matches_of_tail(
    client: &Client,
    state: &State,
    filter: &Filter,
    needle: &Needle,
) -> Result<Vec<i64>, Failure> {
    let mut query = Query::default();
    let indexed = query.bind(Value::Number(state.indexed));
    let columns = query.columns(filter);
    query.text = format!(
        "SELECT m.arrival, m.text, m.text_exact FROM messages m
         WHERE m.arrival > {indexed} AND m.text IS NOT NULL{columns}"
    );
    let (mut matches, mut scratch) = (Vec::new(), String::new());
    let mut rows = pin!(client.query_typed_raw(&query.text, query.parameters()).await?);
    while let Some(row) = rows.try_next().await? {
        if exact(row.get(1), row.get(2)).is_some_and(|text| needle.is_in(&text, &mut scratch)) {
            matches.push(row.get(0));
        }
    }
    Ok(matches)
}

/// A stored text of a cursor. One that came from another kind of store may be no text here; then the nearest will do.
fn text_of(stored: &Stored) -> String {
    String::from_utf8_lossy(&stored.bytes).replace('\0', "")
}

fn position(row: &Row, order: Order) -> Position {
    let stored = |column| Stored { bytes: row.get::<_, &str>(column).into(), is_blob: false };
    match order {
        Order::Time => Position::Time { ts: stored(3), id: stored(0) },
        Order::Arrival => Position::Arrival(row.get(6)),
    }
}

/// A message of its first six columns.
pub(super) fn message(row: Row) -> Message {
    let text = exact(row.get(4), row.get(5));
    Message { id: row.get(0), from: row.get(1), to: row.get(2), ts: row.get(3), text }
}
