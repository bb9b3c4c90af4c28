//! Whether a path still leads to the file that was opened. SQLite goes on writing to a file that was removed or replaced;
//! what it commits there is lost, so it must not be acknowledged.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where the database file is: absolute, so that a later change of the working directory means nothing, and behind every link, since
/// SQLite puts the log beside the file itself. The file need not be there yet.
pub fn locate(path: &Path) -> io::Result<PathBuf> {
    match (path.canonicalize(), path.read_link()) {
        (Err(error), Ok(target)) if error.kind() == io::ErrorKind::NotFound => {
            locate(&path.parent().unwrap_or(Path::new("")).join(target))
        }
        (Err(_), _) => std::path::absolute(path),
        (found, _) => found,
    }
}

/// The database file and its write-ahead log, as the file system knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileIdentity {
    database: (u64, u64),
    log: (u64, u64),
}

impl FileIdentity {
    /// Of the files at `path` now; none if either is absent. A connection in WAL mode keeps both in place.
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
}

/// A log that lies beside a file which it does not belong to: another file was put in the place of its own. SQLite cannot
/// tell, and would lay pages of the one over the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StrayLog {
    log: (u64, u64),
    /// Another log may get the same number, but not the same time.
    modified: Option<SystemTime>,
}

impl StrayLog {
    /// The log at `path`, if it is still that of the files that were opened, and the database is not. To be called while
    /// those are open, so that their numbers are nobody else's.
    pub fn beside(path: &Path, opened: FileIdentity) -> Option<Self> {
        let now = FileIdentity::of(path)?;
        (now.log == opened.log && now.database != opened.database).then(|| Self::at(path, now))
    }

    /// Whether it is still there.
    pub fn is_beside(self, path: &Path) -> bool {
        FileIdentity::of(path).is_some_and(|now| Self::at(path, now) == self)
    }

    fn at(path: &Path, now: FileIdentity) -> Self {
        let modified = std::fs::metadata(wal_path(path)).and_then(|metadata| metadata.modified()).ok();
        Self { log: now.log, modified }
    }
}

/// The write-ahead log beside a database.
pub(super) fn wal_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}
