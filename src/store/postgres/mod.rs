//! The shared store: one PostgreSQL database that any number of replicas write and read. `DESIGN.md` beside this file explains
//! how a message gets there and what holds when a replica, a connection or the server dies.
//!
//! One thread with a runtime of its own does all the work: what waits for the database never delays HTTP, and a stop can wait
//! for it. Requests hand in jobs and questions, and get answers by oneshots.

mod audit;
pub(in crate::store) mod batch;
pub(in crate::store) mod brought;
#[cfg(test)]
pub(in crate::store) mod by_hand;
mod certificate;
pub mod config;
mod derive;
mod details;
pub(in crate::store) mod details_sql;
mod engine;
mod failure;
mod grams;
pub mod ground;
mod leftover;
mod listing;
pub(in crate::store) mod places;
mod probe;
mod query;
mod queue;
mod reader;
mod runs;
mod schema;
mod session;
pub(in crate::store) mod sql;
mod statistics;
mod tables;
mod tls;
pub mod url;
mod watch;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use thiserror::Error;
use tokio::sync::{Mutex, mpsc, oneshot, watch as watching};
use tokio::task::{JoinSet, LocalSet};

use super::queue::{Answers, Job, append, deliver};
use super::{Health, Lookup, Receipt, StoreError};
use crate::domain::event::{EventRequest, StoredEvent};
use crate::domain::message::FullMessage;
use crate::domain::payload::StoredPayload;
use crate::domain::status::MessageStatus;
use crate::domain::{Intake, Page, PageRequest, State, Stats};
use crate::runtime::log;
use crate::store::StoreConfig;
use crate::store::observer::{Gauges, Observer};
use crate::store::postgres::config::PostgresConfig;
pub use audit::{Audit, audit, rebuild};
#[cfg(test)]
pub(in crate::store) use derive::Counting;
pub(in crate::store) use failure::Failure;
use probe::{Ask, Probes, Task};
use queue::Queue;
use reader::{Question, Read, Reader};
pub(in crate::store) use session::{Connector, Session};
use watch::Watch;
use writer::Writer;

/// Why the database could not be opened, in one line without password.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct OpenError(String);

/// An open database and the thread that speaks to it.
#[derive(Debug)]
pub struct PostgresStore {
    shared: Arc<Shared>,
    reads: mpsc::Sender<Read>,
    looks: mpsc::Sender<oneshot::Sender<Health>>,
    sizes: mpsc::Sender<oneshot::Sender<Gauges>>,
    thread: JoinHandle<()>,
    durability: String,
}

/// What requests and the tasks share.
pub(in crate::store) struct Shared {
    queue: Queue,
    observer: Arc<dyn Observer>,
    config: StoreConfig,
    health: AtomicU8,
    /// How often the server was found well.
    well: AtomicU64,
    /// How often something failed that says the server is not well.
    failures: AtomicU64,
    stops: AtomicBool,
    /// The tasks that work for requests: those that write, then those that read.
    tasks: Vec<Arc<Task>>,
    /// Whether the server refused a message for its content, and took none since.
    refuses: AtomicBool,
    /// How many rows this replica created: whoever follows the rows watches it.
    stored: watching::Sender<u64>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("health", &self.health()).finish_non_exhaustive()
    }
}

impl Shared {
    fn health(&self) -> Health {
        match self.health.load(Ordering::Relaxed) {
            0 => Health::Ready,
            1 => Health::DiskFull,
            _ => Health::Broken,
        }
    }

    /// Answers what it was before.
    fn set_health(&self, health: Health) -> Health {
        let before = self.health();
        self.health.store(health as u8, Ordering::Relaxed);
        before
    }

    /// Notes a failure, and tells it where it changes the health or costs somebody an answer.
    fn trouble(&self, failure: &Failure, messages: usize) {
        let changed = failure.health().is_some_and(|health| {
            self.failures.fetch_add(1, Ordering::Relaxed);
            self.queue.failed();
            self.set_health(health) != health
        });
        if changed || messages > 0 {
            log::error("the database fails").text("error", &failure.to_string()).value("messages", messages).emit();
        }
    }

