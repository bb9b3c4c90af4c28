//! The number of messages of each sender: a sorted table of the counts at one point, in a file once it is large, and
//! the later changes in memory.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::sync::Arc;

use super::source::{Form, Sink, Source, put_number, read_end, take_bytes, take_number};
use super::table::{Fences, Table, TableWriter};

const FORM: Form = *b"pr-snd\0\x01";
/// The most frequent senders that a table keeps in memory.
const TOP_OF_TABLE: usize = 1_000;
/// The most frequent senders of a result. More than are returned, because tail rows may change the order.
const TOP_OF_ALL: usize = 64;

/// A sender, from `key::single`, and its number of messages; the most frequent first, then by sender.
pub type Count = (Reverse<u64>, Arc<[u8]>);
/// Changes of the number of messages, by sender.
pub type Changes = HashMap<Arc<[u8]>, i64>;

/// The counts at one point.
#[derive(Debug)]
pub struct CountTable {
    source: Source,
    fences: Fences,
    top: Vec<Count>,
    checksum: u32,
}

impl CountTable {
    /// The table of an empty inbox.
    pub fn empty() -> Self {
        Self { source: Source::Memory(Vec::new()), fences: Fences::default(), top: Vec::new(), checksum: 0 }
    }

    /// Reads the footer.
    pub fn open(source: Source) -> io::Result<Self> {
        let end = read_end(&source, FORM)?;
        let mut rest = end.as_slice();
        let fences = Fences::decode(&mut rest)?;
        let mut top = Vec::new();
        for _ in 0..take_number(&mut rest)? {
            let (count, length) = (take_number(&mut rest)?, take_number(&mut rest)?);
            top.push((Reverse(count), take_bytes(&mut rest, length as usize)?.into()));
        }
        Ok(Self { source, fences, top, checksum: crc32fast::hash(&end) })
    }

    /// A checksum of the footer, which identifies the table.
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    fn table(&self) -> Table<'_> {
        Table::new(&self.fences, &self.source)
    }
}

/// Adds to the change of a sender.
pub fn count(changes: &mut Changes, sender: &[u8], change: i64) {
    match changes.get_mut(sender) {
        Some(count) => *count += change,
        None => drop(changes.insert(sender.into(), change)),
    }
}

/// The count of a sender that has changed since the table was written.
#[derive(Debug, Clone, Copy)]
struct Changed {
    before: u64,
    change: i64,
}

impl Changed {
    fn now(self) -> u64 {
        self.before.saturating_add_signed(self.change)
    }
}

/// The current counts. A new state shares unchanged parts with the previous one.
#[derive(Debug, Clone)]
pub struct Senders {
    table: Arc<CountTable>,
    changed: HashMap<Arc<[u8]>, Changed>,
    distinct: u64,
    top: Vec<Count>,
}

impl Senders {
    /// The counts of a table.
    pub fn new(table: CountTable) -> Self {
        let top = table.top.iter().take(TOP_OF_ALL).cloned().collect();
        Self { distinct: table.fences.keys(), table: Arc::new(table), changed: HashMap::new(), top }
    }

    /// The number of senders with a message.
    pub fn distinct(&self) -> u64 {
        self.distinct
    }

    /// The number of messages of a sender.
    pub fn count(&self, sender: &[u8]) -> io::Result<u64> {
        match self.changed.get(sender) {
            Some(changed) => Ok(changed.now()),
            None => Ok(self.table.table().find(sender)?.map_or(0, |numbers| numbers[0])),
        }
    }

    /// Applies changes.
    pub fn apply(&mut self, changes: &Changes) -> io::Result<()> {
        let mut table = self.table.table();
        for (sender, change) in changes.iter().filter(|(_, change)| **change != 0) {
            if !self.changed.contains_key(sender) {
                let before = table.find(sender)?.map_or(0, |numbers| numbers[0]);
                self.changed.insert(Arc::clone(sender), Changed { before, change: 0 });
            }
            let changed = self.changed.get_mut(sender).expect("inserted above");
            let before = changed.now();
            changed.change += change;
            self.distinct = self.distinct + u64::from(changed.now() > 0) - u64::from(before > 0);
        }
        let unchanged = self.table.top.iter().filter(|(_, sender)| !self.changed.contains_key(sender)).cloned();
        let changed = self.changed.iter().filter(|(_, changed)| changed.now() > 0);
        let changed = changed.map(|(sender, changed)| (Reverse(changed.now()), Arc::clone(sender)));
        self.top = greatest(unchanged.chain(changed), TOP_OF_ALL);
        Ok(())
    }

