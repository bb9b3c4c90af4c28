//! Pages of the inbox: how many match, which way to them is shortest, and the rows. Everything here runs in one snapshot.

use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::batch::exact;
use super::failure::Failure;
use super::query::{Query, Value};
use super::runs::{self, Looked};
use super::statistics::{self, State};
use super::{places, sql};
use crate::domain::{Filter, Message, Needle, Order, Page, PageRequest, Position, Room, Start, Stored, Timestamp};

/// Rows that are skipped one by one; from there on the counters tell where to begin.
const SKIPPED_MAX: u64 = if cfg!(test) { 2 } else { 1_000 };
/// Matches of a search that are remembered one by one; more are looked for again along the order of the listing.
const MATCHES_MAX: usize = if cfg!(test) { 6 } else { 50_000 };
/// The same where a lower bound will do and the index does not narrow the search.
const BOUND_LEAST: usize = if cfg!(test) { 1 } else { 1_000 };
/// From so many candidates on a search looks at them where they lie; before, it costs more to learn where that is. Of more than
/// `MATCHES_MAX` not all need to be looked at.
const PLACED_LEAST: usize = if cfg!(test) { 1 } else { 2_000 };
/// How long counting may take where the request is content with a lower bound.
const PATIENCE_FOR_BOUND: Duration = Duration::from_millis(20);
/// Looking at one row after the other costs so much more than looking at all texts in a row.
const LOOK_COST: u64 = 16;
/// Rows that are looked at together along the order of a listing: at first, and at most.
const WALKED_LEAST: u32 = if cfg!(test) { 2 } else { 256 };
const WALKED_MAX: u32 = if cfg!(test) { 4 } else { 8_192 };

/// The columns of a message, and its arrival.
const COLUMNS: &str = "m.message_id, m.from_msisdn, m.to_msisdn, m.ts, m.text, m.text_exact, m.arrival";

/// The rows that a filter lets through, as far as they are known.
enum Found {
    /// So many; their columns tell which.
    ByColumns(u64),
    /// These, all of them.
    These(Vec<Match>),
    /// At least so many; each row's text must be looked at.
    ByText { total: u64, is_bound: bool },
}

/// A message that a search matches.
struct Match {
    arrival: i64,
    ts: String,
}

impl Match {
    fn of(row: &Row) -> Self {
        Self { arrival: row.get(0), ts: row.get(1) }
    }
}

impl Found {
    fn total(&self) -> u64 {
        match self {
            Self::ByColumns(total) | Self::ByText { total, .. } => *total,
            Self::These(matches) => matches.len() as u64,
        }
    }
}

