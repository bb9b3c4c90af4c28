//! The environment of the measurements: a folder, the servers in it, and the machine.

mod machine;
mod server;
pub mod usage;
mod workplace;

pub use machine::Machine;
pub use server::Server;
pub use workplace::{SECRET, Tidy, Workplace};
