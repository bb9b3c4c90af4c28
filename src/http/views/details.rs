//! What clients see beyond listings: one message with everything, statuses and events.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::domain::event::StoredEvent;
use crate::domain::message::FullMessage;
use crate::domain::status::MessageStatus;

/// An id that several messages have.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ambiguous)]
pub struct AmbiguousView<'a> {
    /// What went wrong.
    pub detail: &'static str,
    /// The keys of the messages; at most ten.
    pub keys: &'a [String],
}

/// A message with everything that is known of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FullMessage)]
pub struct FullMessageView<'a> {
    /// The message's key.
    pub message_id: &'a str,
    /// The sender.
    pub from: &'a str,
    /// The recipient.
    pub to: &'a str,
    /// When it was sent.
    pub ts: &'a str,
    /// What it says, or null.
    #[schema(required)]
    pub text: Option<&'a str>,
    /// When it was accepted.
    pub created_at: &'a str,
    /// What its provider told: source, provider, kind, media and more; null for messages of the original door.
    #[schema(required, value_type = Option<Object>)]
    pub details: Option<&'a serde_json::Map<String, Value>>,
    /// Whether `?raw=1` has the raw body.
    pub has_raw: bool,
}

impl<'a> FullMessageView<'a> {
    /// The message as clients see it.
    pub fn new(full: &'a FullMessage) -> Self {
        Self {
            message_id: &full.message.id,
            from: &full.message.from,
            to: &full.message.to,
            ts: &full.message.ts,
            text: full.message.text.as_deref(),
            created_at: &full.created_at,
            details: full.details.as_ref(),
            has_raw: full.payload.is_some(),
        }
    }
}

/// How far a message came.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MessageStatus)]
pub struct StatusView<'a> {
    /// The message's key.
    pub message_id: &'a str,
    /// The greatest state of any recipient.
    #[schema(example = "read")]
    pub status: &'static str,
    /// All records, by time.
    pub statuses: Vec<StatusRecordView<'a>>,
}

/// A provider's word that a message came so far.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StatusRecord)]
pub struct StatusRecordView<'a> {
    /// `queued`, `sent`, `delivered`, `read`, `played` or `failed`.
    pub status: &'static str,
    /// When.
    pub ts: &'a str,
    /// To whom, if the provider says.
    pub recipient: &'a str,
    /// Why it failed, or null.
    #[schema(required)]
    pub error: Option<&'a str>,
    /// What else the provider said: price, conversation, callback data, details of the error.
    #[schema(value_type = Object)]
    pub extra: &'a serde_json::Map<String, Value>,
    /// Whether `?raw=1` has the raw body.
    pub has_raw: bool,
}

impl<'a> StatusView<'a> {
    /// The statuses as clients see them.
    pub fn new(status: &'a MessageStatus) -> Self {
        let records = status.records.iter().map(|record| StatusRecordView {
            status: record.state.name(),
            ts: &record.at,
            recipient: &record.recipient,
            error: record.error.as_deref(),
            extra: &record.extra,
            has_raw: record.payload.is_some(),
        });
        Self { message_id: &status.message, status: status.state.name(), statuses: records.collect() }
    }
}

/// A page of events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Events)]
pub struct EventsView<'a> {
    /// The events, the newest first.
    #[schema(max_items = 100)]
    pub data: Vec<EventView<'a>>,
    /// What `before` has to be for the next page; null when nothing was listed.
    #[schema(required)]
    pub next_before: Option<i64>,
}

/// Something that is neither message nor status.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventView<'a> {
    /// Its number, in the order of arrival.
    pub event_id: i64,
    /// The door.
    pub source: &'a str,
    /// The protocol.
    pub provider: &'a str,
    /// What it is, in the provider's words.
    pub kind: &'a str,
    /// What it says.
    #[schema(required)]
    pub body: Option<Value>,
    /// The message that it is about, in the form of a message with its details: one of our own, an edit, a deletion. Absent where
    /// it is about none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub message: Option<Value>,
    /// When it came.
    pub received_at: &'a str,
    /// The number of the stored body that brought it, or null.
    #[schema(required)]
    pub payload_id: Option<i64>,
}

impl<'a> EventView<'a> {
    /// The event as clients see it.
    pub fn new(event: &'a StoredEvent) -> Self {
        let read = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
        Self {
            event_id: event.number,
            source: &event.source,
            provider: &event.provider,
            kind: &event.kind,
            body: event.body.as_ref().map(read),
            message: event.message.as_ref().map(read),
            received_at: &event.received_at,
            payload_id: event.payload,
        }
    }
}

/// How many sent messages are in each state, by recipient.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StatusCounts)]
pub struct StatusCountsView {
    /// The greatest state of a message at a recipient: queued, sent, delivered, read, played, failed.
    pub messages_per_status: Vec<StatusCountView>,
}

/// A state and how many messages are in it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StatusCount)]
pub struct StatusCountView {
    /// The state.
    pub status: &'static str,
    /// Messages whose greatest state it is.
    pub count: u64,
}
