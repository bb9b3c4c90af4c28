//! The proof that a holder of a secret of the source sent these bytes.

use bytes::Bytes;

/// Raw bytes that a holder of the source's secret signed. Only these are parsed:
///
/// ```
/// use domain::Moment;
/// use providers::{Source, VerifiedBody};
///
/// fn parse(source: &Source, body: &VerifiedBody) -> bool {
///     source.parse(body, Moment::now()).is_ok()
/// }
/// ```
///
/// ```compile_fail,E0308
/// use domain::Moment;
/// use providers::Source;
///
/// fn parse(source: &Source, body: &[u8]) -> bool {
///     source.parse(body, Moment::now()).is_ok()
/// }
/// ```
///
/// Only `Source::verify`, and `Source::reopen` for a stored body, create one:
///
/// ```
/// use domain::payload::StoredPayload;
/// use providers::{Source, VerifiedBody};
///
/// fn reopen(source: &Source, stored: StoredPayload) -> VerifiedBody {
///     source.reopen(stored)
/// }
/// ```
///
/// ```compile_fail,E0308
/// use domain::payload::PayloadRow;
/// use providers::{Source, VerifiedBody};
///
/// fn forge(source: &Source, row: PayloadRow) -> VerifiedBody {
///     source.reopen(row)
/// }
/// ```
///
/// ```compile_fail,E0451
/// fn forge() -> providers::VerifiedBody {
///     providers::VerifiedBody { bytes: Default::default(), headers: Vec::new() }
/// }
/// ```
///
/// ```compile_fail,E0599
/// fn forge() -> providers::VerifiedBody {
///     providers::VerifiedBody::default()
/// }
/// ```
#[derive(Debug, Clone)]
pub struct VerifiedBody {
    bytes: Bytes,
    headers: Vec<(String, String)>,
}

impl VerifiedBody {
    /// Wraps bytes whose proof was verified. Only `Source` calls this.
    pub(super) fn new(bytes: Bytes, headers: Vec<(String, String)>) -> Self {
        Self { bytes, headers }
    }

    /// The bytes, for storage.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// All headers that the parser needs.
    pub(super) fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The bytes as received.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A header that the parser needs.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}
