//! Provider data beyond the six columns, read by key. `insert_full.rs` writes them.

use tokio_postgres::{Client, Row};

use super::batch::{escape_nul, unescape_nul};
use super::failure::Failure;
use super::message_rows;
use super::parameters::Parameters;
use super::query::Query;
use super::snapshot::Snapshot;
use crate::extras::PackedRow;
use crate::lookup::{CANDIDATES_MAX, Lookup};
use domain::State;
use domain::event::{EVENT_PAGE_BYTES_MAX, EventRequest, StoredEvent, UNREADABLE};
use domain::message::FullMessage;
use domain::payload::StoredPayload;
use domain::status::{MessageStatus, StatusRecord};

/// See `Store::message`.
pub(super) async fn message(snapshot: &Snapshot<'_>, id: &str) -> Result<Lookup<FullMessage>, Failure> {
    let sql = "SELECT message_id FROM postroom_details details
               WHERE left(provider_id, 200) = left($1, 200) AND provider_id = $1
                   AND EXISTS (SELECT 1 FROM messages WHERE messages.message_id = details.message_id)
               ORDER BY message_id LIMIT $2";
    look_up(snapshot.client, id, sql, async |key| full_message(snapshot.client, key).await).await
}

/// See `Store::statuses`.
pub(super) async fn statuses(snapshot: &Snapshot<'_>, id: &str) -> Result<Lookup<MessageStatus>, Failure> {
    let sql = "SELECT DISTINCT message_id FROM postroom_statuses
               WHERE left(provider_id, 200) = left($1, 200) AND provider_id = $1 ORDER BY message_id LIMIT $2";
    look_up(snapshot.client, id, sql, async |key| message_status(snapshot.client, key).await).await
}

/// The counts, and the changes that are not added to them yet.
const STATE_COUNTS: &str = "\
    SELECT state, sum(messages)::bigint AS messages FROM (
        SELECT state, messages FROM postroom_state_counts UNION ALL SELECT state, messages FROM postroom_state_changes
    ) counts GROUP BY state";

/// See `Store::status_counts`.
pub(super) async fn status_counts(snapshot: &Snapshot<'_>) -> Result<Vec<(State, u64)>, Failure> {
    let rows = snapshot.client.query_typed(STATE_COUNTS, &[]).await?;
    let count_of = |state: State| {
        let row = rows.iter().find(|row| row.get::<_, &str>("state") == state.name());
        row.map_or(0, |row| u64::try_from(row.get::<_, i64>("messages")).unwrap_or(0))
    };
    Ok(State::ALL.iter().map(|state| (*state, count_of(*state))).collect())
}

/// See `Store::events`.
pub(super) async fn events(snapshot: &Snapshot<'_>, request: &EventRequest) -> Result<Vec<StoredEvent>, Failure> {
    let mut query = Query::default();
    let mut condition = format!("event_id < {}", query.bind_number(request.before.unwrap_or(i64::MAX)));
    for (column, value) in [("source", &request.source), ("kind", &request.kind)] {
        if let Some(value) = value {
            condition = format!("{condition} AND {column} = {}", query.bind_text(&escape_nul(value)));
        }
    }
    let limit = query.bind_number(request.limit.into());
    query.text = format!(
        "SELECT {EVENT_COLUMNS} FROM (
             SELECT page.*, row_number() OVER newest AS place,
                    sum(octet_length(coalesce(body, '')) + octet_length(coalesce(message, ''))) OVER newest AS bytes
             FROM (SELECT * FROM postroom_events WHERE {condition} ORDER BY event_id DESC LIMIT {limit}) page
             WINDOW newest AS (ORDER BY event_id DESC)
         ) counted
         WHERE bytes <= {EVENT_PAGE_BYTES_MAX} OR place = 1 ORDER BY event_id DESC"
    );
    Ok(query.rows(snapshot.client).await?.iter().map(read_event).collect())
}

/// See `Store::event`.
pub(super) async fn event(snapshot: &Snapshot<'_>, number: i64) -> Result<Option<StoredEvent>, Failure> {
    let sql = format!("SELECT {EVENT_COLUMNS} FROM postroom_events WHERE event_id = $1");
    let row = Parameters::new().number(number).row_if_any(snapshot.client, &sql).await?;
    Ok(row.as_ref().map(read_event))
}

/// See `Store::payload`.
pub(super) async fn payload(snapshot: &Snapshot<'_>, number: i64) -> Result<Option<StoredPayload>, Failure> {
    let sql = format!("SELECT {} FROM postroom_payloads WHERE payload_id = $1", PackedRow::COLUMNS);
    let row = Parameters::new().number(number).row_if_any(snapshot.client, &sql).await?;
    row.as_ref().map(read_payload).transpose()
}

