//! The connections of the reading threads. Each thread owns one; the writer may need the file for itself, and closes
//! them then.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rusqlite::Connection;

use super::file::FileIdentity;
use super::reading::open_to_read;
use super::schema;
use domain::lock::lock;

/// The connections of all reader threads: the writer may need exclusive access to the file.
#[derive(Debug, Default)]
pub(super) struct ReadAccess {
    denied: AtomicBool,
    slots: Mutex<Vec<Slot>>,
}

impl ReadAccess {
    /// Closes the connections of all idle reader threads.
    pub fn let_go(&self) {
        for slot in &*lock(&self.slots) {
            if let Ok(mut open) = slot.try_lock() {
                *open = None;
            }
        }
    }

    /// Closes them, and prevents new ones until access is granted again. Reads in progress continue, so this may
    /// have to be called more than once.
    pub fn deny(&self) {
        self.denied.store(true, Ordering::SeqCst);
        self.let_go();
    }

    /// Allows connections again.
    pub fn grant(&self) {
        self.denied.store(false, Ordering::SeqCst);
    }

    /// Whether connections are denied.
    pub fn is_denied(&self) -> bool {
        self.denied.load(Ordering::SeqCst)
    }

    /// Adds the connection of a thread.
    pub fn add(&self, slot: Slot) {
        lock(&self.slots).push(slot);
    }
}

/// A thread's connection, if it has one. The thread holds the lock during a read.
pub(super) type Slot = Arc<Mutex<Option<Open>>>;

/// A connection, and its file.
#[derive(Debug)]
pub(super) struct Open {
    pub connection: Connection,
    pub identity: Option<FileIdentity>,
    pub schema_version: i64,
}

/// The connection, reopened if the path leads to another file than before.
pub(super) fn open_current<'a>(path: &Path, slot: &'a mut Option<Open>) -> rusqlite::Result<&'a mut Open> {
    let now = FileIdentity::of(path);
    if slot.as_ref().is_none_or(|open| open.identity.is_none() || open.identity != now) {
        *slot = None;
        let (connection, is_immutable) = open_to_read(path)?;
        // The first read creates a missing log, and only then the identity is complete.
        let schema_version = schema::version(&connection)?;
        // Without a log, changes are not detected, so the next read opens the file again.
        let identity = FileIdentity::of(path).filter(|_| !is_immutable);
        *slot = Some(Open { connection, identity, schema_version });
    }
    Ok(slot.as_mut().expect("opened above"))
}
