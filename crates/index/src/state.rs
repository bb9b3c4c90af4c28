//! The state of the index at one moment, and its changes.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use super::build::{Row, build};
use super::merge::{LiveSegment, merge};
use super::segment::Segment;
use super::senders::{Changes, CountTable, Senders, count};
use super::source::Source;

/// A segment in memory is merged with the previous one while that is less than this many times as large.
const GROWTH: u64 = 4;
/// This many segments in files of about one size are merged into one. If more exist, all of them are merged.
const TIER: usize = 8;
const TIER_MAX: usize = 4 * TIER;
/// Segments below this size are in one tier.
const TIER_LEAST: u64 = 65_536;
/// A segment is rewritten when more than one in this many of its messages are deleted.
const DEAD_SHARE: u64 = 8;

/// Limits that tests set lower.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum messages of a merged segment, so that merging needs little memory and ends soon.
    pub segment_messages_max: u64,
}

impl Limits {
    /// The limits of the service.
    pub const PRODUCTION: Self = Self { segment_messages_max: 6_000_000 };
}

/// An index that covers every message with a row up to `row` and every change record up to `note`, at one moment.
/// It is immutable after publication: all its readers see the same state.
#[derive(Debug, Clone)]
pub struct State {
    /// The epoch of the database.
    pub epoch: String,
    /// A name that the database got once it contained everything that this state covers.
    pub tie: String,
    /// The database's schema version.
    pub schema_version: i64,
    /// The database file, identified by the system.
    pub database: (u64, u64),
    /// The log file, identified by the system.
    pub log: (u64, u64),
    /// The greatest row that it covers.
    pub row: i64,
    /// The last change record that it covers.
    pub note: i64,
    /// The segments in files first, then those in memory.
    pub members: Vec<LiveSegment>,
    /// The number of segments in files, with the number of each file.
    pub files: Vec<u64>,
    /// The counts of the senders.
    pub senders: Senders,
    /// The sum of the digests of all messages that are not deleted.
    pub digest: u64,
}

/// The database to which a state belongs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Home {
    /// See `State`.
    pub epoch: String,
    /// See `State`.
    pub tie: String,
    /// See `State`.
    pub schema_version: i64,
    /// See `State`.
    pub database: (u64, u64),
    /// See `State`.
    pub log: (u64, u64),
}

/// The digest of a message with this row, order and sender. It is stored in files, so it must not change.
pub fn digest(row: i64, place: &[u8], sender: &[u8]) -> u64 {
    // FNV-1a, then the finalizer of SplitMix64: the last bytes of FNV-1a hardly reach the upper bits of the sum.
    let add = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = row.to_le_bytes().iter().chain(place).chain(sender).fold(0xcbf2_9ce4_8422_2325, add);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// A tombstone: a message that the index covers and that no longer has these values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// Its row.
    pub row: i64,
    /// Its place when it was covered.
    pub place: Vec<u8>,
    /// Its sender when it was covered.
    pub sender: Vec<u8>,
}

/// Deleted ranks, by the number of the segment.
pub type Dead = HashMap<usize, Vec<u32>>;

impl State {
    /// A state that covers nothing.
    pub fn empty(home: Home, note: i64) -> Self {
        let Home { epoch, tie, schema_version, database, log } = home;
        Self {
            epoch,
            tie,
            schema_version,
            database,
            log,
            row: i64::MIN,
            note,
            members: Vec::new(),
            files: Vec::new(),
            senders: Senders::new(CountTable::empty()),
            digest: 0,
        }
    }

    /// The number of messages that are not deleted.
    pub fn live(&self) -> u64 {
        self.members.iter().map(LiveSegment::live).sum()
    }

    /// The number of messages that are only in memory, including deleted ones.
    pub fn in_memory(&self) -> u64 {
        self.members[self.files.len()..].iter().map(|member| u64::from(member.segment.count())).sum()
    }

    /// The bytes of the segments that are only in memory.
    pub fn in_memory_bytes(&self) -> io::Result<u64> {
        self.members[self.files.len()..].iter().map(|member| member.segment.bytes()).sum()
    }

    /// Finds a tombstone's segment and rank. None if the message was never covered, or is deleted already.
    pub fn find(&self, gone: &Tombstone) -> io::Result<Option<(usize, u32)>> {
        self.locate(&gone.place, gone.row)
    }

    /// The segment and rank of the message with this place and row, unless it is deleted.
    pub fn locate(&self, place: &[u8], row: i64) -> io::Result<Option<(usize, u32)>> {
        for (at, member) in self.members.iter().enumerate() {
            if let Some(rank) = member.segment.rank_of(place, row)?
                && member.dead.binary_search(&rank).is_err()
            {
                return Ok(Some((at, rank)));
            }
        }
        Ok(None)
    }

