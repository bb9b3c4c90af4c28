//! Errors in settings.

use thiserror::Error;

use super::given::Given;

/// An error in one setting, in one line that names it.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// An invalid value.
    #[error("{origin} {problem}")]
    Setting {
        /// The flag, variable or key of the file.
        origin: String,
        /// The problem, and a valid form.
        problem: String,
    },
    /// An unknown name.
    #[error("{place} is not a setting of postroom{}", .suggestion.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default())]
    Unknown {
        /// The name, and its origin.
        place: String,
        /// The setting that was probably meant.
        suggestion: Option<String>,
    },
    /// No source has a secret.
    #[error("WEBHOOK_SECRET is not set: no message could be verified without it")]
    NoSecret,
}

pub(super) fn complaint(given: Given, problem: impl FnOnce(&str) -> String) -> ConfigError {
    ConfigError::Setting { problem: problem(&given.value), origin: given.origin }
}

pub(super) fn complaint_about(place: &str, problem: &str) -> ConfigError {
    ConfigError::Setting { origin: place.to_owned(), problem: problem.to_owned() }
}
