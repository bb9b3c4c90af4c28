//! A value of a setting, and its origin.

/// A value and its origin, so that an error can name the right place.
pub(super) struct Given {
    pub value: String,
    pub origin: String,
}
