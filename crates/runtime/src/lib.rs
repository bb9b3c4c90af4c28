//! What every part needs of the process that it runs in: log lines, and what the kernel knows and takes back.

pub mod escape;
pub mod log;
pub mod process;
pub mod secret_file;
pub mod signals;
pub mod terminal;
