//! The queue between requests and the writing tasks.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::StoreError;
use crate::queue::{Backlog, Job};

/// How long a batch may take before another one begins concurrently: a
/// statement that waits for a lock, or for a standby, does not delay the rest.
const PATIENCE: Duration = Duration::from_millis(10);
/// Time of a batch before the server is tested.
const HELD_UP: Duration = Duration::from_secs(1);
/// Interval of attempts while the server is unreachable.
const PAUSE: Duration = Duration::from_millis(100);

/// A queue, and tasks that wait while it is empty.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

struct Waiting {
    backlog: Backlog,
    /// Number of batches in progress, and the time when the last one was taken.
    under_way: usize,
    taken: Instant,
    /// Present while the server is unreachable.
    shut: Option<Shut>,
}

struct Shut {
    /// The error of refused requests.
    error: StoreError,
    /// Time of the last failed attempt.
    tried: Instant,
}

impl Waiting {
    /// While the server is unreachable, one job at a time tests it. The other jobs would wait in vain.
    fn admit(&self) -> Result<(), StoreError> {
        let Some(shut) = &self.shut else { return Ok(()) };
        let is_tried = self.under_way > 0 || !self.backlog.is_empty() || shut.tried.elapsed() < PAUSE;
        if is_tried { Err(shut.error.clone()) } else { Ok(()) }
    }
}

impl Queue {
    pub fn new(limit: usize) -> Self {
        let waiting = Waiting { backlog: Backlog::new(limit), under_way: 0, taken: Instant::now(), shut: None };
        Self { waiting: Mutex::new(waiting), arrived: Notify::new() }
    }

    /// Whether a message would be accepted now.
    pub fn has_room(&self) -> Result<(), StoreError> {
        let waiting = self.lock();
        waiting.admit()?;
        waiting.backlog.room()
    }

    /// Adds a job, or refuses it without waiting.
    pub fn push(&self, job: Job) -> Result<(), StoreError> {
        let mut waiting = self.lock();
        waiting.admit()?;
        waiting.backlog.push(job)?;
        drop(waiting);
        // Leaves one permit if no writer waits, so a writer that is about to wait does not miss it.
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for a job, then takes the queued ones: up to `most` elements, and at least one job. The caller
    /// calls `written` after the batch. While a batch is in progress, the next one accumulates for a while:
    /// a few large batches cost the server less than many small ones. None if the queue is closed and empty.
    pub async fn take(&self, most: usize) -> Option<Vec<Job>> {
        loop {
            let (jobs, is_empty, is_closed, left) = {
                let Waiting { backlog, under_way, taken, .. } = &mut *self.lock();
                let left = PATIENCE.saturating_sub(taken.elapsed());
                let is_time = *under_way == 0 || left.is_zero() || backlog.is_closed();
                let jobs = if is_time { backlog.take(most) } else { Vec::new() };
                if !jobs.is_empty() {
                    (*under_way, *taken) = (*under_way + 1, Instant::now());
                }
                (jobs, backlog.is_empty(), backlog.is_closed(), left)
            };
            if !jobs.is_empty() {
                if !is_empty || is_closed {
                    // Another waiting writer takes the rest, or finds the queue closed.
                    self.arrived.notify_one();
                }
                return Some(jobs);
            }
            match (is_empty, is_closed) {
                (true, true) => {
                    self.arrived.notify_one();
                    return None;
                }
                (true, false) => self.arrived.notified().await,
                // A busy writer takes these jobs if it is done before the timeout.
                (false, _) => tokio::time::sleep(left).await,
            }
        }
    }

    /// Records that a taken batch was written, or failed.
    pub fn written(&self) {
        self.lock().under_way -= 1;
    }

    /// Marks the server unreachable: returns waiting jobs, to be refused, and refuses new ones except for tests.
    pub fn shut(&self, error: StoreError) -> Vec<Job> {
        let mut waiting = self.lock();
        waiting.shut = Some(Shut { error, tried: Instant::now() });
        waiting.backlog.take(usize::MAX)
    }

    /// Records a failed attempt. An unreachable server stays marked.
    pub fn failed(&self) {
        if let Some(shut) = &mut self.lock().shut {
            shut.tried = Instant::now();
        }
    }

    /// Marks the server reachable.
    pub fn reopen(&self) {
        self.lock().shut = None;
    }

    /// Whether the server is known to be unreachable.
    pub fn is_shut(&self) -> bool {
        self.lock().shut.is_some()
    }

    /// Whether a batch has been in progress for too long.
    pub fn is_held_up(&self) -> bool {
        let waiting = self.lock();
        waiting.under_way > 0 && waiting.taken.elapsed() >= HELD_UP
    }

    /// Elements waiting now.
    pub fn depth(&self) -> usize {
        self.lock().backlog.elements()
    }

    /// Accepts nothing more; queued jobs are still written.
    pub fn close(&self) {
        self.lock().backlog.close();
        self.arrived.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    fn try_push(queue: &Queue) -> Result<(), StoreError> {
        queue.push(Job { messages: Vec::new(), extras: None, reply: oneshot::channel().0 })
    }

    fn push(queue: &Queue) {
        try_push(queue).unwrap();
    }

    #[test]
    fn while_the_server_is_away_one_job_at_a_time_finds_out_whether_it_is_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (queue, away) = (Queue::new(8), StoreError::Unavailable("away".to_owned()));
            push(&queue);
            push(&queue);
            assert_eq!(queue.shut(away.clone()).len(), 2, "who waits is to be told");
            assert_eq!((try_push(&queue), queue.has_room()), (Err(away.clone()), Err(away.clone())));
            let wait = || queue.lock().shut.as_mut().unwrap().tried -= PAUSE;
            wait();
            assert_eq!((queue.has_room(), try_push(&queue)), (Ok(()), Ok(())));
            assert_eq!(try_push(&queue), Err(away.clone()), "one waits");
            assert_eq!(queue.take(8).await.map(|jobs| jobs.len()), Some(1));
            wait();
            assert_eq!(try_push(&queue), Err(away.clone()), "one is under way");
            queue.failed();
            queue.written();
            assert_eq!(try_push(&queue), Err(away), "it has just failed");
            queue.reopen();
            push(&queue);
            push(&queue);
        });
    }

    #[test]
    fn what_comes_while_a_batch_is_under_way_gathers_for_a_while() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let queue = Queue::new(8);
            let take = async || queue.take(100).await.map(|jobs| jobs.len());
            push(&queue);
            assert_eq!(take().await, Some(1));
            push(&queue);
            push(&queue);
            queue.written();
            let began = Instant::now();
            assert_eq!(take().await, Some(2), "the one that is written makes way");
            push(&queue);
            assert_eq!(take().await, Some(1), "and is not waited for for ever");
            assert!(began.elapsed() >= PATIENCE);
            queue.close();
            assert_eq!(take().await, None);
        });
    }
}
