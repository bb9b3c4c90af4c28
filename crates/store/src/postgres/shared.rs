//! State that requests and the tasks of the database thread share: the queue, the health, and the events that
//! change it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::watch;

use super::failure::Failure;
use super::limits::Limits;
use super::queue::Queue;
use super::task::Task;
use crate::StoreConfig;
use crate::StoreError;
use crate::health::{Health, SharedHealth};
use crate::observer::Observer;
use crate::postgres::config::PostgresConfig;
use crate::queue::Job;
use runtime::log;

/// The shared state of requests and the tasks.
pub(super) struct Shared {
    pub queue: Queue,
    pub observer: Arc<dyn Observer>,
    pub config: StoreConfig,
    pub limits: Limits,
    health: SharedHealth,
    /// How often the server was found healthy.
    pub well: AtomicU64,
    /// How often a failure showed that the server is not healthy.
    pub failures: AtomicU64,
    pub stops: AtomicBool,
    /// The tasks that work for requests: writers, then readers.
    pub tasks: Vec<Arc<Task>>,
    /// Whether the server refused a message for its content, and accepted none since.
    pub refuses: AtomicBool,
    /// Number of rows that this replica created; the background tasks observe it.
    pub stored: watch::Sender<u64>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("health", &self.health()).finish_non_exhaustive()
    }
}

impl Shared {
    pub fn new(postgres: &PostgresConfig, config: &StoreConfig, observer: Arc<dyn Observer>, limits: Limits) -> Self {
        let task = |at| match at < postgres.writers {
            true => Arc::new(Task::new(true, postgres.write_timeout)),
            false => Arc::new(Task::new(false, config.query_timeout)),
        };
        Self {
            queue: Queue::new(config.queue_max),
            observer,
            config: config.clone(),
            limits,
            health: SharedHealth::new(),
            well: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            stops: AtomicBool::new(false),
            tasks: (0..postgres.writers + config.readers).map(task).collect(),
            refuses: AtomicBool::new(false),
            stored: watch::Sender::new(0),
        }
    }

    pub fn health(&self) -> Health {
        self.health.get()
    }

    /// Returns the previous health.
    pub fn set_health(&self, health: Health) -> Health {
        self.health.set(health)
    }

    /// Records a failure, and logs it if it changes the health or fails a request.
    pub fn trouble(&self, failure: &Failure, messages: usize) {
        let changed = failure.health().is_some_and(|health| {
            self.failures.fetch_add(1, Ordering::Relaxed);
            self.queue.failed();
            self.set_health(health) != health
        });
        if changed || messages > 0 {
            log::error("the database failed").text("error", &failure.to_string()).value("messages", messages).emit();
        }
    }

    /// Marks the server unreachable or unusable for writes: waiting requests
    /// and new ones are refused, until a check finds the server healthy.
    pub fn away(&self, failure: &Failure) {
        if failure.health().is_none() {
            return;
        }
        let error = StoreError::from(failure.clone());
        let refused = self.queue.shut(error.clone());
        self.trouble(failure, refused.iter().map(Job::elements).sum());
        for job in refused {
            let _ = job.reply.send(Err(error.clone()));
        }
    }

    /// Records that the server is healthy and every task works, as found by a check
    /// that began after this number of failures. Failures during the check stay valid.
    pub fn recovered(&self, failures: u64) {
        self.well.fetch_add(1, Ordering::Relaxed);
        if self.failures.load(Ordering::Relaxed) == failures && self.set_health(Health::Ready) != Health::Ready {
            self.queue.reopen();
            log::info("the database works again").emit();
        }
    }

    /// Records a written batch. The health monitor checks all tasks
    /// and decides about health; new messages are accepted at once.
    pub fn wrote(&self) {
        self.well.fetch_add(1, Ordering::Relaxed);
        if self.health() != Health::Ready {
            self.queue.reopen();
        }
    }

    /// Whether any writing task is without a fault.
    pub fn can_write(&self) -> bool {
        self.tasks.iter().any(|task| task.writes && task.fault().is_none())
    }

    /// Records the fault of a task. While other tasks write, messages are accepted.
    pub fn hampered(&self, failure: &Failure) {
        if self.can_write() { self.trouble(failure, 0) } else { self.away(failure) }
    }

    /// Whether to abandon the rest of the queue: the service stops, and the database is unreachable.
    pub fn gives_up(&self) -> bool {
        self.stops.load(Ordering::Relaxed) && self.health() == Health::Broken
    }
}
