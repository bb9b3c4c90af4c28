//! The delivery of a sent message: status records, and the resulting state.

use serde_json::{Map, Value};

use super::details::names;
use super::{Address, MessageId, Timestamp};

names! {
    /// The delivery state of a sent message, in ascending order. A lesser state never follows a greater one.
    State {
        /// The provider has accepted it.
        Queued = "queued",
        /// It left the provider.
        Sent = "sent",
        /// It reached the device.
        Delivered = "delivered",
        /// It was opened.
        Read = "read",
        /// Its audio or video was played.
        Played = "played",
        /// It was not delivered, and will not be.
        Failed = "failed",
    }
}

/// A provider's report of a delivery state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusUpdate {
    /// The key of the message, derived like that of a stored one. Most such messages are not in the inbox.
    pub message: MessageId,
    /// The provider's id of the message.
    pub provider_id: String,
    /// The source that received the report.
    pub source: String,
    /// The recipient, in the same form as `from` and `to`; a group's message has one state per recipient. None if
    /// the provider does not report it.
    pub recipient: Option<Address>,
    /// The state.
    pub state: State,
    /// The provider's time, or the time of receipt.
    pub at: Timestamp,
    /// The provider's reason of a failure.
    pub error: Option<String>,
    /// Further data from the provider: price, conversation, callback data, details of the error.
    pub extra: Map<String, Value>,
}

impl StatusUpdate {
    /// The recipient as stored: empty if the provider does not report it.
    pub fn recipient(&self) -> &str {
        self.recipient.as_ref().map_or("", Address::as_str)
    }

    /// The further data as stored: a JSON object, or nothing.
    pub fn extra_text(&self) -> Option<String> {
        (!self.extra.is_empty()).then(|| Value::Object(self.extra.clone()).to_string())
    }
}

/// A stored status record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusRecord {
    /// The recipient; empty if the provider did not report it.
    pub recipient: String,
    /// The state.
    pub state: State,
    /// When.
    pub at: String,
    /// The reason of a failure.
    pub error: Option<String>,
    /// Further data from the provider.
    pub extra: Map<String, Value>,
    /// The stored payload that contains it.
    pub payload: Option<i64>,
}

/// The delivery of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageStatus {
    /// The message's key.
    pub message: String,
    /// The greatest state of any recipient.
    pub state: State,
    /// All records, by time, then state.
    pub records: Vec<StatusRecord>,
}

impl MessageStatus {
    /// The delivery according to the records of a message, in any order; none if there are no records.
    pub fn of(message: &str, mut records: Vec<StatusRecord>) -> Option<Self> {
        records.sort_by(|a, b| (&a.at, a.state, &a.recipient).cmp(&(&b.at, b.state, &b.recipient)));
        let state = records.iter().map(|record| record.state).max()?;
        Some(Self { message: message.to_owned(), state, records })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_in_order_and_have_names() {
        assert!(State::ALL.is_sorted());
        assert!(State::Delivered < State::Read && State::Played < State::Failed);
        for state in State::ALL {
            assert_eq!(State::named(state.name()), Some(*state));
        }
        assert_eq!(State::named("Read"), None);
    }
}
