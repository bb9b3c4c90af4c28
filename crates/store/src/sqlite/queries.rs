//! The SQL of reads. Every function runs inside one read transaction, so its result is from one snapshot.

use std::borrow::Cow;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rusqlite::functions::FunctionFlags;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Row, params_from_iter};

use domain::lock::lock;
use domain::stats::TOP_SENDERS_MAX;
use domain::{
    Filter, Message, Needle, ORIGINAL_SOURCE, Order, PLAIN_KIND, Page, PageRequest, Position, SenderCount, Start,
    Stats, Stored,
};

/// Adds `postroom_contains(text, term)`: whether the folded text contains the folded term; null texts contain nothing.
pub(super) fn add_functions(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    let scratch = Mutex::new(String::new());
    connection.create_scalar_function("postroom_contains", 2, flags, move |context| {
        let needle = context.get_or_create_aux(1, |term| -> Result<Needle, rusqlite::types::FromSqlError> {
            Ok(Needle::new(term.as_str()?))
        })?;
        let mut scratch = lock(&scratch);
        Ok(shown(context.get_raw(0)).is_some_and(|text| needle.is_in(&text, &mut scratch)))
    })
}

/// A page and its total. `patience` is the maximum time of counting if the request allows a lower bound.
/// `check` verifies each row of the page before it is returned; its columns are `Columns::LISTED`.
pub(super) fn page(
    connection: &Connection,
    request: &PageRequest,
    patience: Duration,
    check: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<Page> {
    let counted = if request.bounded_total && request.filter.search.is_some() && request.filter.from.is_none() {
        total_within(connection, &request.filter, patience)?
    } else {
        Counted { total: total(connection, &request.filter)?, complete: true }
    };
    let offset = match request.start {
        Start::Offset(offset) => offset,
        Start::Behind(_) => 0,
    };
    let mut page = Page { total: counted.total, total_is_bound: !counted.complete, ..Page::default() };
    if counted.complete && offset >= counted.total {
        return Ok(page);
    }
    list(connection, request, offset, &mut page, check)?;
    Ok(page)
}

/// Fills a page with its messages, in one pass over the table. `check` is that of `page`.
pub(super) fn list(
    connection: &Connection,
    request: &PageRequest,
    offset: u64,
    page: &mut Page,
    mut check: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let (mut condition, mut values) = condition(&request.filter);
    if let Start::Behind(position) = &request.start {
        let (behind, bound) = behind(position);
        condition = format!("{condition} AND {behind}");
        values.extend(bound);
    }
    let order = match request.order {
        Order::Time => "ts, message_id",
        Order::Arrival => "rowid",
    };
    // One more row shows whether there is a next page.
    let sql = format!(
        "SELECT message_id, from_msisdn, to_msisdn, ts, text, rowid, created_at FROM messages WHERE rowid IN (
             SELECT rowid FROM messages NOT INDEXED WHERE {condition} ORDER BY {order} LIMIT ? OFFSET ?
         ) ORDER BY {order}"
    );
    values.push((i64::from(request.limit) + 1).into());
    values.push(i64::try_from(offset).unwrap_or(i64::MAX).into());
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    while let Some(row) = rows.next()? {
        if page.is_full(request.limit) {
            return Ok(());
        }
        check(row)?;
        page.push(message(row)?, position(row, request.order)?, &request.room);
    }
    if request.order == Order::Time {
        // No row is left over: this is the last page.
        page.next = None;
    }
    Ok(())
}

/// The position after a row.
pub(super) fn position(row: &Row<'_>, order: Order) -> rusqlite::Result<Position> {
    let stored = |column| -> rusqlite::Result<Stored> {
        Ok(match row.get_ref(column)? {
            ValueRef::Blob(bytes) => Stored { bytes: bytes.to_vec(), is_blob: true },
            ValueRef::Text(bytes) => Stored { bytes: bytes.to_vec(), is_blob: false },
            other => Stored { bytes: shown(other).unwrap_or_default().into_owned().into(), is_blob: false },
        })
    };
    Ok(match order {
        Order::Time => Position::Time { ts: stored(3)?, id: stored(0)? },
        Order::Arrival => Position::Arrival(row.get(5)?),
    })
}

/// A position as SQL with its values.
fn behind(position: &Position) -> (&'static str, Vec<Value>) {
    match position {
        // The cast treats the bytes as text without a check; they need not be UTF-8.
        Position::Time { ts, id } => (
            "(ts, message_id) > (iif(?, ?, CAST(? AS TEXT)), iif(?, ?, CAST(? AS TEXT)))",
            [ts, id]
                .into_iter()
                .flat_map(|Stored { bytes, is_blob }| {
                    [i64::from(*is_blob).into(), Value::Blob(bytes.clone()), Value::Blob(bytes.clone())]
                })
                .collect(),
        ),
        Position::Arrival(row) => ("rowid > ?", vec![(*row).into()]),
    }
}

