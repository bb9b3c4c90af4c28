//! Files and folders that only the service's user may read, because they contain messages. The files of
//! segments are among them.

use std::fs::{DirBuilder, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::source::Source;

/// Bytes that are written to a new file at a time.
const WRITE_BUFFER_BYTES: usize = 256 << 10;
/// Bytes between two syncs of a file that is being written.
const SYNC_BYTES: usize = 4 << 20;

/// The mode of files with messages: only the service's user may read them.
pub const OWNER_ONLY: u32 = 0o600;
/// The mode of folders with messages.
const OWNER_ONLY_FOLDER: u32 = 0o700;

/// Creates a file, or empties it. Only its owner may read a new file, because it contains messages.
pub fn new_file(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(true).mode(OWNER_ONLY).open(path)
}

/// Creates a folder if it is missing, and its parents. Only the owner may use it.
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(OWNER_ONLY_FOLDER).create(path)
}

/// A segment file to be written.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    /// Its number.
    pub number: u64,
}

impl NewFile {
    /// A file at an unused path.
    pub fn new(path: PathBuf, number: u64) -> Self {
        Self { path, number }
    }

    /// Writes the file and makes it durable.
    pub fn write(&self, write: impl FnOnce(NewFileWriter) -> io::Result<NewFileWriter>) -> io::Result<Source> {
        let file = File::options().read(true).write(true).create_new(true).mode(OWNER_ONLY).open(&self.path)?;
        let written = write(BufWriter::with_capacity(WRITE_BUFFER_BYTES, Steady { file, unsynced: 0 }))?;
        let Steady { file, .. } = written.into_inner().map_err(|error| error.into_error())?;
        file.sync_all()?;
        Ok(Source::File(file))
    }
}

/// The writer of a new file.
pub type NewFileWriter = BufWriter<Steady>;

/// A file that is synced as it grows. Syncing hundreds of megabytes at once would delay all other syncs
/// for seconds,
/// including those of the database's log.
#[derive(Debug)]
pub struct Steady {
    file: File,
    unsynced: usize,
}

impl Write for Steady {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written;
        if self.unsynced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
