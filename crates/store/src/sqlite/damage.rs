//! The error for stored data that differs from what was written.

use thiserror::Error;

/// Stored data that differs from what was written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub(super) struct Damage(pub String);

impl Damage {
    /// Of a row of `messages`.
    pub fn of_row(row: i64) -> Self {
        Self(format!("row {row} of the table differs from what was stored"))
    }
}

/// An SQLite error carries it; `Reader::read` extracts it.
impl From<Damage> for rusqlite::Error {
    fn from(damage: Damage) -> Self {
        Self::UserFunctionError(Box::new(damage))
    }
}

/// The damage in an error, if any.
pub(super) fn damage_of(error: &rusqlite::Error) -> Option<&Damage> {
    match error {
        rusqlite::Error::UserFunctionError(error) => error.downcast_ref(),
        _ => None,
    }
}
