//! The shared store: one PostgreSQL database that many replicas write and read. `DESIGN.md` next to this file
//! explains how messages are stored, and what holds when a replica, a connection or the server fails.
//!
//! One thread with its own runtime does all the work, so waits for the database never delay HTTP, and a stop
//! can wait for it. Requests send jobs and queries to it, and receive results by oneshot channels.

pub(crate) mod accompanying;
pub(crate) mod arrival;
mod audit;
mod background;
pub(crate) mod batch;
pub mod bench_database;
mod certificate;
pub mod config;
mod counting;
mod details;
mod engine;
mod failure;
mod grams;
mod guard;
mod health_monitor;
mod indexing;
pub(crate) mod insert_full;
mod limits;
mod listing;
mod lookup;
mod matches;
mod message_rows;
mod messages;
mod open_error;
mod orphans;
pub(crate) mod parameters;
mod probe;
mod query;
mod queue;
mod reader;
mod round;
mod schema;
mod search;
mod segments;
mod session;
mod shared;
mod snapshot;
mod statistics;
mod tables;
mod task;
#[cfg(test)]
pub(crate) mod test_steps;
mod tls;
mod trust;
pub(crate) mod tuple_ids;
pub mod url;
mod writer;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};

use super::queue::{Answers, append, deliver};
use super::{Health, Lookup, Receipt, StoreError};
use crate::StoreConfig;
use crate::observer::{Gauges, Observer};
use crate::postgres::config::PostgresConfig;
pub use audit::{Audit, audit, rebuild};
#[cfg(test)]
pub(crate) use counting::Counting;
use domain::event::{EventRequest, StoredEvent};
use domain::message::FullMessage;
use domain::payload::StoredPayload;
use domain::status::MessageStatus;
use domain::{Intake, Page, PageRequest, State, Stats};
pub use failure::Failure;
use health_monitor::HealthMonitor;
pub use limits::Limits;
pub use open_error::OpenError;
use probe::{Ask, Probes};
pub(crate) use reader::Readers;
use reader::{Reader, Work};
use runtime::log;
pub(crate) use session::{Connector, Session};
use shared::Shared;
pub(crate) use snapshot::Snapshot;
use task::Task;
pub use tls::TlsError;
use writer::Writer;

/// An open database and its thread.
#[derive(Debug)]
pub struct PostgresStore {
    shared: Arc<Shared>,
    readers: Readers,
    looks: mpsc::Sender<oneshot::Sender<Health>>,
    sizes: mpsc::Sender<oneshot::Sender<Gauges>>,
    thread: JoinHandle<()>,
    durability: String,
}

