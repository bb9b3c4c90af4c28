//! Pages and totals over segments and tail rows.

use std::collections::BinaryHeap;
use std::io;

use super::merge::LiveSegment;
use super::run::{Ranks, Run, Runs, TailRow};
use super::search::{Candidates, Question};
use super::segment::Texts;
use domain::Needle;

/// Texts that are checked between two readings of the clock.
const LOOKS_TOGETHER: usize = 256;
/// Arrivals that are checked together.
const ARRIVALS_TOGETHER: usize = 4 << 10;

/// The input of a read: segments, and in order the matching messages that are not in a segment.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The segments; no message is in two of them.
    pub members: &'a [LiveSegment],
    /// The tail rows.
    pub loose: &'a [TailRow],
}

/// The start of a page.
#[derive(Debug, Clone, Copy)]
pub enum From<'a> {
    /// After this many messages.
    Offset(u64),
    /// After this place.
    Place(&'a [u8]),
    /// In the order of arrival, after this row.
    Row(i64),
    /// In the order of arrival, after this many messages.
    Arrivals(u64),
}

/// A message of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The message.
    pub message: TailRow,
    /// The hash of its row when it was indexed; none for a tail row.
    pub hash: Option<u32>,
}

/// Part of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// Messages in order, as many as requested if there are enough.
    pub messages: Vec<Hit>,
    /// The total.
    pub total: u64,
    /// Whether there may be more than `total`.
    pub total_is_bound: bool,
}

/// The budget for checking candidates when texts have to be checked.
pub struct Budget<'a> {
    /// The search term.
    pub needle: Option<&'a Needle>,
    /// Whether counting has taken long enough. Always false if the total must be exact.
    pub is_enough: &'a dyn Fn() -> bool,
    /// Returns an error at the deadline.
    pub go_on: &'a dyn Fn() -> io::Result<()>,
}

impl Budget<'_> {
    fn contains(&self, texts: &mut Texts<'_>, rank: u32) -> io::Result<bool> {
        let Some(needle) = self.needle else { return Ok(true) };
        Ok(texts.text(rank)?.is_some_and(|folded| needle.is_in_folded(folded)))
    }
}

impl View<'_> {
    /// At most `count` messages, and the total.
    pub fn part(&self, question: &Question, from: From<'_>, count: usize, looks: &Budget<'_>) -> io::Result<Part> {
        let mut found = Vec::with_capacity(self.members.len());
        let mut part = Part { total: self.loose.len() as u64, ..Part::default() };
        for member in self.members {
            (looks.go_on)()?;
            let mut candidates = question.ask(member, (looks.is_enough)())?;
            if candidates.doubtful {
                let (certain, all) = look(member, &candidates, looks)?;
                part.total += certain.len() as u64;
                if all {
                    candidates = Candidates { ranks: Ranks::List(certain), doubtful: false };
                } else {
                    part.total_is_bound = true;
                }
            } else {
                part.total += candidates.ranks.len() as u64;
            }
            found.push(candidates);
        }
        let mut listing = Listing { view: self, found, count, looks, part };
        match from {
            From::Row(row) => listing.add_arrivals(row, 0)?,
            From::Arrivals(offset) => listing.add_arrivals(i64::MIN, offset)?,
            _ => listing.add_in_order(from)?,
        }
        Ok(listing.part)
    }

    /// The least rows above `row`: each with its segment and rank there, or its position among the tail rows.
    fn next_arrivals(
        &self,
        found: &[Candidates<'_>],
        row: i64,
        count: usize,
    ) -> io::Result<Vec<(i64, Option<usize>, usize)>> {
        let mut least = BinaryHeap::with_capacity(count + 1);
        let mut offer = |arrival: (i64, Option<usize>, usize)| {
            if arrival.0 > row && (least.len() < count || least.peek().is_some_and(|greatest| arrival < *greatest)) {
                least.push(arrival);
                if least.len() > count {
                    least.pop();
                }
            }
        };
        for (at, (member, candidates)) in self.members.iter().zip(found).enumerate() {
            if member.segment.greatest_row() <= row {
                continue;
            }
            let mut rows = member.segment.rows();
            for rank in candidates.ranks.list() {
                offer((rows.row(rank)?, Some(at), rank as usize));
            }
        }
        self.loose.iter().enumerate().for_each(|(at, message)| offer((message.row, None, at)));
        Ok(least.into_sorted_vec())
    }
}

/// A part of a listing while it is filled.
struct Listing<'a> {
    view: &'a View<'a>,
    /// The candidates of each segment.
    found: Vec<Candidates<'a>>,
    /// The maximum number of its messages.
    count: usize,
    looks: &'a Budget<'a>,
    part: Part,
}

