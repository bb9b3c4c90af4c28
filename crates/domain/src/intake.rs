//! What one request brings into the inbox.

use super::{Event, NewMessage, Payload, StatusUpdate};

/// Everything that one request brings. The store writes it in one transaction, or not at all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Intake {
    /// The messages, in the order of the body.
    pub messages: Vec<NewMessage>,
    /// What became of messages that were sent.
    pub statuses: Vec<StatusUpdate>,
    /// Everything else.
    pub events: Vec<Event>,
    /// The raw body, if it must be kept.
    pub payload: Option<Payload>,
}

impl Intake {
    /// How many elements there are: messages, statuses and events.
    pub fn len(&self) -> usize {
        self.messages.len() + self.statuses.len() + self.events.len()
    }

    /// Whether there is nothing to store. A raw body alone is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
