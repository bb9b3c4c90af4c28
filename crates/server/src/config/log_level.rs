//! `LOG_LEVEL`.

use super::given::Given;
use super::{ConfigError, complaint};
use runtime::log::LogLevel;

/// Parses a level, in our words or in those of other loggers.
pub(super) fn load(given: Given) -> Result<LogLevel, ConfigError> {
    let levels = [LogLevel::Debug, LogLevel::Info, LogLevel::Warning, LogLevel::Error, LogLevel::Critical];
    // Python's logging and other programs use other words for two of the levels.
    let name = match given.value.trim().to_ascii_uppercase() {
        name if name == "WARN" => "WARNING".to_owned(),
        name if name == "FATAL" => "CRITICAL".to_owned(),
        name => name,
    };
    let found = levels.into_iter().find(|level| level.name() == name);
    found.ok_or_else(|| {
        complaint(given, |value| format!("must be DEBUG, INFO, WARNING, ERROR or CRITICAL, not '{value}'"))
    })
}
