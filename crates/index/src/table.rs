//! A sorted table of byte-string keys with a few numbers each, in blocks of 64. Only the fences, a short separator for
//! each block, are in memory; a look-up reads one block.

use std::io::{self, Write};

use super::source::{Sink, Source, damaged, put_number, take_bytes, take_number};

/// Keys in a block; only the last may have fewer.
pub const BLOCK_KEYS: usize = 64;

/// Writes a table into a sink, key by key in ascending order. Equal keys may follow each other.
#[derive(Debug)]
pub struct TableWriter {
    values: usize,
    block: Vec<u8>,
    keys_in_block: usize,
    /// The current block's first key, up to its difference from the key before it.
    separator: Vec<u8>,
    last: Vec<u8>,
    fences: Fences,
}

impl TableWriter {
    /// A table whose keys have `values` numbers each.
    pub fn new(values: usize) -> Self {
        Self {
            values,
            block: Vec::new(),
            keys_in_block: 0,
            separator: Vec::new(),
            last: Vec::new(),
            fences: Fences { values, ..Fences::default() },
        }
    }

    /// Adds a key.
    pub fn push<W: Write>(&mut self, key: &[u8], values: &[u64], sink: &mut Sink<W>) -> io::Result<()> {
        debug_assert!(values.len() == self.values && (self.fences.keys == 0 || self.last.as_slice() <= key));
        let shared = if self.keys_in_block == 0 {
            let common = common_prefix(&self.last, key);
            self.separator.clear();
            self.separator.extend_from_slice(&key[..key.len().min(common + 1)]);
            0
        } else {
            common_prefix(&self.last, key)
        };
        put_number(shared as u64, &mut self.block);
        put_number((key.len() - shared) as u64, &mut self.block);
        self.block.extend_from_slice(&key[shared..]);
        values.iter().for_each(|value| put_number(*value, &mut self.block));
        self.last.clear();
        self.last.extend_from_slice(key);
        self.fences.keys += 1;
        self.keys_in_block += 1;
        if self.keys_in_block == BLOCK_KEYS {
            self.end_block(sink)?;
        }
        Ok(())
    }

    fn end_block<W: Write>(&mut self, sink: &mut Sink<W>) -> io::Result<()> {
        let offset = sink.offset();
        let length = sink.write_checked(&self.block)?;
        self.fences.push(&self.separator, offset, length as u32);
        self.block.clear();
        self.keys_in_block = 0;
        Ok(())
    }

    /// Ends the last block and returns the fences.
    pub fn finish<W: Write>(mut self, sink: &mut Sink<W>) -> io::Result<Fences> {
        if self.keys_in_block > 0 {
            self.end_block(sink)?;
        }
        Ok(self.fences)
    }
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The positions of the blocks of a table, and separators of their first keys.
#[derive(Debug, Default)]
pub struct Fences {
    values: usize,
    keys: u64,
    /// The concatenated separators. Each is greater than all keys before its block, and not greater than its first key.
    separators: Vec<u8>,
    ends: Vec<u32>,
    places: Vec<(u64, u32)>,
}

impl Fences {
    fn push(&mut self, separator: &[u8], offset: u64, length: u32) {
        self.separators.extend_from_slice(separator);
        self.ends.push(self.separators.len() as u32);
        self.places.push((offset, length));
    }

    /// The number of keys of the table.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    fn separator(&self, block: usize) -> &[u8] {
        let start = if block == 0 { 0 } else { self.ends[block - 1] as usize };
        &self.separators[start..self.ends[block] as usize]
    }

    /// The only block that can contain the first key not less than `key`, unless that is the first of the next block.
    fn block_of(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.places.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.separator(middle) < key { low = middle + 1 } else { high = middle }
        }
        low.saturating_sub(1)
    }

    /// As bytes, for the footer of a segment.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_number(self.values as u64, out);
        put_number(self.keys, out);
        put_number(self.places.len() as u64, out);
        for (block, (offset, length)) in self.places.iter().enumerate() {
            let separator = self.separator(block);
            put_number(separator.len() as u64, out);
            out.extend_from_slice(separator);
            put_number(*offset, out);
            put_number((*length).into(), out);
        }
    }

    /// Reads the output of `encode`.
    pub fn decode(bytes: &mut &[u8]) -> io::Result<Self> {
        let mut fences = Self { values: take_number(bytes)? as usize, keys: take_number(bytes)?, ..Self::default() };
        let blocks = take_number(bytes)?;
        if blocks != fences.keys.div_ceil(BLOCK_KEYS as u64) {
            return Err(damaged("a table has another number of blocks than keys"));
        }
        for _ in 0..blocks {
            let length = take_number(bytes)? as usize;
            let separator = take_bytes(bytes, length)?;
            let (offset, length) = (take_number(bytes)?, take_number(bytes)?);
            fences.push(separator, offset, length as u32);
        }
        fences.separators.shrink_to_fit();
        fences.ends.shrink_to_fit();
        fences.places.shrink_to_fit();
        Ok(fences)
    }
}

/// A decoded block.
#[derive(Debug, Default)]
pub struct Block {
    number: Option<usize>,
    keys: Vec<u8>,
    ends: Vec<u32>,
    values: Vec<u64>,
    bytes: Vec<u8>,
}

