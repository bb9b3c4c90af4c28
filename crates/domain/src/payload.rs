//! The raw body of a provider's request, kept once, for content that its parser does not support yet.

use std::ops::Deref;

use bytes::Bytes;

/// A body before storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The source that received it.
    pub source: String,
    /// The provider's protocol.
    pub provider: &'static str,
    /// The signed bytes, except secrets that must not be kept (see `redacted`).
    pub bytes: Bytes,
    /// The headers that parsing depends on, by name in lower case.
    pub headers: Vec<(String, String)>,
    /// Whether secrets were removed from the bytes.
    pub redacted: bool,
}

/// The data of a stored body. It is a plain value and proves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadRow {
    /// Its number.
    pub number: i64,
    /// The source.
    pub source: String,
    /// The protocol.
    pub provider: String,
    /// The bytes, decompressed.
    pub bytes: Vec<u8>,
    /// The headers that parsing depends on.
    pub headers: Vec<(String, String)>,
    /// When it was received.
    pub received_at: String,
}

/// A body that was read back from the store; its signature was verified on receipt. A `VerifiedBody` can be
/// created without a signature only from such a body.
///
/// ```
/// fn number(stored: &domain::payload::StoredPayload) -> i64 {
///     stored.number
/// }
/// ```
///
/// No code can put other bytes into it:
///
/// ```compile_fail,E0594
/// fn forge(stored: &mut domain::payload::StoredPayload) {
///     stored.number = 1;
/// }
/// ```
///
/// Only `read_from_store` creates one from a row. Only the store and the fuzz bodies may call it (a test
/// checks the source code for that):
///
/// ```compile_fail,E0423
/// use domain::payload::{PayloadRow, StoredPayload};
///
/// fn forge(row: PayloadRow) -> StoredPayload {
///     StoredPayload(row)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPayload(PayloadRow);

impl StoredPayload {
    /// Creates it from a row that was just read. Only the store and the fuzz bodies may call it.
    pub fn read_from_store(row: PayloadRow) -> Self {
        Self(row)
    }

    /// Its parts. They prove nothing.
    pub fn into_row(self) -> PayloadRow {
        self.0
    }
}

impl Deref for StoredPayload {
    type Target = PayloadRow;

    fn deref(&self) -> &PayloadRow {
        &self.0
    }
}