    /// The number of senders, and the `count` most frequent, after further changes that are not kept. None if the most
    /// frequent have lost so much that senders outside the kept list may be more frequent.
    pub fn after(&self, changes: &Changes, count: usize) -> io::Result<Option<(u64, Vec<Count>)>> {
        let (mut distinct, mut moved) = (self.distinct, BTreeSet::new());
        for (sender, change) in changes {
            let before = self.count(sender)?;
            let now = before.saturating_add_signed(*change);
            distinct = distinct + u64::from(now > 0) - u64::from(before > 0);
            if now > 0 {
                moved.insert((Reverse(now), Arc::clone(sender)));
            }
        }
        let unmoved = self.top.iter().filter(|(_, sender)| !changes.contains_key(sender)).cloned();
        let top = greatest(unmoved.chain(moved), count);
        let is_certain = match (self.least_at_hand(), top.get(count - 1)) {
            (None, _) => true,
            (Some(least), Some(last)) => last <= &least,
            (Some(_), None) => false,
        };
        Ok(is_certain.then_some((distinct, top)))
    }

    /// No sender outside the kept list is more frequent than this. None if the list has all senders.
    fn least_at_hand(&self) -> Option<Count> {
        let of_table = (self.table.top.len() as u64) < self.table.fences.keys();
        let least_of_table = of_table.then(|| self.table.top.last().cloned()).flatten();
        let least_of_all = (self.top.len() >= TOP_OF_ALL).then(|| self.top.last().cloned()).flatten();
        least_of_table.into_iter().chain(least_of_all).min()
    }

    /// The number of senders that have changed since the table was written.
    pub fn changed(&self) -> usize {
        self.changed.len()
    }

    /// Writes a table of the current counts.
    pub fn write<W: Write>(&self, to: W) -> io::Result<W> {
        let (mut writer, mut sink) = (TableWriter::new(1), Sink::new(to));
        let mut changed: Vec<_> = self.changed.iter().collect();
        changed.sort_unstable_by_key(|(sender, _)| *sender);
        let mut changed = changed.into_iter().peekable();
        let mut top = Vec::new();
        let mut write = |sender: &[u8], count: u64, sink: &mut Sink<W>| -> io::Result<()> {
            if count > 0 {
                writer.push(sender, &[count], sink)?;
                top.push((Reverse(count), Arc::from(sender)));
                if top.len() >= 2 * TOP_OF_TABLE {
                    top = greatest(top.drain(..), TOP_OF_TABLE);
                }
            }
            Ok(())
        };
        let mut table = self.table.table();
        for place in 0..table.len() {
            let (sender, numbers) = table.at(place)?;
            while let Some((other, changed)) = changed.next_if(|(other, _)| ***other < *sender) {
                write(other, changed.now(), &mut sink)?;
            }
            let count =
                changed.next_if(|(other, _)| ***other == *sender).map_or(numbers[0], |(_, changed)| changed.now());
            write(sender, count, &mut sink)?;
        }
        for (sender, changed) in changed {
            write(sender, changed.now(), &mut sink)?;
        }
        let mut end = Vec::new();
        writer.finish(&mut sink)?.encode(&mut end);
        let top = greatest(top, TOP_OF_TABLE);
        put_number(top.len() as u64, &mut end);
        for (Reverse(count), sender) in top {
            put_number(count, &mut end);
            put_number(sender.len() as u64, &mut end);
            end.extend_from_slice(&sender);
        }
        sink.finish(&end, FORM)
    }
}

/// The first `count` counts, in order.
fn greatest(counts: impl IntoIterator<Item = Count>, count: usize) -> Vec<Count> {
    let mut all: Vec<Count> = counts.into_iter().collect();
    if all.len() > count {
        all.select_nth_unstable(count);
        all.truncate(count);
    }
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn counts_are_those_of_a_map(
            rounds in prop::collection::vec((prop::collection::vec((0u16..120, 1i64..9), 0..150), any::<bool>()), 1..6),
            loss in prop::collection::vec(0u16..120, 0..60),
        ) {
            let key = |sender: u16| -> Arc<[u8]> { sender.to_be_bytes().as_slice().into() };
            let mut model = BTreeMap::<u16, i64>::new();
            let mut senders = Senders::new(CountTable::empty());
            for (round, is_written) in rounds {
                let mut changes = Changes::new();
                for (sender, change) in round {
                    *model.entry(sender).or_default() += change;
                    *changes.entry(key(sender)).or_default() += change;
                }
                senders.apply(&changes).unwrap();
                if is_written {
                    let table = senders.write(Vec::new()).unwrap();
                    senders = Senders::new(CountTable::open(Source::Memory(table)).unwrap());
                }
            }
            let mut changes = Changes::new();
            for sender in loss {
                if let Some(count) = model.get_mut(&sender).filter(|count| **count > 0) {
                    *count -= 1;
                    *changes.entry(key(sender)).or_default() -= 1;
                }
            }
            let mut expected: Vec<Count> =
                model.iter().filter(|(_, count)| **count > 0).map(|(sender, count)| (Reverse(*count as u64), key(*sender))).collect();
            expected.sort();
            let distinct = expected.len() as u64;
            expected.truncate(10);
            if let Some(after) = senders.after(&changes, 10).unwrap() {
                prop_assert_eq!(&after, &(distinct, expected.clone()));
            }
            senders.apply(&changes).unwrap();
            prop_assert_eq!(senders.distinct(), distinct);
            let after = senders.after(&Changes::new(), 10).unwrap();
            prop_assert_eq!(after, Some((distinct, expected)));
        }
    }
}
