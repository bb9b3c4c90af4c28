//! Opening a database file for reading only.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::file::trace_of_changes;
use super::queries::add_functions;
use super::schema;

/// Opens the file for reading only.
pub(super) fn open_for_reading(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    prepare_to_read(Connection::open_with_flags(path, flags)?)
}

/// The same, also if there is no space for a log: without a log the file is complete
/// and can be read as it is. Returns whether the file was opened as immutable.
pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<(Connection, bool)> {
    let opened = open_for_reading(path).and_then(|connection| schema::version(&connection).map(|_| connection));
    let error = match opened {
        Ok(connection) => return Ok((connection, false)),
        Err(error) => error,
    };
    let may_be_for_space = matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen)
    );
    // The check opens no file: closing one would release the process's locks.
    if !may_be_for_space || trace_of_changes(path).is_some() {
        return Err(error);
    }
    Ok((prepare_to_read(open_immutable(path)?)?, true))
}

/// Opens a file that no process changes, without a log or locks.
pub(super) fn open_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(*byte)),
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(uri, flags)
}

fn prepare_to_read(connection: Connection) -> rusqlite::Result<Connection> {
    connection.busy_timeout(Duration::from_secs(1))?;
    // Frequently used pages are in the system's cache.
    connection.execute_batch("PRAGMA query_only = 1; PRAGMA cache_size = -2048; PRAGMA cell_size_check = 1;")?;
    connection.set_prepared_statement_cache_capacity(64);
    add_functions(&connection)?;
    Ok(connection)
}
