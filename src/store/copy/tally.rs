//! What was compared after a copy: for each day the number of messages and a sum over their content, on both sides.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::chunk::Row;

/// Sums by day (the first ten characters of `ts`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// What the source has, and what the target has of that.
    pub days: BTreeMap<String, Day>,
}

/// One day on both sides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Day {
    /// Messages in the source.
    pub source_messages: u64,
    /// Of these, messages in the target.
    pub target_messages: u64,
    /// A sum over the content of the former, whatever their order.
    pub source_sum: u64,
    /// The same over the latter.
    pub target_sum: u64,
}

impl Day {
    /// Whether both sides are the same.
    pub fn agrees(&self) -> bool {
        self.source_messages == self.target_messages && self.source_sum == self.target_sum
    }
}

impl Tally {
    /// Adds a stretch of the source, and what the target has under the same ids.
    pub(super) fn add(&mut self, source: &[Row], target: &[Row]) {
        for row in source {
            let day = self.days.entry(day_of(row)).or_default();
            day.source_messages += 1;
            day.source_sum = day.source_sum.wrapping_add(digest(row));
        }
        // A row that differs in `ts` counts on the source's day, where it is missed.
        for row in target {
            let same_id = source.binary_search_by(|known| known.id.cmp(&row.id)).ok();
            let day = same_id.map_or_else(|| day_of(row), |at| day_of(&source[at]));
            let day = self.days.entry(day).or_default();
            day.target_messages += 1;
            day.target_sum = day.target_sum.wrapping_add(digest(row));
        }
    }

    /// Whether every day is the same on both sides.
    pub fn agrees(&self) -> bool {
        self.days.values().all(Day::agrees)
    }

    /// All days together.
    pub fn whole(&self) -> Day {
        self.days.values().fold(Day::default(), |sum, day| Day {
            source_messages: sum.source_messages + day.source_messages,
            target_messages: sum.target_messages + day.target_messages,
            source_sum: sum.source_sum.wrapping_add(day.source_sum),
            target_sum: sum.target_sum.wrapping_add(day.target_sum),
        })
    }
}

fn day_of(row: &Row) -> String {
    row.ts.chars().take(10).collect()
}

/// The first eight bytes of a hash over all values, each with its length in front, so that no two rows read the same.
fn digest(row: &Row) -> u64 {
    let mut hash = Sha256::new();
    for value in [&row.id, &row.from, &row.to, &row.ts, &row.created_at] {
        hash.update((value.len() as u64).to_be_bytes());
        hash.update(value);
    }
    if let Some(text) = &row.text {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    let hash: [u8; 32] = hash.finalize().into();
    u64::from_be_bytes(*hash.first_chunk().expect("32 bytes are more than 8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, text: Option<&str>) -> Row {
        let [from, to, ts, created_at] = ["+1", "+2", "2025-01-15T10:00:00Z", "x"].map(str::to_owned);
        Row { id: id.to_owned(), from, to, ts, text: text.map(str::to_owned), created_at }
    }

    #[test]
    fn what_differs_or_is_missing_is_seen_and_order_is_not() {
        let rows = [row("a", None), row("b", Some("")), row("c", Some("x"))];
        let compared = |target: &[Row]| {
            let mut tally = Tally::default();
            tally.add(&rows, target);
            tally
        };
        assert!(compared(&[rows[2].clone(), rows[0].clone(), rows[1].clone()]).agrees());
        assert!(!compared(&rows[..2]).agrees());
        assert!(!compared(&[rows[0].clone(), row("b", None), rows[2].clone()]).agrees());
        let mut moved = rows.clone();
        moved[0].ts = "2025-01-16T10:00:00Z".to_owned();
        assert!(!compared(&moved).agrees());
        assert_eq!(compared(&rows).whole().source_messages, 3);
    }
}
