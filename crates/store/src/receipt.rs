//! The proof that messages are stored.

use domain::Outcome;

/// Proof of a commit that survives power loss, with the outcome of each message, in order.
///
/// ```
/// fn created(receipt: &store::Receipt) -> usize {
///     domain::Outcome::count_created(receipt.outcomes())
/// }
/// ```
///
/// Only the store can build one:
///
/// ```compile_fail,E0451
/// fn forge() -> store::Receipt {
///     store::Receipt { outcomes: Vec::new(), statuses: Vec::new(), events: Vec::new() }
/// }
/// ```
///
/// ```compile_fail,E0599
/// fn forge() -> store::Receipt {
///     store::Receipt::default()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) statuses: Vec<Outcome>,
    pub(super) events: Vec<Outcome>,
}

impl Receipt {
    /// The outcome of each message.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// The outcome of each status: created, or a duplicate.
    pub fn statuses(&self) -> &[Outcome] {
        &self.statuses
    }

    /// The outcome of each event: created, or a duplicate.
    pub fn events(&self) -> &[Outcome] {
        &self.events
    }

    /// Whether anything was written for it.
    pub(super) fn has_created(&self) -> bool {
        [&self.outcomes, &self.statuses, &self.events].iter().any(|outcomes| outcomes.contains(&Outcome::Created))
    }
}
