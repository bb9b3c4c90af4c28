//! The proof that messages are stored.

use crate::telemetry::metrics::Outcome;

/// Proof that a commit which survives power loss has happened, with the outcome of each message, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Receipt {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) statuses: Vec<Outcome>,
    pub(super) events: Vec<Outcome>,
}

impl Receipt {
    /// What became of each message.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// What became of each status: created, or a duplicate.
    pub fn statuses(&self) -> &[Outcome] {
        &self.statuses
    }

    /// What became of each event: created, or a duplicate.
    pub fn events(&self) -> &[Outcome] {
        &self.events
    }

    /// Whether anything was written for it.
    pub(super) fn has_created(&self) -> bool {
        [&self.outcomes, &self.statuses, &self.events].iter().any(|outcomes| outcomes.contains(&Outcome::Created))
    }
}