impl Listing<'_> {
    fn is_full(&self) -> bool {
        self.part.messages.len() == self.count
    }

    /// Adds messages in the order of their places.
    fn add_in_order(&mut self, from: From<'_>) -> io::Result<()> {
        let found = std::mem::take(&mut self.found);
        let View { members, loose } = *self.view;
        let doubtful: Vec<bool> = found.iter().map(|candidates| candidates.doubtful).chain([false]).collect();
        let runs = members.iter().zip(found).map(|(member, found)| Run::new(&member.segment, found.ranks));
        let mut runs = Runs::new(runs.chain([Run::TailRow(loose)]).collect());
        let mut skip = 0;
        match from {
            From::Place(place) => runs.seek(place)?,
            // Unverified candidates cannot be skipped by count.
            From::Offset(offset) if self.part.total_is_bound => skip = offset,
            From::Offset(offset) => runs.skip(offset)?,
            From::Row(_) | From::Arrivals(_) => {}
        }
        let mut texts: Vec<_> = members.iter().map(|member| member.segment.texts()).collect();
        let mut passed = 0;
        while !self.is_full() {
            let Some(found) = runs.next_message()? else { break };
            if doubtful[found.run] && !self.looks.contains(&mut texts[found.run], found.rank)? {
                continue;
            }
            passed += 1;
            if passed > skip {
                self.part.messages.push(Hit { message: found.message, hash: found.hash });
            }
        }
        self.part.total = self.part.total.max(passed);
        Ok(())
    }

    /// Adds messages after `row` in the order of arrival, without the first `skip` of them.
    fn add_arrivals(&mut self, mut row: i64, mut skip: u64) -> io::Result<()> {
        let View { members, loose } = *self.view;
        let mut texts: Vec<_> = members.iter().map(|member| member.segment.texts()).collect();
        loop {
            (self.looks.go_on)()?;
            let next = self.view.next_arrivals(&self.found, row, ARRIVALS_TOGETHER)?;
            let is_last = next.len() < ARRIVALS_TOGETHER;
            for (arrived, run, rank) in next {
                row = arrived;
                if let Some(run) = run.filter(|run| self.found[*run].doubtful)
                    && !self.looks.contains(&mut texts[run], rank as u32)?
                {
                    continue;
                }
                if skip > 0 {
                    skip -= 1;
                    continue;
                }
                let (place, hash) = match run {
                    Some(run) => {
                        let segment = &members[run].segment;
                        (segment.entries().at(rank as u64)?.0.to_vec(), Some(segment.rows().entry(rank as u32)?.1))
                    }
                    None => (loose[rank].place.clone(), None),
                };
                self.part.messages.push(Hit { message: TailRow { place, row }, hash });
                if self.is_full() {
                    break;
                }
            }
            if is_last || self.is_full() {
                self.part.total = self.part.total.max(self.part.messages.len() as u64);
                return Ok(());
            }
        }
    }
}

/// Checks candidates until all are checked or the time is up. Returns the matches, and whether it saw all.
fn look(member: &LiveSegment, candidates: &Candidates<'_>, looks: &Budget<'_>) -> io::Result<(Vec<u32>, bool)> {
    let mut certain = Vec::new();
    let mut texts = member.segment.texts();
    for place in 0..candidates.ranks.len() {
        if place.is_multiple_of(LOOKS_TOGETHER) {
            (looks.go_on)()?;
            if (looks.is_enough)() {
                return Ok((certain, false));
            }
        }
        let rank = candidates.ranks.at(place);
        if looks.contains(&mut texts, rank)? {
            certain.push(rank);
        }
    }
    Ok((certain, true))
}

#[cfg(test)]
mod tests {
    use super::super::build::{Row, build};
    use super::super::key::{Value, place, single};
    use super::super::merge::merge;
    use super::super::segment::Segment;
    use super::super::source::Source;
    use super::*;
    use domain::{Filter, Needle, Timestamp};
    use proptest::prelude::*;
    use std::sync::Arc;

    #[derive(Debug, Clone)]
    struct Message {
        ts: u8,
        id: u16,
        from: u8,
        text: Option<String>,
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let text = prop::option::of("[abAB明天 ]{0,6}");
        (0u8..6, any::<u16>(), 0u8..4, text).prop_map(|(ts, id, from, text)| Message { ts, id, from, text })
    }

    fn time(ts: u8) -> String {
        format!("2025-01-15T10:00:0{ts}Z")
    }

    fn row(number: usize, message: &Message) -> Row {
        let id = message.id.to_string();
        Row {
            row: number as i64 + 1,
            place: place(Value::Text(time(message.ts).as_bytes()), Value::Text(id.as_bytes())),
            sender: single(Value::Text(&[message.from + b'0'])),
            recipient: single(Value::Text(if message.from < 2 { b"+1" } else { b"+2" })),
            text: message.text.clone(),
            hash: hash(number as i64 + 1),
        }
    }

    fn hash(row: i64) -> u32 {
        (row as u32).wrapping_mul(0x9e37_79b9)
    }

