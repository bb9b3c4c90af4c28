//! The result of storing a message, a status or an event.

use super::details::names;

names! {
    /// The result of storing one element of a request.
    Outcome {
        /// It was stored.
        Created = "created",
        /// It was stored before, with the same content.
        Duplicate = "duplicate",
        /// It was stored before, with other content; the first copy was kept.
        Conflict = "conflict",
    }
}

impl Outcome {
    /// How many of these elements are new.
    pub fn count_created(outcomes: &[Self]) -> usize {
        outcomes.iter().filter(|outcome| **outcome == Self::Created).count()
    }
}