/// A page and its total.
pub(super) async fn page(client: &Client, request: &PageRequest) -> Result<Page, Failure> {
    if excludes_all(&request.filter) {
        return Ok(Page::default());
    }
    let state = State::read(client).await?;
    let found = match &request.filter.search {
        None => Found::ByColumns(statistics::total(client, &state, &request.filter).await?),
        Some(needle) => search(client, &state, request, needle).await?,
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
    let listed = list(client, &state, request, found, offset, &mut page).await?;
    if listed.is_continue() && request.order == Order::Time {
        // Nothing was left over: this is the last page.
        page.next = None;
    }
    Ok(page)
}

/// Asks for a little of all that listings, searches and statistics ask for, by ways that stay short however much there
/// is.
pub(super) async fn probe(client: &Client) -> Result<(), Failure> {
    let state = State::read(client).await?;
    for order in ["m.ts, m.message_id", "m.arrival"] {
        client.query_typed(&format!("SELECT {COLUMNS} FROM messages m ORDER BY {order} LIMIT 1"), &[]).await?;
    }
    let never = Timestamp::parse("9999-12-31T23:59:59Z").ok();
    for (from, q) in [(None, None), (Some("+0"), None), (Some("+0"), Some("\u{e000}\u{e001}\u{e002}"))] {
        let search = q.map(Needle::new);
        let filter = Filter { from: from.map(str::to_owned), since: never, search, ..Filter::default() };
        let start = Start::Offset(0);
        let room = Room::default();
        page(client, &PageRequest { filter, limit: 1, start, order: Order::Time, bounded_total: false, room }).await?;
    }
    let mut query = Query::default();
    let (join, matches) = matching(&mut query, &State { is_stale: true, ..state }, &Filter::default(), None);
    query.text =
        format!("SELECT t.arrival, t.ts, t.number, t.folded FROM postroom_folded t {join} WHERE t.number < 0{matches}");
    query.rows(client).await?;
    client.query_typed(sql::PLACES, &[(&0_i64, Type::INT8), (&-1_i64, Type::INT8)]).await?;
    client.query_typed(sql::RUN_NUMBERS, &[(&-1_i64, Type::INT8)]).await?;
    let first = "SELECT from_msisdn, messages FROM postroom_senders ORDER BY messages DESC, from_msisdn LIMIT 1";
    client.query_typed(first, &[]).await?;
    Ok(())
}

/// Puts a row on a page. Breaks, if the page is full without it.
fn put(page: &mut Page, request: &PageRequest, row: Row) -> ControlFlow<()> {
    if page.is_full(request.limit) {
        return ControlFlow::Break(());
    }
    let next = position(&row, request.order);
    page.push(message(row), next, &request.room);
    ControlFlow::Continue(())
}

/// Whether nothing can match, whatever is stored: nobody, and no door, has a name with NUL, which the server could not even be
/// asked about.
fn excludes_all(filter: &Filter) -> bool {
    let is_nobody = |name: &Option<String>| name.as_ref().is_some_and(|name| name.contains('\0'));
    is_nobody(&filter.from) || is_nobody(&filter.to) || is_nobody(&filter.source)
}

/// Puts rows on a page, until there is one too many or no more. Row by row: many long texts would fill the memory.
async fn list(
    client: &Client,
    state: &State,
    request: &PageRequest,
    found: Found,
    offset: u64,
    page: &mut Page,
) -> Result<ControlFlow<()>, Failure> {
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
        Found::These(matches) => {
            let (arrivals, before) = part_of(matches, request, offset);
            condition = format!("m.arrival = ANY({})", query.bind(Value::Numbers(arrivals)));
            skip = offset - before;
        }
        Found::ByText { .. } => return walk(client, state, request, offset, page).await,
    }
    let order = listed(&mut query, &mut condition, state, request, None);
    let limit = query.bind(Value::Number(i64::from(request.limit) + 1));
    let skip = query.bind(Value::Number(i64::try_from(skip).unwrap_or(i64::MAX)));
    query.text =
        format!("SELECT {COLUMNS} FROM messages m WHERE {condition} ORDER BY {order} LIMIT {limit} OFFSET {skip}");
    let mut rows = pin!(query.stream(client).await?);
    while let Some(row) = rows.try_next().await? {
        if put(page, request, row).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Adds to a condition where the listing starts: behind `last`, or where the request says. Answers its order.
fn listed(
    query: &mut Query,
    condition: &mut String,
    state: &State,
    request: &PageRequest,
    last: Option<&Position>,
) -> &'static str {
    let start = match &request.start {
        Start::Behind(position) => Some(position),
        Start::Offset(_) => None,
    };
    match last.or(start) {
        None => {}
        Some(Position::Time { ts, id }) => {
            let (ts, id) = (query.bind_text(&text_of(ts)), query.bind_text(&text_of(id)));
            condition.push_str(&format!(" AND (m.ts, m.message_id) > ({ts}, {id})"));
        }
        Some(Position::Arrival(arrival)) => {
            condition.push_str(&format!(" AND m.arrival > {}", query.bind(Value::Number(*arrival))));
        }
    }
    match request.order {
        Order::Time => "m.ts, m.message_id",
        Order::Arrival => {
            // Behind the oldest transaction in flight a row could still appear before one that is there already.
            condition.push_str(&format!(" AND m.arrival < {}", query.bind(Value::Number(state.horizon))));
            "m.arrival"
        }
    }
}

/// The matches among which a page's rows are, and how many of all come before these.
fn part_of(mut matches: Vec<Match>, request: &PageRequest, offset: u64) -> (Vec<i64>, u64) {
    let wanted = request.limit as usize + 1;
    let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(matches.len());
    let part = match request.order {
        Order::Arrival => {
            matches.sort_unstable_by_key(|found| found.arrival);
            let first = match &request.start {
                Start::Behind(Position::Arrival(last)) => matches.partition_point(|found| found.arrival <= *last),
                _ => offset,
            };
            first..(first + wanted).min(matches.len())
        }
        Order::Time => {
            matches.sort_unstable_by(|one, other| one.ts.cmp(&other.ts));
            // Those of one time are sorted by the server, so a part never ends among them.
            let (first, last) = match &request.start {
                Start::Behind(Position::Time { ts, .. }) => {
                    let ts = text_of(ts);
                    let first = matches.partition_point(|found| found.ts < ts);
                    (first, matches.partition_point(|found| found.ts <= ts) + wanted)
                }
                _ => {
                    let first =
                        matches.get(offset).map_or(offset, |at| matches.partition_point(|found| found.ts < at.ts));
                    (first, offset + wanted)
                }
            };
            let end = matches.get(last).map_or(matches.len(), |at| matches.partition_point(|found| found.ts <= at.ts));
            first..end
        }
    };
    let before = if matches!(request.start, Start::Offset(_)) { part.start as u64 } else { 0 };
    (matches[part].iter().map(|found| found.arrival).collect(), before)
}

/// Walks along the order of the listing and looks at each text. Many match, so the way is short unless the offset is far.
async fn walk(
    client: &Client,
    state: &State,
    request: &PageRequest,
    offset: u64,
    page: &mut Page,
) -> Result<ControlFlow<()>, Failure> {
    let Some(needle) = &request.filter.search else { return Ok(ControlFlow::Continue(())) };
    // No other order of steps meets the first ones soon.
    let along = "SET LOCAL enable_sort = off; SET LOCAL enable_incremental_sort = off; \
                 SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off";
    client.batch_execute(along).await?;
    let (mut skip, mut scratch) = (offset, String::new());
    let (mut last, mut most) = (None, WALKED_LEAST);
    loop {
        let mut query = Query::default();
        let mut condition = String::from("m.text IS NOT NULL");
        condition.push_str(&query.columns(&request.filter));
        let order = listed(&mut query, &mut condition, state, request, last.as_ref());
        query.text = format!("SELECT {COLUMNS} FROM messages m WHERE {condition} ORDER BY {order} LIMIT {most}");
        let mut rows = pin!(query.stream(client).await?);
        let mut walked = 0;
        while let Some(row) = rows.try_next().await? {
            walked += 1;
            last = (walked == most).then(|| position(&row, request.order));
            if !exact(row.get(4), row.get(5)).is_some_and(|text| needle.is_in(&text, &mut scratch)) {
                continue;
            }
            if skip > 0 {
                skip -= 1;
                continue;
            }
            if put(page, request, row).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        if walked < most {
            return Ok(ControlFlow::Continue(()));
        }
        most = (most * 2).min(WALKED_MAX);
    }
}

/// Finds what a search matches: by the index what it holds, by reading the rest.
async fn search(client: &Client, state: &State, request: &PageRequest, needle: &Needle) -> Result<Found, Failure> {
    let filter = &request.filter;
    let all = state.messages.unsigned_abs();
    let Looked { count, candidates } = runs::look_up(client, needle.folded(), all, state.is_stale).await?;
    let of_index = candidates.as_ref().map_or(all / LOOK_COST, |candidates| candidates.len() as u64);
    let has_columns = !Query::default().columns(filter).is_empty();
    if has_columns && statistics::is_counted(filter) && of_index > SKIPPED_MAX {
        let of_columns = statistics::total(client, state, filter).await?;
        if of_columns <= of_index {
            return Ok(Found::These(matches_by_columns(client, i64::MIN, filter, needle).await?));
        }
    }
    let mut found = matches_by_columns(client, state.indexed, filter, needle).await?;
    if candidates.as_ref().is_some_and(Vec::is_empty) {
        return Ok(Found::These(found));
    }
    if let Some(count) = count.filter(|count| !has_columns && *count > MATCHES_MAX as u64) {
        return Ok(Found::ByText { total: count + found.len() as u64, is_bound: false });
    }
    let most = if request.bounded_total && candidates.is_none() { BOUND_LEAST } else { MATCHES_MAX };
    // Where the index is sure of its candidates they need no look at the text.
    let term = if count.is_some() && candidates.is_some() { None } else { Some(needle) };
    let mut query = Query::default();
    let mut condition = "true".to_owned();
    if let Some(candidates) = candidates {
        let rest = if (PLACED_LEAST..=MATCHES_MAX).contains(&candidates.len()) {
            matches_at_places(client, state, filter, term, candidates, &mut found).await?
        } else {
            candidates
        };
        if rest.is_empty() {
            return Ok(Found::These(found));
        }
        condition = format!("t.number = ANY({})", query.bind(Value::Numbers(rest)));
    }
    let (join, matches) = matching(&mut query, state, filter, term);
    let matching = format!("FROM postroom_folded t {join} WHERE {condition}{matches}");
    query.text = format!("SELECT t.arrival, t.ts {matching} LIMIT {}", most + 1);
    let first = query.rows(client).await?;
    if first.len() <= most {
        found.extend(first.iter().map(Match::of));
        return Ok(Found::These(found));
    }
    query.text = format!("SELECT count(*) {matching}");
    let (counted, is_bound) = if request.bounded_total {
        match number_within(client, &query, PATIENCE_FOR_BOUND).await? {
            Some(count) => (count, false),
            None => (first.len() as u64, true),
        }
    } else {
        (query.number(client).await?, false)
    };
    Ok(Found::ByText { total: counted + found.len() as u64, is_bound })
}

/// The conditions on an indexed text `t`, and the join that they need: that it has the term, if one is given, and is of a message
/// that the columns of a filter let through and that is there still.
fn matching(query: &mut Query, state: &State, filter: &Filter, term: Option<&Needle>) -> (&'static str, String) {
    let mut matches = String::new();
    if let Some(term) = term {
        let term = query.bind(Value::Bytes(term.folded().into()));
        matches = format!(" AND position({term} IN t.folded) > 0");
    }
    if state.is_stale {
        matches.push_str(" AND NOT EXISTS (SELECT 1 FROM postroom_gone_texts g WHERE g.arrival = t.arrival)");
    }
    matches.push_str(&query.columns_beside("t", filter));
    (if matches.contains("m.") { "JOIN messages m USING (arrival)" } else { "" }, matches)
}

/// Looks at candidates, which ascend, where they were written. Adds the matches to `found`, and answers the candidates that are not
/// there.
async fn matches_at_places(
    client: &Client,
    state: &State,
    filter: &Filter,
    term: Option<&Needle>,
    candidates: Vec<i64>,
    found: &mut Vec<Match>,
) -> Result<Vec<i64>, Failure> {
    let mut query = Query::default();
    let places = query.bind(Value::Places(places::of(client, &candidates).await?));
    let (join, matches) = matching(&mut query, state, filter, term);
    query.text = format!(
        "SELECT t.arrival, t.ts, t.number, true{matches} FROM postroom_folded t {join} WHERE t.ctid = ANY({places})"
    );
    let mut is_there = vec![false; candidates.len()];
    for row in query.rows(client).await? {
        // At an outdated place there may be any other text.
        if let Ok(at) = candidates.binary_search(&row.get(2)) {
            is_there[at] = true;
            found.extend(row.get::<_, bool>(3).then(|| Match::of(&row)));
        }
    }
    let mut is_there = is_there.into_iter();
    Ok(candidates.into_iter().filter(|_| is_there.next() == Some(false)).collect())
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

/// The matches among the rows behind an arrival that the columns of a filter let through, looked at one by one.
async fn matches_by_columns(
    client: &Client,
    behind: i64,
    filter: &Filter,
    needle: &Needle,
) -> Result<Vec<Match>, Failure> {
    let mut query = Query::default();
    let behind = query.bind(Value::Number(behind));
    let columns = query.columns(filter);
    query.text = format!(
        "SELECT m.arrival, m.ts, m.text, m.text_exact FROM messages m
         WHERE m.arrival > {behind} AND m.text IS NOT NULL{columns}"
    );
    let (mut matches, mut scratch) = (Vec::new(), String::new());
    let mut rows = pin!(query.stream(client).await?);
    while let Some(row) = rows.try_next().await? {
        if exact(row.get(2), row.get(3)).is_some_and(|text| needle.is_in(&text, &mut scratch)) {
            matches.push(Match::of(&row));
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_page_is_within_the_part_that_is_asked_for(times in prop::collection::vec(0..5_i64, 0..30), limit in 0..6_u32, offset in 0..30_u64, behind in prop::option::of((0..5_i64, 0..30_i64)), order in prop::sample::select(vec![Order::Time, Order::Arrival])) {
            // The server sorts by time and id; here the arrival is the id.
            let key = |ts: i64, arrival: i64| if order == Order::Time { (ts, arrival) } else { (0, arrival) };
            let mut all: Vec<_> = times.iter().zip(0..).map(|(ts, arrival)| (key(*ts, arrival), arrival)).collect();
            all.sort_unstable();
            let start = match behind {
                None => Start::Offset(offset),
                Some((ts, arrival)) if order == Order::Time => {
                    let stored = |text: String| Stored { bytes: text.as_bytes().into(), is_blob: false };
                    Start::Behind(Position::Time { ts: stored(ts.to_string()), id: stored(arrival.to_string()) })
                }
                Some((_, arrival)) => Start::Behind(Position::Arrival(arrival)),
            };
            let last = behind.map(|(ts, arrival)| key(ts, arrival));
            let page = |rows: &[((i64, i64), i64)], skip: u64| -> Vec<i64> {
                let rows = rows.iter().filter(|row| last.is_none_or(|last| row.0 > last));
                rows.skip(skip as usize).take(limit as usize + 1).map(|row| row.1).collect()
            };
            let skip = if behind.is_some() { 0 } else { offset };
            let room = Room::default();
            let request = PageRequest { filter: Filter::default(), limit, start, order, bounded_total: false, room };
            let matches = times.iter().zip(0..).map(|(ts, arrival)| Match { arrival, ts: ts.to_string() }).collect();
            let (part, before) = part_of(matches, &request, skip);
            let few: Vec<_> = all.iter().filter(|row| part.contains(&row.1)).copied().collect();
            prop_assert_eq!(page(&few, skip - before), page(&all, skip));
        }
    }
}
