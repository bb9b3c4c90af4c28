//! What providers tell beyond the six columns: written in the transaction of the messages, read by key.

use std::collections::BTreeMap;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::damage::{Columns, Damage, Verifier};
use super::{SqliteStore, listing};
use crate::domain::conflict::{CONFLICT, conflict_body};
use crate::domain::event::{EVENT_PAGE_BYTES_MAX, EventRequest, StoredEvent, UNREADABLE};
use crate::domain::message::FullMessage;
use crate::domain::payload::StoredPayload;
use crate::domain::status::{MessageStatus, StatusRecord};
use crate::domain::{ConflictKey, Event, Message, NewMessage, Outcome, State, StatusUpdate};
use crate::store::extras::{Extras, PackedPayload, PackedRow};
use crate::store::{CANDIDATES_MAX, Lookup, Receipt, StoreError};

/// Findings that are told, at most.
const FINDINGS_MAX: usize = 20;

/// Writes what belongs to the messages of a request, and what it brought beside them.
pub(super) fn write(
    connection: &Connection,
    messages: &[NewMessage],
    extras: &Extras,
    receipt: &mut Receipt,
) -> rusqlite::Result<()> {
    let received_at = &extras.accepted_at.to_iso_micros();
    let stored = extras.payload.as_ref().map(|payload| write_payload(connection, payload, received_at)).transpose()?;
    let payload = stored.map(|(number, _)| number);
    let mut counts = BTreeMap::new();
    for status in &extras.statuses {
        receipt.statuses.push(write_status(connection, status, received_at, payload, &mut counts)?);
    }
    add_counts(connection, counts)?;
    for event in &extras.events {
        let sql =
            "INSERT INTO postroom_events (event_key, source, provider, kind, body, received_at, payload_id, message)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (event_key) DO NOTHING";
        let Event { key, source, provider, kind, body, .. } = event;
        let message = event.message_text();
        let values = params![key, source, provider, kind, body, received_at, payload, message];
        receipt.events.push(created(connection.prepare_cached(sql)?.execute(values)?));
    }
    for (message, outcome) in messages.iter().zip(&receipt.outcomes) {
        match outcome {
            Outcome::Created => write_details(connection, message, payload)?,
            Outcome::Duplicate => {}
            Outcome::Conflict => write_conflict(connection, message, payload, extras)?,
        }
    }
    let brought_news = receipt.has_created() || receipt.outcomes.contains(&Outcome::Conflict);
    match stored {
        // Nothing but copies of what is stored, in other bytes: the first ones are enough.
        Some((number, true)) if !brought_news => {
            let sql = "DELETE FROM postroom_payloads WHERE payload_id = ?1";
            connection.prepare_cached(sql)?.execute([number]).map(drop)
        }
        Some((number, false)) => forget_unreadable(connection, extras, number),
        _ => Ok(()),
    }
}

fn created(rows: usize) -> Outcome {
    if rows > 0 { Outcome::Created } else { Outcome::Duplicate }
}

/// Stores a record, and raises the state of its message and recipient.
fn write_status(
    connection: &Connection,
    status: &StatusUpdate,
    received_at: &str,
    payload: Option<i64>,
    counts: &mut BTreeMap<State, i64>,
) -> rusqlite::Result<Outcome> {
    let (message, state) = (status.message.as_str(), status.state);
    let recipient = &stored_recipient(connection, status)?;
    let sql = "INSERT INTO postroom_statuses
                   (message_id, recipient, state, at, error, provider_id, source, received_at, payload_id, extra)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (message_id, recipient, state) DO NOTHING";
    let StatusUpdate { at, error, provider_id, source, .. } = status;
    let (at, extra) = (at.as_str(), status.extra_text());
    let values = params![message, recipient, state.name(), at, error, provider_id, source, received_at, payload, extra];
    if connection.prepare_cached(sql)?.execute(values)? == 0 {
        return Ok(Outcome::Duplicate);
    }
    raise(connection, message, recipient, state, counts)?;
    Ok(Outcome::Created)
}

