//! Verification and parsing of posts: one row of `SCHEMES` per provider protocol, as plain functions over plain values.
//!
//! Verification comes first and uses the raw bytes. Only this module can build a `VerifiedBody`, and only a
//! `VerifiedBody` can be parsed, so unverified bytes are never parsed.

pub mod algorithm;
pub mod element;
pub mod encoding;
pub mod fields;
pub mod header;
mod hex_header;
pub mod json;
pub mod jwt;
pub mod key;
pub mod mapping;
mod parsed;
mod request;
pub mod rule;
mod scheme;
pub mod signature;
mod source;
mod verified;

mod bird;
mod evolution;
pub mod fuzz;
pub mod generic;
mod jid;
mod line;
mod messagebird;
#[cfg(test)]
mod newer_shapes;
pub mod original;
mod plivo;
mod presets;
mod redact;
mod schemes;
pub mod sealed;
mod slack;
mod standard;
mod telegram;
mod telnyx;
mod twilio;
mod vonage;
mod waha;
mod whatsapp;

pub use key::{Key, Role, SecretForm};
pub use parsed::{Challenge, InvalidBody, Parsed};
pub use request::Request;
pub use rule::Rule;
use rule::text;
use scheme::Parse;
pub use scheme::{AnswerStyle, Options, Scheme, Source};
pub use schemes::SCHEMES;
pub use signature::{BadHandshake, BadSignature, SigningKey};
pub use verified::VerifiedBody;
