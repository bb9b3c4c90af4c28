//! Selection of the messages of a segment that match a filter.

use std::io;

use super::grams::{self, Lookup};
use super::key;
use super::merge::LiveSegment;
use super::run::Ranks;
use super::segment::{ListReader, Section, Segment};
use domain::Filter;

/// A filter in the index's terms.
#[derive(Debug, Clone)]
pub struct Question {
    /// The sender, from `key::single`.
    from: Option<Vec<u8>>,
    /// The recipient, from `key::single`.
    to: Option<Vec<u8>>,
    /// The minimum place.
    since: Option<Vec<u8>>,
    /// The upper bound of places (exclusive).
    until: Option<Vec<u8>>,
    /// The text that a message must contain.
    term: Option<Lookup>,
    /// At most this many texts are checked in each segment. No list is read to avoid more checks.
    looks_max: u64,
}

/// The candidates of a segment.
#[derive(Debug)]
pub struct Candidates<'a> {
    /// All matches, and perhaps more.
    pub ranks: Ranks<'a>,
    /// Whether each must be checked, because there may be non-matches among them.
    pub doubtful: bool,
}

/// The cost of checking a text, in entries of a list.
const LOOK_COST: u64 = 600;
/// Texts of a segment that are checked for a page whose total may be a bound.
const LOOKS_FOR_BOUND: u64 = 512;
/// The same limit after the counting time. A page of terms that are not rarer is still found soon.
const LOOKS_IN_A_HURRY: u64 = 16;
/// Lists become bitmaps when they are joined, if they have more than one rank in this many.
const DENSE: u64 = 32;

impl Question {
    /// From a filter. The total must be exact unless `bounded`.
    pub fn new(filter: &Filter, bounded: bool) -> Self {
        let text = |text: &str| key::single(key::Value::Text(text.as_bytes()));
        Self {
            from: filter.from.as_deref().map(text),
            to: filter.to.as_deref().map(text),
            since: filter.since.map(|since| text(since.as_str())),
            until: filter.until.map(|until| text(until.as_str())),
            term: filter.search.as_ref().map(|needle| grams::of_term(needle.folded())),
            looks_max: if bounded { LOOKS_FOR_BOUND } else { u64::MAX },
        }
    }

    /// Searches a segment. With `in_a_hurry` it reads only short lists.
    pub fn ask<'a>(&self, member: &'a LiveSegment, in_a_hurry: bool) -> io::Result<Candidates<'a>> {
        let looks_max = if in_a_hurry { LOOKS_IN_A_HURRY } else { self.looks_max };
        let segment = &*member.segment;
        let bound = |place: &Option<Vec<u8>>, absent: u32| match place {
            Some(place) => segment.entries().lower_bound(place).map(|rank| rank as u32),
            None => Ok(absent),
        };
        let first = bound(&self.since, 0)?;
        let last = bound(&self.until, segment.count())?.max(first);
        let range = Ranks::Range(first, last, &member.dead);
        let mut search = Search { segment, first, last, reader: ListReader::default(), found: None };
        for (key, section) in [(&self.from, Section::Senders), (&self.to, Section::Recipients)] {
            let Some(key) = key else { continue };
            match search.list(key, section)? {
                Some(list) => search.narrow(&list)?,
                None => return Ok(Candidates::none()),
            }
        }
        let in_range = if in_a_hurry { (range.len() as u64).min(looks_max) } else { range.len() as u64 };
        let Some(doubtful) = search.narrow_by_term(self.term.as_ref(), in_range, looks_max)? else {
            return Ok(Candidates::none());
        };
        let ranks = match search.found {
            None => range,
            Some(mut found) => {
                if !member.dead.is_empty() {
                    found.retain(|rank| member.dead.binary_search(rank).is_err());
                }
                Ranks::List(found)
            }
        };
        Ok(Candidates { ranks, doubtful })
    }
}

impl Candidates<'_> {
    fn none() -> Self {
        Self { ranks: Ranks::List(Vec::new()), doubtful: false }
    }
}

/// A list that was not read yet: its length and position.
type Unread = [u64; 3];

struct Search<'a> {
    segment: &'a Segment,
    first: u32,
    last: u32,
    reader: ListReader,
    /// The remaining ranks, after a list excluded some.
    found: Option<Vec<u32>>,
}

