//! Checks the write-ahead log at a start, before SQLite reads it. SQLite stops at the first frame with a
//! wrong checksum, and treats the rest as an older log. After a power cut that is right. After a changed byte
//! it is wrong: all messages acknowledged since would be lost silently. So the frames after the first bad one
//! are checked. If they belong to this log, a copy is kept, because opening the database empties the log.
//!
//! Format of log and frames: SQLite, "WAL-mode File Format", §§ 1.1 to 1.4 (log), 2.1 (the header of the `-shm` file).

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use rustix::fs::{FlockOperation, fcntl_lock};
use thiserror::Error;

use super::file::wal_path;
use crate::observer::{DamageKind, Observer};
use domain::lock::lock;
use runtime::log;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The first four bytes of a log; the last bit gives the byte order of its checksums.
const MAGIC: u32 = 0x377f_0682;
const FORMAT: u32 = 3_007_000;
/// Frames that are read to find the page size, if the header does not have it.
const FRAMES_OF_TRIAL: usize = 8;
const READ_BYTES: usize = 1 << 20;

/// The findings after the frame at which SQLite stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFinding {
    /// The first incomplete frame, from 1; the header is 0.
    pub bad_frame: u64,
    /// Frames of this log from there on.
    pub frames: u64,
    /// How many of them end a transaction.
    pub transactions: u64,
    /// Whether an acknowledged transaction is certainly among them. Otherwise the frames may
    /// be of a transaction that was interrupted by a power cut, and was never acknowledged.
    pub is_certain: bool,
    /// The salts of the log.
    salts: [u8; 8],
}

/// Why a copy could not be stored, and where.
#[derive(Debug, Error)]
#[error("the write-ahead log is damaged, and no copy of it can be kept at {path}")]
pub struct NoCopy {
    path: String,
    #[source]
    source: io::Error,
}

/// Databases that this process has open. Opening and closing their files outside SQLite would release its locks.
static IN_USE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Marks a database as open in this process, until it is dropped.
#[derive(Debug)]
pub(super) struct InUse(PathBuf);

impl InUse {
    pub fn new(path: &Path) -> Self {
        in_use().push(path.to_owned());
        Self(path.to_owned())
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut all = in_use();
        if let Some(at) = all.iter().position(|path| *path == self.0) {
            all.swap_remove(at);
        }
    }
}

fn in_use() -> MutexGuard<'static, Vec<PathBuf>> {
    lock(&IN_USE)
}

/// Checks the log of a database that no process has open. Returns nothing
/// if one has: it has checked the log, which may change meanwhile.
pub fn scan(database: &Path) -> io::Result<Option<LogFinding>> {
    let log = wal_path(database);
    let Some(before) = stamp(&log)? else { return Ok(None) };
    if is_open(database)? {
        return Ok(None);
    }
    let found = Scan::of(BufReader::with_capacity(READ_BYTES, File::open(&log)?), committed(database))?;
    // A process that opened it meanwhile may have written to it.
    let is_as_it_was = found.is_none() || stamp(&log)? == Some(before) && !is_open(database)?;
    Ok(found.filter(|_| is_as_it_was))
}

/// Checks the log at a start before SQLite opens the file: logs what SQLite will not
/// read, and keeps a copy. An error if a start would lose acknowledged messages.
pub(super) fn look(database: &Path, observer: &dyn Observer) -> Result<(), NoCopy> {
    let found = match scan(database) {
        Ok(found) => found,
        Err(error) => {
            log::warning("the write-ahead log could not be checked before opening").cause(&error).emit();
            None
        }
    };
    let Some(finding) = found else { return Ok(()) };
    let copy = finding.keep_copy(database);
    let mut line = if finding.is_certain {
        observer.damaged(DamageKind::Log);
        log::error(
            "the write-ahead log is damaged: SQLite does not read acknowledged messages after the damage; see the copy",
        )
    } else {
        log::warning(
            "the write-ahead log ends in an incomplete transaction: one that was not acknowledged before a power cut, \
             or a damaged one; see the copy",
        )
    };
    line = line.value("bad_frame", finding.bad_frame).value("frames", finding.frames);
    line = line.value("transactions", finding.transactions);
    match copy {
        Ok(path) => line.text("copy", &path.display().to_string()).emit(),
        Err(error) => {
            line.cause(&error).emit();
            if finding.is_certain {
                return Err(error);
            }
        }
    }
    Ok(())
}

