//! The content that is sent and searched: an inbox of any size, the same in every run.

pub mod dataset;
pub mod inbox;
mod random;
pub mod texts;

pub use dataset::Dataset;
pub use inbox::{Inbox, Message, busiest_sender, moment};
pub use random::Random;
