//! A copy of a stored message with other content: the first copy stays, and an event records the other one.

use serde_json::Value;

use super::{MessageId, NewMessage};

/// The kind of such an event.
pub const CONFLICT: &str = "conflict";

/// Stands in the key between the message and the body that brought the copy.
const MARK: &str = "#conflict:";

/// The key of the event that records a conflict: the message and the body that brought the other copy, so the same body
/// sent again is recorded once. The body stands there by its digest, which is the same in every database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictKey(String);

impl ConflictKey {
    /// `digest` is the whole digest of the stored body; none where no body is kept.
    pub fn new(message: &MessageId, digest: Option<&[u8]>) -> Self {
        Self::of(message.as_str(), digest)
    }

    fn of(message: &str, digest: Option<&[u8]>) -> Self {
        let start = digest.and_then(|digest| digest.first_chunk()).map_or(0, |start| u64::from_be_bytes(*start));
        Self(format!("{message}{MARK}{start:016x}"))
    }

    /// The key of an event that an earlier version recorded on SQLite, where the key ended with the number of the body.
    /// None where the event has no such key, and where the body is gone: its digest is not known then, and the event
    /// keeps its key.
    pub fn upgraded(key: &str, event_body: &str, digest: Option<&[u8]>) -> Option<Self> {
        let (message, number) = key.rsplit_once(MARK)?;
        // A digest has sixteen digits.
        let is_number = (1..16).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || digest.is_none() && number != "0" {
            return None;
        }
        // A provider may have events of this kind too.
        let body: Value = serde_json::from_str(event_body).ok()?;
        (body["message_id"] == message).then(|| Self::of(message, digest))
    }

    /// The key as it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The body of the event: what the other copy says.
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