/// The number of matches, as far as counted.
struct Counted {
    total: u64,
    complete: bool,
}

/// Counts in the table's own order, part by part, until the deadline.
fn total_within(connection: &Connection, filter: &Filter, patience: Duration) -> rusqlite::Result<Counted> {
    const PART: i64 = 10_000;
    let started = Instant::now();
    let (condition, mut values) = condition(filter);
    let sql = format!("SELECT count(*) FROM messages NOT INDEXED WHERE {condition} AND rowid > ? AND rowid <= ?");
    let mut count = connection.prepare_cached(&sql)?;
    let (mut done, last): (i64, i64) = (
        connection.prepare_cached("SELECT ifnull(min(rowid), 1) - 1 FROM messages")?.query_row([], |row| row.get(0))?,
        connection.prepare_cached("SELECT ifnull(max(rowid), 0) FROM messages")?.query_row([], |row| row.get(0))?,
    );
    let mut total = 0;
    values.extend([Value::Null, Value::Null]);
    let bounds = values.len() - 2;
    while done < last {
        if started.elapsed() >= patience {
            return Ok(Counted { total, complete: false });
        }
        let end = done.saturating_add(PART).min(last);
        values[bounds] = done.into();
        values[bounds + 1] = end.into();
        total += count.query_row(params_from_iter(&values), |row| row.get::<_, u64>(0))?;
        done = end;
    }
    Ok(Counted { total, complete: true })
}

fn total(connection: &Connection, filter: &Filter) -> rusqlite::Result<u64> {
    let (condition, values) = condition(filter);
    let sql = format!("SELECT count(*) FROM messages WHERE {condition}");
    connection.prepare_cached(&sql)?.query_row(params_from_iter(values), |row| row.get(0))
}

/// The filter as SQL with its values, in the order of its question marks.
pub(super) fn condition(filter: &Filter) -> (String, Vec<Value>) {
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
    if let Some(until) = &filter.until {
        terms.push("ts < ?");
        values.push(Value::Text(until.as_str().to_owned()));
    }
    if let Some(to) = &filter.to {
        terms.push("to_msisdn = ?");
        values.push(Value::Text(to.clone()));
    }
    if let Some(source) = &filter.source {
        terms.push(
            "ifnull((SELECT source FROM postroom_details AS details WHERE details.message_id = messages.message_id),
                    ?) = ?",
        );
        values.push(Value::Text(ORIGINAL_SOURCE.to_owned()));
        values.push(Value::Text(source.clone()));
    }
    if let Some(kind) = &filter.kind {
        terms.push(
            "ifnull((SELECT kind FROM postroom_details AS details WHERE details.message_id = messages.message_id),
                    ?) = ?",
        );
        values.push(Value::Text(PLAIN_KIND.name().to_owned()));
        values.push(Value::Text(kind.name().to_owned()));
    }
    if let Some(search) = &filter.search {
        terms.push("postroom_contains(text, ?)");
        values.push(Value::Text(search.folded().to_owned()));
    }
    (if terms.is_empty() { "true".to_owned() } else { terms.join(" AND ") }, values)
}

/// The statistics of the inbox.
pub(super) fn stats(connection: &Connection) -> rusqlite::Result<Stats> {
    let sql = "SELECT count(*), count(DISTINCT from_msisdn), min(ts), max(ts) FROM messages";
    let mut stats = connection.prepare_cached(sql)?.query_row([], |row| {
        Ok(Stats {
            total_messages: row.get(0)?,
            senders_count: row.get(1)?,
            top_senders: Vec::new(),
            first_ts: text(row, 2)?,
            last_ts: text(row, 3)?,
        })
    })?;
    let sql = "SELECT from_msisdn, count(*) AS messages FROM messages GROUP BY from_msisdn
               ORDER BY messages DESC, from_msisdn LIMIT ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let senders = statement.query_map([TOP_SENDERS_MAX as i64], |row| {
        Ok(SenderCount { from: text(row, 0)?.unwrap_or_default(), count: row.get(1)? })
    })?;
    stats.top_senders = senders.collect::<Result<_, _>>()?;
    Ok(stats)
}

pub(super) fn message(row: &Row<'_>) -> rusqlite::Result<Message> {
    let required = |column| text(row, column).map(Option::unwrap_or_default);
    Ok(Message { id: required(0)?, from: required(1)?, to: required(2)?, ts: required(3)?, text: text(row, 4)? })
}

pub(super) fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(shown(row.get_ref(column)?).map(Cow::into_owned))
}

/// Any value as text: other programs may have stored values that violate the contract.
pub(super) fn shown(value: ValueRef<'_>) -> Option<Cow<'_, str>> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string().into()),
        ValueRef::Real(number) => Some(number.to_string().into()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes)),
    }
}
