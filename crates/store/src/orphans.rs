//! The numbers of orphans of messages that were deleted from the table. Each engine has its own queries.

/// Rows of ours whose message no longer exists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Details.
    pub details: u64,
    /// Events that hold a copy of a deleted message with other content.
    pub copies: u64,
    /// Raw bodies without any message, status or event.
    pub payloads: u64,
}

impl Orphans {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Display for Orphans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { details, copies, payloads } = self;
        write!(f, "{details} details, {copies} conflicting copies and {payloads} raw bodies of deleted messages")
    }
}
