//! The bounded queue between requests and the writing tasks: whoever does not fit is told at once.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::{Notify, oneshot};

use crate::domain::NewMessage;
use crate::store::extras::Extras;
use crate::store::{Receipt, StoreError};

/// Where the result of a request goes.
pub(super) type Reply = oneshot::Sender<Result<Receipt, StoreError>>;

/// What one request wants stored.
pub(super) struct Job {
    pub messages: Vec<NewMessage>,
    /// What else it brought.
    pub extras: Option<Box<Extras>>,
    pub reply: Reply,
}

impl Job {
    /// How much of the queue and of a batch it takes.
    pub fn elements(&self) -> usize {
        let extras = self.extras.as_ref().map_or(0, |extras| extras.statuses.len() + extras.events.len());
        self.messages.len() + extras
    }
}

/// Jobs in the order of their arrival. The limit counts messages, and what comes beside them.
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Notify,
    limit: usize,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    elements: usize,
    closed: bool,
}

impl Queue {
    pub fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), arrived: Notify::new(), limit }
    }

    /// Whether a message would be taken now.
    pub fn has_room(&self) -> Result<(), StoreError> {
        room(&self.lock(), 1, self.limit)
    }

    /// Adds a job, or refuses it without waiting. A job larger than the whole queue is taken when the queue is empty.
    pub fn push(&self, job: Job) -> Result<(), StoreError> {
        let mut state = self.lock();
        let elements = job.elements();
        room(&state, elements, self.limit)?;
        state.elements += elements;
        state.jobs.push_back(job);
        drop(state);
        // Keeps one permit where nobody waits, so a writer that is about to wait does not miss it.
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for a job, then takes what is there: up to `most` elements, and at least one job. None when nothing is left and
    /// nothing will come.
    pub async fn take(&self, most: usize) -> Option<Vec<Job>> {
        loop {
            if let Some(jobs) = self.take_now(most) {
                return Some(jobs);
            }
            if self.lock().closed {
                // Whoever waits beside us shall see it too.
                self.arrived.notify_one();
                return None;
            }
            self.arrived.notified().await;
        }
    }

    fn take_now(&self, most: usize) -> Option<Vec<Job>> {
        let mut state = self.lock();
        let mut elements = 0;
        let fits = |job: &&Job| {
            elements += job.elements();
            elements <= most
        };
        let count = state.jobs.iter().take_while(fits).count().max(1).min(state.jobs.len());
        let jobs: Vec<Job> = state.jobs.drain(..count).collect();
        state.elements -= jobs.iter().map(Job::elements).sum::<usize>();
        if !state.jobs.is_empty() {
            self.arrived.notify_one();
        }
        (!jobs.is_empty()).then_some(jobs)
    }

    /// Elements waiting now.
    pub fn depth(&self) -> usize {
        self.lock().elements
    }

    /// Takes nothing more; what is queued is still written.
    pub fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn room(state: &State, elements: usize, limit: usize) -> Result<(), StoreError> {
    if state.closed {
        return Err(StoreError::Closed);
    }
    if state.elements + elements > limit && !state.jobs.is_empty() {
        return Err(StoreError::QueueFull);
    }
    Ok(())
}
