//! What a provider sends that is neither a message nor a status: kept raw, counted, acknowledged and listed.

use super::{Moment, NewMessage};

/// Something else that a signed request said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Unique: a copy of the same event is a duplicate.
    pub key: String,
    /// The door that it came through.
    pub source: String,
    /// The provider's protocol.
    pub provider: &'static str,
    /// The provider's word for what it is, or why it could not be read (`unreadable`).
    pub kind: String,
    /// The part of the body that says it, as JSON; none where the whole body is meant.
    pub body: Option<String>,
    /// The message that it is about, where it is one that does not belong into the inbox: sent by ourselves, an edit, a deletion.
    pub message: Option<Box<NewMessage>>,
    /// When the request that brought it was accepted.
    pub accepted_at: Moment,
}

impl Event {
    /// The message that it is about, as it is stored: a JSON object.
    pub fn message_text(&self) -> Option<String> {
        Some(serde_json::Value::Object(self.message.as_ref()?.to_fields()).to_string())
    }
}

/// The kind of an event that stands for a body, or a part of one, that could not be read. `postroom reparse` tries again.
pub const UNREADABLE: &str = "unreadable";

/// A stored event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its number, in the order of arrival.
    pub number: i64,
    /// The door.
    pub source: String,
    /// The protocol.
    pub provider: String,
    /// What it is.
    pub kind: String,
    /// The part of the body that says it.
    pub body: Option<String>,
    /// The message that it is about, as a JSON object.
    pub message: Option<String>,
    /// When it came.
    pub received_at: String,
    /// The stored payload that brought it.
    pub payload: Option<i64>,
}

impl StoredEvent {
    /// How many bytes of other people's words are in it.
    pub fn bytes(&self) -> usize {
        [&self.body, &self.message].into_iter().flatten().map(String::len).sum()
    }
}

/// A page ends before the bodies of its events are longer than this together, but not before the first: account events of some
/// providers are megabytes.
pub const EVENT_PAGE_BYTES_MAX: usize = 4 << 20;

/// A page of events: the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRequest {
    /// Only of this door.
    pub source: Option<String>,
    /// Only of this kind.
    pub kind: Option<String>,
    /// How many at most.
    pub limit: u32,
    /// Only those with a lesser number.
    pub before: Option<i64>,
}
