//! What a store reports while it works: counts and durations as they happen, and sizes when somebody asks. Whoever
//! opens a store
//! hands in the `Observer`; the store knows nothing of observer.

use std::time::Duration;

/// Receives what a store reports. Called by the threads that do the work, so a method must return at once.
pub trait Observer: Send + Sync + std::fmt::Debug {
    /// A batch was committed: how many messages, the time from its first statement, and the time of the COMMIT alone.
    fn batch_committed(&self, messages: usize, whole: Duration, commit: Duration);

    /// A checkpoint moved the write-ahead log into the database file.
    fn checkpointed(&self, duration: Duration);

    /// Stored data was found damaged.
    fn damaged(&self, kind: DamageKind);
}

/// For commands and tests that count nothing.
#[derive(Debug, Clone, Copy)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn batch_committed(&self, _messages: usize, _whole: Duration, _commit: Duration) {}

    fn checkpointed(&self, _duration: Duration) {}

    fn damaged(&self, _kind: DamageKind) {}
}

/// The kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageKind {
    /// Stored data that differs from what was written: a read was refused.
    Row,
    /// A page of the database that cannot be read: a read, or a batch of messages, failed.
    Page,
    /// A write-ahead log with frames that SQLite does not reach: found by a start.
    Log,
    /// A file of the index: it is rebuilt.
    Index,
}

impl DamageKind {
    /// All of them, in order.
    pub const ALL: &'static [Self] = &[Self::Row, Self::Page, Self::Log, Self::Index];

    /// The name in observer.
    pub fn label(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Page => "page",
            Self::Log => "log",
            Self::Index => "index",
        }
    }
}

/// Sizes and states of a store at the moment of a question.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gauges {
    /// Whether `/health/ready` would return 200.
    pub ready: bool,
    /// Messages that wait for the writer.
    pub queued: usize,
    /// Bytes of the database file, or of the tables.
    pub database_bytes: u64,
    /// Bytes of the write-ahead log next to it.
    pub wal_bytes: u64,
    /// Messages that the index does not cover yet.
    pub index_lag: u64,
    /// Number of segments of the index.
    pub index_segments: usize,
    /// Bytes of the index's files.
    pub index_bytes: u64,
    /// On PostgreSQL: rows that are not in the counters yet.
    pub uncounted: u64,
    /// On PostgreSQL: what commits wait for.
    pub commits: Option<Commits>,
}

/// What a commit waits for on PostgreSQL.
#[derive(Debug, Clone, Copy)]
pub struct Commits {
    /// The server's own disk.
    pub survive_crash: bool,
    /// A standby too.
    pub survive_promotion: bool,
}
