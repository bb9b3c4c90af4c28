//! Values that are not counted: sizes and states, which the store measures at each scrape.

use super::exposition::Exposition;
use store::Gauges;

/// The store's values, except for its queue, which is written together with the queue's limit.
pub(super) fn encode_gauges(gauges: &Gauges, out: &mut Exposition) {
    out.single("postroom_ready", "gauge", "1 while /health/ready is 200.", u8::from(gauges.ready));
    out.single("postroom_database_bytes", "gauge", "Size of the database file.", gauges.database_bytes);
    out.single("postroom_wal_bytes", "gauge", "Size of the write-ahead log.", gauges.wal_bytes);
    let lag = "Messages that the index does not cover yet; reads scan them one by one.";
    out.single("postroom_index_lag_messages", "gauge", lag, gauges.index_lag);
    out.single("postroom_index_segments", "gauge", "Segments of the index.", gauges.index_segments);
    out.single("postroom_index_bytes", "gauge", "Size of the index's files.", gauges.index_bytes);
    if let Some(commits) = gauges.commits {
        let help = "1 while commits wait for the server's disk; 0 with a weaker setting.";
        out.single("postroom_postgres_durable", "gauge", help, u8::from(commits.survive_crash));
        let help = "1 while commits wait for a synchronous standby.";
        out.single("postroom_postgres_synchronous_standby", "gauge", help, u8::from(commits.survive_promotion));
        out.single("postroom_postgres_uncounted", "gauge", "Rows that are not in the counters yet.", gauges.uncounted);
    }
}