impl LogFinding {
    /// Keeps a copy of the log next to it, for its owner alone, and returns its path. The same log is not copied twice.
    pub fn keep_copy(&self, database: &Path) -> Result<PathBuf, NoCopy> {
        let log = wal_path(database);
        let mut name = log.clone().into_os_string();
        let salts: String = self.salts.iter().map(|byte| format!("{byte:02x}")).collect();
        name.push(format!(".damaged-{salts}-{}", self.bad_frame));
        let path = PathBuf::from(name);
        copy_once(&log, &path).map_err(|source| NoCopy { path: path.display().to_string(), source })?;
        Ok(path)
    }
}

impl std::fmt::Display for LogFinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bad_frame, frames, transactions, .. } = self;
        let what = "the write-ahead log is damaged";
        write!(f, "{what} at frame {bad_frame}: SQLite does not read the {frames} frames from there on, ")?;
        write!(f, "with the ends of {transactions} transactions")
    }
}

fn copy_once(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    if std::fs::metadata(to).is_ok_and(|copy| source.metadata().is_ok_and(|log| log.len() == copy.len())) {
        return Ok(());
    }
    let mut copy = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
    let copied = io::copy(&mut source, &mut copy).and_then(|_| copy.sync_all());
    if let Err(error) = copied {
        // A partial copy would be mistaken for a complete one.
        let _ = std::fs::remove_file(to);
        return Err(error);
    }
    File::open(to.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// A value that changes when a file is written to; none if there is no file.
fn stamp(path: &Path) -> io::Result<Option<(u64, std::time::SystemTime)>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some((metadata.len(), metadata.modified()?))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn shm_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-shm");
    name.into()
}

/// Whether a process has the database open: each user holds a lock on its `-shm` file.
fn is_open(database: &Path) -> io::Result<bool> {
    if in_use().iter().any(|path| path == database) {
        return Ok(true);
    }
    match OpenOptions::new().read(true).write(true).open(shm_path(database)) {
        Ok(shm) => Ok(fcntl_lock(&shm, FlockOperation::NonBlockingLockExclusive).is_err()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The salts of a log, and its committed and synced frames, from the `-shm` file, which outlives a killed
/// process. After a power cut it may be older than the log, which then has more; or missing.
fn committed(database: &Path) -> Option<([u8; 8], u32)> {
    let mut header = [0; 96];
    File::open(shm_path(database)).and_then(|mut shm| shm.read_exact(&mut header)).ok()?;
    let (first, second) = header.split_at(48);
    let number = |at: usize| u32::from_ne_bytes(first[at..at + 4].try_into().expect("four bytes"));
    let checksum = Checksum::default().with(&first[..40], cfg!(target_endian = "big"));
    let is_whole = first == second && number(0) == FORMAT && (number(40), number(44)) == (checksum.0, checksum.1);
    is_whole.then(|| (first[32..40].try_into().expect("eight bytes"), number(16)))
}

/// A checksum over all bytes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Checksum(u32, u32);

impl Checksum {
    fn of(bytes: &[u8]) -> Self {
        Self(big_endian(bytes, 0), big_endian(bytes, 4))
    }

    /// Adds eight bytes at a time.
    fn with(self, bytes: &[u8], is_big_endian: bool) -> Self {
        let Self(mut first, mut second) = self;
        let word = |bytes: &[u8]| {
            let bytes = bytes.try_into().expect("four bytes");
            if is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        for pair in bytes.chunks_exact(8) {
            first = first.wrapping_add(word(&pair[..4])).wrapping_add(second);
            second = second.wrapping_add(word(&pair[4..])).wrapping_add(first);
        }
        Self(first, second)
    }
}

fn big_endian(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The format of a log.
#[derive(Debug, Clone, Copy)]
struct Form {
    page_bytes: usize,
    is_big_endian: bool,
}

/// A frame with its page.
struct Frame<'a>(&'a [u8]);

impl Frame<'_> {
    fn salts(&self) -> &[u8] {
        &self.0[8..16]
    }

    fn stored(&self) -> Checksum {
        Checksum::of(&self.0[16..24])
    }

    fn ends_transaction(&self) -> bool {
        big_endian(self.0, 4) != 0
    }

    /// Whether it is complete, given the checksum of the previous frame.
    fn follows(&self, before: Checksum, form: Form) -> bool {
        let sum = before.with(&self.0[..8], form.is_big_endian);
        big_endian(self.0, 0) != 0 && sum.with(&self.0[FRAME_HEADER_BYTES..], form.is_big_endian) == self.stored()
    }
}

/// A scan of a log.
struct Scan {
    salts: [u8; 8],
    form: Form,
    /// The stored checksum of the previous frame.
    before: Checksum,
    /// SQLite reads this part.
    is_read: bool,
    /// Number of frames.
    seen: u64,
    /// The last frame that ends a transaction which SQLite reads.
    committed: u64,
    bad_frame: u64,
    frames: u64,
    transactions: u64,
    /// A frame followed the end of one of these transactions.
    went_on: bool,
}

impl Scan {
    fn of(mut log: impl Read, known: Option<([u8; 8], u32)>) -> io::Result<Option<LogFinding>> {
        let mut start = Vec::new();
        let trial_bytes = HEADER_BYTES + FRAMES_OF_TRIAL * (FRAME_HEADER_BYTES + 65_536);
        log.by_ref().take(trial_bytes as u64).read_to_end(&mut start)?;
        let Some(mut scan) = Self::begin(&start) else { return Ok(None) };
        let mut frame = vec![0; FRAME_HEADER_BYTES + scan.form.page_bytes];
        let mut rest = (&start[HEADER_BYTES..]).chain(log);
        while read_whole(&mut rest, &mut frame)? {
            scan.see(&Frame(&frame));
        }
        let known = known.filter(|(salts, _)| *salts == scan.salts).map_or(0, |(_, frames)| u64::from(frames));
        let is_certain = scan.went_on || known > scan.committed;
        if scan.is_read {
            // All frames are complete.
            scan.bad_frame = scan.seen + 1;
        }
        let Self { bad_frame, frames, transactions, salts, .. } = scan;
        let is_finding = is_certain || transactions > 0;
        Ok(is_finding.then_some(LogFinding { bad_frame, frames, transactions, is_certain, salts }))
    }

    /// From the header; if it is damaged, from the first frames. None if it is not recognisable as a log.
    fn begin(start: &[u8]) -> Option<Self> {
        let header = start.get(..HEADER_BYTES)?;
        let stored = Checksum::of(&header[24..]);
        let told = Form { page_bytes: big_endian(header, 8) as usize, is_big_endian: header[3] & 1 == 1 };
        let sizes = || (9..17).map(|power| 1_usize << power);
        let is_whole = big_endian(header, 0) & !1 == MAGIC
            && big_endian(header, 4) == FORMAT
            && Checksum::default().with(&header[..24], told.is_big_endian) == stored
            && sizes().any(|size| size == told.page_bytes);
        let salts = |bytes: &[u8]| bytes.try_into().expect("eight bytes");
        if is_whole {
            return Some(Self::new(salts(&header[16..24]), told, stored, true));
        }
        // The number of first frames that follow each other, if pages had this size.
        let followers = |form: Form| {
            let mut before = stored;
            let frames = start[HEADER_BYTES..].chunks_exact(FRAME_HEADER_BYTES + form.page_bytes).map(Frame);
            let follow =
                frames.map(|frame| (frame.follows(std::mem::replace(&mut before, frame.stored()), form), frame));
            follow.filter(|(follows, _)| *follows).map(|(_, frame)| salts(frame.salts())).collect::<Vec<[u8; 8]>>()
        };
        let forms = sizes().flat_map(|page_bytes| [false, true].map(|order| Form { page_bytes, is_big_endian: order }));
        let best = forms.map(|form| (followers(form), form)).max_by_key(|(followers, _)| followers.len())?;
        match best {
            (followers, form) if !followers.is_empty() => Some(Self::new(followers[0], form, stored, false)),
            // There is only one frame, and the checksum of the header is damaged.
            _ if sizes().any(|size| size == told.page_bytes) && start.get(40..48) == Some(&header[16..24]) => {
                Some(Self::new(salts(&header[16..24]), told, stored, false))
            }
            _ => None,
        }
    }

    fn new(salts: [u8; 8], form: Form, before: Checksum, is_read: bool) -> Self {
        Self {
            salts,
            form,
            before,
            is_read,
            seen: 0,
            committed: 0,
            bad_frame: 0,
            frames: 0,
            transactions: 0,
            went_on: false,
        }
    }

    fn see(&mut self, frame: &Frame<'_>) {
        self.seen += 1;
        let before = std::mem::replace(&mut self.before, frame.stored());
        if self.is_read {
            if frame.salts() == self.salts && frame.follows(before, self.form) {
                if frame.ends_transaction() {
                    self.committed = self.seen;
                }
                return;
            }
            (self.is_read, self.bad_frame) = (false, self.seen);
        }
        // In frames of an older log both salts differ; a changed byte changes only one.
        let (one, other) = frame.salts().split_at(4);
        if *one == self.salts[..4] || *other == self.salts[4..] {
            self.went_on |= self.transactions > 0;
            self.frames += 1;
            self.transactions += u64::from(frame.ends_transaction());
        }
    }
}

/// Fills a buffer. Returns false at the end; a partial frame does not count.
fn read_whole(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 512;
    const SALTS: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
    const FORM: Form = Form { page_bytes: PAGE, is_big_endian: true };

    /// A log of frames of one page each; a true one ends a transaction.
    fn log(frames: &[bool]) -> Vec<u8> {
        let mut log = [MAGIC | 1, FORMAT, PAGE as u32, 0].map(u32::to_be_bytes).concat();
        log.extend(SALTS);
        let mut sum = Checksum::default().with(&log, true);
        put(sum, &mut log);
        for (at, ends) in frames.iter().enumerate() {
            let head = [1 + at as u32 % 3, u32::from(*ends) * 9].map(u32::to_be_bytes).concat();
            let page: Vec<u8> = (0..PAGE).map(|byte| (at * 7 + byte) as u8).collect();
            sum = sum.with(&head, true).with(&page, true);
            log.extend(head);
            log.extend(SALTS);
            put(sum, &mut log);
            log.extend(page);
        }
        log
    }

    fn put(Checksum(one, other): Checksum, log: &mut Vec<u8>) {
        log.extend([one, other].map(u32::to_be_bytes).concat());
    }

    fn frame(number: usize) -> usize {
        HEADER_BYTES + (number - 1) * (FRAME_HEADER_BYTES + PAGE)
    }

    /// Bad frame, frames, transactions, and whether it is certain.
    fn told(log: &[u8], known: Option<u32>) -> Option<(u64, u64, u64, bool)> {
        let found = Scan::of(log, known.map(|frames| (SALTS, frames))).unwrap();
        found.map(|found| (found.bad_frame, found.frames, found.transactions, found.is_certain))
    }

    /// Transactions of two, three and one frames.
    const FRAMES: [bool; 6] = [false, true, false, false, true, true];

    #[test]
    fn a_whole_log_and_one_that_was_not_finished_are_nothing() {
        for frames in [&FRAMES[..], &[], &[false], &[true, false]] {
            assert_eq!(told(&log(frames), Some(0)), None, "{frames:?}");
        }
        assert_eq!(told(&[], None), None);
        assert_eq!(told(&[0; 40], None), None);
        let whole = log(&FRAMES);
        for end in 0..whole.len() {
            assert_eq!(told(&whole[..end], None), None, "cut at {end}");
        }
        assert_eq!(told(&whole[..frame(5)], Some(6)), Some((5, 0, 0, true)), "frames that were synced are missing");
    }

    #[test]
    fn whichever_byte_of_an_earlier_transaction_changes_it_is_certain() {
        let whole = log(&FRAMES);
        for at in (0..frame(6)).filter(|at| *at < frame(1) || *at >= frame(3)) {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            let (bad, _, transactions, is_certain) = told(&changed, None).unwrap_or_else(|| panic!("byte {at}"));
            let expected = if at < frame(1) { [0, 0] } else { [3, 5] };
            assert!((expected[0]..=expected[1]).contains(&bad) && is_certain, "byte {at}: frame {bad}");
            assert!(transactions >= 1, "byte {at}");
        }
    }

    #[test]
    fn a_changed_byte_of_the_last_transaction_may_be_a_power_cut_unless_it_was_synced() {
        let whole = log(&FRAMES);
        for at in frame(6)..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            assert_eq!(told(&changed, None), Some((6, 1, 1, false)), "byte {at}");
            assert_eq!(told(&changed, Some(6)), Some((6, 1, 1, true)), "byte {at}");
            assert_eq!(told(&changed, Some(5)), Some((6, 1, 1, false)), "byte {at}");
        }
    }

    #[test]
    fn what_a_power_cut_leaves_of_a_transaction_is_told_from_damage() {
        // Three frames of an interrupted write: the second or the last one is missing.
        let mut torn = log(&[false, true, false, false, true]);
        torn[frame(4)..frame(5)].fill(0);
        assert_eq!(told(&torn, Some(2)), Some((4, 1, 1, false)));
        torn[frame(5)..].fill(0);
        assert_eq!(told(&torn, Some(2)), None);
    }

    #[test]
    fn frames_of_an_older_log_are_nothing() {
        let mut begun_again = log(&FRAMES);
        begun_again[frame(3)..].iter_mut().for_each(|byte| *byte ^= 0x5a);
        assert_eq!(told(&begun_again, Some(2)), None);
    }

    #[test]
    fn checksums_are_those_of_both_orders_of_bytes() {
        let bytes = [0, 0, 0, 1, 0, 0, 0, 2];
        assert_eq!(Checksum::default().with(&bytes, true), Checksum(1, 3));
        assert_eq!(Checksum::default().with(&bytes, false), Checksum(1 << 24, 3 << 24));
        assert!(Frame(&log(&FRAMES)[frame(1)..frame(2)]).follows(Checksum::of(&log(&[])[24..]), FORM));
    }
}
