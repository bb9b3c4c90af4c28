//! The queue between requests and the writing tasks.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::store::StoreError;
use crate::store::queue::{Backlog, Job};

/// How long a batch may be under way before another is begun beside it: a statement that waits for somebody's lock, or for a
/// standby, does not hold up the rest.
const PATIENCE: Duration = Duration::from_millis(10);

/// A backlog, and tasks that wait while it is empty.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

struct Waiting {
    backlog: Backlog,
    /// Batches that were taken and not written yet, and when the last of them was taken.
    under_way: usize,
    taken: Instant,
}

impl Queue {
    pub fn new(limit: usize) -> Self {
        let waiting = Waiting { backlog: Backlog::new(limit), under_way: 0, taken: Instant::now() };
        Self { waiting: Mutex::new(waiting), arrived: Notify::new() }
    }

    /// Whether a message would be taken now.
    pub fn has_room(&self) -> Result<(), StoreError> {
        self.lock().backlog.room(1)
    }

    /// Adds a job, or refuses it without waiting.
    pub fn push(&self, job: Job) -> Result<(), StoreError> {
        self.lock().backlog.push(job)?;
        // Keeps one permit where nobody waits, so a writer that is about to wait does not miss it.
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for a job, then takes what is there: up to `most` elements, and at least one job. Who takes tells by `written` when the
    /// batch is. While one is under way the next gathers, for a while: a few large batches cost the server less than many
    /// small ones. None when nothing is left and nothing will come.
    pub async fn take(&self, most: usize) -> Option<Vec<Job>> {
        loop {
            let (jobs, is_empty, is_closed, left) = {
                let Waiting { backlog, under_way, taken } = &mut *self.lock();
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
                    // Whoever waits beside us takes the rest, or sees that there will be none.
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
                // Whoever writes takes these when it is done, if that is sooner.
                (false, _) => tokio::time::sleep(left).await,
            }
        }
    }

    /// A batch that was taken is written, or failed.
    pub fn written(&self) {
        self.lock().under_way -= 1;
    }

    /// Elements waiting now.
    pub fn depth(&self) -> usize {
        self.lock().backlog.elements()
    }

    /// Takes nothing more; what is queued is still written.
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

    fn push(queue: &Queue) {
        let job = Job { messages: Vec::new(), extras: None, reply: oneshot::channel().0 };
        queue.push(job).unwrap();
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
