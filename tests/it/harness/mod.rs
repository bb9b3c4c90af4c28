//! How the tests start the program, speak to it and look at what it left: refactors of the program leave the tests alone.

pub mod client;
pub mod random;
pub mod load;
pub mod database;
pub mod message;
pub mod server;
pub mod snapshot;

pub use client::{Client, Reply};
pub use message::{body, message, sign};
pub use server::{Server, Setup, wait_until};
pub use snapshot::assert_snapshot;

/// The secret of every server that a test starts.
pub const SECRET: &str = "testsecret";