impl Block {
    /// The number of keys in the block.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The key at a position in the block.
    pub fn key(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] as usize };
        &self.keys[start..self.ends[at] as usize]
    }

    /// The numbers of the key at a position in the block.
    pub fn values(&self, at: usize) -> &[u64] {
        let each = self.values.len() / self.ends.len().max(1);
        &self.values[at * each..(at + 1) * each]
    }

    /// Loads block `number` of a table, unless it is already loaded.
    fn load(&mut self, fences: &Fences, source: &Source, number: usize) -> io::Result<()> {
        if self.number == Some(number) {
            return Ok(());
        }
        self.number = None;
        let (offset, length) = fences.places[number];
        source.read_checked(offset, length as usize, &mut self.bytes)?;
        self.keys.clear();
        self.ends.clear();
        self.values.clear();
        let mut rest = self.bytes.as_slice();
        let mut before = 0;
        while !rest.is_empty() {
            let shared = take_number(&mut rest)? as usize;
            let suffix = take_number(&mut rest)? as usize;
            let end = self.keys.len();
            if shared > end - before {
                return Err(damaged("a key shares more bytes than the previous key has"));
            }
            self.keys.extend_from_within(before..before + shared);
            self.keys.extend_from_slice(take_bytes(&mut rest, suffix)?);
            self.ends.push(self.keys.len() as u32);
            before = end;
            for _ in 0..fences.values {
                self.values.push(take_number(&mut rest)?);
            }
        }
        let keys_before = number as u64 * BLOCK_KEYS as u64;
        if self.len() as u64 != (fences.keys - keys_before).min(BLOCK_KEYS as u64) {
            return Err(damaged("a block has another number of keys"));
        }
        self.number = Some(number);
        Ok(())
    }
}

/// A table in a source, with the block that was read last.
#[derive(Debug)]
pub struct Table<'a> {
    fences: &'a Fences,
    source: &'a Source,
    block: Block,
}

impl<'a> Table<'a> {
    /// The table with these fences.
    pub fn new(fences: &'a Fences, source: &'a Source) -> Self {
        Self { fences, source, block: Block::default() }
    }

    /// The number of keys.
    pub(crate) fn len(&self) -> u64 {
        self.fences.keys
    }

    /// The first position whose key is not less than `key`; the number of keys if there is none.
    pub fn lower_bound(&mut self, key: &[u8]) -> io::Result<u64> {
        if self.fences.keys == 0 {
            return Ok(0);
        }
        let number = self.fences.block_of(key);
        self.block.load(self.fences, self.source, number)?;
        let (mut low, mut high) = (0, self.block.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.block.key(middle) < key { low = middle + 1 } else { high = middle }
        }
        Ok((number * BLOCK_KEYS + low) as u64)
    }

    /// The key and numbers at a position, which must be less than the number of keys.
    pub fn at(&mut self, place: u64) -> io::Result<(&[u8], &[u64])> {
        if place >= self.fences.keys {
            return Err(damaged("a place is beyond the end of a table"));
        }
        let (number, at) = (place as usize / BLOCK_KEYS, place as usize % BLOCK_KEYS);
        self.block.load(self.fences, self.source, number)?;
        Ok((self.block.key(at), self.block.values(at)))
    }

    /// The numbers of exactly this key.
    pub fn find(&mut self, key: &[u8]) -> io::Result<Option<&[u64]>> {
        let place = self.lower_bound(key)?;
        if place == self.fences.keys {
            return Ok(None);
        }
        let (found, values) = self.at(place)?;
        Ok((found == key).then_some(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(keys: &[Vec<u8>]) -> (Fences, Source) {
        let (mut writer, mut sink) = (TableWriter::new(1), Sink::new(Vec::new()));
        for (at, key) in keys.iter().enumerate() {
            writer.push(key, &[at as u64], &mut sink).unwrap();
        }
        let fences = writer.finish(&mut sink).unwrap();
        let mut encoded = Vec::new();
        fences.encode(&mut encoded);
        (Fences::decode(&mut encoded.as_slice()).unwrap(), Source::Memory(sink.finish(&[], *b"for test").unwrap()))
    }

    fn any_key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(vec![0, 1, 0x61, 0xff]), 0..6)
    }

    proptest! {
        #[test]
        fn places_are_those_of_a_sorted_list(mut keys in prop::collection::vec(any_key(), 0..300), asked in any_key()) {
            keys.sort();
            let (fences, source) = table(&keys);
            let mut table = Table::new(&fences, &source);
            prop_assert_eq!(table.lower_bound(&asked).unwrap() as usize, keys.partition_point(|key| *key < asked));
            for (at, key) in keys.iter().enumerate() {
                let values = [at as u64];
                prop_assert_eq!(table.at(at as u64).unwrap(), (key.as_slice(), values.as_slice()));
                prop_assert_eq!(table.lower_bound(key).unwrap() as usize, keys.partition_point(|other| other < key));
            }
            prop_assert_eq!(table.find(&asked).unwrap().is_some(), keys.contains(&asked));
        }

        #[test]
        fn a_changed_byte_is_found(keys in prop::collection::vec(any_key(), 1..200), at in any::<prop::sample::Index>()) {
            let mut keys = keys;
            keys.sort();
            let (fences, Source::Memory(mut bytes)) = table(&keys) else { unreachable!() };
            let at = at.index(bytes.len() - 28);
            bytes[at] ^= 1;
            let source = Source::Memory(bytes);
            let mut table = Table::new(&fences, &source);
            prop_assert!((0..keys.len()).any(|place| table.at(place as u64).is_err()));
        }
    }
}
