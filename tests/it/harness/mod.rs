//! Starts the program, sends requests to it and reads what it
//! stored. Refactorings of the program do not affect the tests.

pub mod client;
pub use testkit::cluster;
pub mod database;
pub mod front;
pub mod load;
pub mod message;
pub mod proxy;
pub mod random;
pub mod running;
pub mod server;
pub mod snapshot;
pub mod stored;
pub mod test_source;

pub use client::{Client, Reply};
pub use message::{body, message, sign};
pub use running::Running;
pub use server::{Server, Setup, on_a_file, wait_until};
pub use snapshot::assert_snapshot;
pub use stored::Stored;
pub use test_source::TestSource;

/// The secret of every server that a test starts.
pub const SECRET: &str = "testsecret";
