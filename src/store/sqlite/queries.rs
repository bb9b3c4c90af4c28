//! The SQL of reading. Every function runs inside one read transaction, so what it answers is of one snapshot.

use std::borrow::Cow;
use std::sync::Mutex;

use rusqlite::functions::FunctionFlags;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

use crate::domain::stats::TOP_SENDERS_MAX;
use crate::domain::{Filter, Message, Needle, Page, PageRequest, SenderCount, Stats};

/// Adds `postroom_contains(text, term)`: whether the folded text contains the folded term; null texts contain nothing.
pub(super) fn add_functions(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    let scratch = Mutex::new(String::new());
    connection.create_scalar_function("postroom_contains", 2, flags, move |context| {
        let needle = context.get_or_create_aux(1, |term| -> Result<Needle, rusqlite::types::FromSqlError> {
            Ok(Needle::new(term.as_str()?))
        })?;
        let mut scratch = scratch.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Ok(shown(context.get_raw(0)).is_some_and(|text| needle.is_in(&text, &mut scratch)))
    })
}

/// A page and its total.
pub(super) fn page(connection: &Connection, request: &PageRequest) -> rusqlite::Result<Page> {
    let total = total(connection, &request.filter)?;
    if request.offset >= total {
        return Ok(Page { messages: Vec::new(), total });
    }
    let (condition, mut values) = condition(&request.filter);
    let index = access_path(request, total);
    // The inner query walks an index and touches no row that is only skipped.
    let sql = format!(
        "SELECT message_id, from_msisdn, to_msisdn, ts, text FROM messages WHERE rowid IN (
             SELECT rowid FROM messages {index} WHERE {condition} ORDER BY ts, message_id LIMIT ? OFFSET ?
         ) ORDER BY ts, message_id"
    );
    values.push(i64::from(request.limit).into());
    values.push(i64::try_from(request.offset).unwrap_or(i64::MAX).into());
    let mut statement = connection.prepare_cached(&sql)?;
    let messages = statement.query_map(params_from_iter(values), message)?;
    Ok(Page { messages: messages.collect::<Result<_, _>>()?, total })
}

/// How to find the rows of a page. Walking in the order of the listing can stop early, but looks rows up one by one; where
/// nearly all matches are needed anyway, one pass over the table in its own order is several times cheaper.
fn access_path(request: &PageRequest, total: u64) -> &'static str {
    let filter = &request.filter;
    let most_matches_wanted = request.offset.saturating_add(request.limit.into()).saturating_mul(3) > total;
    match (&filter.from, &filter.since, &filter.search) {
        (Some(_), ..) => "INDEXED BY postroom_messages_from",
        (None, None, Some(_)) if most_matches_wanted => "NOT INDEXED",
        (None, ..) => "INDEXED BY postroom_messages_ts",
    }
}

fn total(connection: &Connection, filter: &Filter) -> rusqlite::Result<u64> {
    match filter {
        Filter { from: None, since: None, search: None } => {
            let mut statement = connection.prepare_cached("SELECT messages FROM postroom_totals")?;
            statement.query_row([], |row| row.get(0))
        }
        Filter { from: Some(from), since: None, search: None } => {
            let sql = "SELECT messages FROM postroom_senders WHERE from_msisdn = ?1";
            let count = connection.prepare_cached(sql)?.query_row([from], |row| row.get(0)).optional()?;
            Ok(count.unwrap_or(0))
        }
        _ => {
            let (condition, values) = condition(filter);
            let sql = format!("SELECT count(*) FROM messages WHERE {condition}");
            connection.prepare_cached(&sql)?.query_row(params_from_iter(values), |row| row.get(0))
        }
    }
}

/// The filter as SQL with its values, in the order of its question marks.
fn condition(filter: &Filter) -> (String, Vec<Value>) {
    let mut terms = Vec::new();
    let mut values = Vec::new();
    if let Some(from) = &filter.from {
        terms.push("from_msisdn = ?");
        values.push(Value::Text(from.clone()));
    }
    if let Some(since) = &filter.since {
        terms.push("ts >= ?");
        values.push(Value::Text(since.as_str().to_owned()));
    }
    if let Some(search) = &filter.search {
        terms.push("postroom_contains(text, ?)");
        values.push(Value::Text(search.folded().to_owned()));
    }
    (if terms.is_empty() { "true".to_owned() } else { terms.join(" AND ") }, values)
}

/// The inbox in a few numbers; none of them is counted here.
pub(super) fn stats(connection: &Connection) -> rusqlite::Result<Stats> {
    let sql = "SELECT messages, senders, (SELECT min(ts) FROM messages), (SELECT max(ts) FROM messages)
               FROM postroom_totals";
    let mut stats = connection.prepare_cached(sql)?.query_row([], |row| {
        Ok(Stats {
            total_messages: row.get(0)?,
            senders_count: row.get(1)?,
            top_senders: Vec::new(),
            first_ts: text(row, 2)?,
            last_ts: text(row, 3)?,
        })
    })?;
    let sql = "SELECT from_msisdn, messages FROM postroom_senders ORDER BY messages DESC, from_msisdn LIMIT ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let senders = statement.query_map([TOP_SENDERS_MAX as i64], |row| {
        Ok(SenderCount { from: text(row, 0)?.unwrap_or_default(), count: row.get(1)? })
    })?;
    stats.top_senders = senders.collect::<Result<_, _>>()?;
    Ok(stats)
}

fn message(row: &Row<'_>) -> rusqlite::Result<Message> {
    let required = |column| text(row, column).map(Option::unwrap_or_default);
    Ok(Message { id: required(0)?, from: required(1)?, to: required(2)?, ts: required(3)?, text: text(row, 4)? })
}

fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(shown(row.get_ref(column)?).map(Cow::into_owned))
}

/// Any value as text: other programs may have stored what the contract would not have let in.
fn shown(value: ValueRef<'_>) -> Option<Cow<'_, str>> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string().into()),
        ValueRef::Real(number) => Some(number.to_string().into()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes)),
    }
}
