//! The JSON that clients see: structs of their own, so that the domain can change while clients stay happy.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::answer::{Answer, AnswerBody};
use crate::domain::event::StoredEvent;
use crate::domain::invalid::Place;
use crate::domain::message::FullMessage;
use crate::domain::status::MessageStatus;
use crate::domain::{FieldError, Invalid, Message, Page, Stats};

/// The media type of every JSON answer.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A value as JSON bytes, without white space.
pub fn json(view: &impl Serialize) -> Bytes {
    serde_json::to_vec(view).expect("views hold nothing that JSON cannot say").into()
}

/// A value as a 200 answer.
pub fn ok(view: &impl Serialize) -> Answer {
    with_type(json(view), JSON)
}

/// Bytes of some media type as a 200 answer.
pub fn with_type(body: Bytes, media_type: HeaderValue) -> Answer {
    let mut answer = Answer::new(AnswerBody::new(body));
    answer.headers_mut().insert(CONTENT_TYPE, media_type);
    answer
}

/// `{"detail":"…"}`
pub fn detail(text: &str) -> Bytes {
    json(&DetailView { detail: text })
}

/// An error in one sentence.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Detail)]
pub struct DetailView<'a> {
    /// What went wrong.
    pub detail: &'a str,
}

/// The message is stored, now or before.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Stored)]
pub struct StoredView {
    /// Always `ok`.
    #[schema(example = "ok")]
    pub status: &'static str,
}

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

/// How the service is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Health)]
pub struct HealthView {
    /// `ok`, `ready` or `not ready`.
    pub status: &'static str,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// A message on its way in, for the OpenAPI document.
#[derive(Debug, ToSchema)]
#[schema(as = NewMessage)]
#[allow(dead_code)]
pub struct NewMessageView {
    /// The provider's id: 1 character to 1024 bytes of UTF-8, unique in the inbox.
    #[schema(min_length = 1, max_length = 1024, example = "m1")]
    pub message_id: String,
    /// The sender: `+` and digits, at most 64 characters.
    #[schema(pattern = r"^\+[0-9]+$", max_length = 64, example = "+919876543210")]
    pub from: String,
    /// The recipient, in the same form.
    #[schema(pattern = r"^\+[0-9]+$", max_length = 64, example = "+14155550100")]
    pub to: String,
    /// When it was sent: `YYYY-MM-DDTHH:MM:SSZ`.
    #[schema(
        pattern = r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$",
        example = "2025-01-15T10:00:00Z"
    )]
    pub ts: String,
    /// What it says; null or absent for a message without text.
    #[schema(max_length = 4096, example = "Hello")]
    pub text: Option<String>,
}

/// A stored message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Message)]
pub struct MessageView<'a> {
    /// The provider's id.
    #[schema(example = "m1")]
    pub message_id: &'a str,
    /// The sender.
    #[schema(example = "+919876543210")]
    pub from: &'a str,
    /// The recipient.
    #[schema(example = "+14155550100")]
    pub to: &'a str,
    /// When it was sent.
    #[schema(example = "2025-01-15T10:00:00Z")]
    pub ts: &'a str,
    /// What it says, or null.
    #[schema(required, example = "Hello")]
    pub text: Option<&'a str>,
}

/// A page of messages.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Page)]
pub struct PageView<'a> {
    /// The messages, by `ts`, then `message_id`.
    #[schema(max_items = 100)]
    pub data: Vec<MessageView<'a>>,
    /// All messages that the filters let through.
    pub total: u64,
    /// The limit asked for.
    pub limit: u32,
    /// The offset asked for.
    pub offset: u64,
}

impl<'a> PageView<'a> {
    /// The page as clients see it, with the limit and offset that they asked for.
    pub fn new(page: &'a Page, limit: u32, offset: u64) -> Self {
        let view = |message: &'a Message| MessageView {
            message_id: &message.id,
            from: &message.from,
            to: &message.to,
            ts: &message.ts,
            text: message.text.as_deref(),
        };
        Self { data: page.messages.iter().map(view).collect(), total: page.total, limit, offset }
    }
}

/// A sender and how many messages are stored from it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SenderCount)]
pub struct SenderCountView<'a> {
    /// The sender.
    #[schema(example = "+919876543210")]
    pub from: &'a str,
    /// Messages from it.
    pub count: u64,
}

