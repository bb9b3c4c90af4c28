//! A segment: some messages in listing order, the messages of each sender and of each gram,
//! and their folded texts, to check terms that are longer than a gram.
//! A segment is written once and never changed. A message's position is its *rank*; lists are lists of ranks.

use std::io::{self, Write};
use std::ops::RangeInclusive;

use super::postings::{pack, unpack};
use super::source::{CHECKSUM_BYTES, Form, Sink, Source, damaged, put_number, read_end, take_bytes, take_number};
use super::table::{Fences, Table, TableWriter};

/// The format of the bytes; a segment with another format is rebuilt.
const FORM: Form = *b"pr-seg\0\x04";
/// Row numbers in a part.
const ROWS_IN_PART: usize = 1024;
/// Bytes of a row number and the following hash.
const ROW_BYTES: usize = 8 + 4;
/// Bytes of lists that are read at a time if all are read.
const READ_AHEAD_BYTES: usize = 64 << 10;
/// Texts in a part: few, because checking one reads all of them.
const TEXTS_IN_PART: usize = 32;

/// The kinds of lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Section {
    /// By sender, a key from `key::single`.
    Senders,
    /// By recipient, a key from `key::single`.
    Recipients,
    /// By gram, a key from `grams::key`.
    Grams,
}

/// Writes a segment. Messages arrive in order, and so do the lists of each section.
#[derive(Debug)]
pub struct SegmentWriter<W> {
    sink: Sink<W>,
    entries: TableWriter,
    lists: [TableWriter; Section::ALL.len()],
    rows: Vec<(i64, u32)>,
    row_parts: Vec<u64>,
    texts: Vec<u8>,
    text_parts: Vec<(u64, u32)>,
    packed: Vec<u8>,
    count: u32,
    least_row: i64,
    greatest_row: i64,
}

impl Section {
    /// In the order of the segment's footer.
    pub const ALL: [Self; 3] = [Self::Senders, Self::Recipients, Self::Grams];
}

impl<W: Write> SegmentWriter<W> {
    /// An empty segment.
    pub fn new(to: W) -> Self {
        Self {
            sink: Sink::new(to),
            entries: TableWriter::new(0),
            lists: Section::ALL.map(|_| TableWriter::new(3)),
            rows: Vec::with_capacity(ROWS_IN_PART),
            row_parts: Vec::new(),
            texts: Vec::new(),
            text_parts: Vec::new(),
            packed: Vec::new(),
            count: 0,
            least_row: i64::MAX,
            greatest_row: i64::MIN,
        }
    }

    /// Adds a message with its place, its row number, the hash of its row, and its folded text.
    /// Returns its rank.
    pub fn message(&mut self, place: &[u8], (row, hash): (i64, u32), text: Option<&[u8]>) -> io::Result<u32> {
        self.entries.push(place, &[], &mut self.sink)?;
        put_number(text.map_or(0, |text| text.len() as u64 + 1), &mut self.texts);
        self.texts.extend_from_slice(text.unwrap_or_default());
        self.rows.push((row, hash));
        (self.least_row, self.greatest_row) = (self.least_row.min(row), self.greatest_row.max(row));
        if self.rows.len() == ROWS_IN_PART {
            self.end_row_part()?;
        }
        self.count += 1;
        if (self.count as usize).is_multiple_of(TEXTS_IN_PART) {
            self.end_text_part()?;
        }
        Ok(self.count - 1)
    }

    fn end_text_part(&mut self) -> io::Result<()> {
        let offset = self.sink.offset();
        let length = self.sink.write_checked(&self.texts)?;
        self.text_parts.push((offset, length as u32));
        self.texts.clear();
        Ok(())
    }

    fn end_row_part(&mut self) -> io::Result<()> {
        self.row_parts.push(self.sink.offset());
        self.packed.clear();
        for (row, hash) in self.rows.drain(..) {
            self.packed.extend(row.to_le_bytes());
            self.packed.extend(hash.to_le_bytes());
        }
        self.sink.write_checked(&self.packed).map(drop)
    }

    /// Adds a list, which must be strictly ascending and not empty.
    pub fn list(&mut self, section: Section, key: &[u8], ranks: &[u32]) -> io::Result<()> {
        self.packed.clear();
        pack(ranks, &mut self.packed);
        let offset = self.sink.offset();
        let length = self.sink.write_checked(&self.packed)?;
        self.lists[section as usize].push(key, &[ranks.len() as u64, offset, length as u64], &mut self.sink)
    }

    /// Writes the footer.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.rows.is_empty() {
            self.end_row_part()?;
        }
        if !self.texts.is_empty() {
            self.end_text_part()?;
        }
        let mut end = Vec::new();
        for table in [self.entries].into_iter().chain(self.lists) {
            table.finish(&mut self.sink)?.encode(&mut end);
        }
        let mut before = 0;
        for offset in &self.row_parts {
            put_number(offset - before, &mut end);
            before = *offset;
        }
        let mut before = 0;
        for (offset, length) in &self.text_parts {
            put_number(offset - before, &mut end);
            put_number((*length).into(), &mut end);
            before = *offset;
        }
        for row in [self.least_row, self.greatest_row] {
            end.extend(row.to_le_bytes());
        }
        self.sink.finish(&end, FORM)
    }
}

