//! Merging several segments into one, without deleted messages.

use std::io::{self, Write};
use std::sync::Arc;

use super::segment::{ListReader, Section, Segment, SegmentWriter};
use super::table::Table;

/// A segment, and its deleted ranks in ascending order.
#[derive(Debug, Clone)]
pub struct LiveSegment {
    /// The segment.
    pub segment: Arc<Segment>,
    /// The deleted ranks.
    pub dead: Arc<Vec<u32>>,
}

impl LiveSegment {
    /// A segment without deleted messages.
    pub fn new(segment: Segment) -> Self {
        Self { segment: Arc::new(segment), dead: Arc::default() }
    }

    /// The number of messages that are not deleted.
    pub fn live(&self) -> u64 {
        u64::from(self.segment.count()) - self.dead.len() as u64
    }
}

/// Marks a message as deleted, instead of a rank.
const NO_RANK: u32 = u32::MAX;

/// Writes one segment with all messages of `members` that are not deleted.
pub fn merge<W: Write>(members: &[LiveSegment], to: W) -> io::Result<W> {
    let mut writer = SegmentWriter::new(to);
    let ranks = merge_messages(members, &mut writer)?;
    for section in Section::ALL {
        merge_lists(members, &ranks, section, &mut writer)?;
    }
    writer.finish()
}

/// Merges the messages, and returns the new rank of each old one, by member.
fn merge_messages<W: Write>(members: &[LiveSegment], writer: &mut SegmentWriter<W>) -> io::Result<Vec<Vec<u32>>> {
    let mut ranks: Vec<Vec<u32>> =
        members.iter().map(|member| Vec::with_capacity(member.segment.count() as usize)).collect();
    let mut heads: Vec<Head> =
        members.iter().map(|member| Head::new(member.segment.entries())).collect::<Result<_, _>>()?;
    let mut rows: Vec<_> = members.iter().map(|member| member.segment.rows()).collect();
    let mut texts: Vec<_> = members.iter().map(|member| member.segment.texts()).collect();
    let mut dead: Vec<_> = members.iter().map(|member| member.dead.iter().peekable()).collect();
    while let Some((least, limit)) = least_two(&heads) {
        // Times rarely interleave much: the same member continues until another one is next.
        let limit = limit.map(|other| heads[other].key.clone());
        loop {
            let head = &mut heads[least];
            let rank = head.place as u32;
            if dead[least].next_if(|next| **next == rank).is_some() {
                ranks[least].push(NO_RANK);
            } else {
                let entry = rows[least].entry(rank)?;
                ranks[least].push(writer.message(&head.key, entry, texts[least].text(rank)?)?);
            }
            if !head.advance()? || limit.as_ref().is_some_and(|limit| head.key > *limit) {
                break;
            }
        }
    }
    Ok(ranks)
}

/// Merges the lists of a section; a key without remaining ranks is left out.
fn merge_lists<W: Write>(
    members: &[LiveSegment],
    ranks: &[Vec<u32>],
    section: Section,
    writer: &mut SegmentWriter<W>,
) -> io::Result<()> {
    let tables = members.iter().map(|member| Head::new(member.segment.lists(section)));
    let mut heads: Vec<Head> = tables.collect::<Result<_, _>>()?;
    let mut readers: Vec<_> = members.iter().map(|_| ListReader::ahead()).collect();
    let (mut old, mut merged) = (Vec::new(), Vec::new());
    while let Some((least, _)) = least_two(&heads) {
        let key = heads[least].key.clone();
        merged.clear();
        for (at, head) in heads.iter_mut().enumerate().filter(|(_, head)| !head.ended && head.key == key) {
            old.clear();
            members[at].segment.read_list(&head.values, &mut readers[at], &mut old)?;
            merged.extend(old.iter().map(|rank| ranks[at][*rank as usize]).filter(|rank| *rank != NO_RANK));
            head.advance()?;
        }
        if !merged.is_sorted() {
            // The list consists of few ascending runs, which this sort handles quickly.
            merged.sort();
        }
        if !merged.is_empty() {
            writer.list(section, &key, &merged)?;
        }
    }
    Ok(())
}

/// The head with the least key, and the least key of the others.
fn least_two(heads: &[Head<'_>]) -> Option<(usize, Option<usize>)> {
    let (mut first, mut second): (Option<usize>, Option<usize>) = (None, None);
    for (at, head) in heads.iter().enumerate().filter(|(_, head)| !head.ended) {
        let less = |other: Option<usize>| other.is_none_or(|other| head.key < heads[other].key);
        if less(first) {
            (first, second) = (Some(at), first);
        } else if less(second) {
            second = Some(at);
        }
    }
    first.map(|first| (first, second))
}

/// A table that is read from front to back.
struct Head<'a> {
    table: Table<'a>,
    place: u64,
    ended: bool,
    key: Vec<u8>,
    values: Vec<u64>,
}

impl<'a> Head<'a> {
    fn new(table: Table<'a>) -> io::Result<Self> {
        let mut head = Self { table, place: 0, ended: false, key: Vec::new(), values: Vec::new() };
        head.load()?;
        Ok(head)
    }

    fn load(&mut self) -> io::Result<()> {
        self.ended = self.place >= self.table.len();
        if !self.ended {
            let (key, values) = self.table.at(self.place)?;
            self.key.clear();
            self.key.extend_from_slice(key);
            self.values.clear();
            self.values.extend_from_slice(values);
        }
        Ok(())
    }

    /// Advances by one key; returns whether there was one.
    fn advance(&mut self) -> io::Result<bool> {
        self.place += 1;
        self.load()?;
        Ok(!self.ended)
    }
}
