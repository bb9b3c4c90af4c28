//! The bounded queue between requests and the writer: whoever does not fit is told at once.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;

use super::extras::Extras;
use super::{Receipt, StoreError};
use crate::domain::NewMessage;

/// What one request wants stored, and where its answer goes.
pub(super) struct Job {
    pub messages: Vec<NewMessage>,
    /// What else it brought.
    pub extras: Option<Box<Extras>>,
    pub reply: oneshot::Sender<Result<Receipt, StoreError>>,
}

impl Job {
    /// How much of the queue and of a batch it takes.
    pub fn elements(&self) -> usize {
        let extras = self.extras.as_ref().map_or(0, |extras| extras.statuses.len() + extras.events.len());
        self.messages.len() + extras
    }
}

/// Jobs in the order of their arrival. The limit counts messages.
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    limit: usize,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    messages: usize,
    closed: bool,
    /// The writer sleeps; nobody else needs to be woken.
    writer_waits: bool,
    /// The writer shall look up, though there is no job.
    nudged: bool,
}

/// What the writer finds.
pub(super) enum Taken {
    Jobs(Vec<Job>),
    /// Nothing came within the time that the writer wanted to wait, or it was nudged.
    Nothing,
    /// Nothing is left and nothing will come.
    Closed,
}

impl Queue {
    pub fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), limit }
    }

    /// Whether a message would be taken now.
    pub fn has_room(&self) -> Result<(), StoreError> {
        Self::room(&self.lock(), 1, self.limit)
    }

    /// Adds a job, or refuses it without waiting. A job larger than the whole queue is taken when the queue is empty.
    pub fn push(&self, job: Job) -> Result<(), StoreError> {
        let mut state = self.lock();
        let elements = job.elements();
        Self::room(&state, elements, self.limit)?;
        state.messages += elements;
        state.jobs.push_back(job);
        let wake = std::mem::take(&mut state.writer_waits);
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    fn room(state: &State, messages: usize, limit: usize) -> Result<(), StoreError> {
        if state.closed {
            return Err(StoreError::Closed);
        }
        if state.messages + messages > limit && !state.jobs.is_empty() {
            return Err(StoreError::QueueFull);
        }
        Ok(())
    }

    /// Waits for a job (at most `patience`, if given), then takes what is there, up to `most` messages and at least one job.
    pub fn take(&self, most: usize, patience: Option<Duration>) -> Taken {
        let mut state = self.lock();
        while state.jobs.is_empty() {
            if state.closed {
                return Taken::Closed;
            }
            if std::mem::take(&mut state.nudged) {
                return Taken::Nothing;
            }
            state.writer_waits = true;
            match patience {
                None => state = self.arrived.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner()),
                Some(patience) => {
                    let waited = self.arrived.wait_timeout(state, patience);
                    let (back, timeout) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
                    state = back;
                    if timeout.timed_out() && state.jobs.is_empty() && !state.closed {
                        (state.writer_waits, state.nudged) = (false, false);
                        return Taken::Nothing;
                    }
                }
            }
        }
        let mut messages = 0;
        let fits = |job: &&Job| {
            messages += job.elements();
            messages <= most
        };
        let count = state.jobs.iter().take_while(fits).count().max(1);
        let jobs: Vec<Job> = state.jobs.drain(..count).collect();
        state.messages -= jobs.iter().map(Job::elements).sum::<usize>();
        Taken::Jobs(jobs)
    }

    /// Has the writer look up from its sleep, or before it goes to sleep the next time.
    pub fn nudge(&self) {
        let mut state = self.lock();
        state.nudged = true;
        state.writer_waits = false;
        drop(state);
        self.arrived.notify_one();
    }

    /// Whether nothing is waiting and the writer sleeps.
    pub fn is_idle(&self) -> bool {
        self.lock().writer_waits
    }

    /// Messages waiting now.
    pub fn depth(&self) -> usize {
        self.lock().messages
    }

    /// Takes nothing more; what is queued is still written.
    pub fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
