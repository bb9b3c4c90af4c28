//! The unit of a copy: rows that are read and written together.

/// Rows that are read and written together.
pub(super) const CHUNK_ROWS: i64 = 10_000;
/// Bytes of text after which a chunk gets no more rows.
pub(super) const CHUNK_BYTES: i64 = 16 << 20;

/// A row as it is copied: every value as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Unique key.
    pub id: String,
    /// The sender.
    pub from: String,
    /// The recipient.
    pub to: String,
    /// The time of sending, according to the sender.
    pub ts: String,
    /// The text of the message.
    pub text: Option<String>,
    /// The time of acceptance.
    pub created_at: String,
}

/// A segment of the source.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub rows: Vec<Row>,
    /// Rows that are not text; other programs may have left them in a file.
    pub odd: Vec<String>,
    /// The end of the segment; none if it is empty.
    pub end: Option<i64>,
}

/// The present phase, for a progress bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Rows are copied.
    Copying,
    /// Provider data are copied and compared.
    Details,
    /// Copied rows are compared.
    Verifying,
}
