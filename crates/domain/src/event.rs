//! Records that are neither a message nor a status: kept raw, counted, acknowledged and listed.

use super::{Moment, NewMessage};

/// Another record in a signed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Unique: a copy of the same event is a duplicate.
    pub key: String,
    /// The source that received it.
    pub source: String,
    /// The provider's protocol.
    pub provider: &'static str,
    /// The provider's word for its kind, or `unreadable`.
    pub kind: String,
    /// Its part of the body, as JSON; none if it is the whole body.
    pub body: Option<String>,
    /// The message that it is about, if that does not belong in the inbox: an own message, an edit, a deletion.
    pub message: Option<Box<NewMessage>>,
    /// When its request was accepted.
    pub accepted_at: Moment,
}

impl Event {
    /// The message that it is about, in stored form: a JSON object.
    pub fn message_text(&self) -> Option<String> {
        Some(serde_json::Value::Object(self.message.as_ref()?.to_fields()).to_string())
    }
}

/// The kind of an event for a body, or a part of one, that could not be parsed. `postroom reparse` tries again.
pub const UNREADABLE: &str = "unreadable";

/// A stored event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its number, in the order of arrival.
    pub number: i64,
    /// The source.
    pub source: String,
    /// The protocol.
    pub provider: String,
    /// Its kind.
    pub kind: String,
    /// Its part of the body.
    pub body: Option<String>,
    /// The message that it is about, as a JSON object.
    pub message: Option<String>,
    /// When it was received.
    pub received_at: String,
    /// The stored payload that contains it.
    pub payload: Option<i64>,
}

impl StoredEvent {
    /// Total bytes of its external content.
    pub fn bytes(&self) -> usize {
        [&self.body, &self.message].into_iter().flatten().map(String::len).sum()
    }
}

/// A page ends before the bodies of its events exceed this size in total, but has at least one event. Account
/// events of some providers have megabytes.
pub const EVENT_PAGE_BYTES_MAX: usize = 4 << 20;

/// A page of events: the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRequest {
    /// Only from this source.
    pub source: Option<String>,
    /// Only of this kind.
    pub kind: Option<String>,
    /// Maximum number of events.
    pub limit: u32,
    /// Only events with a smaller number.
    pub before: Option<i64>,
}
