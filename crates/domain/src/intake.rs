//! The content of one request.

use super::{Event, NewMessage, Payload, StatusUpdate};

/// The whole content of one request. The store writes it in one transaction, or not at all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Intake {
    /// The messages, in the order of the body.
    pub messages: Vec<NewMessage>,
    /// The delivery states of sent messages.
    pub statuses: Vec<StatusUpdate>,
    /// All other records.
    pub events: Vec<Event>,
    /// The raw body, if it must be kept.
    pub payload: Option<Payload>,
}

impl Intake {
    /// The number of elements: messages, statuses and events.
    pub fn len(&self) -> usize {
        self.messages.len() + self.statuses.len() + self.events.len()
    }

    /// Whether there is nothing to store. A raw body alone does not count.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