    /// Notes that the server cannot be reached, or is not fit to be written to: who waits for it is refused, and so is who comes,
    /// until somebody finds it well.
    fn away(&self, failure: &Failure) {
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

    /// The server was found well, and every task works: by somebody who began to look after so many failures. What failed
    /// meanwhile is not refuted by it.
    fn recovered(&self, failures: u64) {
        self.well.fetch_add(1, Ordering::Relaxed);
        if self.failures.load(Ordering::Relaxed) == failures && self.set_health(Health::Ready) != Health::Ready {
            self.queue.reopen();
            log::info("the database works again").emit();
        }
    }

    /// A batch was written. Whether all is well is for the watch to say, which asks everybody; what comes is taken at
    /// once.
    fn wrote(&self) {
        self.well.fetch_add(1, Ordering::Relaxed);
        if self.health() != Health::Ready {
            self.queue.reopen();
        }
    }

    /// Whether any task writes of which nothing bad is known.
    fn can_write(&self) -> bool {
        self.tasks.iter().any(|task| task.writes && task.fault().is_none())
    }

    /// Something keeps a task from its work. While others write, messages are taken.
    fn hampered(&self, failure: &Failure) {
        if self.can_write() { self.trouble(failure, 0) } else { self.away(failure) }
    }

    /// Whether what is left in the queue is not worth the wait: the service stops, and the database is away.
    fn gives_up(&self) -> bool {
        self.stops.load(Ordering::Relaxed) && self.health() == Health::Broken
    }
}

impl PostgresStore {
    /// See `Store::open`.
    pub fn open(
        postgres: &PostgresConfig,
        config: &StoreConfig,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, OpenError> {
        let connector = Connector::new(Arc::new(postgres.clone())).map_err(OpenError)?;
        let shared = Arc::new(Shared {
            queue: Queue::new(config.queue_max),
            observer,
            config: config.clone(),
            health: AtomicU8::new(Health::Ready as u8),
            well: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            stops: AtomicBool::new(false),
            tasks: (0..postgres.writers + config.readers)
                .map(|at| match at < postgres.writers {
                    true => Arc::new(Task::new(true, postgres.write_timeout)),
                    false => Arc::new(Task::new(false, config.query_timeout)),
                })
                .collect(),
            refuses: AtomicBool::new(false),
            stored: watching::Sender::new(0),
        });
        let (answers, answered) = mpsc::unbounded_channel();
        let (reads, questions) = mpsc::channel(reader::WAITING_MAX);
        let (looks, looked) = mpsc::channel(reader::WAITING_MAX);
        let (sizes, sized) = mpsc::channel(reader::WAITING_MAX);
        let (opened, opening) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| OpenError(format!("cannot start: {error}")))?;
        let (worker, tell) = (Arc::clone(&shared), connector.clone());
        let work = async move {
            let prepared = schema::prepare(&tell).await;
            let is_open = prepared.is_ok();
            let _ = opened.send(prepared.map(|session| session.server.clone()));
            if is_open {
                let mut probes = Probes::default();
                let asked = worker.tasks.iter().map(|task| (Arc::clone(task), probes.add())).collect();
                let watch = Watch::new(Arc::clone(&worker), tell.clone(), looked, sized, probes);
                work(worker, tell, answers, questions, watch, asked).await;
            }
        };
        let thread = std::thread::Builder::new().name("database".to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, work);
        });
        let thread = thread.map_err(|error| OpenError(format!("cannot start: {error}")))?;
        let server =
            opening.recv().map_err(|_| OpenError("the database thread ended".to_owned()))?.map_err(OpenError)?;
        tokio::spawn(deliver(answered));
        let durability = durability(&server, postgres);
        Ok(Self { shared, reads, looks, sizes, thread, durability })
    }

    /// What an acknowledged message survives, for the start line.
    pub fn durability(&self) -> &str {
        &self.durability
    }

    /// See `Store::has_room`.
    pub fn has_room(&self) -> Result<(), StoreError> {
        self.shared.queue.has_room()
    }

    /// See `Store::append`.
    pub async fn append(&self, intake: Intake) -> Result<Receipt, StoreError> {
        append(intake, |job| self.shared.queue.push(job)).await
    }

    /// See `Store::page`.
    pub async fn page(&self, request: PageRequest) -> Result<Page, StoreError> {
        self.ask(|reply| Question::Page(Box::new(request), reply)).await
    }

    /// See `Store::stats`.
    pub async fn stats(&self) -> Result<Stats, StoreError> {
        self.ask(Question::Stats).await
    }

    /// See `Store::message`.
    pub async fn message(&self, id: String) -> Result<Lookup<FullMessage>, StoreError> {
        self.ask(|reply| Question::Message(id, reply)).await
    }

    /// See `Store::statuses`.
    pub async fn statuses(&self, id: String) -> Result<Lookup<MessageStatus>, StoreError> {
        self.ask(|reply| Question::Statuses(id, reply)).await
    }

    /// See `Store::status_counts`.
    pub async fn status_counts(&self) -> Result<Vec<(State, u64)>, StoreError> {
        self.ask(Question::StatusCounts).await
    }

    /// See `Store::events`.
    pub async fn events(&self, request: EventRequest) -> Result<Vec<StoredEvent>, StoreError> {
        self.ask(|reply| Question::Events(request, reply)).await
    }

    /// See `Store::event`.
    pub async fn event(&self, number: i64) -> Result<Option<StoredEvent>, StoreError> {
        self.ask(|reply| Question::Event(number, reply)).await
    }

    /// See `Store::payload`.
    pub async fn payload(&self, number: i64) -> Result<Option<StoredPayload>, StoreError> {
        self.ask(|reply| Question::Payload(number, reply)).await
    }

    /// See `Store::unreadable_payloads`.
    pub async fn unreadable_payloads(
        &self,
        after: i64,
        all: bool,
        limit: u32,
    ) -> Result<Vec<StoredPayload>, StoreError> {
        self.ask(|reply| Question::Payloads { after, all, limit, reply }).await
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Question,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let deadline = Instant::now() + self.shared.config.query_timeout;
        self.reads.try_send(Read { deadline, question: question(reply) }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::QueueFull,
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// See `Store::health`.
    pub async fn health(&self) -> Health {
        let (reply, answer) = oneshot::channel();
        match self.looks.try_send(reply) {
            Ok(()) => answer.await.unwrap_or(Health::Broken),
            Err(_) => Health::Broken,
        }
    }

    /// See `Store::gauges`.
    pub async fn gauges(&self) -> Gauges {
        let (reply, answer) = oneshot::channel();
        let measured = match self.sizes.try_send(reply) {
            Ok(()) => answer.await.unwrap_or_default(),
            Err(_) => Gauges::default(),
        };
        Gauges { queued: self.shared.queue.depth(), ..measured }
    }

    /// See `Store::close`.
    pub fn close(self) {
        let Self { shared, reads, looks, sizes, thread, .. } = self;
        shared.stops.store(true, Ordering::Relaxed);
        shared.queue.close();
        drop((reads, looks, sizes));
        let _ = thread.join();
    }
}

/// All tasks of the thread. Ends when the queue is closed and written, and nobody can ask any more.
async fn work(
    shared: Arc<Shared>,
    connector: Connector,
    answers: mpsc::UnboundedSender<Answers>,
    questions: mpsc::Receiver<Read>,
    watch: Watch,
    asked: Vec<(Arc<Task>, mpsc::Receiver<Ask>)>,
) {
    let questions = Arc::new(Mutex::new(questions));
    let following = tokio::task::spawn_local(derive::run(Arc::clone(&shared), connector.clone()));
    let watching = tokio::task::spawn_local(watch.run());
    let mut tasks = JoinSet::new();
    for (task, asks) in asked {
        let connector = connector.clone();
        if task.writes {
            tasks.spawn_local(Writer::new(Arc::clone(&shared), task, asks, connector, answers.clone()).run());
        } else {
            let questions = Arc::clone(&questions);
            let patience = shared.config.query_timeout;
            tasks.spawn_local(Reader { task, asks, patience, connector, questions, session: None }.run());
        }
    }
    drop(answers);
    while let Some(ended) = tasks.join_next().await {
        if ended.is_err() {
            // The panic is in the log. Its requests got no answer and ask again; the others go on.
            log::error("a task of the database thread ended early; the service needs a restart").emit();
            shared.set_health(Health::Broken);
        }
    }
    following.abort();
    watching.abort();
}

fn durability(server: &session::Server, config: &PostgresConfig) -> String {
    let commit = server.effective_commit(config);
    let survives = if server.survives_promotion(config) {
        "a 200 survives the loss of the primary"
    } else if server.survives_crash(config) {
        "a 200 survives a crash of the server, not a promotion: no synchronous standby"
    } else {
        "a 200 does not survive a crash of the server"
    };
    format!("synchronous_commit={}: {survives}", commit.name())
}
