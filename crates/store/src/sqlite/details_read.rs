//! Reads provider data beyond the six columns: by the key of a message, or by number.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::columns::Columns;
use super::damage::Damage;
use super::listing;
use super::reader::Snapshot;
use super::verifier::Verifier;
use crate::extras::PackedRow;
use crate::lookup::{CANDIDATES_MAX, Lookup};
use domain::event::{EVENT_PAGE_BYTES_MAX, EventRequest, StoredEvent, UNREADABLE};
use domain::message::FullMessage;
use domain::payload::StoredPayload;
use domain::status::{MessageStatus, StatusRecord};
use domain::{Message, State};

/// Maximum reported findings.
const FINDINGS_MAX: usize = 20;

/// See `Store::message`.
pub(super) fn message(snapshot: &Snapshot<'_>, id: &str) -> rusqlite::Result<Lookup<FullMessage>> {
    let sql = "SELECT message_id FROM postroom_details AS details WHERE provider_id = ?1
                   AND EXISTS (SELECT 1 FROM messages WHERE messages.message_id = details.message_id)
               ORDER BY message_id LIMIT ?2";
    let verifier = listing::verifier(snapshot)?;
    look_up(snapshot.connection, id, sql, |connection, key| full_message(connection, key, verifier.as_ref()))
}

/// See `Store::statuses`.
pub(super) fn statuses(connection: &Connection, id: &str) -> rusqlite::Result<Lookup<MessageStatus>> {
    let sql = "SELECT DISTINCT message_id FROM postroom_statuses WHERE provider_id = ?1
               ORDER BY message_id LIMIT ?2";
    look_up(connection, id, sql, message_status)
}

/// See `Store::payload`.
pub(super) fn payload(connection: &Connection, number: i64) -> rusqlite::Result<Option<StoredPayload>> {
    let sql = format!("SELECT {} FROM postroom_payloads WHERE payload_id = ?1", PackedRow::COLUMNS);
    connection.prepare_cached(&sql)?.query_row([number], read_payload).optional()
}

/// See `Store::unreadable_payloads`.
pub(super) fn unreadable_payloads(
    connection: &Connection,
    after: i64,
    all: bool,
    limit: u32,
) -> rusqlite::Result<Vec<StoredPayload>> {
    let sql = format!(
        "SELECT {} FROM postroom_payloads AS payloads WHERE payload_id > ?1 AND (?2 OR EXISTS (
             SELECT 1 FROM postroom_events AS events
             WHERE events.payload_id = payloads.payload_id AND events.kind = ?3))
         ORDER BY payload_id LIMIT ?4",
        PackedRow::COLUMNS
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![after, all, UNREADABLE, limit], read_payload)?;
    rows.collect()
}

/// See `Store::events`.
pub(super) fn events(connection: &Connection, request: &EventRequest) -> rusqlite::Result<Vec<StoredEvent>> {
    let (mut condition, mut values) = ("event_id < ?".to_owned(), Vec::new());
    values.push(rusqlite::types::Value::from(request.before.unwrap_or(i64::MAX)));
    for (column, value) in [("source", &request.source), ("kind", &request.kind)] {
        if let Some(value) = value {
            condition = format!("{condition} AND {column} = ?");
            values.push(value.clone().into());
        }
    }
    values.push(i64::from(request.limit).into());
    let sql = format!(
        "SELECT {EVENT_COLUMNS} FROM postroom_events
         WHERE {condition} ORDER BY event_id DESC LIMIT ?"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let (mut events, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let event = read_event(row)?;
        bytes += event.bytes();
        if bytes > EVENT_PAGE_BYTES_MAX && !events.is_empty() {
            break;
        }
        events.push(event);
    }
    Ok(events)
}

/// See `Store::event`.
pub(super) fn event(connection: &Connection, number: i64) -> rusqlite::Result<Option<StoredEvent>> {
    let sql = format!("SELECT {EVENT_COLUMNS} FROM postroom_events WHERE event_id = ?1");
    connection.prepare_cached(&sql)?.query_row([number], read_event).optional()
}

/// See `Store::status_counts`.
pub(super) fn status_counts(connection: &Connection) -> rusqlite::Result<Vec<(State, u64)>> {
    let mut statement = connection.prepare_cached("SELECT state, messages FROM postroom_state_counts")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?)))?;
    let counted: Vec<(String, u64)> = rows.collect::<Result<_, _>>()?;
    if let Some((name, _)) = counted.iter().find(|(name, _)| State::named(name).is_none()) {
        return Err(Damage(format!("a count has an unknown state: {name:?}")).into());
    }
    let count_of = |state: State| counted.iter().find(|(name, _)| name == state.name()).map_or(0, |(_, n)| *n);
    Ok(State::ALL.iter().map(|state| (*state, count_of(*state))).collect())
}

/// The entry with this key; otherwise the one with this provider's id, whose keys `sql` finds.
fn look_up<T>(
    connection: &Connection,
    id: &str,
    sql: &str,
    find: impl Fn(&Connection, &str) -> rusqlite::Result<Option<T>>,
) -> rusqlite::Result<Lookup<T>> {
    if let Some(found) = find(connection, id)? {
        return Ok(Lookup::Found(found));
    }
    let mut statement = connection.prepare_cached(sql)?;
    let keys = statement.query_map(params![id, CANDIDATES_MAX], |row| row.get(0))?;
    let keys: Vec<String> = keys.collect::<Result<_, _>>()?;
    match keys.as_slice() {
        [] => Ok(Lookup::Absent),
        [key] => Ok(find(connection, key)?.map_or(Lookup::Absent, Lookup::Found)),
        _ => Ok(Lookup::Ambiguous(keys)),
    }
}

