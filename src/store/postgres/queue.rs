//! The queue between requests and the writing tasks.

use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::store::StoreError;
use crate::store::queue::{Backlog, Job};

/// A backlog, and tasks that wait while it is empty.
pub(super) struct Queue {
    backlog: Mutex<Backlog>,
    arrived: Notify,
}

impl Queue {
    pub fn new(limit: usize) -> Self {
        Self { backlog: Mutex::new(Backlog::new(limit)), arrived: Notify::new() }
    }

    /// Whether a message would be taken now.
    pub fn has_room(&self) -> Result<(), StoreError> {
        self.lock().room(1)
    }

    /// Adds a job, or refuses it without waiting.
    pub fn push(&self, job: Job) -> Result<(), StoreError> {
        self.lock().push(job)?;
        // Keeps one permit where nobody waits, so a writer that is about to wait does not miss it.
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for a job, then takes what is there: up to `most` elements, and at least one job. None when nothing is left and
    /// nothing will come.
    pub async fn take(&self, most: usize) -> Option<Vec<Job>> {
        loop {
            let (jobs, is_empty, is_closed) = {
                let mut backlog = self.lock();
                (backlog.take(most), backlog.is_empty(), backlog.is_closed())
            };
            if !is_empty || jobs.is_empty() && is_closed {
                // Whoever waits beside us takes the rest, or sees that there will be none.
                self.arrived.notify_one();
            }
            if !jobs.is_empty() {
                return Some(jobs);
            }
            if is_closed {
                return None;
            }
            self.arrived.notified().await;
        }
    }

    /// Elements waiting now.
    pub fn depth(&self) -> usize {
        self.lock().elements()
    }

    /// Takes nothing more; what is queued is still written.
    pub fn close(&self) {
        self.lock().close();
        self.arrived.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
