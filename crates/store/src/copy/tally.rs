//! The comparison after a copy: for each day the number of messages and a sum over their content, on both sides.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::chunk::Row;

/// Sums by day (the first ten characters of `ts`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// The source's values, and those of the target for the same ids.
    pub days: BTreeMap<String, Day>,
}

/// One day on both sides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Day {
    /// Messages in the source.
    pub source_messages: u64,
    /// Of these, messages in the target.
    pub target_messages: u64,
    /// An order-free sum over the content of the source's messages.
    pub source_sum: u64,
    /// The same for the target's.
    pub target_sum: u64,
}

impl Day {
    /// Adds a row of the source. The sum does not depend on the order.
    pub(super) fn add_to_source(&mut self, row_sum: u64) {
        self.source_messages += 1;
        self.source_sum = self.source_sum.wrapping_add(row_sum);
    }

    /// Adds a row of the target.
    pub(super) fn add_to_target(&mut self, row_sum: u64) {
        self.target_messages += 1;
        self.target_sum = self.target_sum.wrapping_add(row_sum);
    }

    /// Whether both sides are the same.
    pub fn agrees(&self) -> bool {
        self.source_messages == self.target_messages && self.source_sum == self.target_sum
    }
}

impl Tally {
    /// Adds a segment of the source, and the target's rows with the same ids.
    pub(super) fn add(&mut self, source: &[Row], target: &[Row]) {
        for row in source {
            let day = self.days.entry(day_of(row)).or_default();
            day.add_to_source(row_sum(&row.values()));
        }
        // A row with another `ts` counts on the source's day, where it is missing.
        for row in target {
            let same_id = source.binary_search_by(|known| known.id.cmp(&row.id)).ok();
            let day = same_id.map_or_else(|| day_of(row), |at| day_of(&source[at]));
            let day = self.days.entry(day).or_default();
            day.add_to_target(row_sum(&row.values()));
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

impl Row {
    fn values(&self) -> [Value<'_>; 6] {
        let text = self.text.as_deref().map_or(Value::Null, Value::Text);
        let [id, from, to, ts, created_at] = [&self.id, &self.from, &self.to, &self.ts, &self.created_at];
        [Value::Text(id), Value::Text(from), Value::Text(to), Value::Text(ts), Value::Text(created_at), text]
    }
}

/// A value that is summed up.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Null,
    Text(&'a str),
    Number(i64),
    Bytes(&'a [u8]),
}

/// The first eight bytes of a hash over all values, each prefixed with
/// its type and length, so that different rows have different inputs.
pub(super) fn row_sum(values: &[Value<'_>]) -> u64 {
    let mut hash = Sha256::new();
    for value in values {
        let number;
        let (mark, bytes): (u8, &[u8]) = match value {
            Value::Null => (0, &[]),
            Value::Text(text) => (1, text.as_bytes()),
            Value::Number(value) => {
                number = value.to_be_bytes();
                (2, &number)
            }
            Value::Bytes(bytes) => (3, bytes),
        };
        hash.update([mark]);
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
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
