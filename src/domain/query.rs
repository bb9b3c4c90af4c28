//! What `/messages` can be asked.

use super::{Message, Needle, Timestamp};

/// Most messages on a page.
pub const LIMIT_MAX: u32 = 100;
/// Messages on a page when the client does not say.
pub const LIMIT_DEFAULT: u32 = 50;
/// Most bytes of UTF-8 in a search.
pub const SEARCH_BYTES_MAX: usize = 1024;

/// Which messages; parts combine with AND, and an absent part excludes nothing.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Exactly this sender.
    pub from: Option<String>,
    /// At this time or later, compared as text.
    pub since: Option<Timestamp>,
    /// Text that contains this, whatever the case.
    pub search: Option<Needle>,
}

/// A page of a listing, in the order `ts`, then `message_id`, both bytewise.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Which messages.
    pub filter: Filter,
    /// How many at most, 1 to 100.
    pub limit: u32,
    /// How many to skip.
    pub offset: u64,
}

/// The answer to a `PageRequest`: page and total are of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The messages of the page.
    pub messages: Vec<Message>,
    /// All messages that the filter lets through, whatever limit and offset.
    pub total: u64,
}