impl PostgresStore {
    /// See `Store::open`.
    pub fn open(
        postgres: &PostgresConfig,
        config: &StoreConfig,
        observer: Arc<dyn Observer>,
        limits: Limits,
    ) -> Result<Self, OpenError> {
        let connector = Connector::new(Arc::new(postgres.clone()))?;
        let shared = Arc::new(Shared::new(postgres, config, observer, limits));
        let (answers, answered) = mpsc::unbounded_channel();
        let (readers, reads) = Readers::new(config.query_timeout);
        let (looks, looked) = mpsc::channel(reader::WAITING_MAX);
        let (sizes, sized) = mpsc::channel(reader::WAITING_MAX);
        let (opened, opening) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(OpenError::Start)?;
        let worker = Arc::clone(&shared);
        let work = async move {
            let prepared = schema::prepare(&connector).await;
            let is_open = prepared.is_ok();
            let _ = opened.send(prepared.map(|session| session.server.clone()));
            if is_open {
                let mut probes = Probes::default();
                let asked = worker.tasks.iter().map(|task| (Arc::clone(task), probes.add())).collect();
                let watch = HealthMonitor::new(Arc::clone(&worker), connector.clone(), looked, sized, probes);
                let reads = Arc::new(Mutex::new(reads));
                Tasks { shared: worker, connector, answers, reads }.run(watch, asked).await;
            }
        };
        let thread = std::thread::Builder::new().name("database".to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, work);
        });
        let thread = thread.map_err(OpenError::Start)?;
        let server = opening.recv().map_err(|_| OpenError::ThreadEnded)??;
        tokio::spawn(deliver(answered));
        let durability = server.durability(postgres);
        Ok(Self { shared, readers, looks, sizes, thread, durability })
    }

    /// The durability of an acknowledged message, for the start line.
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
        self.readers.read(async move |snapshot| listing::page(snapshot, &request).await).await
    }

    /// See `Store::stats`.
    pub async fn stats(&self) -> Result<Stats, StoreError> {
        self.readers.read(async |snapshot| statistics::stats(snapshot).await).await
    }

    /// See `Store::message`.
    pub async fn message(&self, id: String) -> Result<Lookup<FullMessage>, StoreError> {
        self.readers.read(async move |snapshot| details::message(snapshot, &id).await).await
    }

    /// See `Store::statuses`.
    pub async fn statuses(&self, id: String) -> Result<Lookup<MessageStatus>, StoreError> {
        self.readers.read(async move |snapshot| details::statuses(snapshot, &id).await).await
    }

    /// See `Store::status_counts`.
    pub async fn status_counts(&self) -> Result<Vec<(State, u64)>, StoreError> {
        self.readers.read(async |snapshot| details::status_counts(snapshot).await).await
    }

    /// See `Store::events`.
    pub async fn events(&self, request: EventRequest) -> Result<Vec<StoredEvent>, StoreError> {
        self.readers.read(async move |snapshot| details::events(snapshot, &request).await).await
    }

    /// See `Store::event`.
    pub async fn event(&self, number: i64) -> Result<Option<StoredEvent>, StoreError> {
        self.readers.read(async move |snapshot| details::event(snapshot, number).await).await
    }

    /// See `Store::payload`.
    pub async fn payload(&self, number: i64) -> Result<Option<StoredPayload>, StoreError> {
        self.readers.read(async move |snapshot| details::payload(snapshot, number).await).await
    }

    /// See `Store::unreadable_payloads`.
    pub async fn unreadable_payloads(
        &self,
        after: i64,
        all: bool,
        limit: u32,
    ) -> Result<Vec<StoredPayload>, StoreError> {
        let read = async move |snapshot: &Snapshot<'_>| details::unreadable_payloads(snapshot, after, all, limit).await;
        self.readers.read(read).await
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
        let Self { shared, readers, looks, sizes, thread, .. } = self;
        shared.stops.store(true, Ordering::Relaxed);
        shared.queue.close();
        drop((readers, looks, sizes));
        let _ = thread.join();
    }
}

/// The shared parts of every task of the thread.
struct Tasks {
    shared: Arc<Shared>,
    connector: Connector,
    answers: mpsc::UnboundedSender<Answers>,
    reads: Arc<Mutex<mpsc::Receiver<Work>>>,
}

impl Tasks {
    /// Runs all tasks of the thread. Ends when the queue is closed and written, and no more requests can arrive.
    async fn run(self, watch: HealthMonitor, asked: Vec<(Arc<Task>, mpsc::Receiver<Ask>)>) {
        let following = tokio::task::spawn_local(background::run(Arc::clone(&self.shared), self.connector.clone()));
        let watching = tokio::task::spawn_local(watch.run());
        let mut tasks = JoinSet::new();
        for (task, asks) in asked {
            if task.writes {
                let (shared, connector) = (Arc::clone(&self.shared), self.connector.clone());
                tasks.spawn_local(Writer::new(shared, task, asks, connector, self.answers.clone()).run());
            } else {
                tasks.spawn_local(self.reader(task, asks).run());
            }
        }
        drop(self.answers);
        while let Some(ended) = tasks.join_next().await {
            if ended.is_err() {
                // The panic is in the log. Its requests got no result and are retried; the other tasks continue.
                log::error("a task of the database thread ended early; the service needs a restart").emit();
                self.shared.set_health(Health::Broken);
            }
        }
        following.abort();
        watching.abort();
    }

    fn reader(&self, task: Arc<Task>, asks: mpsc::Receiver<Ask>) -> Reader {
        Reader {
            task,
            asks,
            patience: self.shared.config.query_timeout,
            limits: self.shared.limits,
            connector: self.connector.clone(),
            work: Arc::clone(&self.reads),
            session: None,
        }
    }
}
