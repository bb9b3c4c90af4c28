//! The result of `/stats`.

/// Maximum number of senders in the result.
pub const TOP_SENDERS_MAX: usize = 10;

/// The statistics of the inbox, all from one snapshot.
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

/// A sender and the number of its stored messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderCount {
    /// The sender's address.
    pub from: String,
    /// Messages stored from it.
    pub count: u64,
}
