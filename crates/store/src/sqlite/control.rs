//! The state that the threads of the index and their owner share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use domain::lock::{lock, unpoisoned};
use index::folder::Folder;

/// The shared state of the threads and their owner.
#[derive(Debug, Default)]
pub(super) struct Control {
    stopping: Mutex<bool>,
    stopped: Condvar,
    /// The same flag, for readers of the state.
    pub stop: AtomicBool,
    /// The files differ from the state, although nothing was added.
    pub save_wanted: AtomicBool,
    /// The folder, while this process holds it.
    pub folder: Mutex<Option<Folder>>,
}

impl Control {
    /// Waits; returns whether to stop.
    pub fn wait(&self, patience: Duration) -> bool {
        let stopping = lock(&self.stopping);
        let waited = self.stopped.wait_timeout_while(stopping, patience, |stopping| !*stopping);
        *unpoisoned(waited).0
    }

    /// Makes the threads end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        *lock(&self.stopping) = true;
        self.stopped.notify_all();
    }
}

/// Gives this thread a lower priority than those of requests. If the system refuses, all have the same.
pub(super) fn give_way() {
    // On Linux this applies to one thread; a quarter of the normal share is still enough to keep up.
    let _ = rustix::process::nice(5);
}
