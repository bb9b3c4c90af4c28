//! What is left over of messages that somebody deleted from the table, in numbers. Each engine finds it in its own way.

/// Rows of ours that belong to no message any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Details.
    pub details: u64,
    /// Events that hold a copy of a deleted message with other content.
    pub copies: u64,
    /// Raw bodies of which no message, status or event is left.
    pub payloads: u64,
}

impl Leftovers {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Display for Leftovers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { details, copies, payloads } = self;
        write!(f, "{details} details, {copies} conflicting copies and {payloads} raw bodies of deleted messages")
    }
}
