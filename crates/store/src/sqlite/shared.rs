//! The shared state of requests, readers, the writer and the
//! index: the queue, the health, and requests between the threads.

use std::path::Path;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};

use super::access::ReadAccess;
use super::file::FileIdentity;
use super::queue::Queue;
use super::tie::TieRequest;
use crate::health::{Health, SharedHealth};
use crate::observer::Observer;
use domain::lock::lock;

/// The shared state of requests and the writer.
pub(super) struct Shared {
    pub queue: Queue,
    pub observer: Arc<dyn Observer>,
    health: SharedHealth,
    /// The writer's open files; none if no file is open.
    written: Mutex<Option<FileIdentity>>,
    /// The greatest rowid at the writer's last commit, or at its opening.
    pub committed_row: AtomicI64,
    /// The connections of the readers.
    pub access: Arc<ReadAccess>,
    /// The change records that the writer may delete when it is idle.
    pub forget: Mutex<Option<Forget>>,
    /// The name for the next save of the index.
    pub tie: TieRequest,
}

/// Change records that are no longer needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Forget {
    /// The epoch of their numbers.
    pub epoch: String,
    /// The last of them.
    pub change: i64,
}

impl Shared {
    /// The state of a database that is ready.
    pub fn new(queue: Queue, observer: Arc<dyn Observer>) -> Self {
        Self {
            queue,
            observer,
            health: SharedHealth::new(),
            written: Mutex::default(),
            committed_row: AtomicI64::new(0),
            access: Arc::default(),
            forget: Mutex::default(),
            tie: TieRequest::default(),
        }
    }

    /// Records the files that the writer has open.
    pub fn writes_to(&self, files: Option<FileIdentity>) {
        *lock(&self.written) = files;
    }

    /// Whether the writer's open file is no longer at `path`.
    pub fn has_lost(&self, path: &Path) -> bool {
        let written = *lock(&self.written);
        written.is_some() && written != FileIdentity::of(path)
    }

    /// Whether the queue is empty and the writer sleeps.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.queue.is_idle()
    }

    /// Allows the writer to delete these change records as soon as it is idle.
    pub fn forget(&self, notes: Forget) {
        *lock(&self.forget) = Some(notes);
        self.queue.nudge();
    }

    pub fn health(&self) -> Health {
        self.health.get()
    }

    /// Sets the health; returns the previous one.
    pub fn set_health(&self, health: Health) -> Health {
        self.health.set(health)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("health", &self.health()).finish_non_exhaustive()
    }
}
