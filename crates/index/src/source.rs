//! The bytes of a segment: in memory while it is small, later in a file of its own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Immutable readable bytes.
#[derive(Debug)]
pub enum Source {
    /// A small segment.
    Memory(Vec<u8>),
    /// A file, read at offsets. The system's page cache contains the parts in use.
    File(File),
}

impl Source {
    /// Reads `length` bytes at `offset` into `buffer`, which is emptied first.
    pub fn read_at(&self, offset: u64, length: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        match self {
            Self::Memory(bytes) => {
                let start = usize::try_from(offset).map_err(|_| damaged("an offset is too large"))?;
                let range = start.checked_add(length).and_then(|end| bytes.get(start..end));
                buffer.extend_from_slice(range.ok_or_else(|| damaged("it ends too early"))?);
                Ok(())
            }
            Self::File(file) => {
                if length > LENGTH_MAX {
                    return Err(damaged("a length is too large"));
                }
                buffer.resize(length, 0);
                file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => damaged("it ends too early"),
                    _ => error,
                })
            }
        }
    }

    /// Reads bytes that end in their checksum.
    pub fn read_checked(&self, offset: u64, length: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
        self.read_at(offset, length, buffer)?;
        let body = length.checked_sub(CHECKSUM_BYTES).ok_or_else(|| damaged("a part is too short"))?;
        let checksum = crc32fast::hash(&buffer[..body]).to_le_bytes();
        if buffer[body..] != checksum {
            return Err(damaged("a checksum does not match"));
        }
        buffer.truncate(body);
        Ok(())
    }

    /// The number of bytes.
    pub fn length(&self) -> io::Result<u64> {
        match self {
            Self::Memory(bytes) => Ok(bytes.len() as u64),
            Self::File(file) => Ok(file.metadata()?.len()),
        }
    }
}

/// Maximum length of a part; a damaged length must not allocate all memory.
const LENGTH_MAX: usize = 1 << 30;
/// Bytes of the checksum after every part.
pub const CHECKSUM_BYTES: usize = 4;

/// The error for a segment with invalid content.
pub fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The sink for the bytes of a segment, which returns their offsets.
#[derive(Debug)]
pub struct Sink<W> {
    to: W,
    offset: u64,
}

impl<W: io::Write> Sink<W> {
    /// Begins at offset 0.
    pub fn new(to: W) -> Self {
        Self { to, offset: 0 }
    }

    /// The offset of the next byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Appends bytes and their checksum. Returns their total length.
    pub fn write_checked(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)?;
        self.write(&crc32fast::hash(bytes).to_le_bytes())?;
        Ok(bytes.len() + CHECKSUM_BYTES)
    }

    /// Writes the footer and its position; returns the underlying writer.
    pub fn finish(mut self, end: &[u8], form: Form) -> io::Result<W> {
        let offset = self.offset();
        let length = self.write_checked(end)?;
        self.write(&offset.to_le_bytes())?;
        self.write(&(length as u64).to_le_bytes())?;
        self.write(&form)?;
        Ok(self.to)
    }
}

/// Kind and version of a source's format: its last bytes.
pub type Form = [u8; 8];
/// The very last bytes: offset and length of the footer, and the format.
const TRAILER_BYTES: usize = 8 + 8 + size_of::<Form>();

/// Reads the footer that `Sink::finish` wrote.
pub fn read_end(source: &Source, form: Form) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::new();
    let trailer = source.length()?.checked_sub(TRAILER_BYTES as u64).ok_or_else(|| damaged("it is too short"))?;
    source.read_at(trailer, TRAILER_BYTES, &mut buffer)?;
    let number = |at: usize| u64::from_le_bytes(buffer[at..at + 8].try_into().expect("eight bytes"));
    let (offset, length) = (number(0), number(8));
    if buffer[16..] != form || offset.checked_add(length) != Some(trailer) {
        return Err(damaged("it has another format"));
    }
    source.read_checked(offset, length as usize, &mut buffer)?;
    Ok(buffer)
}

/// Appends a number with seven bits per byte, least first (LEB128).
pub fn put_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Removes such a number from the front.
pub fn take_number(bytes: &mut &[u8]) -> io::Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or_else(|| damaged("a number is cut off"))?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(damaged("a number is too long"))
}

/// Removes this many bytes from the front.
pub fn take_bytes<'a>(bytes: &mut &'a [u8], count: usize) -> io::Result<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or_else(|| damaged("it ends too early"))?;
    *bytes = rest;
    Ok(taken)
}
