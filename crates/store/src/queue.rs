//! The queue in front of the writers, for both engines: a bounded list of jobs, and their results. A job that does
//! not fit is refused at once.

use std::collections::VecDeque;

use tokio::sync::{mpsc, oneshot};

use super::extras::{self, Extras};
use super::{Receipt, StoreError};
use domain::{Intake, NewMessage};

/// The receiver of a request's result.
pub(super) type Reply = oneshot::Sender<Result<Receipt, StoreError>>;
/// All results of one batch.
pub(super) type Answers = Vec<(Reply, Result<Receipt, StoreError>)>;

/// The content of one request, and the receiver of its result.
pub(super) struct Job {
    pub messages: Vec<NewMessage>,
    /// The content other than messages.
    pub extras: Option<Box<Extras>>,
    pub reply: Reply,
}

impl Job {
    /// Its share of the queue and of a batch.
    pub fn elements(&self) -> usize {
        let extras = self.extras.as_ref().map_or(0, |extras| extras.statuses.len() + extras.events.len());
        self.messages.len() + extras
    }
}

/// Jobs in the order of arrival. The limit counts messages and other elements. The job that reaches
/// it is accepted whole, so that large jobs are not refused repeatedly while small ones pass.
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

    /// Whether a job would be accepted now.
    pub fn room(&self) -> Result<(), StoreError> {
        match self.closed {
            true => Err(StoreError::Closed),
            false if self.elements >= self.limit => Err(StoreError::QueueFull),
            false => Ok(()),
        }
    }

    pub fn push(&mut self, job: Job) -> Result<(), StoreError> {
        self.room()?;
        self.elements += job.elements();
        self.jobs.push_back(job);
        Ok(())
    }

    /// Takes up to `most` elements, and at least one job if there is one.
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

    /// Accepts nothing more; queued jobs can still be taken.
    pub fn close(&mut self) {
        self.closed = true;
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }
}

/// Queues a request, and waits for its result.
pub(super) async fn append(
    intake: Intake,
    push: impl FnOnce(Job) -> Result<(), StoreError>,
) -> Result<Receipt, StoreError> {
    let (messages, extras) = extras::split(intake).await;
    let (reply, receipt) = oneshot::channel();
    push(Job { messages, extras, reply })?;
    receipt.await.unwrap_or(Err(StoreError::Closed))
}

/// Passes results to the waiting requests, until all writers have ended. A writer wakes this task once per
/// batch; the wake-ups of the requests then stay within the runtime, where they cost no system call.
pub(super) async fn deliver(mut answered: mpsc::UnboundedReceiver<Answers>) {
    while let Some(batch) = answered.recv().await {
        for (reply, result) in batch {
            // A client that disconnected meanwhile will retry and get a duplicate.
            let _ = reply.send(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Address, MessageId, Moment, Timestamp};

    fn job(messages: usize) -> Job {
        let message = |at: usize| NewMessage {
            id: MessageId::parse(&at.to_string()).unwrap(),
            from: Address::phone("+1").unwrap(),
            to: Address::phone("+2").unwrap(),
            ts: Timestamp::parse("2025-01-15T10:00:00Z").unwrap(),
            text: None,
            accepted_at: Moment::from_microseconds(0),
            former_id: None,
            details: None,
        };
        Job { messages: (0..messages).map(message).collect(), extras: None, reply: oneshot::channel().0 }
    }

    #[test]
    fn a_large_job_is_taken_whole_while_there_is_room_and_then_nothing_more() {
        let mut backlog = Backlog::new(4);
        (0..3).for_each(|_| backlog.push(job(1)).unwrap());
        assert_eq!((backlog.push(job(100)), backlog.elements()), (Ok(()), 103), "no crowd of small ones keeps it out");
        assert_eq!((backlog.push(job(1)), backlog.room()), (Err(StoreError::QueueFull), Err(StoreError::QueueFull)));
        assert_eq!((backlog.take(50).len(), backlog.room()), (3, Err(StoreError::QueueFull)));
        assert_eq!((backlog.take(50).len(), backlog.push(job(1))), (1, Ok(())));
        backlog.close();
        assert_eq!(backlog.push(job(1)), Err(StoreError::Closed));
    }
}
