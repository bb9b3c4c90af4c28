//! Sorted runs of messages, and selection of the n-th message of several runs without a scan.

use std::io;

use super::segment::{Rows, Segment};
use super::table::Table;

/// A tail row: a message whose present values are in no segment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TailRow {
    /// Its place in the order, from `key::place`.
    pub place: Vec<u8>,
    /// Its row number in the table.
    pub row: i64,
}

/// Some ranks of a segment, ascending.
#[derive(Debug, Clone)]
pub enum Ranks<'a> {
    /// A range (end exclusive), without the deleted ranks.
    Range(u32, u32, &'a [u32]),
    /// These ranks.
    List(Vec<u32>),
}

impl Ranks<'_> {
    /// All ranks.
    pub fn list(&self) -> Vec<u32> {
        match self {
            Self::Range(first, last, dead) => {
                let mut dead = dead[dead.partition_point(|rank| rank < first)..].iter().peekable();
                (*first..*last).filter(|rank| dead.next_if(|dead| *dead == rank).is_none()).collect()
            }
            Self::List(ranks) => ranks.clone(),
        }
    }

    /// The number of ranks.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Range(..) => self.before(u32::MAX),
            Self::List(ranks) => ranks.len(),
        }
    }

    /// The rank at a position in the list.
    pub fn at(&self, place: usize) -> u32 {
        match self {
            Self::Range(first, _, dead) => {
                let dead = &dead[dead.partition_point(|rank| rank < first)..];
                let mut passed = 0;
                // The number of live ranks before a deleted rank grows with the deleted rank.
                let mut size = dead.len();
                while size > 0 {
                    let half = size / 2;
                    let middle = passed + half;
                    if (dead[middle] - first) as usize - middle <= place {
                        passed = middle + 1;
                        size -= half + 1;
                    } else {
                        size = half;
                    }
                }
                first + (place + passed) as u32
            }
            Self::List(ranks) => ranks[place],
        }
    }

    /// How many of the ranks are below `rank`.
    fn before(&self, rank: u32) -> usize {
        match self {
            Self::Range(first, last, dead) => {
                let rank = rank.clamp(*first, *last);
                let of_dead = |rank: u32| dead.partition_point(|dead| *dead < rank);
                (rank - first) as usize - (of_dead(rank) - of_dead(*first))
            }
            Self::List(ranks) => ranks.partition_point(|other| *other < rank),
        }
    }
}

/// A sorted run.
#[derive(Debug)]
pub enum Run<'a> {
    /// From a segment.
    Segment {
        /// The segment's order.
        entries: Table<'a>,
        /// The segment's row numbers.
        rows: Rows<'a>,
        /// The ranks of its messages.
        ranks: Ranks<'a>,
    },
    /// Tail rows.
    TailRow(&'a [TailRow]),
}

impl<'a> Run<'a> {
    /// Some messages of a segment.
    pub fn new(segment: &'a Segment, ranks: Ranks<'a>) -> Self {
        Self::Segment { entries: segment.entries(), rows: segment.rows(), ranks }
    }

    fn len(&self) -> usize {
        match self {
            Self::Segment { ranks, .. } => ranks.len(),
            Self::TailRow(messages) => messages.len(),
        }
    }

    fn place(&mut self, at: usize) -> io::Result<&[u8]> {
        match self {
            Self::Segment { entries, ranks, .. } => Ok(entries.at(ranks.at(at).into())?.0),
            Self::TailRow(messages) => Ok(&messages[at].place),
        }
    }

    /// The message at a position in the run, the hash of its row, and its rank in the segment.
    fn message(&mut self, at: usize) -> io::Result<(TailRow, Option<u32>, u32)> {
        match self {
            Self::Segment { entries, rows, ranks } => {
                let rank = ranks.at(at);
                let (row, hash) = rows.entry(rank)?;
                Ok((TailRow { place: entries.at(rank.into())?.0.to_vec(), row }, Some(hash), rank))
            }
            Self::TailRow(messages) => Ok((messages[at].clone(), None, 0)),
        }
    }