/// The recipient in the form that this message's statuses have it in already: an earlier version may have begun with another one.
fn stored_recipient(connection: &Connection, status: &StatusUpdate) -> rusqlite::Result<String> {
    let Some(recipient) = &status.recipient else { return Ok(String::new()) };
    let forms = recipient.recipient_forms();
    let sql = "SELECT recipient FROM postroom_states WHERE message_id = ?1 AND recipient IN (?2, ?3, ?4, ?5, ?6, ?7)
               ORDER BY recipient = ?2 DESC LIMIT 1";
    let values = std::iter::once(status.message.as_str()).chain(forms.iter().map(String::as_str));
    let mut find = connection.prepare_cached(sql)?;
    let known = find.query_row(rusqlite::params_from_iter(values), |row| row.get(0)).optional()?;
    Ok(known.unwrap_or_else(|| recipient.as_str().to_owned()))
}

/// Raises the state of a message and recipient if that is a greater one, and notes what it changes in the counts.
pub(in crate::store) fn raise(
    connection: &Connection,
    message: &str,
    recipient: &str,
    state: State,
    counts: &mut BTreeMap<State, i64>,
) -> rusqlite::Result<()> {
    let sql = "SELECT state FROM postroom_states WHERE message_id = ?1 AND recipient = ?2";
    let before: Option<String> =
        connection.prepare_cached(sql)?.query_row([message, recipient], |row| row.get(0)).optional()?;
    let before = before.as_deref().and_then(State::named);
    if before >= Some(state) {
        return Ok(());
    }
    let sql = "INSERT INTO postroom_states (message_id, recipient, state) VALUES (?1, ?2, ?3)
               ON CONFLICT (message_id, recipient) DO UPDATE SET state = excluded.state";
    connection.prepare_cached(sql)?.execute([message, recipient, state.name()])?;
    *counts.entry(state).or_default() += 1;
    if let Some(before) = before {
        *counts.entry(before).or_default() -= 1;
    }
    Ok(())
}

/// Adds what a request changed to the counts by state.
pub(in crate::store) fn add_counts(connection: &Connection, counts: BTreeMap<State, i64>) -> rusqlite::Result<()> {
    for (state, change) in counts.into_iter().filter(|(_, change)| *change != 0) {
        let sql = "INSERT INTO postroom_state_counts (state, messages) VALUES (?1, ?2)
                   ON CONFLICT (state) DO UPDATE SET messages = postroom_state_counts.messages + excluded.messages";
        connection.prepare_cached(sql)?.execute(params![state.name(), change])?;
    }
    Ok(())
}

/// Stores a body, or finds it stored. Answers its number and whether it is new.
fn write_payload(connection: &Connection, payload: &PackedPayload, received_at: &str) -> rusqlite::Result<(i64, bool)> {
    let sql = "SELECT payload_id FROM postroom_payloads WHERE digest = ?1";
    let known = connection.prepare_cached(sql)?.query_row([payload.digest.as_slice()], |row| row.get(0)).optional()?;
    if let Some(known) = known {
        return Ok((known, false));
    }
    let sql = "INSERT INTO postroom_payloads
                   (digest, source, provider, headers, encoding, bytes, body, received_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) RETURNING payload_id";
    let PackedPayload { digest, source, provider, headers, encoding, bytes, body } = payload;
    let values =
        params![digest.as_slice(), source, provider, headers, encoding, *bytes as i64, body.as_ref(), received_at];
    connection.prepare_cached(sql)?.query_row(values, |row| Ok((row.get(0)?, true)))
}

