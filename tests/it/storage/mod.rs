//! The database file, shared with other programs: their writes, locks, and changes to the file itself.

mod backup;
mod beginning;
mod damage;
mod exchanged;
mod file_trouble;
mod foreign_writers;
mod log_growth;
mod notes;
mod waiting;
