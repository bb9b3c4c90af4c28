//! The order of arrival: a row's number is the number of its transaction, followed by its position in the
//! transaction. `arrival_base` in the database raises the numbers if the data came from another cluster.

/// Number of low bits that hold the position within a transaction. The migrations contain the same number.
const PLACE_BITS: u32 = 20;
/// Maximum rows of ours in one transaction; the positions above it are for rows of other programs.
pub(super) const BATCH_ROWS_MAX: usize = 1 << (PLACE_BITS - 1);

/// The position of a row in its transaction.
pub(super) fn place_of(arrival: i64) -> usize {
    (arrival & ((1 << PLACE_BITS) - 1)) as usize
}

/// An expression on `postroom_state`: every transaction that could add a row below this number has ended.
pub(super) fn settled() -> String {
    format!("arrival_base + (pg_snapshot_xmin(pg_current_snapshot())::text::bigint << {PLACE_BITS})")
}

/// The same as a statement.
pub(crate) fn horizon() -> String {
    format!("SELECT {} FROM postroom_state", settled())
}

/// Ensures that the next numbers of arrival are above all assigned ones, and not below a known one. Returns
/// the number that they begin at.
pub(super) const SETTLE: &str = "SELECT postroom_settle(postroom_cluster(), $1 - 1)";

/// The first rows of a statement on `messages` in the order of arrival, until their texts exceed this many bytes.
pub(crate) fn within_bytes(select: &str, bytes_max: i64) -> String {
    format!(
        "SELECT * FROM (
             SELECT asked.*, sum(octet_length(text)) OVER (
                        ORDER BY arrival ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS behind
             FROM ({select}) asked
         ) summed WHERE coalesce(behind, 0) <= {bytes_max} ORDER BY arrival"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_migrations_have_as_many_bits_for_the_place() {
        for migration in [include_str!("migrations/0001_inbox.sql"), include_str!("migrations/0009_clusters.sql")] {
            let shifts = migration.matches("<< ").count();
            assert!(shifts > 0);
            assert_eq!(migration.matches(&format!("<< {PLACE_BITS}")).count(), shifts);
        }
        assert_eq!((place_of(5 << PLACE_BITS | 7), BATCH_ROWS_MAX), (7, 524_288));
    }
}
