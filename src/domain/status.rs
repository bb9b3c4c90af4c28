//! What became of a message that was sent: records of their own, and the state that they add up to.

use serde_json::{Map, Value};

use super::details::names;
use super::{Address, MessageId, Timestamp};

names! {
    /// How far a sent message has come, least first. A state is never followed by a lesser one, whatever arrives late.
    State {
        /// The provider has taken it.
        Queued = "queued",
        /// It left the provider.
        Sent = "sent",
        /// It reached the device.
        Delivered = "delivered",
        /// It was opened.
        Read = "read",
        /// Its sound or film was played.
        Played = "played",
        /// It was not delivered, and will not be.
        Failed = "failed",
    }
}

/// A provider's word that a message has come so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusUpdate {
    /// The key of the message, made as that of a stored message is. Most such messages went out and are not in the inbox.
    pub message: MessageId,
    /// The provider's id of the message.
    pub provider_id: String,
    /// The door that the word came through.
    pub source: String,
    /// To whom the message went, in the same form as `from` and `to`: a group's message has a state for each. None where the
    /// provider does not say.
    pub recipient: Option<Address>,
    /// How far it came.
    pub state: State,
    /// When, by the provider; or when the word came.
    pub at: Timestamp,
    /// Why it failed, as the provider puts it.
    pub error: Option<String>,
    /// What else the provider said beside the state: price, conversation, callback data, details of the error.
    pub extra: Map<String, Value>,
}

impl StatusUpdate {
    /// The recipient as it is stored: empty where the provider does not say.
    pub fn recipient(&self) -> &str {
        self.recipient.as_ref().map_or("", Address::as_str)
    }

    /// What else the provider said, as it is stored: a JSON object, or nothing.
    pub fn extra_text(&self) -> Option<String> {
        (!self.extra.is_empty()).then(|| Value::Object(self.extra.clone()).to_string())
    }
}

/// A stored status record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusRecord {
    /// To whom; empty where the provider did not say.
    pub recipient: String,
    /// How far.
    pub state: State,
    /// When.
    pub at: String,
    /// Why it failed.
    pub error: Option<String>,
    /// What else the provider said beside the state.
    pub extra: Map<String, Value>,
    /// The stored payload that brought it.
    pub payload: Option<i64>,
}

/// Everything that is known of how far a message came.
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
    /// Of the records of a message, in any order; none where there are none.
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
