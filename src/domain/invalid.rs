//! What is wrong with a value that came from outside, in terms a client can act on. How it is worded for HTTP is decided in
//! `http::views`.

use serde_json::Value;

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalid {
    /// The field is required and absent.
    Missing,
    /// The value is not a JSON string.
    NotAString,
    /// Fewer characters than the least allowed.
    TooShort {
        /// Least number of characters.
        least: usize,
    },
    /// Longer than the most allowed, in `unit`.
    TooLong {
        /// Most units allowed.
        most: usize,
        /// `"characters"` (code points) or `"bytes"` (of UTF-8).
        unit: &'static str,
    },
    /// A string that breaks the field's own rule; the text says which.
    Rule(&'static str),
    /// The body is not JSON; the text says where it stops being so.
    NotJson(String),
    /// The body is JSON, but not an object.
    NotAnObject,
    /// A query parameter is not a whole number.
    NotAnInteger,
    /// A number is below the least allowed.
    Below(i64),
    /// A number is above the most allowed.
    Above(i64),
}

/// Where a refused value stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The body as a whole.
    Body,
    /// A field of the body.
    BodyField(&'static str),
    /// A parameter of the query string.
    QueryParameter(&'static str),
}

/// One refused value: where it stood, why it was refused, and what it was.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// Where the value stood.
    pub place: Place,
    /// Why it was refused.
    pub invalid: Invalid,
    /// The value as it came; for an absent field, the object that lacks it.
    pub input: Value,
}
