//! Messages and their signatures.

use domain::Secret;
use providers::SigningKey;
use serde_json::{Value, json};

use super::SECRET;

/// The signature of a body with the secret of every test server.
pub fn sign(body: &[u8]) -> String {
    SigningKey::new(&Secret::new(SECRET).expect("not empty")).sign(body)
}

/// A valid message with this id.
pub fn message(id: &str) -> Value {
    json!({
        "message_id": id,
        "from": "+919876543210",
        "to": "+14155550100",
        "ts": "2025-01-15T10:00:00Z",
        "text": "Hello",
    })
}

/// The bytes of a message, as they are posted.
pub fn body(message: &Value) -> Vec<u8> {
    serde_json::to_vec(message).expect("a value is JSON")
}
