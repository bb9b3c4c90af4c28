//! One system call per commit instead of two per page: SQLite writes a frame of the write-ahead log as a header and a page, each
//! by itself. Here the writes to the log of one connection gather in memory and go out together.
//!
//! What SQLite relies on stays. It syncs the log before it tells anybody of a commit (`synchronous=FULL`), and before a sync,
//! a read, or whatever else is done with the file, everything gathered is written. A write that fails then fails the sync, and
//! with it the commit, by the same error. Frames without a commit behind them nobody else may read, so it does no harm
//! that they are in the file a little later.

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
    /// Where in the file the gathered bytes begin.
    start: sqlite3_int64,
}

/// Has a connection's writes to its write-ahead log go out together. Does nothing if the log is not open yet.
pub(super) fn join_log_writes(connection: &Connection) {
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
            return;
        }
        let original = (*log).pMethods;
        let mut methods = *original;
        methods.xClose = Some(close);
        methods.xRead = Some(read);
        methods.xWrite = Some(write);
        methods.xTruncate = Some(truncate);
        methods.xSync = Some(sync);
        methods.xFileSize = Some(file_size);
        let joined = Box::new(Joined { methods, original, gathered: Vec::new(), start: 0 });
        (*log).pMethods = Box::into_raw(joined).cast();
    }
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
        SQLITE_OK
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

    #[test]
    fn transactions_of_any_size_arrive_whole_also_where_pages_are_spilled_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let connection = Connection::open(&path).unwrap();
        // A tiny cache writes pages to the log before the commit, and reads them from there.
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;
                 PRAGMA cache_size = 10; CREATE TABLE numbers (number INTEGER PRIMARY KEY, bytes BLOB)",
            )
            .unwrap();
        join_log_writes(&connection);
        join_log_writes(&connection);
        let other = Connection::open(&path).unwrap();
        let mut expected = (0, 0);
        for (rows, bytes) in [(1, 10), (1, 3 << 20), (5_000, 100), (3, 200_000)] {
            let insert = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                INSERT INTO numbers (bytes) SELECT randomblob(?2) FROM n";
            connection.execute_batch("BEGIN").unwrap();
            connection.execute(insert, [rows, bytes]).unwrap();
            connection.execute("UPDATE numbers SET bytes = zeroblob(length(bytes)) WHERE number % 2", []).unwrap();
            connection.execute_batch("COMMIT").unwrap();
            expected = (expected.0 + rows, expected.1 + rows * bytes);
            let sum = "SELECT count(*), sum(length(bytes)) FROM numbers";
            let found = other.query_row(sum, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            assert_eq!(found, expected);
        }
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        connection.execute("DELETE FROM numbers WHERE number > 10", []).unwrap();
        drop(connection);
        let verdict: String = other.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok");
    }
}
