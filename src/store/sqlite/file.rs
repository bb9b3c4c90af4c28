//! Whether a path still leads to the file that was opened. SQLite goes on writing to a file that was removed or replaced;
//! what it commits there is lost, so it must not be acknowledged.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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
}

/// The write-ahead log beside a database.
pub(super) fn wal_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}
