//! One system call per commit instead of two per page: SQLite writes a frame of the write-ahead log as a header and a page, each
//! by itself. Here the writes to the log of one connection gather in memory and go out together.
//!
//! What others may rely on stays: the last frame of a commit says that it is one, and with it everything that was gathered goes
//! out, before the sync, and before the commit is told to anybody. A write that fails fails the commit, by the same error. And
//! nothing is gathered outside a commit, where a rollback could leave it behind to be written over somebody else's frames
//! later: pages are not spilled before the commit here, so a commit is the only time at which the log is written.

use std::ffi::{c_int, c_void};

use rusqlite::Connection;
use rusqlite::ffi::{
    SQLITE_FCNTL_JOURNAL_POINTER, SQLITE_OK, sqlite3_file, sqlite3_file_control, sqlite3_int64, sqlite3_io_methods,
};

/// So many are written together at most. SQLite's own write takes less than 128 KiB at a time (`seekAndWriteFd` in its
/// `os_unix.c` masks the length): it would write the rest of a longer one nowhere.
const GATHERED_BYTES_MAX: usize = 120 << 10;

/// The methods of an open log, and what was written to it and is not in it yet. SQLite keeps a pointer to the methods in the
/// file; they come first here, so that it is a pointer to all of this.
#[repr(C)]
struct Joined {
    methods: sqlite3_io_methods,
    original: *const sqlite3_io_methods,
    gathered: Vec<u8>,
    /// The next page is the last one of a commit.
    ends_commit: bool,
    /// Where in the file the gathered bytes begin.
    start: sqlite3_int64,
}

/// The header of a frame: page number, size of the database after a commit or zero, salts and checksums (SQLite, "Database
/// File Format", §4.1).
const FRAME_HEADER_BYTES: usize = 24;

/// Has a connection's writes to its write-ahead log go out together. Does nothing if the log is not open yet. What one
/// transaction changes stays in memory from here on until it commits.
pub(super) fn join_log_writes(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_spill", false)?;
    let mut log: *mut sqlite3_file = std::ptr::null_mut();
    // SAFETY: the connection is open and used by this thread only. The call stores a pointer to the file object of the log, which
    // lives until SQLite closes it through its methods. From here on these are ours, which pass everything on to the original
    // ones, and `close` puts those back. The methods live in a box that only `close` frees.
    #[allow(unsafe_code)]
    unsafe {
        let name = c"main".as_ptr();
        let into = (&raw mut log).cast::<c_void>();
        let found = sqlite3_file_control(connection.handle(), name, SQLITE_FCNTL_JOURNAL_POINTER, into) == SQLITE_OK;
        if !found || log.is_null() || (*log).pMethods.is_null() || is_joined(log) {
            return Ok(());
        }
        let original = (*log).pMethods;
        let mut methods = *original;
        methods.xClose = Some(close);
        methods.xRead = Some(read);
        methods.xWrite = Some(write);
        methods.xTruncate = Some(truncate);
        methods.xSync = Some(sync);
        methods.xFileSize = Some(file_size);
        let joined = Box::new(Joined { methods, original, gathered: Vec::new(), ends_commit: false, start: 0 });
        (*log).pMethods = Box::into_raw(joined).cast();
    }
    Ok(())
}

type Close = unsafe extern "C" fn(*mut sqlite3_file) -> c_int;

/// # Safety
/// `file` is an open file of SQLite's.
#[allow(unsafe_code)]
unsafe fn is_joined(file: *mut sqlite3_file) -> bool {
    // SAFETY: an open file has methods.
    unsafe { (*(*file).pMethods).xClose.is_some_and(|known| std::ptr::fn_addr_eq(known, close as Close)) }
}

/// The state behind a file's methods.
///
/// # Safety
/// `file` is open and has methods of ours; nobody else uses it meanwhile, as SQLite promises within a connection.
#[allow(unsafe_code)]
unsafe fn state<'a>(file: *mut sqlite3_file) -> &'a mut Joined {
    // SAFETY: the methods are the first field of a boxed `Joined`, which was made mutable and is borrowed by nobody else.
    unsafe { &mut *(*file).pMethods.cast_mut().cast::<Joined>() }
}

impl Joined {
    /// The original methods.
    #[allow(unsafe_code)]
    fn original(&self) -> &sqlite3_io_methods {
        // SAFETY: SQLite's method tables are constants.
        unsafe { &*self.original }
    }

    /// Writes what was gathered.
    ///
    /// # Safety
    /// `file` is the file that this belongs to.
    #[allow(unsafe_code)]
    unsafe fn flush(&mut self, file: *mut sqlite3_file) -> c_int {
        if self.gathered.is_empty() {
            return SQLITE_OK;
        }
        let write = self.original().xWrite.expect("every file has it");
        let length = c_int::try_from(self.gathered.len()).expect("bounded");
        // SAFETY: the original method, with the file that it belongs to and as many bytes as there are.
        let result = unsafe { write(file, self.gathered.as_ptr().cast(), length, self.start) };
        // After an error nothing of the transaction counts, and SQLite writes what comes next over it.
        self.gathered.clear();
        result
    }
}

