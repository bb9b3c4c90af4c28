//! What providers tell beyond the six columns, read by key. `brought.rs` writes it.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::batch::{held, released};
use super::failure::Failure;
use super::query::{Query, Value};
use super::{details_sql as sql, listing};
use crate::domain::State;
use crate::domain::event::{EVENT_PAGE_BYTES_MAX, EventRequest, StoredEvent, UNREADABLE};
use crate::domain::message::FullMessage;
use crate::domain::payload::{PayloadRow, StoredPayload};
use crate::domain::status::{MessageStatus, StatusRecord};
use crate::store::Lookup;
use crate::store::extras::{read_headers, unpack};

/// Keys that an ambiguous id is answered with, at most.
const CANDIDATES_MAX: i64 = 10;

/// See `Store::message`.
pub(super) async fn message(client: &Client, id: &str) -> Result<Lookup<FullMessage>, Failure> {
    let sql = "SELECT message_id FROM postroom_details details
               WHERE left(provider_id, 200) = left($1, 200) AND provider_id = $1
                   AND EXISTS (SELECT 1 FROM messages WHERE messages.message_id = details.message_id)
               ORDER BY message_id LIMIT $2";
    look_up(client, id, sql, async |key| full_message(client, key).await).await
}

/// See `Store::statuses`.
pub(super) async fn statuses(client: &Client, id: &str) -> Result<Lookup<MessageStatus>, Failure> {
    let sql = "SELECT DISTINCT message_id FROM postroom_statuses
               WHERE left(provider_id, 200) = left($1, 200) AND provider_id = $1 ORDER BY message_id LIMIT $2";
    look_up(client, id, sql, async |key| message_status(client, key).await).await
}

/// See `Store::status_counts`.
pub(super) async fn status_counts(client: &Client) -> Result<Vec<(State, u64)>, Failure> {
    let rows = client.query_typed(sql::STATE_COUNTS, &[]).await?;
    let count_of = |state: State| {
        let row = rows.iter().find(|row| row.get::<_, &str>(0) == state.name());
        row.map_or(0, |row| u64::try_from(row.get::<_, i64>(1)).unwrap_or(0))
    };
    Ok(State::ALL.iter().map(|state| (*state, count_of(*state))).collect())
}

/// See `Store::events`.
pub(super) async fn events(client: &Client, request: &EventRequest) -> Result<Vec<StoredEvent>, Failure> {
    let mut query = Query::default();
    let mut condition = format!("event_id < {}", query.bind(Value::Number(request.before.unwrap_or(i64::MAX))));
    for (column, value) in [("source", &request.source), ("kind", &request.kind)] {
        if let Some(value) = value {
            condition = format!("{condition} AND {column} = {}", query.bind_text(&held(value)));
        }
    }
    let limit = query.bind(Value::Number(request.limit.into()));
    query.text = format!(
        "SELECT {EVENT_COLUMNS} FROM (
             SELECT page.*, sum(octet_length(coalesce(body, '')) + octet_length(coalesce(message, ''))) OVER newest AS bytes,
                    row_number() OVER newest AS place
             FROM (SELECT * FROM postroom_events WHERE {condition} ORDER BY event_id DESC LIMIT {limit}) page
             WINDOW newest AS (ORDER BY event_id DESC)
         ) counted
         WHERE bytes <= {EVENT_PAGE_BYTES_MAX} OR place = 1 ORDER BY event_id DESC"
    );
    Ok(query.rows(client).await?.iter().map(read_event).collect())
}

/// See `Store::event`.
pub(super) async fn event(client: &Client, number: i64) -> Result<Option<StoredEvent>, Failure> {
    let sql = format!("SELECT {EVENT_COLUMNS} FROM postroom_events WHERE event_id = $1");
    Ok(client.query_typed_opt(&sql, &[(&number, Type::INT8)]).await?.as_ref().map(read_event))
}

/// See `Store::payload`.
pub(super) async fn payload(client: &Client, number: i64) -> Result<Option<StoredPayload>, Failure> {
    let sql = format!("SELECT {PAYLOAD_COLUMNS} FROM postroom_payloads WHERE payload_id = $1");
    let row = client.query_typed_opt(&sql, &[(&number, Type::INT8)]).await?;
    row.as_ref().map(read_payload).transpose()
}

/// See `Store::unreadable_payloads`.
pub(super) async fn unreadable_payloads(
    client: &Client,
    after: i64,
    all: bool,
    limit: u32,
) -> Result<Vec<StoredPayload>, Failure> {
    let sql = format!(
        "SELECT {PAYLOAD_COLUMNS} FROM postroom_payloads payloads WHERE payload_id > $1 AND ($2 OR EXISTS (
             SELECT 1 FROM postroom_events events
             WHERE events.payload_id = payloads.payload_id AND events.kind = $3))
         ORDER BY payload_id LIMIT $4"
    );
    let limit = i64::from(limit);
    let parameters: [(&(dyn ToSql + Sync), Type); 4] =
        [(&after, Type::INT8), (&all, Type::BOOL), (&UNREADABLE, Type::TEXT), (&limit, Type::INT8)];
    client.query_typed(&sql, &parameters).await?.iter().map(read_payload).collect()
}

