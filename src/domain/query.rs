//! What `/messages` can be asked.

use std::sync::Arc;

use super::{Kind, Message, Needle, Timestamp};

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
    /// Exactly this recipient.
    pub to: Option<String>,
    /// Before this time, compared as text: with `since` of one request as `until` of another, nothing is listed twice.
    pub until: Option<Timestamp>,
    /// Of the door of this name. Messages without details are those of the original door.
    pub source: Option<String>,
    /// Of this sort. Messages without details are texts.
    pub kind: Option<Kind>,
}

impl Filter {
    /// Whether anything is asked that only a message's details tell.
    pub fn asks_details(&self) -> bool {
        self.source.is_some() || self.kind.is_some()
    }
}

/// The order of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// By `ts`, then `message_id`, both bytewise. `ts` is the sender's clock, so a message that comes late stands before others
    /// that were listed already.
    #[default]
    Time,
    /// By when the store took them: what is stored later stands later.
    Arrival,
}

/// A text of a stored row, as it is stored. Other programs may have stored bytes that are no text; those sort after all texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether they are stored as bytes rather than as text.
    pub is_blob: bool,
}

/// A place in a listing: right behind a message, whether that is still there or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// Behind this `ts` and `message_id` in the order of time.
    Time {
        /// The message's time.
        ts: Stored,
        /// The message's id.
        id: Stored,
    },
    /// Behind this arrival number, which only the store understands; 0 is before everything.
    Arrival(i64),
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// After skipping so many.
    Offset(u64),
    /// Right behind a place: costs the same wherever that is, and nothing is seen twice or left out when others are stored meanwhile.
    Behind(Position),
}

/// A page of a listing.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Which messages.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
    /// How many at most, 1 to 100.
    pub limit: u32,
    /// Where to begin.
    pub start: Start,
    /// Whether a lower bound of the total will do where the exact one takes long.
    pub bounded_total: bool,
    /// The memory that the page takes its part of while it is read.
    pub room: Room,
}

/// Most bytes that a page may have as JSON; a client is asked to ask for fewer messages then.
pub const PAGE_BYTES_MAX: usize = 64 << 20;

/// Memory that many pages share. By default it has no end.
#[derive(Clone, Default)]
pub struct Room(Option<Arc<TakeRoom>>);

/// Takes so many bytes more; false where there are not so many left.
type TakeRoom = dyn Fn(usize) -> bool + Send + Sync;

impl Room {
    /// Room that is taken by a function, which says whether there was enough left.
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

/// The answer to a `PageRequest`: page and total are of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The messages of the page.
    pub messages: Vec<Message>,
    /// How many bytes they have as JSON.
    pub bytes: usize,
    /// Whether they have more than a page may have, or than there was room for. The page is not whole then, and must not be shown.
    pub is_too_large: bool,
    /// All messages that the filter lets through, wherever the page begins.
    pub total: u64,
    /// Whether the total is only a lower bound; never, unless the request allowed it.
    pub total_is_bound: bool,
    /// Where the next page begins. In the order of time: none on the last page. In the order of arrival: none only when nothing
    /// was listed, since more may come.
    pub next: Option<Position>,
}

impl Page {
    /// Adds a message, behind which the next page would begin, and takes its part of the room.
    pub fn push(&mut self, message: Message, next: Position, room: &Room) {
        let bytes = message.json_bytes();
        self.bytes += bytes;
        self.is_too_large |= self.bytes > PAGE_BYTES_MAX || !room.take(bytes);
        if self.is_too_large {
            // It is not shown, so it holds no memory until its reading ends.
            self.messages = Vec::new();
        } else {
            self.messages.push(message);
        }
        self.next = Some(next);
    }

    /// Whether no more messages are to be added: as many are there as were asked for, or too much to be shown.
    pub fn is_full(&self, limit: u32) -> bool {
        self.messages.len() >= limit as usize || self.is_too_large
    }
}
