//! The queue between requests and the writer's thread.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::StoreError;
use crate::queue::{Backlog, Job};
use domain::lock::{lock, unpoisoned};

/// A queue, and a writer that sleeps while it is empty.
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
}

struct State {
    backlog: Backlog,
    /// The writer sleeps; no other thread has to be woken.
    writer_waits: bool,
    /// The writer must wake, although there is no job.
    nudged: bool,
}

/// The result of waiting for jobs.
pub(super) enum Taken {
    Jobs(Vec<Job>),
    /// Nothing arrived within the writer's waiting time, or it was woken.
    Nothing,
    /// The queue is closed and empty.
    Closed,
}

impl Queue {
    pub fn new(limit: usize) -> Self {
        let state = State { backlog: Backlog::new(limit), writer_waits: false, nudged: false };
        Self { state: Mutex::new(state), arrived: Condvar::new() }
    }

    /// Whether a message would be accepted now.
    pub fn has_room(&self) -> Result<(), StoreError> {
        self.lock().backlog.room()
    }

    /// Adds a job, or refuses it without waiting.
    pub fn push(&self, job: Job) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.backlog.push(job)?;
        let wake = std::mem::take(&mut state.writer_waits);
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Waits for a job (at most `patience`, if given), then takes up to `most` messages and at least one job.
    pub fn take(&self, most: usize, patience: Option<Duration>) -> Taken {
        let mut state = self.lock();
        while state.backlog.is_empty() {
            if state.backlog.is_closed() {
                return Taken::Closed;
            }
            if std::mem::take(&mut state.nudged) {
                return Taken::Nothing;
            }
            state.writer_waits = true;
            match patience {
                None => state = unpoisoned(self.arrived.wait(state)),
                Some(patience) => {
                    let waited = self.arrived.wait_timeout(state, patience);
                    let (back, timeout) = unpoisoned(waited);
                    state = back;
                    if timeout.timed_out() && state.backlog.is_empty() && !state.backlog.is_closed() {
                        (state.writer_waits, state.nudged) = (false, false);
                        return Taken::Nothing;
                    }
                }
            }
        }
        Taken::Jobs(state.backlog.take(most))
    }

    /// Wakes the writer from its sleep, or before its next sleep.
    pub fn nudge(&self) {
        let mut state = self.lock();
        state.nudged = true;
        state.writer_waits = false;
        drop(state);
        self.arrived.notify_one();
    }

    /// Whether the queue is empty and the writer sleeps.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.lock().writer_waits
    }

    /// Elements waiting now.
    pub fn depth(&self) -> usize {
        self.lock().backlog.elements()
    }

    /// Accepts nothing more; queued jobs are still written.
    pub fn close(&self) {
        self.lock().backlog.close();
        self.arrived.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}
