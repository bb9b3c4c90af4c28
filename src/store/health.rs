//! The state of the store.

/// The store's state, as readiness tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Writes and reads work, as far as is known.
    Ready,
    /// The last write found no space.
    DiskFull,
    /// The write-ahead log is as long as it may be, and another program's open read keeps it from being moved.
    LogFull,
    /// The database, its file or its table is gone or broken.
    Broken,
    /// The database itself refuses messages, whoever sends them: a constraint or a trigger of another program.
    Refusing,
}
