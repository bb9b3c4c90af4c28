//! The result of parsing a body.

use domain::{FieldError, Intake, MessageId};

/// The result of parsing a body: the content for the inbox, and the response that the provider expects.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed {
    /// The content to store.
    pub intake: Intake,
    /// The response that the provider expects instead of the usual one.
    pub challenge: Option<Challenge>,
    /// Whether the body has more parts than can be stored one by one.
    pub is_cut: bool,
}

impl From<Intake> for Parsed {
    fn from(intake: Intake) -> Self {
        Self { intake, ..Self::default() }
    }
}

/// A verified body that the source refuses, with all its errors. Only the original source refuses content.
#[derive(Debug, Clone, PartialEq)]
pub struct InvalidBody {
    /// All refused fields, in field order; never empty.
    pub errors: Vec<FieldError>,
    /// The message's id, if it could be read (for the log).
    pub message_id: Option<MessageId>,
}

/// A text that the provider expects back, exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge(pub String);
