//! The domain of Postroom: messages, their parts, and queries on an inbox. Plain values without I/O or
//! `async`; outside data becomes one of these types once, at the edge, through one constructor.

pub mod address;
pub mod conflict;
pub mod details;
pub mod event;
pub mod fold;
pub mod intake;
pub mod invalid;
pub mod lock;
pub mod message;
pub mod outcome;
pub mod payload;
pub mod query;
pub mod secret;
pub mod stats;
pub mod status;
pub mod timestamp;

pub use address::Address;
pub use conflict::ConflictKey;
pub use details::{Details, Kind, Media, ORIGINAL_SOURCE, PLAIN_KIND};
pub use event::Event;
pub use fold::Needle;
pub use intake::Intake;
pub use invalid::{FieldError, Invalid};
pub use message::{Message, MessageId, NewMessage};
pub use outcome::Outcome;
pub use payload::Payload;
pub use query::{Filter, Order, Page, PageRequest, Position, Room, Start, Stored};
pub use secret::Secret;
pub use stats::{SenderCount, Stats};
pub use status::{State, StatusUpdate};
pub use timestamp::{Moment, Timestamp};
