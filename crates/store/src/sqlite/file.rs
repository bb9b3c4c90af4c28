//! Whether a path still leads to the opened file. SQLite continues to write to a file that
//! was removed or replaced; its commits there are lost, so they must not be acknowledged.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Access, access};
use thiserror::Error;

use index::folder::Folder;

/// The path of the database file: absolute, so that a new working directory has no effect, and without links,
/// because SQLite puts the log next to the file itself. The file need not exist yet.
pub fn locate(path: &Path) -> io::Result<PathBuf> {
    match (path.canonicalize(), path.read_link()) {
        (Err(error), Ok(target)) if error.kind() == io::ErrorKind::NotFound => {
            locate(&path.parent().unwrap_or(Path::new("")).join(target))
        }
        (Err(_), _) => std::path::absolute(path),
        (found, _) => found,
    }
}

/// The identity of the database file and its write-ahead log in the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileIdentity {
    database: (u64, u64),
    log: (u64, u64),
}

impl FileIdentity {
    /// The identity of the files at `path`; none if one is missing. A connection in WAL mode keeps both.
    pub fn of(path: &Path) -> Option<Self> {
        let number = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let database = number(std::fs::metadata(path).ok()?);
        let log = number(std::fs::metadata(wal_path(path)).ok()?);
        Some(Self { database, log })
    }

    /// Device and inode of the database file alone.
    pub fn database(self) -> (u64, u64) {
        self.database
    }

    /// Those of the database file and of its log.
    pub fn numbers(self) -> ((u64, u64), (u64, u64)) {
        (self.database, self.log)
    }
}

/// A log next to a file that it does not belong to, because another file replaced its own. SQLite cannot
/// detect this, and would apply the log's pages to the wrong file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StrayLog {
    log: (u64, u64),
    /// Another log may get the same number, but not the same time.
    modified: Option<SystemTime>,
}

impl StrayLog {
    /// The log at `path`, if it is still that of the opened files, and the database is not. Must be called while
    /// those are open, so that their numbers are not reused.
    pub fn beside(path: &Path, opened: FileIdentity) -> Option<Self> {
        let now = FileIdentity::of(path)?;
        (now.log == opened.log && now.database != opened.database).then(|| Self::at(path, now))
    }

    /// Whether it still exists.
    pub fn is_beside(self, path: &Path) -> bool {
        FileIdentity::of(path).is_some_and(|now| Self::at(path, now) == self)
    }

    fn at(path: &Path, now: FileIdentity) -> Self {
        let modified = std::fs::metadata(wal_path(path)).and_then(|metadata| metadata.modified()).ok();
        Self { log: now.log, modified }
    }
}

/// The write-ahead log of a database.
pub(super) fn wal_path(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Bytes 18 and 19 of the header are 2 in WAL mode (SQLite, "Database File Format", §1.3.3).
pub(super) fn is_in_wal_mode(path: &Path) -> bool {
    front_of::<20>(path).is_some_and(|header| header[18..] == [2, 2])
}

/// Only for a file that SQLite does not have open in this process: closing it releases the process's locks.
fn front_of<const BYTES: usize>(path: &Path) -> Option<[u8; BYTES]> {
    let mut front = [0; BYTES];
    File::open(path).and_then(|mut file| file.read_exact(&mut front)).ok().map(|()| front)
}

/// A log or journal of a database. Without it the file is incomplete.
pub(super) fn trace_of_changes(path: &Path) -> Option<PathBuf> {
    let files = ["-wal", "-journal"].map(|ending| beside(path, ending));
    files.into_iter().find(|file| std::fs::metadata(file).is_ok_and(|file| file.len() > 0))
}

/// A file next to a missing or empty database which shows that messages existed.
pub(super) fn trace_of_messages(path: &Path) -> Option<PathBuf> {
    let log = wal_path(path);
    if std::fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        return Some(log);
    }
    // After 16 bytes a rollback journal has the number of pages of the file: 0 if its creation was interrupted.
    let journal = beside(path, "-journal");
    if front_of::<20>(&journal).is_some_and(|header| header[16..] != [0; 4]) {
        return Some(journal);
    }
    Some(Folder::path_of(path)).filter(|folder| Folder::has_segments(folder))
}