/// Writes a row of each kind under a key that nothing has. For a transaction that is rolled back.
pub(super) fn try_out(connection: &Connection, key: &str) -> rusqlite::Result<()> {
    for sql in [
        "INSERT INTO postroom_payloads (digest, source, provider, headers, encoding, bytes, body, received_at)
             VALUES (CAST(?1 AS BLOB), '', '', '{}', 'identity', 0, x'', '')",
        "INSERT INTO postroom_details (message_id, provider_id, source, kind, fields) VALUES (?1, ?1, '', '', '{}')",
        "INSERT INTO postroom_statuses (message_id, recipient, state, at, provider_id, source, received_at)
             VALUES (?1, '', '', '', ?1, '', '')",
        "INSERT INTO postroom_states (message_id, recipient, state) VALUES (?1, '', '')",
        "INSERT INTO postroom_state_counts (state, messages) VALUES (?1, 0)",
        "INSERT INTO postroom_events (event_key, source, provider, kind, received_at) VALUES (?1, '', '', '', '')",
    ] {
        connection.prepare_cached(sql)?.execute([key])?;
    }
    Ok(())
}

fn write_details(connection: &Connection, message: &NewMessage, payload: Option<i64>) -> rusqlite::Result<()> {
    let Some(details) = &message.details else { return Ok(()) };
    // Another program may have deleted the message before; then the details of its first life are in the way.
    let sql = "INSERT INTO postroom_details (message_id, provider_id, source, kind, fields, payload_id)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)
               ON CONFLICT (message_id) DO UPDATE SET
                   provider_id = excluded.provider_id, source = excluded.source, kind = excluded.kind,
                   fields = excluded.fields, payload_id = excluded.payload_id";
    let fields = serde_json::Value::Object(details.to_fields()).to_string();
    let kind = details.kind.name();
    let values = params![message.id.as_str(), details.provider_id, details.source, kind, fields, payload];
    connection.prepare_cached(sql)?.execute(values).map(drop)
}

/// A copy that differs from what is stored changes nothing there; that it came is an event, and what it said is in its body.
fn write_conflict(
    connection: &Connection,
    message: &NewMessage,
    payload: Option<i64>,
    extras: &Extras,
) -> rusqlite::Result<()> {
    let Some(details) = &message.details else { return Ok(()) };
    let sql = "INSERT INTO postroom_events (event_key, source, provider, kind, body, received_at, payload_id)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (event_key) DO NOTHING";
    let digest = extras.payload.as_ref().map(|payload| payload.digest.as_slice());
    let (key, body) = (ConflictKey::new(&message.id, digest), conflict_body(message));
    let received_at = extras.accepted_at.to_iso_micros();
    let values = params![key.as_str(), details.source, details.provider, CONFLICT, body, received_at, payload];
    connection.prepare_cached(sql)?.execute(values).map(drop)
}

/// A body that came before is read again, perhaps by a later version: what could not be read of it then, and can now, is no
/// event any more.
fn forget_unreadable(connection: &Connection, extras: &Extras, payload: i64) -> rusqlite::Result<()> {
    let sql = "SELECT event_key FROM postroom_events WHERE payload_id = ?1 AND kind = ?2";
    let mut unreadable = connection.prepare_cached(sql)?;
    let before = unreadable.query_map(params![payload, UNREADABLE], |row| row.get::<_, String>(0))?;
    for key in before.collect::<Result<Vec<_>, _>>()? {
        if !extras.events.iter().any(|event| event.key == key) {
            connection.prepare_cached("DELETE FROM postroom_events WHERE event_key = ?1")?.execute([key])?;
        }
    }
    Ok(())
}

impl SqliteStore {
    /// See `Store::message`.
    pub async fn message(&self, id: String) -> Result<Lookup<FullMessage>, StoreError> {
        let sql = "SELECT message_id FROM postroom_details AS details WHERE provider_id = ?1
                       AND EXISTS (SELECT 1 FROM messages WHERE messages.message_id = details.message_id)
                   ORDER BY message_id LIMIT ?2";
        self.read(move |snapshot| {
            let verifier = listing::verifier(snapshot)?;
            look_up(snapshot.connection, &id, sql, |connection, key| full_message(connection, key, verifier.as_ref()))
        })
        .await
    }

