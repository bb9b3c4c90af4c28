//! The numbers that are not counted along: sizes and states, from the store and its queue.

use super::exposition::Exposition;

/// What is measured at the moment of a scrape by those who know it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gauges {
    /// Whether `/health/ready` would say so.
    pub ready: bool,
    /// Messages waiting for the writer.
    pub queued: usize,
    /// Bytes of the database file, or of the tables.
    pub database_bytes: u64,
    /// Bytes of the write-ahead log beside it.
    pub wal_bytes: u64,
    /// Messages that the index does not cover yet.
    pub index_lag: u64,
    /// Segments that the index consists of.
    pub index_segments: usize,
    /// Bytes of the index's files.
    pub index_bytes: u64,
    /// On PostgreSQL: rows that the counters do not hold yet.
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

impl Gauges {
    /// What the store measured, but for its queue, which stands beside the queue's limit.
    pub(super) fn encode_store(&self, out: &mut Exposition) {
        out.single("postroom_ready", "gauge", "1 while /health/ready says so.", u8::from(self.ready));
        out.single("postroom_database_bytes", "gauge", "Size of the database file.", self.database_bytes);
        out.single("postroom_wal_bytes", "gauge", "Size of the write-ahead log.", self.wal_bytes);
        let lag = "Messages that the index does not cover yet; reads look at them one by one.";
        out.single("postroom_index_lag_messages", "gauge", lag, self.index_lag);
        out.single("postroom_index_segments", "gauge", "Parts of the index.", self.index_segments);
        out.single("postroom_index_bytes", "gauge", "Size of the index's files.", self.index_bytes);
        if let Some(commits) = self.commits {
            let help = "1 while commits wait for the server's disk; 0 is a weaker setting.";
            out.single("postroom_postgres_durable", "gauge", help, u8::from(commits.survive_crash));
            let help = "1 while commits wait for a synchronous standby.";
            out.single("postroom_postgres_synchronous_standby", "gauge", help, u8::from(commits.survive_promotion));
            out.single("postroom_postgres_uncounted", "gauge", "Rows that wait to be counted.", self.uncounted);
        }
    }
}