/// See `Store::unreadable_payloads`.
pub(super) async fn unreadable_payloads(
    snapshot: &Snapshot<'_>,
    after: i64,
    all: bool,
    limit: u32,
) -> Result<Vec<StoredPayload>, Failure> {
    let sql = format!(
        "SELECT {} FROM postroom_payloads payloads WHERE payload_id > $1 AND ($2 OR EXISTS (
             SELECT 1 FROM postroom_events events
             WHERE events.payload_id = payloads.payload_id AND events.kind = $3))
         ORDER BY payload_id LIMIT $4",
        PackedRow::COLUMNS
    );
    let asked = Parameters::new().number(after).flag(all).text(UNREADABLE).number(i64::from(limit));
    asked.rows(snapshot.client, &sql).await?.iter().map(read_payload).collect()
}

/// Reads a few rows of each table.
pub(super) async fn probe(snapshot: &Snapshot<'_>) -> Result<(), Failure> {
    message(snapshot, "").await?;
    statuses(snapshot, "").await?;
    status_counts(snapshot).await?;
    events(snapshot, &EventRequest { source: None, kind: None, before: None, limit: 1 }).await?;
    payload(snapshot, 0).await?;
    unreadable_payloads(snapshot, i64::MAX, true, 1).await?;
    Ok(())
}

/// The message with this key; otherwise the one with this provider's id, whose keys `sql` finds.
async fn look_up<T>(
    client: &Client,
    id: &str,
    sql: &str,
    find: impl AsyncFn(&str) -> Result<Option<T>, Failure>,
) -> Result<Lookup<T>, Failure> {
    if let Some(found) = find(id).await? {
        return Ok(Lookup::Found(found));
    }
    let rows = Parameters::new().text(escape_nul(id)).number(CANDIDATES_MAX).rows(client, sql).await?;
    let keys: Vec<String> = rows.iter().map(|row| row.get("message_id")).collect();
    match keys.as_slice() {
        [] => Ok(Lookup::Absent),
        [key] => Ok(find(key).await?.map_or(Lookup::Absent, Lookup::Found)),
        _ => Ok(Lookup::Ambiguous(keys)),
    }
}

/// No key contains NUL, and the server could not receive it either.
fn is_no_key(key: &str) -> bool {
    key.contains('\0')
}

async fn full_message(client: &Client, key: &str) -> Result<Option<FullMessage>, Failure> {
    if is_no_key(key) {
        return Ok(None);
    }
    let sql = "SELECT m.message_id, m.from_msisdn, m.to_msisdn, m.ts, m.text, m.text_exact, m.created_at, d.fields,
                      d.payload_id
               FROM messages m LEFT JOIN postroom_details d ON d.message_id = m.message_id WHERE m.message_id = $1";
    let row = Parameters::new().text(key).row_if_any(client, sql).await?;
    Ok(row.map(|row| FullMessage {
        created_at: row.get("created_at"),
        details: row.get::<_, Option<&str>>("fields").and_then(|fields| serde_json::from_str(fields).ok()),
        payload: row.get("payload_id"),
        message: message_rows::message(&row),
    }))
}

async fn message_status(client: &Client, key: &str) -> Result<Option<MessageStatus>, Failure> {
    if is_no_key(key) {
        return Ok(None);
    }
    let sql = "SELECT recipient, state, at, error, extra, payload_id FROM postroom_statuses WHERE message_id = $1";
    let mut records = Vec::new();
    for row in Parameters::new().text(key).rows(client, sql).await? {
        let Some(state) = State::named(row.get("state")) else { continue };
        let text = |column: &str| row.get::<_, Option<String>>(column).map(unescape_nul);
        let extra = text("extra").and_then(|extra| serde_json::from_str(&extra).ok()).unwrap_or_default();
        let (recipient, error) = (unescape_nul(row.get("recipient")), text("error"));
        records.push(StatusRecord {
            recipient,
            state,
            at: row.get("at"),
            error,
            extra,
            payload: row.get("payload_id"),
        });
    }
    Ok(MessageStatus::of(key, records))
}

const EVENT_COLUMNS: &str = "event_id, source, provider, kind, body, received_at, payload_id, message";

fn read_event(row: &Row) -> StoredEvent {
    StoredEvent {
        number: row.get("event_id"),
        source: unescape_nul(row.get("source")),
        provider: row.get("provider"),
        kind: unescape_nul(row.get("kind")),
        body: row.get::<_, Option<String>>("body").map(unescape_nul),
        message: row.get::<_, Option<String>>("message").map(unescape_nul),
        received_at: row.get("received_at"),
        payload: row.get("payload_id"),
    }
}

fn read_payload(row: &Row) -> Result<StoredPayload, Failure> {
    let packed = PackedRow {
        number: row.get("payload_id"),
        source: unescape_nul(row.get("source")),
        provider: row.get("provider"),
        headers: row.get("headers"),
        encoding: row.get("encoding"),
        bytes: row.get("bytes"),
        body: row.get("body"),
        received_at: row.get("received_at"),
        digest: row.get("digest"),
    };
    packed.open().map_err(Failure::Broken)
}