    /// See `Store::statuses`.
    pub async fn statuses(&self, id: String) -> Result<Lookup<MessageStatus>, StoreError> {
        let sql = "SELECT DISTINCT message_id FROM postroom_statuses WHERE provider_id = ?1
                   ORDER BY message_id LIMIT ?2";
        self.read(move |snapshot| look_up(snapshot.connection, &id, sql, message_status)).await
    }

    /// See `Store::payload`.
    pub async fn payload(&self, number: i64) -> Result<Option<StoredPayload>, StoreError> {
        self.read(move |snapshot| {
            let connection = snapshot.connection;
            let sql = format!("SELECT {} FROM postroom_payloads WHERE payload_id = ?1", PackedRow::COLUMNS);
            connection.prepare_cached(&sql)?.query_row([number], read_payload).optional()
        })
        .await
    }

    /// See `Store::unreadable_payloads`.
    pub async fn unreadable_payloads(
        &self,
        after: i64,
        all: bool,
        limit: u32,
    ) -> Result<Vec<StoredPayload>, StoreError> {
        self.read(move |snapshot| {
            let connection = snapshot.connection;
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
        })
        .await
    }

    /// See `Store::events`.
    pub async fn events(&self, request: EventRequest) -> Result<Vec<StoredEvent>, StoreError> {
        self.read(move |snapshot| {
            let connection = snapshot.connection;
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
        })
        .await
    }

    /// See `Store::event`.
    pub async fn event(&self, number: i64) -> Result<Option<StoredEvent>, StoreError> {
        self.read(move |snapshot| {
            let sql = format!("SELECT {EVENT_COLUMNS} FROM postroom_events WHERE event_id = ?1");
            snapshot.connection.prepare_cached(&sql)?.query_row([number], read_event).optional()
        })
        .await
    }

    /// See `Store::status_counts`.
    pub async fn status_counts(&self) -> Result<Vec<(State, u64)>, StoreError> {
        self.read(|snapshot| {
            let connection = snapshot.connection;
            let mut statement = connection.prepare_cached("SELECT state, messages FROM postroom_state_counts")?;
            let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?)))?;
            let counted: Vec<(String, u64)> = rows.collect::<Result<_, _>>()?;
            if let Some((name, _)) = counted.iter().find(|(name, _)| State::named(name).is_none()) {
                return Err(Damage(format!("a count is of a state that there is not: {name:?}")).into());
            }
            let count_of = |state: State| counted.iter().find(|(name, _)| name == state.name()).map_or(0, |(_, n)| *n);
            Ok(State::ALL.iter().map(|state| (*state, count_of(*state))).collect())
        })
        .await
    }
}

/// What has this key; or else what is meant by a provider's id, whose keys `sql` finds.
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
        let unknown = || Damage(format!("a status of message {key} is one that there is not: {name:?}"));
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
        number: row.get(0)?,
        source: row.get(1)?,
        provider: row.get(2)?,
        headers: row.get(3)?,
        encoding: row.get(4)?,
        bytes: row.get(5)?,
        body: row.get(6)?,
        received_at: row.get(7)?,
        digest: row.get(8)?,
    };
    packed.open().map_err(|what| Damage(what).into())
}

/// Looks at everything that can be told of what providers sent; one sentence for each finding, some at most.
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

/// Reads as requests do: the first and the last message by their keys, and a row of each of the other tables.
pub(super) fn read_some(connection: &Connection) -> rusqlite::Result<()> {
    for order in ["ASC", "DESC"] {
        let sql = format!("SELECT message_id FROM messages ORDER BY rowid {order} LIMIT 1");
        let key = connection.prepare_cached(&sql)?.query_row([], |row| shown(row, 0)).optional()?;
        // Lengths, for which the values have to be read.
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
