//! Classifies errors of SQLite by their code.

use rusqlite::ErrorCode;

/// Whether an error means that a page cannot be read, or is not a database page.
pub(super) fn is_unreadable(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::SystemIoFailure | ErrorCode::NotADatabase)
    )
}

/// SQLite reports a quota or a file-size limit as an I/O error; the system's error number distinguishes it.
pub(super) fn is_out_of_space(connection: &rusqlite::Connection) -> bool {
    // SAFETY: the handle belongs to an open connection that this thread holds; the call only reads a field of it.
    #[allow(unsafe_code)]
    let number = unsafe { rusqlite::ffi::sqlite3_system_errno(connection.handle()) };
    let no_space =
        [std::io::ErrorKind::StorageFull, std::io::ErrorKind::QuotaExceeded, std::io::ErrorKind::FileTooLarge];
    no_space.contains(&std::io::Error::from_raw_os_error(number).kind())
}
