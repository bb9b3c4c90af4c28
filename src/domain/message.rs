//! A message, before it is stored (`NewMessage`, valid by construction) and after (`Message`, served as it lies in the file).

use serde_json::{Map, Value};

use super::{Address, Details, Invalid, Moment, Timestamp};

/// Most bytes of UTF-8 in a message id.
pub const MESSAGE_ID_BYTES_MAX: usize = 1024;

/// Most characters (code points) of text at the original door.
pub const TEXT_CHARACTERS_MAX: usize = 4096;

/// The provider's name for a message: 1 character to 1024 bytes of UTF-8 without NUL, compared bytewise, unique in the inbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(String);

impl MessageId {
    /// Checks the length, and that no NUL is inside (PostgreSQL cannot hold one).
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

/// A message on its way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Unique key.
    pub id: MessageId,
    /// Who sent it.
    pub from: Address,
    /// To whom it went.
    pub to: Address,
    /// When the sender says it was sent.
    pub ts: Timestamp,
    /// What it says; absent for messages without text. An empty text is not an absent one.
    pub text: Option<String>,
    /// When the request that brought it was accepted.
    pub accepted_at: Moment,
    /// What the provider tells beyond that; none at the original door.
    pub details: Option<Box<Details>>,
    /// The key that an earlier version would have made, where that is another one. A row with that key and the same content is
    /// this message, and nothing is stored.
    pub former_id: Option<Box<MessageId>>,
}

impl NewMessage {
    /// The time that counts when two copies are compared: none if the sender gave none, and `ts` is when this copy came.
    pub fn compared_ts(&self) -> Option<Timestamp> {
        let given = self.details.as_ref().is_none_or(|details| details.provider_ts.is_some());
        given.then_some(self.ts)
    }

    /// Whether a row with this sender and recipient may be a copy of it. Other sources than the original wrote some addresses in
    /// another form once.
    pub fn is_between(&self, from: &str, to: &str) -> bool {
        match self.details {
            None => self.from.as_str() == from && self.to.as_str() == to,
            Some(_) => self.from.was_stored_as(from) && self.to.was_stored_as(to),
        }
    }

    /// Its parts as a JSON object, in the form that clients see a message in.
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

/// Checks the length of a text at the original door.
pub fn check_text(text: &str) -> Result<(), Invalid> {
    // Bytes are never fewer than characters, so most texts need no counting.
    if text.len() > TEXT_CHARACTERS_MAX && text.chars().count() > TEXT_CHARACTERS_MAX {
        return Err(Invalid::TooLong { most: TEXT_CHARACTERS_MAX, unit: "characters" });
    }
    Ok(())
}

/// A stored message, as it lies in the table. Rows that other programs wrote may break the rules above; they are served unchanged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// Unique key.
    pub id: String,
    /// Who sent it.
    pub from: String,
    /// To whom it went.
    pub to: String,
    /// When the sender says it was sent.
    pub ts: String,
    /// What it says.
    pub text: Option<String>,
}

/// A stored message with everything that is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct FullMessage {
    /// The six columns, but for the last.
    pub message: Message,
    /// When it was accepted.
    pub created_at: String,
    /// What its provider told; none for messages of the original door and of other programs.
    pub details: Option<serde_json::Map<String, serde_json::Value>>,
    /// The stored payload that brought it.
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