/// A missing permission of the service's user.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the {} {} cannot be written by this user", if *.is_folder { "folder" } else { "file" }, .path.display())]
pub struct NoRight {
    /// The file, or the folder.
    pub path: PathBuf,
    /// Whether it is a folder.
    pub is_folder: bool,
}

impl NoRight {
    /// The first of a database's files, or its folder, that is unusable. Opens no files, to keep locks.
    pub(super) fn beside(path: &Path) -> Option<Self> {
        let files = ["", "-wal", "-shm"].map(|ending| beside(path, ending));
        let is_denied = |path: &Path, access_to| access(path, access_to) == Err(rustix::io::Errno::ACCESS);
        let file = files.into_iter().find(|file| is_denied(file, Access::READ_OK | Access::WRITE_OK));
        let folder = || path.parent().filter(|folder| is_denied(folder, Access::WRITE_OK | Access::EXEC_OK));
        match file {
            Some(path) => Some(Self { path, is_folder: false }),
            None => folder().map(|path| Self { path: path.to_owned(), is_folder: true }),
        }
    }
}

/// Whether a file is its own mount, as with `-v ./app.db:/data/app.db`: its folder is then elsewhere.
pub(super) fn is_mounted_alone(path: &Path) -> bool {
    std::fs::read("/proc/self/mountinfo").is_ok_and(|mounts| mount_points(&mounts).any(|point| point == path))
}

/// The paths of mounts, from lines such as `36 35 98:0 /root /mnt\040point rw - ext4 /dev/sda1 rw`.
fn mount_points(mounts: &[u8]) -> impl Iterator<Item = PathBuf> {
    mounts.split(|byte| *byte == b'\n').filter_map(|line| {
        let place = line.split(|byte| *byte == b' ').nth(4)?;
        Some(PathBuf::from(OsString::from_vec(without_escapes(place))))
    })
}

/// Blanks, tabs, line ends and backslashes are written as a backslash and three octal digits.
fn without_escapes(mut escaped: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(escaped.len());
    while let Some((&byte, rest)) = escaped.split_first() {
        let digits =
            rest.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|digit| matches!(digit, b'0'..=b'7')));
        let number = digits.map(|digits| digits.iter().fold(0_u32, |sum, digit| sum * 8 + u32::from(digit - b'0')));
        match number.and_then(|number| u8::try_from(number).ok()) {
            Some(number) => {
                bytes.push(number);
                escaped = &rest[3..];
            }
            None => {
                bytes.push(byte);
                escaped = rest;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let mounts = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            36 22 8:1 /srv/app.db /data/app.db rw master:1 - ext4 /dev/sda1 rw\n\
            37 22 0:5 / /a\\040b\\011c\\012d\\134e\\400f\\9 rw - tmpfs tmpfs rw\n\
            38 22 0:6 / /\xff\\0 rw - tmpfs tmpfs rw\n\
            broken\n";
        let expected: [&[u8]; 4] = [b"/", b"/data/app.db", b"/a b\tc\nd\\e\\400f\\9", b"/\xff\\0"];
        let found: Vec<PathBuf> = mount_points(mounts).collect();
        assert_eq!(found.iter().map(|path| path.as_os_str().as_bytes()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_journal_of_a_file_that_was_being_made_is_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let journal = beside(&path, "-journal");
        // Magic, number of records, nonce, pages before.
        let header = |pages: u32| [b"12345678".as_slice(), &[0; 8], &pages.to_be_bytes(), &[0; 492]].concat();
        for (content, is_trace) in [(header(0), false), (header(3), true), (Vec::new(), false), (vec![0; 512], false)] {
            std::fs::write(&journal, content).unwrap();
            assert_eq!(trace_of_messages(&path).is_some(), is_trace);
        }
    }
}
