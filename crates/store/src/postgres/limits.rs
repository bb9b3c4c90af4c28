//! Limits of the background work and of searches: how many rows each step takes, and from which size on another way is
//! cheaper. Tests pass small ones to the constructor, so that few messages reach every way.

use std::time::Duration;

/// How much is done at once. All replicas of a database must have the same `place_chunk_bits`, or searches find fewer
/// tuple_ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long rows gather before they are counted together. A longer time means fewer changes to one counter, and
    /// more rows that a read has to add up itself.
    pub gather: Duration,
    /// The same before they are indexed together: a segment of fewer rows costs more for each.
    pub gather_texts: Duration,
    /// Rows that are counted in the first transaction.
    pub counted_first: i64,
    /// Fewest rows that are counted in a later one.
    pub counted_least: i64,
    /// Most rows that are counted in a later one.
    pub counted_max: i64,
    /// Fewest rows that are indexed, unless their texts are long: until so many have come, searches look at them one by
    /// one.
    pub indexed_least: i64,
    /// Maximum rows indexed in one transaction.
    pub indexed_max: i64,
    /// Bytes of text behind which no more rows are indexed in the same transaction: the index of a text that never
    /// repeats itself takes thirty times as much while it is built.
    pub indexed_bytes_max: i64,
    /// Most deleted rows that are taken from the counters, or from the index, in one transaction.
    pub gone_max: i64,
    /// Most rows that get a number of arrival in one transaction.
    pub admitted_max: i64,
    /// Maximum changes to the counts of states that are added in one transaction.
    pub folded_max: i64,
    /// Stretches of a level that are merged into one of the next.
    pub merged_together: i64,
    /// Most rows that are merged in one transaction.
    pub merged_rows_max: i64,
    /// The numbers of texts whose tuple ids are in one row differ in these last bits.
    pub place_chunk_bits: u32,
    /// Rows that a listing skips one by one; from there on the counters say where to begin.
    pub skipped_max: u64,
    /// Matches of a search that are kept one by one; more are searched again along the order of the listing.
    pub matches_max: usize,
    /// The same if a lower bound is enough and the index does not narrow the search.
    pub bound_least: usize,
    /// From so many candidates on a search looks at them where they lie; before, it costs more to learn where that is.
    /// Of more than `matches_max` not all need to be looked at.
    pub placed_least: usize,
    /// Rows that are looked at together along the order of a listing, at first.
    pub walked_first: u32,
    /// Rows that are looked at together along the order of a listing, at most.
    pub walked_max: u32,
    /// Up to so many candidates of a search are always looked at one by one.
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