/// Defines a method that first writes what was gathered, then does what the original does.
macro_rules! flush_first {
    ($name:ident, $original:ident, $($argument:ident: $type:ty),*) => {
        #[allow(unsafe_code)]
        unsafe extern "C" fn $name(file: *mut sqlite3_file, $($argument: $type),*) -> c_int {
            // SAFETY: SQLite calls a method with the file that has it, and with what the original expects.
            unsafe {
                let state = state(file);
                let flushed = state.flush(file);
                if flushed != SQLITE_OK {
                    return flushed;
                }
                state.original().$original.expect("every file has it")(file, $($argument),*)
            }
        }
    };
}

flush_first!(read, xRead, into: *mut c_void, length: c_int, offset: sqlite3_int64);
flush_first!(truncate, xTruncate, size: sqlite3_int64);
flush_first!(sync, xSync, flags: c_int);
flush_first!(file_size, xFileSize, size: *mut sqlite3_int64);

#[allow(unsafe_code)]
unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    length: c_int,
    offset: sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite calls a method with the file that has it, and with `length` bytes that can be read.
    unsafe {
        let state = state(file);
        let bytes = std::slice::from_raw_parts(bytes.cast::<u8>(), usize::try_from(length).unwrap_or(0));
        let end = state.start + state.gathered.len() as sqlite3_int64;
        if offset != end || state.gathered.len() + bytes.len() > GATHERED_BYTES_MAX {
            let flushed = state.flush(file);
            if flushed != SQLITE_OK {
                return flushed;
            }
        }
        if state.gathered.is_empty() {
            state.start = offset;
        }
        state.gathered.extend_from_slice(bytes);
        if bytes.len() == FRAME_HEADER_BYTES {
            state.ends_commit = bytes[4..8] != [0; 4];
            return SQLITE_OK;
        }
        if std::mem::take(&mut state.ends_commit) { state.flush(file) } else { SQLITE_OK }
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite calls a method with the file that has it, and nothing more with the file after this one. The box was
    // made in `join_log_writes`, and the file forgets it before it is freed.
    unsafe {
        let flushed = state(file).flush(file);
        let joined = Box::from_raw((*file).pMethods.cast_mut().cast::<Joined>());
        (*file).pMethods = joined.original;
        let closed = joined.original().xClose.expect("every file has it")(file);
        if closed == SQLITE_OK { flushed } else { closed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path) -> Connection {
        let connection = Connection::open(path).unwrap();
        let settings = "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = 10;
            CREATE TABLE IF NOT EXISTS numbers (number INTEGER PRIMARY KEY, bytes BLOB)";
        connection.execute_batch(settings).unwrap();
        connection
    }

    fn insert(connection: &Connection, rows: i64, bytes: i64) {
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
            INSERT INTO numbers (bytes) SELECT randomblob(?2) FROM n";
        connection.execute(sql, [rows, bytes]).unwrap();
    }

    #[test]
    fn commits_of_any_size_are_whole_for_others_with_syncs_and_without() {
        for synchronous in ["OFF", "FULL"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("app.db");
            let (ours, other) = (open(&path), open(&path));
            ours.pragma_update(None, "synchronous", synchronous).unwrap();
            (0..2).for_each(|_| join_log_writes(&ours).unwrap());
            let mut expected = (0, 0);
            for (rows, bytes) in [(1, 10), (1, 3 << 20), (5_000, 100), (3, 200_000)] {
                ours.execute_batch("BEGIN").unwrap();
                insert(&ours, rows, bytes);
                // What is larger than the cache, and changed twice.
                ours.execute_batch("UPDATE numbers SET bytes = zeroblob(length(bytes)) WHERE number % 2").unwrap();
                ours.execute_batch("COMMIT").unwrap();
                expected = (expected.0 + rows, expected.1 + rows * bytes);
                let sum = "SELECT count(*), sum(length(bytes)) FROM numbers";
                let found = other.query_row(sum, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
                assert_eq!(found, expected);
            }
            ours.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
            ours.execute("DELETE FROM numbers WHERE number > 10", []).unwrap();
            drop(ours);
            let verdict: String = other.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(verdict, "ok");
        }
    }

    #[test]
    fn what_was_rolled_back_is_never_written_over_what_others_committed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let (ours, other) = (open(&path), open(&path));
        ours.pragma_update(None, "cache_spill", true).unwrap();
        insert(&other, 1, 10);
        join_log_writes(&ours).unwrap();
        for round in 0..20 {
            ours.execute_batch("BEGIN IMMEDIATE").unwrap();
            insert(&ours, 200, 1_000);
            ours.execute_batch("ROLLBACK").unwrap();
            insert(&other, 1, 5_000);
            insert(&ours, 1, 10);
            let fresh = Connection::open(&path).unwrap();
            let count: i64 = fresh.query_row("SELECT count(*) FROM numbers", [], |row| row.get(0)).unwrap();
            assert_eq!(count, 1 + 2 * (round + 1));
            let verdict: String = fresh.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(verdict, "ok");
        }
    }
}
