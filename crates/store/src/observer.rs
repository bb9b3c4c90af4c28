//! The interface for reports of a store: counts and durations as they
//! happen, and sizes on request. The owner of a store passes the
//! `Observer` in; the store does not depend on its implementation.

use std::time::Duration;

/// Receives the reports of a store. The working threads call it, so a method must return at once.
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

    /// The name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Page => "page",
            Self::Log => "log",
            Self::Index => "index",
        }
    }
}

/// Sizes and states of a store at the time of a request.
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
    /// On PostgreSQL: rows that the counters do not contain yet.
    pub uncounted: u64,
    /// On PostgreSQL: the durability of commits.
    pub commits: Option<Commits>,
}

/// The durability of a commit on PostgreSQL.
#[derive(Debug, Clone, Copy)]
pub struct Commits {
    /// It waits for the server's own disk.
    pub survive_crash: bool,
    /// It also waits for a standby.
    pub survive_promotion: bool,
}
