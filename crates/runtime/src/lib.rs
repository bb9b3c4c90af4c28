//! Process services that every part needs: log lines, the kernel's process data, and returning memory.

pub mod escape;
pub mod log;
pub mod process;
pub mod secret_file;
pub mod signals;
pub mod terminal;