impl Search<'_> {
    fn list(&self, key: &[u8], section: Section) -> io::Result<Option<Unread>> {
        let mut table = self.segment.lists(section);
        Ok(table.find(key)?.map(|numbers| [numbers[0], numbers[1], numbers[2]]))
    }

    /// Whether reading a list is cheaper than checking the texts of this many messages.
    fn is_worth(&self, [length, ..]: &Unread, messages: u64) -> bool {
        *length < messages.saturating_mul(LOOK_COST)
    }

    /// Intersects the ranks with the list.
    fn narrow(&mut self, list: &Unread) -> io::Result<()> {
        let mut ranks = Vec::new();
        self.segment.read_list(list, &mut self.reader, &mut ranks)?;
        self.keep(ranks);
        Ok(())
    }

    /// Keeps the ranks that may contain a term. Returns whether non-matches may remain; none if no text matches.
    fn narrow_by_term(&mut self, term: Option<&Lookup>, in_range: u64, looks_max: u64) -> io::Result<Option<bool>> {
        let may_be =
            |search: &Self| search.found.as_ref().map_or(in_range, |found| (found.len() as u64).min(looks_max));
        match term {
            None => Ok(Some(false)),
            Some(Lookup::Exact(gram)) => match self.list(&grams::key(*gram), Section::Grams)? {
                Some(list) if self.is_worth(&list, may_be(self)) => self.narrow(&list).map(|()| Some(false)),
                Some(_) => Ok(Some(true)),
                None => Ok(None),
            },
            Some(Lookup::All(all)) => {
                let mut lists = Vec::with_capacity(all.len());
                for gram in all {
                    match self.list(&grams::key(*gram), Section::Grams)? {
                        Some(list) => lists.push(list),
                        None => return Ok(None),
                    }
                }
                lists.sort_unstable();
                for list in &lists {
                    if !self.is_worth(list, may_be(self)) {
                        break;
                    }
                    self.narrow(list)?;
                }
                Ok(Some(true))
            }
            Some(Lookup::Beginning(from, to)) => {
                let lists = self.lists_between(*from, *to)?;
                let length = lists.iter().map(|[length, ..]| length).sum();
                if lists.is_empty() {
                    return Ok(None);
                }
                if !self.is_worth(&[length, 0, 0], may_be(self).min(looks_max)) {
                    return Ok(Some(true));
                }
                let joined = self.join(&lists, length)?;
                self.keep(joined);
                Ok(Some(false))
            }
        }
    }

    fn keep(&mut self, mut ranks: Vec<u32>) {
        self.found = Some(match self.found.take() {
            None => {
                ranks.truncate(ranks.partition_point(|rank| *rank < self.last));
                ranks.drain(..ranks.partition_point(|rank| *rank < self.first));
                ranks
            }
            Some(mut found) => {
                intersect(&mut found, &ranks);
                found
            }
        });
    }

    /// The lists of all grams in a range.
    fn lists_between(&self, from: grams::Gram, to: grams::Gram) -> io::Result<Vec<Unread>> {
        let mut table = self.segment.lists(Section::Grams);
        let mut lists = Vec::new();
        let mut place = table.lower_bound(&grams::key(from))?;
        while place < table.len() {
            let (key, numbers) = table.at(place)?;
            if key > grams::key(to).as_slice() {
                break;
            }
            lists.push([numbers[0], numbers[1], numbers[2]]);
            place += 1;
        }
        Ok(lists)
    }

    /// All ranks of several lists, each once.
    fn join(&mut self, lists: &[Unread], length: u64) -> io::Result<Vec<u32>> {
        let count = u64::from(self.segment.count());
        let mut ranks = Vec::new();
        if length < count / DENSE || lists.len() == 1 {
            for list in lists {
                self.segment.read_list(list, &mut self.reader, &mut ranks)?;
            }
            ranks.sort_unstable();
            ranks.dedup();
            return Ok(ranks);
        }
        let mut bits = vec![0u64; count.div_ceil(64) as usize];
        for list in lists {
            ranks.clear();
            self.segment.read_list(list, &mut self.reader, &mut ranks)?;
            ranks.iter().for_each(|rank| bits[*rank as usize / 64] |= 1 << (rank % 64));
        }
        ranks.clear();
        for (at, mut word) in bits.into_iter().enumerate() {
            while word != 0 {
                ranks.push(at as u32 * 64 + word.trailing_zeros());
                word &= word - 1;
            }
        }
        Ok(ranks)
    }
}

/// Keeps the values of `found` that are in `other`. Both ascend. A much longer `other` is searched.
pub fn intersect<T: Ord>(found: &mut Vec<T>, other: &[T]) {
    let mut rest = other;
    if found.len().saturating_mul(16) < other.len() {
        found.retain(|rank| {
            // Steps double in size: the next value is rarely far away.
            let mut step = 1;
            while step < rest.len() && rest[step] < *rank {
                step *= 2;
            }
            let window = &rest[..rest.len().min(step + 1)];
            let at = window.partition_point(|other| other < rank);
            rest = &rest[at..];
            rest.first() == Some(rank)
        });
    } else {
        found.retain(|rank| {
            while let [first, others @ ..] = rest
                && first < rank
            {
                rest = others;
            }
            rest.first() == Some(rank)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_intersection_is_what_both_have(
            a in prop::collection::btree_set(0u32..3_000, 0..60), b in prop::collection::btree_set(0u32..3_000, 0..2_000),
        ) {
            for (a, b) in [(&a, &b), (&b, &a)] {
                let mut found: Vec<u32> = a.iter().copied().collect();
                intersect(&mut found, &b.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(found, a.intersection(b).copied().collect::<Vec<_>>());
            }
        }
    }
}
