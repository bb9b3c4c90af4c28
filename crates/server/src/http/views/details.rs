//! Views beyond listings: one message with all its data, statuses and events.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use domain::event::StoredEvent;
use domain::message::FullMessage;
use domain::status::MessageStatus;

/// An id that several messages have.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ambiguous)]
pub struct AmbiguousView<'a> {
    /// What went wrong.
    pub detail: &'static str,
    /// The keys of the messages; at most ten.
    pub keys: &'a [String],
}

/// A message with all its provider data.
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
    /// The provider data: source, provider, kind, media and more; null for messages of the original source.
    #[schema(required, value_type = Option<Object>)]
    pub details: Option<&'a serde_json::Map<String, Value>>,
    /// Whether `?raw=1` has the raw body.
    pub has_raw: bool,
}

impl<'a> FullMessageView<'a> {
    /// The message in the form of the API.
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

/// The delivery of a message.
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

/// A provider's report of a delivery state.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StatusRecord)]
pub struct StatusRecordView<'a> {
    /// `queued`, `sent`, `delivered`, `read`, `played` or `failed`.
    pub status: &'static str,
    /// When.
    pub ts: &'a str,
    /// The recipient, if the provider reports it.
    pub recipient: &'a str,
    /// The reason of a failure, or null.
    #[schema(required)]
    pub error: Option<&'a str>,
    /// Further data from the provider: price, conversation, callback data, details of the error.
    #[schema(value_type = Object)]
    pub extra: &'a serde_json::Map<String, Value>,
    /// Whether `?raw=1` has the raw body.
    pub has_raw: bool,
}

impl<'a> StatusView<'a> {
    /// The statuses in the form of the API.
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
    /// The value of `before` for the next page; null when nothing was listed.
    #[schema(required)]
    pub next_before: Option<i64>,
}

/// A record that is neither message nor status.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventView<'a> {
    /// Its number, in the order of arrival.
    pub event_id: i64,
    /// The source.
    pub source: &'a str,
    /// The protocol.
    pub provider: &'a str,
    /// Its kind, in the provider's words.
    pub kind: &'a str,
    /// What it says.
    #[schema(required)]
    pub body: Option<Value>,
    /// The message that it is about, in the form of a message with its details: our own, an edit, a deletion. Absent
    /// if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub message: Option<Value>,
    /// When it came.
    pub received_at: &'a str,
    /// The number of the stored body that contains it, or null.
    #[schema(required)]
    pub payload_id: Option<i64>,
}

impl<'a> EventView<'a> {
    /// The event in the form of the API.
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

/// The number of sent messages in each state, per recipient.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StatusCounts)]
pub struct StatusCountsView {
    /// The greatest state of a message at a recipient: queued, sent, delivered, read, played, failed.
    pub messages_per_status: Vec<StatusCountView>,
}

/// A state and its number of messages.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StatusCount)]
pub struct StatusCountView {
    /// The state.
    pub status: &'static str,
    /// Messages whose greatest state it is.
    pub count: u64,
}
