//! The raw body of a provider's request, kept once, for whatever its parser did not understand yet.

use bytes::Bytes;

/// A body on its way into the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The door that it came through.
    pub source: String,
    /// The provider's protocol.
    pub provider: &'static str,
    /// The bytes as they were signed, but for what must not be kept (see `redacted`).
    pub bytes: Bytes,
    /// The headers that its reading depends on, by name in lower case.
    pub headers: Vec<(String, String)>,
    /// Whether secrets were taken out of the bytes.
    pub redacted: bool,
}

/// A body as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPayload {
    /// Its number.
    pub number: i64,
    /// The door.
    pub source: String,
    /// The protocol.
    pub provider: String,
    /// The bytes, unpacked.
    pub bytes: Vec<u8>,
    /// The headers that its reading depends on.
    pub headers: Vec<(String, String)>,
    /// When it came.
    pub received_at: String,
}
