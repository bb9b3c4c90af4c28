//! Pages of the inbox: the number of matches, and the rows. Everything here runs in one snapshot. `search.rs`
//! chooses the cheapest method to find the matches.

use std::ops::ControlFlow;
use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::failure::Failure;
use super::matches::part_of;
use super::message_rows::{COLUMNS, message, position, text, text_of};
use super::query::Query;
use super::search::{self, Found, Search};
use super::snapshot::Snapshot;
use super::statistics::{self, State};
use domain::{Filter, Needle, Order, Page, PageRequest, Position, Room, Start, Timestamp};

/// A page and its total.
pub(super) async fn page(snapshot: &Snapshot<'_>, request: &PageRequest) -> Result<Page, Failure> {
    if excludes_all(&request.filter) {
        return Ok(Page::default());
    }
    let state = State::read(snapshot.client).await?;
    let found = match &request.filter.search {
        None => Found::ByColumns(statistics::total(snapshot.client, &state, &request.filter).await?),
        Some(needle) => Search { snapshot, state: &state, request, needle }.find().await?,
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
    let listed = Listing { snapshot, state: &state, request }.list(found, offset, &mut page).await?;
    if listed.is_continue() && request.order == Order::Time {
        // No row is left over: this is the last page.
        page.next = None;
    }
    Ok(page)
}

/// Runs a small part of all queries of listings, searches and
/// statistics. The time does not depend on the number of rows.
pub(super) async fn probe(snapshot: &Snapshot<'_>) -> Result<(), Failure> {
    let client = snapshot.client;
    let state = State::read(client).await?;
    for order in [TIME_ORDER, ARRIVAL_ORDER] {
        client.query_typed(&format!("SELECT {COLUMNS} FROM messages m ORDER BY {order} LIMIT 1"), &[]).await?;
    }
    let never = Timestamp::parse("9999-12-31T23:59:59Z").ok();
    for (from, q) in [(None, None), (Some("+0"), None), (Some("+0"), Some("\u{e000}\u{e001}\u{e002}"))] {
        let search = q.map(Needle::new);
        let filter = Filter { from: from.map(str::to_owned), since: never, search, ..Filter::default() };
        let start = Start::Offset(0);
        let room = Room::default();
        let request = PageRequest { filter, limit: 1, start, order: Order::Time, bounded_total: false, room };
        page(snapshot, &request).await?;
    }
    search::probe(snapshot, state).await?;
    statistics::probe(client).await
}

/// Whether nothing can match, whatever is stored: no address and no
/// source contains NUL, which the server could not even receive.
fn excludes_all(filter: &Filter) -> bool {
    let has_nul = |name: &Option<String>| name.as_ref().is_some_and(|name| name.contains('\0'));
    has_nul(&filter.from) || has_nul(&filter.to) || has_nul(&filter.source)
}

const TIME_ORDER: &str = "m.ts, m.message_id";
const ARRIVAL_ORDER: &str = "m.arrival";

/// The request of a listing.
struct Listing<'a> {
    snapshot: &'a Snapshot<'a>,
    state: &'a State,
    request: &'a PageRequest,
}

impl Listing<'_> {
    fn client(&self) -> &Client {
        self.snapshot.client
    }

    /// Adds rows to a page until it is full. Row by row, because many long texts would fill the memory.
    async fn list(&self, found: Found, offset: u64, page: &mut Page) -> Result<ControlFlow<()>, Failure> {
        let (request, filter) = (self.request, &self.request.filter);
        let mut query = Query::default();
        let (mut condition, mut skip) = (String::from("true"), offset);
        match found {
            Found::ByColumns(_) => {
                let is_far = offset > self.snapshot.limits.skipped_max;
                if is_far && request.order == Order::Time && statistics::is_counted(filter) {
                    // Counted from the first of all rows, so the rows before `since` count as skipped.
                    let sought = statistics::seek(self.client(), self.state, filter, offset).await?;
                    condition = format!("m.ts >= {}", query.bind_text(&sought.not_before));
                    condition.push_str(&query.columns(&Filter { since: None, ..filter.clone() }));
                    skip = sought.skip;
                } else {
                    condition.push_str(&query.columns(filter));
                }
            }
            Found::These(matches) => {
                let (arrivals, before) = part_of(matches, request, offset);
                condition = format!("m.arrival = ANY({})", query.bind(arrivals, Type::INT8_ARRAY));
                skip = offset - before;
            }
            Found::ByText { .. } => return self.walk(offset, page).await,
        }
        let order = self.begin(&mut query, &mut condition, None);
        let limit = query.bind_number(i64::from(request.limit) + 1);
        let skip = query.bind_number(i64::try_from(skip).unwrap_or(i64::MAX));
        query.text =
            format!("SELECT {COLUMNS} FROM messages m WHERE {condition} ORDER BY {order} LIMIT {limit} OFFSET {skip}");
        let mut rows = pin!(query.stream(self.client()).await?);
        while let Some(row) = rows.try_next().await? {
            if self.put(&row, page).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Adds a row to a page. Breaks if the page is already full.
    fn put(&self, row: &Row, page: &mut Page) -> ControlFlow<()> {
        if page.is_full(self.request.limit) {
            return ControlFlow::Break(());
        }
        page.push(message(row), position(row, self.request.order), &self.request.room);
        ControlFlow::Continue(())
    }

    /// Adds the start of the listing to a condition: after `last`, or as requested. Returns the order.
    fn begin(&self, query: &mut Query, condition: &mut String, last: Option<&Position>) -> &'static str {
        let start = match &self.request.start {
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
                condition.push_str(&format!(" AND m.arrival > {}", query.bind_number(*arrival)));
            }
        }
        match self.request.order {
            Order::Time => TIME_ORDER,
            Order::Arrival => {
                // Above the oldest transaction in progress, a row could still appear before an existing one.
                condition.push_str(&format!(" AND m.arrival < {}", query.bind_number(self.state.horizon)));
                ARRIVAL_ORDER
            }
        }
    }

    /// Walks the rows in listing order and checks each text. Many
    /// rows match, so the walk is short unless the offset is large.
    async fn walk(&self, offset: u64, page: &mut Page) -> Result<ControlFlow<()>, Failure> {
        let Some(needle) = &self.request.filter.search else { return Ok(ControlFlow::Continue(())) };
        // No other plan finds the first rows early.
        let along = "SET LOCAL enable_sort = off; SET LOCAL enable_incremental_sort = off; \
                     SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off";
        self.client().batch_execute(along).await?;
        let (mut skip, mut scratch) = (offset, String::new());
        let (mut last, mut most) = (None, self.snapshot.limits.walked_first);
        loop {
            let mut query = Query::default();
            let mut condition = String::from("m.text IS NOT NULL");
            condition.push_str(&query.columns(&self.request.filter));
            let order = self.begin(&mut query, &mut condition, last.as_ref());
            query.text = format!("SELECT {COLUMNS} FROM messages m WHERE {condition} ORDER BY {order} LIMIT {most}");
            let mut rows = pin!(query.stream(self.client()).await?);
            let mut walked = 0;
            while let Some(row) = rows.try_next().await? {
                walked += 1;
                last = (walked == most).then(|| position(&row, self.request.order));
                if !text(&row).is_some_and(|text| needle.is_in(&text, &mut scratch)) {
                    continue;
                }
                if skip > 0 {
                    skip -= 1;
                    continue;
                }
                if self.put(&row, page).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if walked < most {
                return Ok(ControlFlow::Continue(()));
            }
            most = (most * 2).min(self.snapshot.limits.walked_max);
        }
    }
}
