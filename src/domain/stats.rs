//! What `/stats` answers.

/// How many senders the answer names at most.
pub const TOP_SENDERS_MAX: usize = 10;

/// The inbox in a few numbers, all of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// Messages stored.
    pub total_messages: u64,
    /// Distinct senders.
    pub senders_count: u64,
    /// At most ten senders, most messages first, ties by address ascending.
    pub top_senders: Vec<SenderCount>,
    /// The least `ts`; none in an empty inbox.
    pub first_ts: Option<String>,
    /// The greatest `ts`.
    pub last_ts: Option<String>,
}

/// A sender and how many messages are stored from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderCount {
    /// The sender's address.
    pub from: String,
    /// Messages stored from it.
    pub count: u64,
}