/// The inbox in a few numbers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Stats)]
pub struct StatsView<'a> {
    /// Messages stored.
    pub total_messages: u64,
    /// Distinct senders.
    pub senders_count: u64,
    /// At most ten, most messages first, ties by sender.
    #[schema(max_items = 10)]
    pub messages_per_sender: Vec<SenderCountView<'a>>,
    /// The earliest `ts`, or null in an empty inbox.
    #[schema(required)]
    pub first_message_ts: Option<&'a str>,
    /// The latest `ts`, or null.
    #[schema(required)]
    pub last_message_ts: Option<&'a str>,
}

impl<'a> StatsView<'a> {
    /// The statistics as clients see them.
    pub fn new(stats: &'a Stats) -> Self {
        let senders = stats.top_senders.iter();
        Self {
            total_messages: stats.total_messages,
            senders_count: stats.senders_count,
            messages_per_sender: senders
                .map(|sender| SenderCountView { from: &sender.from, count: sender.count })
                .collect(),
            first_message_ts: stats.first_ts.as_deref(),
            last_message_ts: stats.last_ts.as_deref(),
        }
    }
}

/// Everything that is wrong with a body or a query, in the shape of FastAPI (pydantic 2).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Invalid)]
pub struct InvalidView {
    /// One entry per refused value.
    pub detail: Vec<InvalidFieldView>,
}

/// One refused value.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InvalidField)]
pub struct InvalidFieldView {
    /// The kind of error.
    #[serde(rename = "type")]
    #[schema(example = "missing")]
    pub kind: &'static str,
    /// Where the value stood.
    #[schema(example = json!(["body", "message_id"]))]
    pub loc: Vec<&'static str>,
    /// The error in words.
    #[schema(example = "Field required")]
    pub msg: String,
    /// The value as it came.
    pub input: Value,
    /// The numbers in the words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctx: Option<Value>,
}

impl InvalidView {
    /// The errors as clients see them.
    pub fn new(errors: &[FieldError]) -> Self {
        Self { detail: errors.iter().map(InvalidFieldView::new).collect() }
    }
}

impl InvalidFieldView {
    fn new(error: &FieldError) -> Self {
        let loc = match error.place {
            Place::Body => vec!["body"],
            Place::BodyField(name) => vec!["body", name],
            Place::QueryParameter(name) => vec!["query", name],
        };
        let (kind, msg, ctx) = words(&error.invalid);
        Self { kind, loc, msg, input: error.input.clone(), ctx }
    }
}

/// pydantic's type, message and context of an error.
fn words(invalid: &Invalid) -> (&'static str, String, Option<Value>) {
    match invalid {
        Invalid::Missing => ("missing", "Field required".to_owned(), None),
        Invalid::NotAString => ("string_type", "Input should be a valid string".to_owned(), None),
        Invalid::TooShort { least } => {
            let plural = if *least == 1 { "" } else { "s" };
            let msg = format!("String should have at least {least} character{plural}");
            ("string_too_short", msg, Some(json!({ "min_length": least })))
        }
        Invalid::TooLong { most, unit } => {
            let msg = format!("String should have at most {most} {unit}");
            ("string_too_long", msg, Some(json!({ "max_length": most })))
        }
        Invalid::Rule(rule) => ("value_error", format!("Value error, {rule}"), Some(json!({ "error": {} }))),
        Invalid::NotJson(why) => ("json_invalid", format!("Invalid JSON: {why}"), Some(json!({ "error": why }))),
        Invalid::NotAnObject => {
            let msg = "Input should be a valid dictionary or object to extract fields from";
            ("model_attributes_type", msg.to_owned(), None)
        }
        Invalid::NotAnInteger => {
            let msg = "Input should be a valid integer, unable to parse string as an integer";
            ("int_parsing", msg.to_owned(), None)
        }
        Invalid::Below(least) => {
            let msg = format!("Input should be greater than or equal to {least}");
            ("greater_than_equal", msg, Some(json!({ "ge": least })))
        }
        Invalid::Above(most) => {
            let msg = format!("Input should be less than or equal to {most}");
            ("less_than_equal", msg, Some(json!({ "le": most })))
        }
    }
}
