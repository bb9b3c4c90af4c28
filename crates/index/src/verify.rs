//! Verification of a segment: everything in it is read and compared with the messages.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

use super::build::Row;
use super::grams;
use super::merge::LiveSegment;
use super::segment::{ListReader, Section};
use domain::fold::fold_into;

/// Maximum number of differing rows that are named.
const NAMED_MAX: usize = 10;

/// The result of a comparison.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Messages that are missing, have another place, or differ from their indexed values.
    pub differing: u64,
    /// The rows of the first of them.
    pub named: Vec<i64>,
    /// Messages with an unchanged row, but another text in the segment.
    pub wrong_texts: u64,
    /// Whether the lists match the messages that do not differ.
    pub lists_agree: bool,
}

/// Compares a segment with the messages that `row` returns by number.
pub fn compare<E: From<io::Error>>(
    member: &LiveSegment,
    mut row: impl FnMut(i64) -> Result<Option<Row>, E>,
) -> Result<Compared, E> {
    let (mut entries, mut rows) = (member.segment.entries(), member.segment.rows());
    let (mut texts, mut compared, mut expected) = (member.segment.texts(), Compared::default(), Sum::default());
    let (mut folded, mut of_text) = (String::new(), Vec::new());
    for rank in 0..member.segment.count() {
        let place = entries.at(rank.into())?.0;
        if member.dead.binary_search(&rank).is_ok() {
            continue;
        }
        let (number, hash) = rows.entry(rank)?;
        let same = |message: &Row| message.place == place && message.hash == hash;
        let Some(message) = row(number)?.filter(same) else {
            compared.differing += 1;
            if compared.named.len() < NAMED_MAX {
                compared.named.push(number);
            }
            continue;
        };
        expected.add(Section::Senders, &message.sender, rank);
        expected.add(Section::Recipients, &message.recipient, rank);
        folded.clear();
        fold_into(message.text.as_deref().unwrap_or_default(), &mut folded);
        if texts.text(rank)? != message.text.as_ref().map(|_| folded.as_bytes()) {
            compared.wrong_texts += 1;
        }
        of_text.clear();
        grams::of_text(&folded, |gram| of_text.push(gram));
        of_text.sort_unstable();
        of_text.dedup();
        of_text.iter().for_each(|gram| expected.add(Section::Grams, &grams::key(*gram), rank));
    }
    let mut found = Sum::default();
    let (mut reader, mut ranks) = (ListReader::ahead(), Vec::new());
    for section in Section::ALL {
        let mut lists = member.segment.lists(section);
        for place in 0..lists.len() {
            let (key, numbers) = lists.at(place)?;
            ranks.clear();
            member.segment.read_list(numbers, &mut reader, &mut ranks)?;
            let alive = ranks.iter().filter(|rank| member.dead.binary_search(rank).is_err());
            alive.for_each(|rank| found.add(section, key, *rank));
        }
    }
    // A differing message is not in the expected lists, so the lists differ too. That is already reported.
    compared.lists_agree = compared.differing > 0 || found == expected;
    Ok(compared)
}

/// An order-free sum of all entries of all lists.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    entries: u64,
    hashes: u64,
}

impl Sum {
    fn add(&mut self, section: Section, key: &[u8], rank: u32) {
        let mut hasher = DefaultHasher::new();
        (section, key, rank).hash(&mut hasher);
        self.entries += 1;
        self.hashes = self.hashes.wrapping_add(hasher.finish());
    }
}
