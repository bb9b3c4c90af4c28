//! A message before it is stored (`NewMessage`, valid by construction) and after (`Message`, returned as stored).

use serde_json::{Map, Value};

use super::{Address, Details, Invalid, Moment, Timestamp};

/// Maximum bytes of UTF-8 in a message id.
pub const MESSAGE_ID_BYTES_MAX: usize = 1024;

/// Maximum characters (code points) of text at the original source.
pub const TEXT_CHARACTERS_MAX: usize = 4096;

/// The provider's id of a message: 1 character to 1024 bytes of UTF-8 without NUL, compared bytewise, unique.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(String);

impl MessageId {
    /// Checks the length, and that there is no NUL, which PostgreSQL cannot store.
    pub fn parse(raw: &str) -> Result<Self, Invalid> {
        if raw.is_empty() {
            return Err(Invalid::TooShort { least: 1 });
        }
        if raw.len() > MESSAGE_ID_BYTES_MAX {
            return Err(Invalid::TooLong { most: MESSAGE_ID_BYTES_MAX, unit: "bytes" });
        }
        if raw.contains('\0') {
            return Err(Invalid::Rule("must not contain the NUL character"));
        }
        Ok(Self(raw.to_owned()))
    }

    /// The id as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A message before storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Unique key.
    pub id: MessageId,
    /// The sender.
    pub from: Address,
    /// The recipient.
    pub to: Address,
    /// The sender's time.
    pub ts: Timestamp,
    /// The text; absent for messages without text. An empty text is not an absent one.
    pub text: Option<String>,
    /// When its request was accepted.
    pub accepted_at: Moment,
    /// The provider data; none at the original source.
    pub details: Option<Box<Details>>,
    /// The key that an earlier version would derive, if it differs. A row with that key and the same content is
    /// this message, and nothing is stored.
    pub former_id: Option<Box<MessageId>>,
}

impl NewMessage {
    /// The time for comparing two copies. None if the sender gave no time; `ts` is then this copy's receipt time.
    pub fn compared_ts(&self) -> Option<Timestamp> {
        let given = self.details.as_ref().is_none_or(|details| details.provider_ts.is_some());
        given.then_some(self.ts)
    }

    /// Whether a row with this sender and recipient may be a copy. Earlier versions wrote some addresses of sources
    /// other than the original one in another form.
    pub fn is_between(&self, from: &str, to: &str) -> bool {
        match self.details {
            None => self.from.as_str() == from && self.to.as_str() == to,
            Some(_) => self.from.was_stored_as(from) && self.to.was_stored_as(to),
        }
    }

    /// Its members as a JSON object, in the form of the API.
    pub fn to_fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        let parts = [
            ("message_id", Some(self.id.as_str())),
            ("from", Some(self.from.as_str())),
            ("to", Some(self.to.as_str())),
            ("ts", Some(self.ts.as_str())),
            ("text", self.text.as_deref()),
        ];
        fields.extend(parts.into_iter().map(|(name, value)| (name.to_owned(), value.into())));
        let details = self.details.as_ref().map_or(Value::Null, |details| Value::Object(details.to_fields()));
        fields.insert("details".to_owned(), details);
        fields
    }
}

/// Checks the length of a text at the original source.
pub fn check_text(text: &str) -> Result<(), Invalid> {
    // A text has at least as many bytes as characters, so most texts need no count.
    if text.len() > TEXT_CHARACTERS_MAX && text.chars().count() > TEXT_CHARACTERS_MAX {
        return Err(Invalid::TooLong { most: TEXT_CHARACTERS_MAX, unit: "characters" });
    }
    Ok(())
}

/// A stored message, as in the table. Rows of other programs may violate the rules above and stay unchanged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// Unique key.
    pub id: String,
    /// The sender.
    pub from: String,
    /// The recipient.
    pub to: String,
    /// The sender's time.
    pub ts: String,
    /// The text.
    pub text: Option<String>,
}

/// Bytes of a message as JSON in addition to its values: names, quotes and commas.
const JSON_FRAME_BYTES: usize = 64;

impl Message {
    /// The approximate size as JSON, in bytes: exact, except for the frame.
    pub fn json_bytes(&self) -> usize {
        let values = [Some(&self.id), Some(&self.from), Some(&self.to), Some(&self.ts), self.text.as_ref()];
        JSON_FRAME_BYTES + values.into_iter().flatten().map(|value| json_bytes(value)).sum::<usize>()
    }
}

/// Bytes of a text as JSON, without the quotes (RFC 8259, section 7).
fn json_bytes(text: &str) -> usize {
    let escape = |byte: u8| match byte {
        b'"' | b'\\' | 0x08 | 0x09 | 0x0a | 0x0c | 0x0d => 1,
        0..0x20 => 5,
        _ => 0,
    };
    text.len() + text.bytes().map(escape).sum::<usize>()
}

/// A stored message with all its provider data.
#[derive(Debug, Clone, PartialEq)]
pub struct FullMessage {
    /// The first five columns.
    pub message: Message,
    /// When it was accepted.
    pub created_at: String,
    /// The provider data; none for messages of the original source and of other programs.
    pub details: Option<serde_json::Map<String, serde_json::Value>>,
    /// The stored payload that contains it.
    pub payload: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_counted_in_bytes_and_hold_no_nul() {
        assert!(MessageId::parse("m").is_ok());
        assert!(MessageId::parse(&"é".repeat(512)).is_ok());
        assert!(matches!(MessageId::parse(&"é".repeat(513)), Err(Invalid::TooLong { most: 1024, unit: "bytes" })));
        assert!(matches!(MessageId::parse(""), Err(Invalid::TooShort { least: 1 })));
        assert!(matches!(MessageId::parse("a\0b"), Err(Invalid::Rule(_))));
    }

    #[test]
    fn texts_are_counted_in_characters() {
        assert!(check_text(&"好".repeat(4096)).is_ok());
        assert!(check_text(&"好".repeat(4097)).is_err());
        assert!(check_text("").is_ok());
    }
}