    /// The messages of a slice; the hash of each is the hash of its row.
    fn listed(part: &Part) -> Vec<TailRow> {
        for Hit { message, hash: found } in &part.messages {
            assert!(found.is_none_or(|found| found == hash(message.row)));
        }
        part.messages.iter().map(|hit| hit.message.clone()).collect()
    }

    fn segment(rows: Vec<Row>) -> Segment {
        Segment::open(Source::Memory(build(rows, Vec::new()).unwrap())).unwrap()
    }

    fn any_filter() -> impl Strategy<Value = Filter> {
        let term = prop::option::of("[abAB明天 ]{1,5}");
        let times = prop::array::uniform2(prop::option::of(0u8..7));
        let to = prop::option::of("\\+[12]");
        (prop::option::of(0u8..5), to, times, term).prop_map(|(from, to, [since, until], term)| Filter {
            from: from.map(|from| from.to_string()),
            to,
            since: since.map(|since| Timestamp::parse(&time(since)).unwrap()),
            until: until.map(|until| Timestamp::parse(&time(until)).unwrap()),
            search: term.map(|term| Needle::new(&term)),
            ..Filter::default()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn every_part_is_that_of_a_sorted_list(
            mut messages in prop::collection::vec(any_message(), 0..260), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            merged in 0usize..4, dead in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
            filter in any_filter(), offset in 0u64..300, count in 1usize..9, impatient in any::<bool>(), bounded in any::<bool>(),
        ) {
            messages.sort_by_key(|message| message.id);
            messages.dedup_by_key(|message| message.id);
            let rows: Vec<Row> = messages.iter().enumerate().map(|(at, message)| row(at, message)).collect();
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(rows.len() + 1)).chain([0]).collect();
            ends.sort();
            let mut members: Vec<LiveSegment> =
                ends.windows(2).map(|ends| LiveSegment::new(segment(rows[ends[0]..ends[1]].to_vec()))).collect();
            let loose_from = *ends.last().unwrap();
            let mut alive = rows.clone();
            for index in dead.iter().filter(|_| loose_from > 0) {
                let row = &rows[index.index(loose_from)];
                for member in &mut members {
                    if let Some(rank) = member.segment.rank_of(&row.place, row.row).unwrap() {
                        let mut dead = member.dead.to_vec();
                        dead.push(rank);
                        dead.sort();
                        dead.dedup();
                        member.dead = Arc::new(dead);
                    }
                }
                alive.retain(|other| other.row != row.row);
            }
            let together: Vec<LiveSegment> = members.drain(..merged.min(members.len())).collect();
            members.push(LiveSegment::new(Segment::open(Source::Memory(merge(&together, Vec::new()).unwrap())).unwrap()));

            let contains = |row: &Row| match (&filter.search, &row.text) {
                (None, _) => true,
                (Some(needle), Some(text)) => needle.is_in(text, &mut String::new()),
                _ => false,
            };
            let lets_through = |row: &&Row| {
                filter.from.as_ref().is_none_or(|from| row.sender == single(Value::Text(from.as_bytes())))
                    && filter.since.is_none_or(|since| row.place >= single(Value::Text(since.as_str().as_bytes())))
                    && filter.until.is_none_or(|until| row.place < single(Value::Text(until.as_str().as_bytes())))
                    && filter.to.as_ref().is_none_or(|to| row.recipient == single(Value::Text(to.as_bytes())))
                    && contains(row)
            };
            let mut expected: Vec<TailRow> = alive.iter().filter(lets_through)
                .map(|row| TailRow { place: row.place.clone(), row: row.row }).collect();
            let mut arrived = expected.clone();
            expected.sort();
            let mut loose: Vec<TailRow> = arrived.iter().filter(|row| row.row as usize > loose_from).cloned().collect();
            loose.sort();
            let view = View { members: &members, loose: &loose };
            let question = Question::new(&filter, bounded);
            let looks = Budget { needle: filter.search.as_ref(), is_enough: &|| impatient, go_on: &|| Ok(()) };
            let part = view.part(&question, From::Offset(offset), count, &looks).unwrap();
            let page: Vec<_> = expected.iter().skip(offset as usize).take(count).cloned().collect();
            prop_assert_eq!(&listed(&part), &page);
            prop_assert!(part.total_is_bound && part.total <= expected.len() as u64 || part.total == expected.len() as u64);
            prop_assert!(part.total >= (offset + page.len() as u64).min(expected.len() as u64) || !part.total_is_bound);
            if let Some(last) = page.last() {
                let part = view.part(&question, From::Place(&last.place), count, &looks).unwrap();
                let next: Vec<_> = expected.iter().skip(offset as usize + page.len()).take(count).cloned().collect();
                prop_assert_eq!(&listed(&part), &next);
            }
            arrived.retain(|message| message.row > offset as i64);
            arrived.truncate(count);
            let part = view.part(&question, From::Row(offset as i64), count, &looks).unwrap();
            prop_assert_eq!(&listed(&part), &arrived);
        }
    }
}
