//! Searches: the index finds matches among its texts; other rows are read. All of it in one snapshot.

use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::failure::Failure;
use super::lookup::{self, LookedUp};
use super::matches::Match;
use super::message_rows::text;
use super::query::Query;
use super::snapshot::Snapshot;
use super::statistics::{self, State};
use super::tuple_ids;
use domain::{Filter, Needle, PageRequest};

/// Maximum time of counting if the request allows a lower bound.
const PATIENCE_FOR_BOUND: Duration = Duration::from_millis(20);
/// The cost of checking rows one by one, relative to checking all texts in sequence.
const LOOK_COST: u64 = 16;

/// The rows that match a filter, as far as known.
pub(super) enum Found {
    /// This number of rows; their columns select them.
    ByColumns(u64),
    /// All matches.
    These(Vec<Match>),
    /// At least this number; each row's text must be checked.
    ByText { total: u64, is_bound: bool },
}

impl Found {
    pub fn total(&self) -> u64 {
        match self {
            Self::ByColumns(total) | Self::ByText { total, .. } => *total,
            Self::These(matches) => matches.len() as u64,
        }
    }
}

/// A search of one request.
pub(super) struct Search<'a> {
    pub snapshot: &'a Snapshot<'a>,
    pub state: &'a State,
    pub request: &'a PageRequest,
    pub needle: &'a Needle,
}

/// Runs a small part of all queries of searches.
pub(super) async fn probe(snapshot: &Snapshot<'_>, state: State) -> Result<(), Failure> {
    let mut query = Query::default();
    let (join, matches) = matching(&mut query, &State { is_stale: true, ..state }, &Filter::default(), None);
    query.text =
        format!("SELECT t.arrival, t.ts, t.number, t.folded FROM postroom_folded t {join} WHERE t.number < 0{matches}");
    query.rows(snapshot.client).await?;
    tuple_ids::of(snapshot.client, snapshot.limits.place_chunk_bits, &[-1]).await?;
    lookup::numbers_of(snapshot.client, -1).await?;
    Ok(())
}

