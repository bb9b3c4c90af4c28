//! Where it is measured: a folder, the servers that run in it, and the machine below.

mod machine;
mod server;
pub mod usage;
mod workplace;

pub use machine::Machine;
pub use server::Server;
pub use workplace::{SECRET, Tidy, Workplace};
