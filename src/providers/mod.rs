//! Who may post, and what a post says: one row of `SCHEMES` per provider protocol, as plain functions over plain values.
//!
//! Verification comes first and works on the raw bytes. Only this module can build a `VerifiedBody`, and only a
//! `VerifiedBody` can be parsed, so bytes that nobody vouched for are never looked into.

pub mod original;
pub mod signature;

use bytes::Bytes;
use hyper::HeaderMap;

use crate::domain::{FieldError, MessageId, Moment, NewMessage};
pub use signature::{BadSignature, SigningKey};

/// A provider protocol: how a request proves where it comes from, and how its body is read.
#[derive(Debug)]
pub struct Scheme {
    /// Its name in configuration, metrics and logs.
    pub kind: &'static str,
    /// How a stored request is answered.
    pub answer: AnswerStyle,
    /// Proves the body by the headers, or says why not.
    verify: Verify,
    /// Reads the messages out of a body.
    parse: Parse,
}

type Verify = fn(&HeaderMap, &[u8], &[SigningKey]) -> Result<(), BadSignature>;
type Parse = fn(&VerifiedBody, Moment) -> Result<Parsed, InvalidBody>;

/// Every protocol that Postroom speaks.
pub const SCHEMES: &[Scheme] = &[original::SCHEME];

/// What a provider wants to hear when its messages are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerStyle {
    /// `{"status":"ok"}`
    Json,
}

/// A configured door: a protocol and the keys that open it.
#[derive(Debug)]
pub struct Source {
    /// The door's name in metrics and logs.
    pub name: String,
    /// The protocol spoken there.
    pub scheme: &'static Scheme,
    /// Any of these may have signed; at least one.
    pub keys: Vec<SigningKey>,
}

impl Source {
    /// Checks the signature over the raw body.
    pub fn verify(&self, headers: &HeaderMap, body: Bytes) -> Result<VerifiedBody, BadSignature> {
        (self.scheme.verify)(headers, &body, &self.keys)?;
        Ok(VerifiedBody(body))
    }

    /// Reads the messages out of a verified body. `now` is when the request was accepted.
    pub fn parse(&self, body: &VerifiedBody, now: Moment) -> Result<Parsed, InvalidBody> {
        (self.scheme.parse)(body, now)
    }
}

/// Raw bytes that a holder of the source's secret signed.
#[derive(Debug, Clone)]
pub struct VerifiedBody(Bytes);

impl VerifiedBody {
    /// The bytes as they came.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a body said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    /// The messages in it, in the order of the body.
    pub messages: Vec<NewMessage>,
}

/// A verified body that the door refuses, with everything that is wrong with it. Only the original door refuses content.
#[derive(Debug, Clone, PartialEq)]
pub struct InvalidBody {
    /// All refused fields, in field order; never empty.
    pub errors: Vec<FieldError>,
    /// The message's id, if that much could be read (for the log).
    pub message_id: Option<MessageId>,
}
