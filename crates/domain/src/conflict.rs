//! A copy of a stored message with other content. The first copy is kept, and an event records the other one.

use serde_json::Value;

use super::{MessageId, NewMessage};

/// The kind of the event that records a conflict.
pub const CONFLICT: &str = "conflict";

/// The separator in the key, between the message and the body that contained the copy.
const MARK: &str = "#conflict:";

/// The key of the event that records a conflict: the message and the body with the other copy. So the same
/// body, sent again, is recorded once. The key contains the body's digest, which is equal in every database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictKey(String);

impl ConflictKey {
    /// `digest` is the full digest of the stored body; none if no body is kept.
    pub fn new(message: &MessageId, digest: Option<&[u8]>) -> Self {
        Self::of(message.as_str(), digest)
    }

    fn of(message: &str, digest: Option<&[u8]>) -> Self {
        let start = digest.and_then(|digest| digest.first_chunk()).map_or(0, |start| u64::from_be_bytes(*start));
        Self(format!("{message}{MARK}{start:016x}"))
    }

    /// The new key of an event that an earlier version recorded on SQLite; its key ended with the body's number.
    /// None if the event has no such key, or if the body was deleted: its digest is then unknown, and the event
    /// keeps its key.
    pub fn upgraded(key: &str, event_body: &str, digest: Option<&[u8]>) -> Option<Self> {
        let (message, number) = key.rsplit_once(MARK)?;
        // A digest has sixteen digits.
        let is_number = (1..16).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || digest.is_none() && number != "0" {
            return None;
        }
        // Events of a provider may have this kind too.
        let body: Value = serde_json::from_str(event_body).ok()?;
        (body["message_id"] == message).then(|| Self::of(message, digest))
    }

    /// The key as it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The body of the event: the content of the other copy.
pub fn conflict_body(message: &NewMessage) -> String {
    serde_json::json!({
        "message_id": message.id.as_str(), "from": message.from.as_str(), "to": message.to.as_str(),
        "ts": message.ts.as_str(), "text": message.text,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: [u8; 32] = [0xab; 32];

    #[test]
    fn a_key_ends_with_the_digest_of_the_body_or_with_zeros() {
        let message = MessageId::parse("k:a").unwrap();
        assert_eq!(ConflictKey::new(&message, Some(&DIGEST)).as_str(), "k:a#conflict:abababababababab");
        assert_eq!(ConflictKey::new(&message, None).as_str(), "k:a#conflict:0000000000000000");
    }

    #[test]
    fn only_keys_with_a_number_of_a_known_body_are_upgraded() {
        let body = r#"{"message_id":"a#conflict:1"}"#;
        let upgraded = |key: &str, digest: Option<&[u8]>| {
            ConflictKey::upgraded(key, body, digest).map(|key| key.as_str().to_owned())
        };
        let expected = Some("a#conflict:1#conflict:abababababababab".to_owned());
        assert_eq!(upgraded("a#conflict:1#conflict:7", Some(&DIGEST)), expected);
        assert_eq!(upgraded("a#conflict:1#conflict:7", None), None, "the body is gone");
        let zeros = Some("a#conflict:1#conflict:0000000000000000".to_owned());
        assert_eq!(upgraded("a#conflict:1#conflict:0", None), zeros, "there was no body");
        for other in
            ["a#conflict:1#conflict:0123456789012345", "a#conflict:1#conflict:", "a#conflict:1", "b#conflict:7"]
        {
            assert_eq!(upgraded(other, Some(&DIGEST)), None, "{other}");
        }
        assert_eq!(ConflictKey::upgraded("a#conflict:7", "no JSON", Some(&DIGEST)), None);
    }
}
