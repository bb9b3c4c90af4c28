//! Files and folders that the service's user alone may read, since they hold messages, and the files of segments among
//! them.

use std::fs::{DirBuilder, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::source::Source;

/// Bytes that are written to a new file at a time.
const WRITE_BUFFER_BYTES: usize = 256 << 10;
/// Bytes between two syncs of a file that is being written.
const SYNC_BYTES: usize = 4 << 20;

/// The mode of files that hold messages: readable by the service's user alone.
pub const OWNER_ONLY: u32 = 0o600;
/// The same of folders.
const OWNER_ONLY_FOLDER: u32 = 0o700;

/// Makes a file, or empties it. A new one is readable by its owner alone, as it holds messages.
pub fn new_file(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(true).mode(OWNER_ONLY).open(path)
}

/// Creates a folder if it is missing, and its parents, for its owner alone.
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(OWNER_ONLY_FOLDER).create(path)
}

/// A file of a segment that is to be written.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    /// Its number.
    pub number: u64,
}

impl NewFile {
    /// At a path that is free.
    pub fn new(path: PathBuf, number: u64) -> Self {
        Self { path, number }
    }

    /// Writes it and makes it durable.
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

/// A file that is synced as it grows. Hundreds of megabytes synced at once would delay all other syncs for seconds,
/// those of
/// the database's log among them.
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
