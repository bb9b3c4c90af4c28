//! Why an outside value is invalid, in terms that a client can act on. The wording for HTTP is decided in
//! `http::views`.

use serde_json::Value;

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalid {
    /// The field is required and absent.
    Missing,
    /// The value is not a JSON string.
    NotAString,
    /// Fewer characters than the minimum.
    TooShort {
        /// Minimum number of characters.
        least: usize,
    },
    /// Longer than the maximum, in `unit`.
    TooLong {
        /// Maximum number of units.
        most: usize,
        /// `"characters"` (code points) or `"bytes"` (of UTF-8).
        unit: &'static str,
    },
    /// A string that violates the field's own rule; the text names the rule.
    Rule(&'static str),
    /// The body is not JSON; the text gives the position of the error.
    NotJson(String),
    /// The body is JSON, but not an object.
    NotAnObject,
    /// A query parameter is not a whole number.
    NotAnInteger,
    /// A number is below the minimum.
    Below(i64),
    /// A number is above the maximum.
    Above(i64),
}

/// The location of a refused value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The body as a whole.
    Body,
    /// A field of the body.
    BodyField(&'static str),
    /// A parameter of the query string.
    QueryParameter(&'static str),
}

/// One refused value: its location, the reason, and the value.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// The location of the value.
    pub place: Place,
    /// Why it was refused.
    pub invalid: Invalid,
    /// The value as received; for an absent field, the object that lacks it.
    pub input: Value,
}