/// Asks for a little of everything.
pub(super) async fn probe(client: &Client) -> Result<(), Failure> {
    message(client, "").await?;
    statuses(client, "").await?;
    status_counts(client).await?;
    events(client, &EventRequest { source: None, kind: None, before: None, limit: 1 }).await?;
    payload(client, 0).await?;
    unreadable_payloads(client, i64::MAX, true, 1).await?;
    Ok(())
}

/// What has this key; or else what is meant by a provider's id, whose keys `sql` finds.
async fn look_up<T>(
    client: &Client,
    id: &str,
    sql: &str,
    find: impl AsyncFn(&str) -> Result<Option<T>, Failure>,
) -> Result<Lookup<T>, Failure> {
    if let Some(found) = find(id).await? {
        return Ok(Lookup::Found(found));
    }
    let rows = client.query_typed(sql, &[(&held(id), Type::TEXT), (&CANDIDATES_MAX, Type::INT8)]).await?;
    let keys: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    match keys.as_slice() {
        [] => Ok(Lookup::Absent),
        [key] => Ok(find(key).await?.map_or(Lookup::Absent, Lookup::Found)),
        _ => Ok(Lookup::Ambiguous(keys)),
    }
}

/// No key holds NUL, which the server could not even be asked about.
fn is_no_key(key: &str) -> bool {
    key.contains('\0')
}

async fn full_message(client: &Client, key: &str) -> Result<Option<FullMessage>, Failure> {
    if is_no_key(key) {
        return Ok(None);
    }
    let sql = "SELECT m.message_id, m.from_msisdn, m.to_msisdn, m.ts, m.text, m.text_exact, m.created_at, d.fields, d.payload_id
               FROM messages m LEFT JOIN postroom_details d ON d.message_id = m.message_id WHERE m.message_id = $1";
    let row = client.query_typed_opt(sql, &[(&key, Type::TEXT)]).await?;
    Ok(row.map(|row| FullMessage {
        created_at: row.get(6),
        details: row.get::<_, Option<&str>>(7).and_then(|fields| serde_json::from_str(fields).ok()),
        payload: row.get(8),
        message: listing::message(row),
    }))
}

async fn message_status(client: &Client, key: &str) -> Result<Option<MessageStatus>, Failure> {
    if is_no_key(key) {
        return Ok(None);
    }
    let sql = "SELECT recipient, state, at, error, extra, payload_id FROM postroom_statuses WHERE message_id = $1";
    let mut records = Vec::new();
    for row in client.query_typed(sql, &[(&key, Type::TEXT)]).await? {
        let Some(state) = State::named(row.get(1)) else { continue };
        let error = row.get::<_, Option<String>>(3).map(released);
        let extra = row.get::<_, Option<String>>(4).map(released);
        let extra = extra.and_then(|extra| serde_json::from_str(&extra).ok()).unwrap_or_default();
        let recipient = released(row.get(0));
        records.push(StatusRecord { recipient, state, at: row.get(2), error, extra, payload: row.get(5) });
    }
    records.sort_by(|a, b| (&a.at, a.state, &a.recipient).cmp(&(&b.at, b.state, &b.recipient)));
    let state = records.iter().map(|record| record.state).max();
    Ok(state.map(|state| MessageStatus { message: key.to_owned(), state, records }))
}

const EVENT_COLUMNS: &str = "event_id, source, provider, kind, body, received_at, payload_id, message";

fn read_event(row: &Row) -> StoredEvent {
    StoredEvent {
        number: row.get(0),
        source: released(row.get(1)),
        provider: row.get(2),
        kind: released(row.get(3)),
        body: row.get::<_, Option<String>>(4).map(released),
        message: row.get::<_, Option<String>>(7).map(released),
        received_at: row.get(5),
        payload: row.get(6),
    }
}

const PAYLOAD_COLUMNS: &str = "payload_id, source, provider, headers, encoding, bytes, body, received_at";

fn read_payload(row: &Row) -> Result<StoredPayload, Failure> {
    let bytes = usize::try_from(row.get::<_, i64>(5)).ok();
    let bytes = bytes.and_then(|bytes| unpack(row.get(4), row.get(6), bytes));
    Ok(StoredPayload::read_from_store(PayloadRow {
        number: row.get(0),
        source: released(row.get(1)),
        provider: row.get(2),
        headers: read_headers(row.get(3)),
        bytes: bytes.ok_or_else(|| Failure::Broken(format!("the raw body {} is damaged", row.get::<_, i64>(0))))?,
        received_at: row.get(7),
    }))
}
