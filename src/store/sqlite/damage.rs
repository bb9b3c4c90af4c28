//! Something stored that cannot be what was written, as an error.

use thiserror::Error;

/// Something stored that cannot be what was written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub(super) struct Damage(pub String);

impl Damage {
    /// Of a row of `messages`.
    pub fn of_row(row: i64) -> Self {
        Self(format!("row {row} of the table is not what was stored there"))
    }
}

/// On its way through what knows errors of SQLite only; `Reader::read` takes it out again.
impl From<Damage> for rusqlite::Error {
    fn from(damage: Damage) -> Self {
        Self::UserFunctionError(Box::new(damage))
    }
}

/// The damage that an error stands for, if it does.
pub(super) fn damage_of(error: &rusqlite::Error) -> Option<&Damage> {
    match error {
        rusqlite::Error::UserFunctionError(error) => error.downcast_ref(),
        _ => None,
    }
}
