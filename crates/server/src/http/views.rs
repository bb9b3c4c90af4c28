//! The JSON of the API: separate structs, so that the domain can change without changing the API.

mod details;
mod invalid;

use std::cell::RefCell;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::answer::{Answer, AnswerBody, Chunks};
pub use details::{
    AmbiguousView, EventView, EventsView, FullMessageView, StatusCountView, StatusCountsView, StatusView,
};
use domain::{Message, Stats};
pub use invalid::InvalidView;

/// The media type of every JSON response.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A value as JSON bytes, without white space.
pub fn json(view: &impl Serialize) -> Bytes {
    serde_json::to_vec(view).expect("views contain only values that JSON can represent").into()
}

/// A value as a 200 response.
pub fn ok(view: &impl Serialize) -> Answer {
    with_type(json(view), JSON)
}

/// A page as a 200 response. Each message is dropped as soon as it is written, so that no page is in memory twice.
pub fn ok_page(page: PageView) -> Answer {
    let mut chunks = Chunks::default();
    serde_json::to_writer(&mut chunks, &page).expect("views contain only values that JSON can represent");
    let mut answer = Answer::new(chunks.into_body());
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

/// Bytes of some media type as a 200 response.
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
    /// The error.
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

/// The health of the service.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Health)]
pub struct HealthView {
    /// `ok`, `ready` or `not ready`.
    pub status: &'static str,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// A message before storage, for the OpenAPI document.
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
    /// The text; null or absent for a message without text.
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
    /// The text, or null.
    #[schema(required, example = "Hello")]
    pub text: Option<&'a str>,
}

/// A page of messages.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Page)]
pub struct PageView {
    /// The messages, by `ts`, then `message_id`.
    #[schema(max_items = 100, value_type = Vec<MessageView>)]
    pub data: Messages,
    /// All messages that match the filters.
    pub total: u64,
    /// The requested limit.
    pub limit: u32,
    /// The requested offset.
    pub offset: u64,
}

impl PageView {
    /// The page in the form of the API, with the requested limit and offset.
    pub fn new(messages: Vec<Message>, total: u64, limit: u32, offset: u64) -> Self {
        Self { data: Messages(RefCell::new(messages.into_iter())), total, limit, offset }
    }
}

/// Messages that can be written once: writing one drops it.
#[derive(Debug)]
pub struct Messages(RefCell<std::vec::IntoIter<Message>>);

impl Serialize for Messages {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(std::iter::from_fn(|| self.0.borrow_mut().next()).map(OwnedMessage))
    }
}

struct OwnedMessage(Message);

impl Serialize for OwnedMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Message { id, from, to, ts, text } = &self.0;
        MessageView { message_id: id, from, to, ts, text: text.as_deref() }.serialize(serializer)
    }
}

/// A sender and the number of its stored messages.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SenderCount)]
pub struct SenderCountView<'a> {
    /// The sender.
    #[schema(example = "+919876543210")]
    pub from: &'a str,
    /// Messages from it.
    pub count: u64,
}

/// The statistics of the inbox.
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
    /// The statistics in the form of the API.
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
