//! What waits to be written, whichever engine writes it: a bounded list of jobs, and the way of their answers. Whoever does not
//! fit is told at once.

use std::collections::VecDeque;

use tokio::sync::{mpsc, oneshot};

use super::extras::{self, Extras};
use super::{Receipt, StoreError};
use crate::domain::NewMessage;
use crate::providers::Parsed;

/// Where the result of a request goes.
pub(super) type Reply = oneshot::Sender<Result<Receipt, StoreError>>;
/// Everybody's answer of one batch.
pub(super) type Answers = Vec<(Reply, Result<Receipt, StoreError>)>;

/// What one request wants stored, and where its answer goes.
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
pub(super) struct Backlog {
    jobs: VecDeque<Job>,
    elements: usize,
    limit: usize,
    closed: bool,
}

impl Backlog {
    pub fn new(limit: usize) -> Self {
        Self { jobs: VecDeque::new(), elements: 0, limit, closed: false }
    }

    /// Whether so much more would be taken now. More than the whole limit is taken when nothing else waits.
    pub fn room(&self, elements: usize) -> Result<(), StoreError> {
        if self.closed {
            return Err(StoreError::Closed);
        }
        if self.elements + elements > self.limit && !self.jobs.is_empty() {
            return Err(StoreError::QueueFull);
        }
        Ok(())
    }

    pub fn push(&mut self, job: Job) -> Result<(), StoreError> {
        let elements = job.elements();
        self.room(elements)?;
        self.elements += elements;
        self.jobs.push_back(job);
        Ok(())
    }

    /// Takes what is there, up to `most` elements, and at least one job where there is one.
    pub fn take(&mut self, most: usize) -> Vec<Job> {
        let mut elements = 0;
        let fits = |job: &&Job| {
            elements += job.elements();
            elements <= most
        };
        let count = self.jobs.iter().take_while(fits).count().max(1).min(self.jobs.len());
        let jobs: Vec<Job> = self.jobs.drain(..count).collect();
        self.elements -= jobs.iter().map(Job::elements).sum::<usize>();
        jobs
    }

    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Takes nothing more; what is there can still be taken.
    pub fn close(&mut self) {
        self.closed = true;
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }
}

/// Has a request queued, and waits for what became of it.
pub(super) async fn append(
    parsed: Parsed,
    push: impl FnOnce(Job) -> Result<(), StoreError>,
) -> Result<Receipt, StoreError> {
    let (messages, extras) = extras::split(parsed).await;
    let (reply, receipt) = oneshot::channel();
    push(Job { messages, extras, reply })?;
    receipt.await.unwrap_or(Err(StoreError::Closed))
}

/// Hands answers to the requests that wait for them, until nobody writes any more. Whoever writes wakes this task once per
/// batch; the wake-ups of the requests then stay within the runtime, where they cost no system call.
pub(super) async fn deliver(mut answered: mpsc::UnboundedReceiver<Answers>) {
    while let Some(batch) = answered.recv().await {
        for (reply, result) in batch {
            // Whoever went away in the meantime will ask again and get a duplicate.
            let _ = reply.send(result);
        }
    }
}