impl Search<'_> {
    fn client(&self) -> &Client {
        self.snapshot.client
    }

    /// Finds the matches, by the method with the lowest expected cost.
    pub async fn find(&self) -> Result<Found, Failure> {
        let (filter, limits) = (&self.request.filter, self.snapshot.limits);
        let all = self.state.messages.unsigned_abs();
        let found = lookup::look_up(self.snapshot, self.needle.folded(), all, self.state.is_stale).await?;
        let of_index = found.candidates.as_ref().map_or(all / LOOK_COST, |candidates| candidates.len() as u64);
        let has_columns = !Query::default().columns(filter).is_empty();
        if has_columns && statistics::is_counted(filter) && of_index > limits.skipped_max {
            let of_columns = statistics::total(self.client(), self.state, filter).await?;
            if of_columns <= of_index {
                return Ok(Found::These(self.matches_by_columns(i64::MIN).await?));
            }
        }
        let unindexed = self.matches_by_columns(self.state.indexed).await?;
        if found.candidates.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Found::These(unindexed));
        }
        match found.count {
            Some(count) if !has_columns && count > limits.matches_max as u64 => {
                Ok(Found::ByText { total: count + unindexed.len() as u64, is_bound: false })
            }
            _ => self.find_indexed(found, unindexed).await,
        }
    }

    /// Adds the matches among the indexed texts to those among the other texts.
    async fn find_indexed(&self, index: LookedUp, mut found: Vec<Match>) -> Result<Found, Failure> {
        let LookedUp { count, candidates } = index;
        let limits = self.snapshot.limits;
        let is_bound_enough = self.request.bounded_total;
        let most = if is_bound_enough && candidates.is_none() { limits.bound_least } else { limits.matches_max };
        // If the index alone decides about the candidates, their texts need no check.
        let term = if count.is_some() && candidates.is_some() { None } else { Some(self.needle) };
        let mut query = Query::default();
        let mut condition = "true".to_owned();
        if let Some(candidates) = candidates {
            let rest = if (limits.placed_least..=limits.matches_max).contains(&candidates.len()) {
                self.matches_at_places(term, candidates, &mut found).await?
            } else {
                candidates
            };
            if rest.is_empty() {
                return Ok(Found::These(found));
            }
            condition = format!("t.number = ANY({})", query.bind(rest, Type::INT8_ARRAY));
        }
        let (join, matches) = matching(&mut query, self.state, &self.request.filter, term);
        let matching = format!("FROM postroom_folded t {join} WHERE {condition}{matches}");
        query.text = format!("SELECT t.arrival, t.ts {matching} LIMIT {}", most + 1);
        let first = query.rows(self.client()).await?;
        if first.len() <= most {
            found.extend(first.iter().map(Match::of));
            return Ok(Found::These(found));
        }
        query.text = format!("SELECT count(*) {matching}");
        let (counted, is_bound) = if is_bound_enough {
            match number_within(self.client(), &query, PATIENCE_FOR_BOUND).await? {
                Some(count) => (count, false),
                None => (first.len() as u64, true),
            }
        } else {
            (query.number(self.client()).await?, false)
        };
        Ok(Found::ByText { total: counted + found.len() as u64, is_bound })
    }

    /// Checks candidates, in ascending order, at their tuple ids. Adds the matches to `found`, and returns the
    /// candidates that were not found there.
    async fn matches_at_places(
        &self,
        term: Option<&Needle>,
        candidates: Vec<i64>,
        found: &mut Vec<Match>,
    ) -> Result<Vec<i64>, Failure> {
        let mut query = Query::default();
        let tuple_ids = tuple_ids::of(self.client(), self.snapshot.limits.place_chunk_bits, &candidates).await?;
        let tuple_ids = query.bind(tuple_ids, Type::TID_ARRAY);
        let (join, matches) = matching(&mut query, self.state, &self.request.filter, term);
        query.text = format!(
            "SELECT t.arrival, t.ts, t.number, true{matches} AS matches
             FROM postroom_folded t {join} WHERE t.ctid = ANY({tuple_ids})"
        );
        let mut is_there = vec![false; candidates.len()];
        for row in query.rows(self.client()).await? {
            // An outdated tuple id may point to any other text.
            if let Ok(at) = candidates.binary_search(&row.get("number")) {
                is_there[at] = true;
                found.extend(row.get::<_, bool>("matches").then(|| Match::of(&row)));
            }
        }
        let mut is_there = is_there.into_iter();
        Ok(candidates.into_iter().filter(|_| is_there.next() == Some(false)).collect())
    }

    /// The matches among the rows after an arrival that pass the filter's columns, checked one by one.
    async fn matches_by_columns(&self, behind: i64) -> Result<Vec<Match>, Failure> {
        let mut query = Query::default();
        let behind = query.bind_number(behind);
        let columns = query.columns(&self.request.filter);
        query.text = format!(
            "SELECT m.arrival, m.ts, m.text, m.text_exact FROM messages m
             WHERE m.arrival > {behind} AND m.text IS NOT NULL{columns}"
        );
        let (mut matches, mut scratch) = (Vec::new(), String::new());
        let mut rows = pin!(query.stream(self.client()).await?);
        while let Some(row) = rows.try_next().await? {
            if text(&row).is_some_and(|text| self.needle.is_in(&text, &mut scratch)) {
                matches.push(Match::of(&row));
            }
        }
        Ok(matches)
    }
}

/// The conditions on an indexed text `t`, and the join that they need: the text contains
/// the term, if one is given, and its message passes the filter's columns and still exists.
fn matching(query: &mut Query, state: &State, filter: &Filter, term: Option<&Needle>) -> (&'static str, String) {
    let mut matches = String::new();
    if let Some(term) = term {
        let term = query.bind(term.folded().as_bytes().to_vec(), Type::BYTEA);
        matches = format!(" AND position({term} IN t.folded) > 0");
    }
    if state.is_stale {
        matches.push_str(" AND NOT EXISTS (SELECT 1 FROM postroom_gone_texts g WHERE g.arrival = t.arrival)");
    }
    matches.push_str(&query.columns_beside("t", filter));
    (if matches.contains("m.") { "JOIN messages m USING (arrival)" } else { "" }, matches)
}

/// Counts until the deadline; the snapshot stays open.
async fn number_within(client: &Client, query: &Query, patience: Duration) -> Result<Option<u64>, Failure> {
    let row = client.query_typed_one("SELECT current_setting('statement_timeout') AS timeout", &[]).await?;
    let milliseconds = patience.as_millis().max(1);
    client.batch_execute(&format!("SAVEPOINT count; SET LOCAL statement_timeout = {milliseconds}")).await?;
    match query.number(client).await {
        Ok(count) => {
            let timeout: &str = row.get("timeout");
            client.batch_execute(&format!("RELEASE count; SET LOCAL statement_timeout = '{timeout}'")).await?;
            Ok(Some(count))
        }
        Err(Failure::Deadline) => {
            // This also reverts the setting.
            client.batch_execute("ROLLBACK TO count").await?;
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}