pub(super) fn full_message(
    connection: &Connection,
    key: &str,
    verifier: Option<&Verifier<'_>>,
) -> rusqlite::Result<Option<FullMessage>> {
    let sql =
        "SELECT m.message_id, m.from_msisdn, m.to_msisdn, m.ts, m.text, m.created_at, d.fields, d.payload_id, m.rowid
               FROM messages AS m LEFT JOIN postroom_details AS d ON d.message_id = m.message_id
               WHERE m.message_id = ?1";
    let read = |row: &Row<'_>| {
        if let Some(verifier) = verifier {
            verifier.check_row(row, Columns::FULL)?;
        }
        let required = |column| shown(row, column).map(Option::unwrap_or_default);
        let fields: Option<String> = row.get(6)?;
        let unreadable = |_| Damage(format!("the details of message {key} cannot be read"));
        Ok(FullMessage {
            message: Message {
                id: required(0)?,
                from: required(1)?,
                to: required(2)?,
                ts: required(3)?,
                text: shown(row, 4)?,
            },
            created_at: required(5)?,
            details: fields.map(|fields| serde_json::from_str(&fields).map_err(unreadable)).transpose()?,
            payload: row.get(7)?,
        })
    };
    connection.prepare_cached(sql)?.query_row([key], read).optional()
}

fn shown(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => None,
        value => super::queries::shown(value).map(|text| text.into_owned()),
    })
}

fn message_status(connection: &Connection, key: &str) -> rusqlite::Result<Option<MessageStatus>> {
    let sql = "SELECT recipient, state, at, error, extra, payload_id FROM postroom_statuses WHERE message_id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([key])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(1)?;
        let unknown = || Damage(format!("a status of message {key} has an unknown state: {name:?}"));
        let extra: Option<String> = row.get(4)?;
        let unreadable = |_| Damage(format!("a status of message {key} has an unreadable part"));
        let extra = extra.map(|extra| serde_json::from_str(&extra).map_err(unreadable)).transpose()?;
        records.push(StatusRecord {
            recipient: row.get(0)?,
            state: State::named(&name).ok_or_else(unknown)?,
            at: row.get(2)?,
            error: row.get(3)?,
            extra: extra.unwrap_or_default(),
            payload: row.get(5)?,
        });
    }
    Ok(MessageStatus::of(key, records))
}

const EVENT_COLUMNS: &str = "event_id, source, provider, kind, body, received_at, payload_id, message";

fn read_event(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    Ok(StoredEvent {
        number: row.get(0)?,
        source: row.get(1)?,
        provider: row.get(2)?,
        kind: row.get(3)?,
        body: row.get(4)?,
        message: row.get(7)?,
        received_at: row.get(5)?,
        payload: row.get(6)?,
    })
}

fn read_payload(row: &Row<'_>) -> rusqlite::Result<StoredPayload> {
    let packed = PackedRow {
        number: row.get("payload_id")?,
        source: row.get("source")?,
        provider: row.get("provider")?,
        headers: row.get("headers")?,
        encoding: row.get("encoding")?,
        bytes: row.get("bytes")?,
        body: row.get("body")?,
        received_at: row.get("received_at")?,
        digest: row.get("digest")?,
    };
    packed.open().map_err(|what| Damage(what).into())
}

/// Checks all provider data; one sentence for each finding, up to a maximum.
pub(super) fn audit(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut findings = Vec::new();
    let sql = format!("SELECT {} FROM postroom_payloads", PackedRow::COLUMNS);
    let mut statement = connection.prepare(&sql)?;
    for payload in statement.query_map([], |row| Ok(read_payload(row).err()))? {
        findings.extend(payload?.map(|error| error.to_string()));
    }
    let sql = "SELECT 'the details of message ' || message_id || ' cannot be read' FROM postroom_details
                   WHERE NOT json_valid(fields)
               UNION ALL
               SELECT 'the count of messages in state ' || ifnull(counted.state, counts.state) || ' is wrong'
                   FROM (SELECT state, count(*) AS messages FROM postroom_states GROUP BY state) AS counted
                   FULL JOIN postroom_state_counts AS counts ON counts.state = counted.state
                   WHERE ifnull(counted.messages, 0) <> ifnull(counts.messages, 0)
               LIMIT ?1";
    let mut statement = connection.prepare(sql)?;
    let told = statement.query_map([FINDINGS_MAX as i64], |row| row.get(0))?;
    findings.extend(told.collect::<rusqlite::Result<Vec<String>>>()?);
    findings.truncate(FINDINGS_MAX);
    Ok(findings)
}

/// Reads like a request: the first and the last message by their keys, and a row of each of the other tables.
pub(super) fn read_some(connection: &Connection) -> rusqlite::Result<()> {
    for order in ["ASC", "DESC"] {
        let sql = format!("SELECT message_id FROM messages ORDER BY rowid {order} LIMIT 1");
        let key = connection.prepare_cached(&sql)?.query_row([], |row| shown(row, 0)).optional()?;
        // `length` makes SQLite read the values.
        let sql =
            "SELECT length(m.text) + length(d.fields), EXISTS (SELECT 1 FROM postroom_statuses WHERE message_id = ?1)
                   FROM messages AS m LEFT JOIN postroom_details AS d ON d.message_id = m.message_id
                   WHERE m.message_id = ?1";
        connection.prepare_cached(sql)?.exists([key.flatten()])?;
    }
    for table in ["postroom_events", "postroom_payloads", "postroom_state_counts"] {
        connection.prepare_cached(&format!("SELECT 1 FROM {table} LIMIT 1"))?.exists([])?;
    }
    Ok(())
}
