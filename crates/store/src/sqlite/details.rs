//! Writes provider data beyond the six columns, in the transaction of the messages.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use crate::Receipt;
use crate::extras::{Extras, PackedPayload};
use domain::conflict::{CONFLICT, conflict_body};
use domain::event::UNREADABLE;
use domain::{ConflictKey, Event, NewMessage, Outcome, State, StatusUpdate};

/// Writes the details of a request's messages, and its other content.
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
        // All of it is copies of stored data, in other bytes: the first stored body is enough.
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

/// Stores a status record, and raises the state of its message and recipient.
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

/// The recipient in the form of this message's earlier statuses; an earlier version may have used another.
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

/// Raises the state of a message and recipient if the new one is greater, and records the change of the counts.
pub(crate) fn raise(
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

/// Adds the changes of a request to the counts by state.
pub(crate) fn add_counts(connection: &Connection, counts: BTreeMap<State, i64>) -> rusqlite::Result<()> {
    for (state, change) in counts.into_iter().filter(|(_, change)| *change != 0) {
        let sql = "INSERT INTO postroom_state_counts (state, messages) VALUES (?1, ?2)
                   ON CONFLICT (state) DO UPDATE SET messages = postroom_state_counts.messages + excluded.messages";
        connection.prepare_cached(sql)?.execute(params![state.name(), change])?;
    }
    Ok(())
}

/// Stores a body, unless it exists. Returns its number and whether it is new.
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

/// Writes a row of each kind under an unused key. For a transaction that is rolled back.
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
    // Another program may have deleted the message before; then its earlier details cause a conflict.
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

/// A copy that differs from the stored message changes nothing; it is stored as an event, with its content.
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

/// A repeated body is parsed again, possibly by a later version. If a
/// part was unreadable before and is readable now, its event is deleted.
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
