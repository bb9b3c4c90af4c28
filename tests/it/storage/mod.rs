//! The database file as something that others use too: their writes, their locks, and what they do to the file itself.

mod backup;
mod beginning;
mod damage;
mod exchanged;
mod file_trouble;
mod foreign_writers;
mod log_growth;
mod notes;
mod waiting;