/// A readable segment.
#[derive(Debug)]
pub struct Segment {
    source: Source,
    entries: Fences,
    lists: [Fences; Section::ALL.len()],
    row_parts: Vec<u64>,
    text_parts: Vec<(u64, u32)>,
    row_range: RangeInclusive<i64>,
    checksum: u32,
}

impl Segment {
    /// Reads the footer.
    pub fn open(source: Source) -> io::Result<Self> {
        let end = read_end(&source, FORM)?;
        let mut rest = end.as_slice();
        let entries = Fences::decode(&mut rest)?;
        let lists = [Fences::decode(&mut rest)?, Fences::decode(&mut rest)?, Fences::decode(&mut rest)?];
        let mut at = 0;
        let parts = entries.keys().div_ceil(ROWS_IN_PART as u64);
        let row_parts = (0..parts).map(|_| {
            at += take_number(&mut rest)?;
            Ok(at)
        });
        let row_parts = row_parts.collect::<io::Result<_>>()?;
        let mut at = 0;
        let parts = entries.keys().div_ceil(TEXTS_IN_PART as u64);
        let text_parts = (0..parts).map(|_| {
            at += take_number(&mut rest)?;
            Ok((at, take_number(&mut rest)? as u32))
        });
        let text_parts = text_parts.collect::<io::Result<_>>()?;
        let mut row = || take_bytes(&mut rest, 8).map(|row| i64::from_le_bytes(row.try_into().expect("eight bytes")));
        let checksum = crc32fast::hash(&end);
        Ok(Self { row_range: row()?..=row()?, checksum, source, entries, lists, row_parts, text_parts })
    }

    /// Its length.
    pub fn bytes(&self) -> io::Result<u64> {
        self.source.length()
    }

    /// A checksum of the footer, which identifies the segment.
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    /// The number of its messages, including deleted ones.
    pub fn count(&self) -> u32 {
        self.entries.keys() as u32
    }

    /// The range of its row numbers.
    pub fn row_range(&self) -> &RangeInclusive<i64> {
        &self.row_range
    }

    /// Its greatest row number.
    pub fn greatest_row(&self) -> i64 {
        *self.row_range.end()
    }

    /// The messages by their places: the position in the table is the rank.
    pub fn entries(&self) -> Table<'_> {
        Table::new(&self.entries, &self.source)
    }

    /// The lists of a section by their keys.
    pub fn lists(&self, section: Section) -> Table<'_> {
        Table::new(&self.lists[section as usize], &self.source)
    }

    /// Appends the list to which a table's numbers refer.
    pub fn read_list(&self, numbers: &[u64], reader: &mut ListReader, ranks: &mut Vec<u32>) -> io::Result<()> {
        let [count, offset, length] = *numbers else { return Err(damaged("a list has a wrong number of entries")) };
        if count > self.entries.keys() {
            return Err(damaged("a list is longer than its segment"));
        }
        let start = ranks.len();
        unpack(reader.read(&self.source, offset, length as usize)?, count as usize, ranks)?;
        // The list ascends, so checking the last rank is enough.
        match ranks[start..].last() {
            Some(last) if *last >= self.count() => Err(damaged("a list points beyond its segment")),
            _ => Ok(()),
        }
    }

    /// A reader of row numbers.
    pub fn rows(&self) -> Rows<'_> {
        Rows { segment: self, part: None, bytes: Vec::new() }
    }

    /// A reader of folded texts.
    pub fn texts(&self) -> Texts<'_> {
        Texts { segment: self, part: None, bytes: Vec::new(), ends: Vec::new() }
    }

    /// The rank of a message with this place and row, if it is here.
    pub fn rank_of(&self, place: &[u8], row: i64) -> io::Result<Option<u32>> {
        if !self.row_range.contains(&row) {
            return Ok(None);
        }
        let (mut entries, mut rows) = (self.entries(), self.rows());
        let mut rank = entries.lower_bound(place)?;
        while rank < entries.len() && entries.at(rank)?.0 == place {
            if rows.row(rank as u32)? == row {
                return Ok(Some(rank as u32));
            }
            rank += 1;
        }
        Ok(None)
    }
}

impl Segment {
    /// The rank of a row that is `alive`, found by a scan.
    pub fn rank_of_row(&self, row: i64, alive: impl Fn(u32) -> bool) -> io::Result<Option<u32>> {
        if !self.row_range.contains(&row) {
            return Ok(None);
        }
        let mut rows = self.rows();
        for rank in 0..self.count() {
            if rows.row(rank)? == row && alive(rank) {
                return Ok(Some(rank));
            }
        }
        Ok(None)
    }