    /// The same by the row alone. Reads all row numbers of every segment that may contain it.
    pub fn locate_row(&self, row: i64) -> io::Result<Option<(usize, u32)>> {
        for (at, member) in self.members.iter().enumerate() {
            if let Some(rank) = member.segment.rank_of_row(row, |rank| member.dead.binary_search(&rank).is_err())? {
                return Ok(Some((at, rank)));
            }
        }
        Ok(None)
    }

    /// The segments without the deleted messages.
    pub fn without(&self, dead: &Dead) -> Vec<LiveSegment> {
        let mut members = self.members.clone();
        for (at, ranks) in dead {
            let mut all = members[*at].dead.to_vec();
            all.extend(ranks);
            all.sort_unstable();
            all.dedup();
            members[*at].dead = Arc::new(all);
        }
        members
    }

    /// Covers more messages, in a new segment.
    pub fn add(&mut self, rows: Vec<Row>) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut changes = Changes::new();
        let mut sum = self.digest;
        for row in &rows {
            count(&mut changes, &row.sender, 1);
            sum = sum.wrapping_add(digest(row.row, &row.place, &row.sender));
        }
        self.members.push(in_memory(build(rows, Vec::new())?)?);
        self.senders.apply(&changes)?;
        self.digest = sum;
        self.settle()
    }

    /// Merges the newest segments until each is much larger than the next one.
    fn settle(&mut self) -> io::Result<()> {
        let size_of = |member: &LiveSegment| u64::from(member.segment.count());
        let mut from = self.members.len() - 1;
        let mut size = size_of(&self.members[from]);
        while from > self.files.len() && size_of(&self.members[from - 1]) < GROWTH * size {
            from -= 1;
            size += size_of(&self.members[from]);
        }
        if from + 1 < self.members.len() {
            let members = &self.members[from..];
            // The capacity is about the total size, because a growing vector copies everything each time.
            let bytes = members.iter().map(|member| member.segment.bytes()).sum::<io::Result<u64>>()?;
            let merged = in_memory(merge(members, Vec::with_capacity(bytes as usize))?)?;
            self.members.truncate(from);
            self.members.push(merged);
        }
        Ok(())
    }
}

impl State {
    /// Segments in files to merge: enough of about the same size, or one with many deleted messages.
    pub fn merge_due(&self, limits: &Limits) -> Option<Vec<LiveSegment>> {
        let files = &self.members[..self.files.len()];
        let count = |member: &LiveSegment| u64::from(member.segment.count());
        if let Some(member) = files.iter().find(|member| member.dead.len() as u64 * DEAD_SHARE > count(member)) {
            return Some(vec![member.clone()]);
        }
        let mut tiers: BTreeMap<u32, Vec<LiveSegment>> = BTreeMap::new();
        for member in files {
            tiers.entry((count(member) / TIER_LEAST).max(1).ilog(TIER as u64)).or_default().push(member.clone());
        }
        let as_many_as_fit = |mut members: Vec<LiveSegment>| {
            let mut sum = 0;
            let fits = |member: &&LiveSegment| {
                sum += count(member);
                sum <= limits.segment_messages_max
            };
            members.truncate(members.iter().take(TIER_MAX).take_while(fits).count());
            members
        };
        tiers.into_values().map(as_many_as_fit).find(|members| members.len() >= TIER)
    }
}

fn in_memory(bytes: Vec<u8>) -> io::Result<LiveSegment> {
    Segment::open(Source::Memory(bytes)).map(LiveSegment::new)
}

#[cfg(test)]
mod tests {
    use super::super::build::{Row, build};
    use super::*;

    #[test]
    fn where_more_have_come_than_one_segment_may_hold_as_many_as_fit_become_one() {
        let segment = |rows: i64| {
            let row = |row| Row {
                row,
                place: row.to_be_bytes().to_vec(),
                sender: vec![1],
                recipient: vec![2],
                text: None,
                hash: 0,
            };
            in_memory(build((1..=rows).map(row).collect(), Vec::new()).unwrap()).unwrap()
        };
        let limits = Limits { segment_messages_max: 400 };
        let due = |sizes: &[i64]| {
            let mut state = State::empty(Home::default(), 0);
            state.members = sizes.iter().map(|rows| segment(*rows)).collect();
            state.files = (0..sizes.len() as u64).collect();
            state.merge_due(&limits).map(|members| members.len())
        };
        assert_eq!(due(&[5; 7]), None);
        assert_eq!(due(&[5; 9]), Some(9));
        assert_eq!(due(&[5; 90]), Some(TIER_MAX), "not all at once");
        assert_eq!(due(&[40; 90]), Some(10), "400 rows are the most");
        assert_eq!(due(&[60; 90]), None, "six are not worth it");
    }
}