    fn lower_bound(&mut self, place: &[u8]) -> io::Result<usize> {
        match self {
            Self::Segment { entries, ranks, .. } => {
                let rank = entries.lower_bound(place)?;
                Ok(ranks.before(u32::try_from(rank).unwrap_or(u32::MAX)))
            }
            Self::TailRow(messages) => Ok(messages.partition_point(|message| message.place.as_slice() < place)),
        }
    }
}

/// A message of several runs.
#[derive(Debug)]
pub struct Found {
    /// The message.
    pub message: TailRow,
    /// The hash of its row when it was indexed; none for a tail row.
    pub hash: Option<u32>,
    /// The number of its run.
    pub run: usize,
    /// Its rank, if it is in a segment.
    pub rank: u32,
}

/// Runs that are read as one, in order.
#[derive(Debug)]
pub struct Runs<'a> {
    runs: Vec<Run<'a>>,
    at: Vec<usize>,
    ends: Vec<usize>,
}

/// Below this window size the rest is scanned.
const WINDOW: usize = 4;

impl<'a> Runs<'a> {
    /// Starts at the front.
    pub fn new(runs: Vec<Run<'a>>) -> Self {
        let ends: Vec<usize> = runs.iter().map(Run::len).collect();
        Self { at: vec![0; runs.len()], ends, runs }
    }

    /// The total of messages.
    pub fn total(&self) -> u64 {
        self.ends.iter().map(|end| *end as u64).sum()
    }

    /// Moves to the first message after a place.
    pub fn seek(&mut self, place: &[u8]) -> io::Result<()> {
        // No place in the order is a prefix of another place.
        let behind = [place, &[0]].concat();
        for (run, at) in self.runs.iter_mut().zip(&mut self.at) {
            *at = run.lower_bound(&behind)?;
        }
        Ok(())
    }

    /// Skips this many messages from the front, by repeatedly cutting the runs around a message of the longest one:
    /// the part before the cut is either skipped completely or contains the target.
    pub fn skip(&mut self, count: u64) -> io::Result<()> {
        if count >= self.total() {
            self.at.clone_from(&self.ends);
            return Ok(());
        }
        let (mut low, mut high) = (vec![0; self.runs.len()], self.ends.clone());
        loop {
            let (longest, window) =
                (0..self.runs.len()).map(|at| (at, high[at] - low[at])).max_by_key(|(_, size)| *size).unwrap_or((0, 0));
            if count == 0 || window <= WINDOW {
                break;
            }
            let middle = (low[longest] + high[longest]) / 2;
            let pivot = self.runs[longest].place(middle)?.to_vec();
            let mut cut = Vec::with_capacity(self.runs.len());
            for (at, run) in self.runs.iter_mut().enumerate() {
                let bound = if at == longest { middle } else { run.lower_bound(&pivot)? };
                cut.push(bound.clamp(low[at], high[at]));
            }
            let before: u64 = cut.iter().map(|at| *at as u64).sum();
            if before <= count { low = cut } else { high = cut }
        }
        let passed: u64 = low.iter().map(|at| *at as u64).sum();
        self.at = low;
        for _ in passed..count {
            self.pass()?;
        }
        Ok(())
    }

    /// The run with the next message.
    fn least(&mut self) -> io::Result<Option<usize>> {
        let mut least: Option<(usize, Vec<u8>)> = None;
        for (at, run) in self.runs.iter_mut().enumerate() {
            if self.at[at] < self.ends[at] {
                let place = run.place(self.at[at])?;
                if least.as_ref().is_none_or(|(_, other)| place < other.as_slice()) {
                    least = Some((at, place.to_vec()));
                }
            }
        }
        Ok(least.map(|(at, _)| at))
    }

    fn pass(&mut self) -> io::Result<()> {
        if let Some(run) = self.least()? {
            self.at[run] += 1;
        }
        Ok(())
    }

    /// The next message.
    pub fn next_message(&mut self) -> io::Result<Option<Found>> {
        let Some(run) = self.least()? else { return Ok(None) };
        let at = self.at[run];
        self.at[run] += 1;
        let (message, hash, rank) = self.runs[run].message(at)?;
        Ok(Some(Found { message, hash, run, rank }))
    }
}
