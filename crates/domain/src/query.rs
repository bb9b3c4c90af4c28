//! The queries of `/messages`.

use std::sync::Arc;

use super::{Kind, Message, Needle, Timestamp};

/// Maximum messages on a page.
pub const LIMIT_MAX: u32 = 100;
/// Messages on a page by default.
pub const LIMIT_DEFAULT: u32 = 50;
/// Maximum bytes of UTF-8 in a search.
pub const SEARCH_BYTES_MAX: usize = 1024;

/// Selects messages. The parts combine with AND; an absent part excludes nothing.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Exactly this sender.
    pub from: Option<String>,
    /// At this time or later, compared as text.
    pub since: Option<Timestamp>,
    /// Text that contains this, case-insensitive.
    pub search: Option<Needle>,
    /// Exactly this recipient.
    pub to: Option<String>,
    /// Before this time, compared as text. If one request's `until` is another's `since`, they share no message.
    pub until: Option<Timestamp>,
    /// Received by the source of this name. Messages without details belong to the original source.
    pub source: Option<String>,
    /// Of this kind. Messages without details are texts.
    pub kind: Option<Kind>,
}

impl Filter {
    /// Whether it filters by details of a message.
    pub fn asks_details(&self) -> bool {
        self.source.is_some() || self.kind.is_some()
    }
}

/// The order of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// By `ts`, then `message_id`, both bytewise. `ts` is the sender's clock, so a late message sorts before others
    /// that were listed already.
    #[default]
    Time,
    /// By the order of storage: later messages sort later.
    Arrival,
}

/// A text of a stored row, unchanged. Other programs may have stored bytes that are not text; they sort last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether they are stored as a blob instead of a text.
    pub is_blob: bool,
}

/// A position in a listing: directly after a message, whether that still exists or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// After this `ts` and `message_id` in the order of time.
    Time {
        /// The message's time.
        ts: Stored,
        /// The message's id.
        id: Stored,
    },
    /// After this arrival number, which only the store understands; 0 is before everything.
    Arrival(i64),
}

/// The start of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// After skipping this many.
    Offset(u64),
    /// Directly after a position. The cost is the same everywhere, and writes in between cause no repetition.
    Behind(Position),
}

/// A page of a listing.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Which messages.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
    /// Maximum number, 1 to 100.
    pub limit: u32,
    /// The start.
    pub start: Start,
    /// Whether a lower bound of the total is enough if the exact total takes long.
    pub bounded_total: bool,
    /// The memory budget from which the page takes its share while it is read.
    pub room: Room,
}

/// Maximum bytes of a page as JSON; beyond it the client should request fewer messages.
pub const PAGE_BYTES_MAX: usize = 64 << 20;

/// Memory that many pages share. Unlimited by default.
#[derive(Clone, Default)]
pub struct Room(Option<Arc<TakeRoom>>);

/// Takes this many more bytes; returns false if fewer are left.
type TakeRoom = dyn Fn(usize) -> bool + Send + Sync;

impl Room {
    /// A budget that a function manages: it returns whether enough was left.
    pub fn new(take: impl Fn(usize) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(take)))
    }

    fn take(&self, bytes: usize) -> bool {
        self.0.as_ref().is_none_or(|take| take(bytes))
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Room(limited)" } else { "Room(unlimited)" })
    }
}

/// The result of a `PageRequest`: page and total are from one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The messages of the page.
    pub messages: Vec<Message>,
    /// How many bytes they have as JSON.
    pub bytes: usize,
    /// Whether they exceed the maximum of a page, or the budget. The page is then incomplete: do not return it.
    pub is_too_large: bool,
    /// All messages that match the filter, wherever the page begins.
    pub total: u64,
    /// Whether the total is only a lower bound; never, unless the request allowed it.
    pub total_is_bound: bool,
    /// The start of the next page. In the order of time: none on the last page. In the order of arrival: none only if
    /// nothing was listed, because more may arrive.
    pub next: Option<Position>,
}

impl Page {
    /// Adds a message and takes its share of the budget. The next page would begin at `next`.
    pub fn push(&mut self, message: Message, next: Position, room: &Room) {
        let bytes = message.json_bytes();
        self.bytes += bytes;
        self.is_too_large |= self.bytes > PAGE_BYTES_MAX || !room.take(bytes);
        if self.is_too_large {
            // The page will not be returned, so its memory is freed at once.
            self.messages = Vec::new();
        } else {
            self.messages.push(message);
        }
        self.next = Some(next);
    }

    /// Whether no more messages may be added: the page has the requested number, or is too large.
    pub fn is_full(&self, limit: u32) -> bool {
        self.messages.len() >= limit as usize || self.is_too_large
    }
}
