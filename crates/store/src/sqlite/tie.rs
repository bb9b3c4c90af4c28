//! The tie between the index and the file, so that an index of other rows is never used.
//!
//! Before each save of the index the writer commits a new random name, and the index is saved with
//! it. A file with the name has everything that the index covers, plus recorded changes. A backup
//! from before the save lacks the name, and a copy that was used elsewhere has other names.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};
use serde::{Deserialize, Serialize};

use super::file::{FileIdentity, wal_path};
use domain::lock::lock;
use index::file::new_file;
use index::folder::Folder;
use index::state::State;

/// How long the index waits for the writer, which may wait for another program's lock.
const PATIENCE: Duration = Duration::from_secs(20);
/// The file with the seal, in the folder of the index.
const SEAL: &str = "closed.json";

/// A name that the writer must commit.
pub(super) struct Wanted {
    pub name: String,
    done: SyncSender<()>,
}

impl Wanted {
    /// Reports that the name is in the file, and durable.
    pub fn done(self) {
        let _ = self.done.send(());
    }
}

/// The request for a name, if there is one. A dropped request has failed.
#[derive(Default)]
pub(super) struct TieRequest(Mutex<Option<Wanted>>);

impl TieRequest {
    /// Whether the writer has a name to commit.
    pub fn is_wanted(&self) -> bool {
        lock(&self.0).is_some()
    }

    /// Takes the request.
    pub fn take(&self) -> Option<Wanted> {
        lock(&self.0).take()
    }

    /// Requests the commit of a name from the writer, wakes it by `wake`, and waits for it.
    pub fn commit(&self, name: &str, wake: impl FnOnce()) -> io::Result<()> {
        let (done, is_done) = sync_channel(1);
        *lock(&self.0) = Some(Wanted { name: name.to_owned(), done });
        wake();
        let failed = |_| io::Error::other("the name of the index could not be written to the database");
        is_done.recv_timeout(PATIENCE).map_err(failed)
    }
}

/// Number of names that are kept: the newest.
const NAMES_KEPT: usize = 16;
/// Bytes of a name and its trailing blank.
const NAME_BYTES: usize = 32 + 1;

/// Prepends a name; the oldest names are dropped.
pub(super) fn put(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO postroom_tie (only_row, names) VALUES (1, ?1 || ' ')
               ON CONFLICT (only_row) DO UPDATE SET names = excluded.names || substr(names, 1, ?2)";
    connection.prepare_cached(sql)?.execute(params![name, (NAMES_KEPT - 1) * NAME_BYTES]).map(drop)
}

/// The same without a writer.
pub(super) fn put_alone(path: &Path, name: &str) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    put(&connection, name)
}

/// The state of a database file at a clean stop, without a log: a later write or a replacement
/// changes one of these values.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seal {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seal {
    /// None if there is a log, because the file alone is then incomplete.
    fn of(path: &Path) -> Option<Self> {
        if wal_path(path).exists() {
            return None;
        }
        let file = fs::metadata(path).ok()?;
        let (modified, changed) = ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
        Some(Self { inode: file.ino(), bytes: file.len(), modified, changed })
    }
}

/// Records the state of the file. Called after the last connection is closed.
pub(super) fn seal(path: &Path) -> io::Result<()> {
    let folder = Folder::path_of(path);
    let Some(seal) = Seal::of(path).filter(|_| folder.is_dir()) else { return Ok(()) };
    io::Write::write_all(&mut new_file(&folder.join(SEAL))?, &serde_json::to_vec(&seal)?)
}

/// The state found by a start before it opened anything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// The file is unchanged since a clean stop.
    is_sealed: bool,
    /// The file and the log of a run without a clean stop.
    files: Option<FileIdentity>,
}

impl Found {
    /// Reads the state.
    pub fn at(path: &Path) -> Self {
        let sealed = fs::read(Folder::path_of(path).join(SEAL)).ok();
        let sealed: Option<Seal> = sealed.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { is_sealed: sealed.is_some() && sealed == Seal::of(path), files: FileIdentity::of(path) }
    }

    /// Whether a saved index is still next to the very files for which it was saved.
    pub fn continues(&self, saved: &State) -> bool {
        let same_files = || self.files.is_some_and(|files| files.numbers() == (saved.database, saved.log));
        self.is_sealed || same_files()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_sixteen_names_stay() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("migrations/0004_tie.sql")).unwrap();
        let names: Vec<String> = (0..20).map(|number| format!("{number:032x}")).collect();
        for (number, name) in names.iter().enumerate() {
            put(&connection, name).unwrap();
            let kept: String = connection.query_row("SELECT names FROM postroom_tie", [], |row| row.get(0)).unwrap();
            let expected: Vec<_> = names[..=number].iter().rev().take(16).collect();
            assert_eq!(kept.split_terminator(' ').collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_seal_holds_until_the_file_is_touched_or_has_a_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        fs::write(&path, "as it was left").unwrap();
        let index = Folder::path_of(&path);
        fs::create_dir(&index).unwrap();
        assert!(!Found::at(&path).is_sealed);
        seal(&path).unwrap();
        assert!(Found::at(&path).is_sealed);
        fs::write(wal_path(&path), "").unwrap();
        assert!(!Found::at(&path).is_sealed, "a log");
        fs::remove_file(wal_path(&path)).unwrap();
        assert!(Found::at(&path).is_sealed);
        // The same bytes in another file.
        fs::copy(&path, folder.path().join("copy")).unwrap();
        fs::rename(folder.path().join("copy"), &path).unwrap();
        assert!(!Found::at(&path).is_sealed, "another file");
        seal(&path).unwrap();
        fs::write(&path, "as it was left, and more").unwrap();
        assert!(!Found::at(&path).is_sealed, "written to");
    }

    #[test]
    fn a_request_that_is_dropped_has_failed() {
        let request = TieRequest::default();
        assert!(request.commit("a", || drop(request.take())).is_err());
        assert!(request.commit("b", || request.take().unwrap().done()).is_ok());
        assert!(!request.is_wanted());
    }
}
