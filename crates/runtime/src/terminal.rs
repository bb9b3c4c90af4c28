//! Output of commands for a person at a terminal.

use std::fmt;
use std::io::Write;

use crate::escape::for_terminal;

/// Writes a line to stderr, next to the output of a command.
/// Values from outside are escaped.
/// If stderr cannot be written, the command continues.
pub fn tell(text: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{}", for_terminal(&text.to_string()));
}
