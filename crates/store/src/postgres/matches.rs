//! The matches of a search that are kept in memory, and the part of them that a page lies in.

use tokio_postgres::Row;

use super::message_rows::text_of;
use domain::{Order, PageRequest, Position, Start};

/// A message that a search matches.
pub(super) struct Match {
    pub arrival: i64,
    pub ts: String,
}

impl Match {
    /// From a row with both columns.
    pub fn of(row: &Row) -> Self {
        Self { arrival: row.get("arrival"), ts: row.get("ts") }
    }
}

/// The matches that contain a page's rows, and the number of matches before them.
pub(super) fn part_of(mut matches: Vec<Match>, request: &PageRequest, offset: u64) -> (Vec<i64>, u64) {
    let wanted = request.limit as usize + 1;
    let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(matches.len());
    let part = match request.order {
        Order::Arrival => {
            matches.sort_unstable_by_key(|found| found.arrival);
            let first = match &request.start {
                Start::Behind(Position::Arrival(last)) => matches.partition_point(|found| found.arrival <= *last),
                _ => offset,
            };
            first..(first + wanted).min(matches.len())
        }
        Order::Time => {
            matches.sort_unstable_by(|one, other| one.ts.cmp(&other.ts));
            // The server sorts the rows of one time, so a part never ends among them.
            let (first, last) = match &request.start {
                Start::Behind(Position::Time { ts, .. }) => {
                    let ts = text_of(ts);
                    let first = matches.partition_point(|found| found.ts < ts);
                    (first, matches.partition_point(|found| found.ts <= ts) + wanted)
                }
                _ => {
                    let first =
                        matches.get(offset).map_or(offset, |at| matches.partition_point(|found| found.ts < at.ts));
                    (first, offset + wanted)
                }
            };
            let end = matches.get(last).map_or(matches.len(), |at| matches.partition_point(|found| found.ts <= at.ts));
            first..end
        }
    };
    let before = if matches!(request.start, Start::Offset(_)) { part.start as u64 } else { 0 };
    (matches[part].iter().map(|found| found.arrival).collect(), before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Filter, Room, Stored};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_page_is_within_the_part_that_is_asked_for(
            times in prop::collection::vec(0..5_i64, 0..30),
            limit in 0..6_u32,
            offset in 0..30_u64,
            behind in prop::option::of((0..5_i64, 0..30_i64)),
            order in prop::sample::select(vec![Order::Time, Order::Arrival]),
        ) {
            // The server sorts by time and id; here the arrival replaces the id.
            let key = |ts: i64, arrival: i64| if order == Order::Time { (ts, arrival) } else { (0, arrival) };
            let mut all: Vec<_> = times.iter().zip(0..).map(|(ts, arrival)| (key(*ts, arrival), arrival)).collect();
            all.sort_unstable();
            let start = match behind {
                None => Start::Offset(offset),
                Some((ts, arrival)) if order == Order::Time => {
                    let stored = |text: String| Stored { bytes: text.as_bytes().into(), is_blob: false };
                    Start::Behind(Position::Time { ts: stored(ts.to_string()), id: stored(arrival.to_string()) })
                }
                Some((_, arrival)) => Start::Behind(Position::Arrival(arrival)),
            };
            let last = behind.map(|(ts, arrival)| key(ts, arrival));
            let page = |rows: &[((i64, i64), i64)], skip: u64| -> Vec<i64> {
                let rows = rows.iter().filter(|row| last.is_none_or(|last| row.0 > last));
                rows.skip(skip as usize).take(limit as usize + 1).map(|row| row.1).collect()
            };
            let skip = if behind.is_some() { 0 } else { offset };
            let room = Room::default();
            let request = PageRequest { filter: Filter::default(), limit, start, order, bounded_total: false, room };
            let matches = times.iter().zip(0..).map(|(ts, arrival)| Match { arrival, ts: ts.to_string() }).collect();
            let (part, before) = part_of(matches, &request, skip);
            let few: Vec<_> = all.iter().filter(|row| part.contains(&row.1)).copied().collect();
            prop_assert_eq!(page(&few, skip - before), page(&all, skip));
        }
    }
}
