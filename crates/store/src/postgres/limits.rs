//! Limits of the background work and of searches: the number of rows of each step, and the sizes from
//! which another method is cheaper. Tests pass small limits, so that a few messages reach every code path.

use std::time::Duration;

/// The amounts of work per step. All replicas of a database must have
/// the same `place_chunk_bits`; otherwise searches find fewer tuple ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long rows accumulate before they are counted together. A longer time means fewer updates of a counter,
    /// and more rows that a read has to add up itself.
    pub gather: Duration,
    /// The same for indexing: in a segment of fewer rows, each row costs more.
    pub gather_texts: Duration,
    /// Rows counted in the first transaction.
    pub counted_first: i64,
    /// Minimum rows counted in a later one.
    pub counted_least: i64,
    /// Maximum rows counted in a later one.
    pub counted_max: i64,
    /// Minimum rows to be indexed, unless their texts are long; searches scan a smaller number of rows
    /// directly.
    pub indexed_least: i64,
    /// Maximum rows indexed in one transaction.
    pub indexed_max: i64,
    /// Bytes of text after which no more rows are indexed in the same transaction: the index of a text without
    /// repetitions takes thirty times as much memory while it is built.
    pub indexed_bytes_max: i64,
    /// Maximum deleted rows that are removed from the counters, or from the index, in one transaction.
    pub gone_max: i64,
    /// Maximum rows that get a number of arrival in one transaction.
    pub admitted_max: i64,
    /// Maximum changes to the counts of states that are added in one transaction.
    pub folded_max: i64,
    /// Segments of a level that are merged into one of the next level.
    pub merged_together: i64,
    /// Maximum rows that are merged in one transaction.
    pub merged_rows_max: i64,
    /// Texts whose numbers differ only in these low bits have their tuple ids in one row.
    pub place_chunk_bits: u32,
    /// Rows that a listing skips one by one; for a larger offset the counters give the position.
    pub skipped_max: u64,
    /// Matches of a search that are kept in memory; for more, the search walks the listing order instead.
    pub matches_max: usize,
    /// The same if a lower bound is enough and the index does not narrow the search.
    pub bound_least: usize,
    /// With at least this many candidates, a search reads them by tuple id; below it, the lookup of the tuple ids
    /// costs more. If there are more than `matches_max`, not all of them need to be read.
    pub placed_least: usize,
    /// Rows of the first step when a search walks the listing order.
    pub walked_first: u32,
    /// Maximum rows of such a step.
    pub walked_max: u32,
    /// Up to this many candidates of a search are always checked one by one.
    pub candidates_few: u64,
}

impl Limits {
    /// The limits of the service.
    pub const PRODUCTION: Self = Self {
        gather: Duration::from_millis(150),
        gather_texts: Duration::from_millis(500),
        counted_first: 10_000,
        counted_least: 500,
        counted_max: 250_000,
        indexed_least: 1_000,
        indexed_max: 10_000,
        indexed_bytes_max: 1 << 20,
        gone_max: 10_000,
        admitted_max: 10_000,
        folded_max: 10_000,
        merged_together: 16,
        merged_rows_max: 20_000,
        place_chunk_bits: 13,
        skipped_max: 1_000,
        matches_max: 50_000,
        bound_least: 1_000,
        placed_least: 2_000,
        walked_first: 256,
        walked_max: 8_192,
        candidates_few: 20_000,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::PRODUCTION
    }
}