    /// The key of the list of a section that contains a rank, found by a scan.
    pub fn key_of(&self, section: Section, rank: u32) -> io::Result<Option<Vec<u8>>> {
        let (mut lists, mut reader, mut ranks) = (self.lists(section), ListReader::ahead(), Vec::new());
        for place in 0..lists.len() {
            let (key, numbers) = lists.at(place)?;
            ranks.clear();
            self.read_list(numbers, &mut reader, &mut ranks)?;
            if ranks.binary_search(&rank).is_ok() {
                return Ok(Some(key.to_vec()));
            }
        }
        Ok(None)
    }
}

/// Reads the row numbers of ranks. Neighbouring ranks cost nothing extra.
#[derive(Debug)]
pub struct Rows<'a> {
    segment: &'a Segment,
    part: Option<usize>,
    bytes: Vec<u8>,
}

impl Rows<'_> {
    /// The row number of a rank.
    pub fn row(&mut self, rank: u32) -> io::Result<i64> {
        Ok(self.entry(rank)?.0)
    }

    /// The row number of a rank, and the hash of its row when it was indexed.
    pub fn entry(&mut self, rank: u32) -> io::Result<(i64, u32)> {
        let (part, at) = (rank as usize / ROWS_IN_PART, rank as usize % ROWS_IN_PART);
        if self.part != Some(part) {
            self.part = None;
            let count = (self.segment.count() as usize).saturating_sub(part * ROWS_IN_PART).min(ROWS_IN_PART);
            let offset = *self.segment.row_parts.get(part).ok_or_else(|| damaged("a rank is beyond the end"))?;
            self.segment.source.read_checked(offset, count * ROW_BYTES + CHECKSUM_BYTES, &mut self.bytes)?;
            self.part = Some(part);
        }
        let bytes = self.bytes.get(at * ROW_BYTES..(at + 1) * ROW_BYTES);
        let (row, hash) = bytes.ok_or_else(|| damaged("a rank is beyond the end"))?.split_at(8);
        let row = i64::from_le_bytes(row.try_into().expect("eight bytes"));
        Ok((row, u32::from_le_bytes(hash.try_into().expect("four bytes"))))
    }
}

/// Reads the folded texts of ranks. Neighbouring ranks are cheap.
#[derive(Debug)]
pub struct Texts<'a> {
    segment: &'a Segment,
    part: Option<usize>,
    bytes: Vec<u8>,
    /// The range of each text of the part; none if there is no text.
    ends: Vec<Option<(usize, usize)>>,
}

impl Texts<'_> {
    /// The folded text of a rank, if it has one.
    pub fn text(&mut self, rank: u32) -> io::Result<Option<&[u8]>> {
        let (part, at) = (rank as usize / TEXTS_IN_PART, rank as usize % TEXTS_IN_PART);
        if self.part != Some(part) {
            self.load(part)?;
        }
        let place = self.ends.get(at).ok_or_else(|| damaged("a rank is beyond the end"))?;
        Ok(place.map(|(start, end)| &self.bytes[start..end]))
    }

    fn load(&mut self, part: usize) -> io::Result<()> {
        self.part = None;
        let parts = &self.segment.text_parts;
        let (offset, length) = *parts.get(part).ok_or_else(|| damaged("a rank is beyond the end"))?;
        self.segment.source.read_checked(offset, length as usize, &mut self.bytes)?;
        self.ends.clear();
        let mut rest = self.bytes.as_slice();
        while !rest.is_empty() {
            let length = take_number(&mut rest)?;
            let start = self.bytes.len() - rest.len();
            let text = take_bytes(&mut rest, length.saturating_sub(1) as usize)?;
            self.ends.push((length > 0).then_some((start, start + text.len())));
        }
        self.part = Some(part);
        Ok(())
    }
}

/// Reads lists. With `ahead`, a reader of all lists in key order reads the file from front to back.
#[derive(Debug, Default)]
pub struct ListReader {
    window: Vec<u8>,
    start: u64,
    ahead: usize,
}

impl ListReader {
    /// Reads many lists at a time.
    pub fn ahead() -> Self {
        Self { ahead: READ_AHEAD_BYTES, ..Self::default() }
    }

    /// The bytes before the checksum, after verifying it.
    fn read(&mut self, source: &Source, offset: u64, length: usize) -> io::Result<&[u8]> {
        let inside = |start: u64, held: usize| offset >= start && offset + length as u64 <= start + held as u64;
        if !inside(self.start, self.window.len()) {
            let left = source.length()?.saturating_sub(offset);
            let take = length.max(self.ahead.min(usize::try_from(left).unwrap_or(usize::MAX)));
            source.read_at(offset, take, &mut self.window)?;
            self.start = offset;
        }
        let at = (offset - self.start) as usize;
        let (body, checksum) = self.window[at..at + length]
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or_else(|| damaged("a list is too short"))?;
        if crc32fast::hash(body).to_le_bytes() != *checksum {
            return Err(damaged("a checksum does not match"));
        }
        Ok(body)
    }
}
