//! Building a segment from messages.

use std::collections::HashMap;
use std::io::{self, Write};

use foldhash::fast::RandomState;

use super::grams::{self, Gram};
use super::segment::{Section, SegmentWriter};
use domain::fold::fold_into;

/// The data of a message that the index needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its row number in the table.
    pub row: i64,
    /// Its place in the order, from `key::place`.
    pub place: Vec<u8>,
    /// The sender, from `key::single`.
    pub sender: Vec<u8>,
    /// The recipient, from `key::single`.
    pub recipient: Vec<u8>,
    /// The text.
    pub text: Option<String>,
    /// A hash of the whole stored row.
    pub hash: u32,
}

/// Builds a segment of messages, in any order.
pub fn build<W: Write>(mut rows: Vec<Row>, to: W) -> io::Result<W> {
    rows.sort_unstable_by(|a, b| (&a.place, a.row).cmp(&(&b.place, b.row)));
    let mut writer = SegmentWriter::new(to);
    let (mut senders, mut recipients) = (Lists::default(), Lists::default());
    let mut grams = Lists::default();
    let mut folded = String::new();
    for row in &rows {
        folded.clear();
        fold_into(row.text.as_deref().unwrap_or_default(), &mut folded);
        let rank = writer.message(&row.place, (row.row, row.hash), row.text.as_ref().map(|_| folded.as_bytes()))?;
        senders.add(row.sender.as_slice(), rank);
        recipients.add(row.recipient.as_slice(), rank);
        grams::of_text(&folded, |gram| grams.add(gram, rank));
    }
    senders.each(|sender, ranks| writer.list(Section::Senders, sender, ranks))?;
    recipients.each(|recipient, ranks| writer.list(Section::Recipients, recipient, ranks))?;
    grams.each(|gram: &Gram, ranks| writer.list(Section::Grams, &grams::key(*gram), ranks))?;
    writer.finish()
}

/// Lists of ranks under construction. All are in one sequence until the end: allocating a list for each of thousands
/// of grams would cost more than filling it.
struct Lists<K> {
    numbers: HashMap<K, u32, RandomState>,
    /// By number of the list: the last rank that was added, and the number of ranks.
    last: Vec<(u32, u32)>,
    /// The additions: list and rank.
    added: Vec<(u32, u32)>,
}

impl<K> Default for Lists<K> {
    fn default() -> Self {
        Self { numbers: HashMap::default(), last: Vec::new(), added: Vec::new() }
    }
}

impl<K: std::hash::Hash + Ord + Copy> Lists<K> {
    /// Adds a rank to a list, unless it is its last one already. Ranks arrive in ascending order.
    fn add(&mut self, key: K, rank: u32) {
        let number = *self.numbers.entry(key).or_insert_with(|| {
            self.last.push((u32::MAX, 0));
            (self.last.len() - 1) as u32
        });
        let (last, length) = &mut self.last[number as usize];
        if *last != rank || *length == 0 {
            (*last, *length) = (rank, *length + 1);
            self.added.push((number, rank));
        }
    }

    /// Calls `write` for each list, in the order of the keys.
    fn each(self, mut write: impl FnMut(&K, &[u32]) -> io::Result<()>) -> io::Result<()> {
        let mut ends = Vec::with_capacity(self.last.len());
        let mut end = 0;
        for (_, length) in &self.last {
            ends.push(end);
            end += length;
        }
        let mut sorted = vec![0; self.added.len()];
        for (number, rank) in &self.added {
            let end = &mut ends[*number as usize];
            sorted[*end as usize] = *rank;
            *end += 1;
        }
        let mut keys: Vec<(K, u32)> = self.numbers.into_iter().collect();
        keys.sort_unstable();
        for (key, number) in keys {
            let (end, length) = (ends[number as usize] as usize, self.last[number as usize].1 as usize);
            write(&key, &sorted[end - length..end])?;
        }
        Ok(())
    }
}
