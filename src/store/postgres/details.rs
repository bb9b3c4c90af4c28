//! What providers tell beyond the six columns is not kept here: every answer is that of messages without details, and a request
//! that brings more is refused whole. The configuration opens no door that could bring one.

use super::PostgresStore;
use super::reader::Question;
use crate::domain::State;
use crate::domain::event::{EventRequest, StoredEvent};
use crate::domain::message::FullMessage;
use crate::domain::payload::StoredPayload;
use crate::domain::status::MessageStatus;
use crate::providers::Parsed;
use crate::store::{Lookup, StoreError};

/// Refuses what would be lost.
pub(super) fn check_absent(parsed: &Parsed) -> Result<(), StoreError> {
    let has_details = parsed.messages.iter().any(|message| message.details.is_some());
    if has_details || !parsed.statuses.is_empty() || !parsed.events.is_empty() || parsed.payload.is_some() {
        return Err(StoreError::Unavailable("PostgreSQL keeps messages of the original door only".to_owned()));
    }
    Ok(())
}

impl PostgresStore {
    /// See `Store::message`.
    pub async fn message(&self, id: String) -> Result<Lookup<FullMessage>, StoreError> {
        let found = self.ask(|reply| Question::Message(id, reply)).await?;
        Ok(found.map_or(Lookup::Absent, Lookup::Found))
    }

    /// See `Store::statuses`.
    pub fn statuses(&self, _id: String) -> Result<Lookup<MessageStatus>, StoreError> {
        Ok(Lookup::Absent)
    }

    /// See `Store::status_counts`.
    pub fn status_counts(&self) -> Result<Vec<(State, u64)>, StoreError> {
        Ok(State::ALL.iter().map(|state| (*state, 0)).collect())
    }

    /// See `Store::events`.
    pub fn events(&self, _request: EventRequest) -> Result<Vec<StoredEvent>, StoreError> {
        Ok(Vec::new())
    }

    /// See `Store::payload`.
    pub fn payload(&self, _number: i64) -> Result<Option<StoredPayload>, StoreError> {
        Ok(None)
    }

    /// See `Store::unreadable_payloads`.
    pub fn unreadable_payloads(&self, _after: i64, _all: bool, _limit: u32) -> Result<Vec<StoredPayload>, StoreError> {
        Ok(Vec::new())
    }
}
