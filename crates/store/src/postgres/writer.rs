//! The tasks that write. Each takes one job, then the jobs queued during its last round trip (no timer), runs
//! one statement (one transaction), then completes its requests. Several run at once, each with a connection.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_postgres::Client;

use super::arrival::BATCH_ROWS_MAX;
use super::batch::{Batch, Known};
use super::failure::Failure;
use super::messages::{self, Attempt};
use super::probe::Ask;
use super::session::{Connector, GAVE_UP_WAITING, Session};
use super::shared::Shared;
use super::task::Task;
use super::{insert_full, probe};
use crate::StoreError;
use crate::queue::{Answers, Job};
use runtime::log;

/// Attempts of one statement: after a lost connection, and after conflicts with other transactions.
const TRIES_MAX: u32 = 4;

/// How long a task with a fault waits before it checks whether other tasks still write.
const REST: Duration = Duration::from_millis(500);

/// One writing task.
pub(super) struct Writer {
    shared: Arc<Shared>,
    task: Arc<Task>,
    asks: mpsc::Receiver<Ask>,
    connector: Connector,
    answers: mpsc::UnboundedSender<Answers>,
    /// None after a failure, until it is reopened.
    session: Option<Session>,
    /// The random source of `ingest_id`.
    chance: RandomState,
    batches: u64,
}

impl Writer {
    pub fn new(
        shared: Arc<Shared>,
        task: Arc<Task>,
        asks: mpsc::Receiver<Ask>,
        connector: Connector,
        answers: mpsc::UnboundedSender<Answers>,
    ) -> Self {
        Self { shared, task, asks, connector, answers, session: None, chance: RandomState::new(), batches: 0 }
    }

    /// Writes until the queue is closed and empty.
    pub async fn run(mut self) {
        let most = self.shared.config.batch_max.min(BATCH_ROWS_MAX);
        loop {
            let leaves_it = self.leaves_it_to_others();
            let jobs = tokio::select! {
                biased;
                Some(ask) = self.asks.recv() => {
                    let _ = ask.send(self.probe().await);
                    continue;
                }
                jobs = self.shared.queue.take(most), if !leaves_it => jobs,
                () = tokio::time::sleep(REST), if leaves_it => continue,
            };
            let Some(jobs) = jobs else { return };
            self.file(jobs).await;
            self.task.works();
            self.shared.queue.written();
        }
    }

    /// Whether this task is known to be unable to write, while
    /// others can. A probe then tests whether the fault is over.
    fn leaves_it_to_others(&self) -> bool {
        self.task.fault().is_some() && self.shared.can_write() && !self.shared.stops.load(Ordering::Relaxed)
    }

    /// Sends all statements of a batch, on the batches' connection, and rolls back.
    async fn probe(&mut self) -> Result<(), Failure> {
        let mut is_fresh = false;
        loop {
            let session = match self.session.take().filter(Session::is_open) {
                Some(session) => session,
                None => {
                    is_fresh = true;
                    self.connector.connect().await?
                }
            };
            let commit = session.server.effective_commit(&self.connector.config).name();
            let is_whole = self.shared.refuses.load(Ordering::Relaxed);
            let statements = probe::write(commit, is_whole);
            match tokio::time::timeout(probe::PATIENCE, session.client.batch_execute(&statements)).await {
                Err(_) => {
                    session.cancel().await;
                    return Err(Failure::Deadline);
                }
                Ok(Ok(())) => {
                    self.session = Some(session);
                    return Ok(());
                }
                Ok(Err(error)) => match Failure::from(error) {
                    // The connection may have reached its maximum age.
                    Failure::Lost(_) if !is_fresh => {}
                    Failure::Refused(why) => {
                        return Err(Failure::Broken(format!("the server refuses every message: {why}")));
                    }
                    Failure::Deadline => return Err(Failure::Broken("the statement was canceled".to_owned())),
                    failure => return Err(failure),
                },
            }
        }
    }

    /// Writes jobs and completes their requests: plain messages in one statement, jobs with more in one transaction.
    async fn file(&mut self, jobs: Vec<Job>) {
        let (plain, others): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.extras.is_none());
        // A fault of the database. The remaining parts do not wait for it again.
        let mut fault = None;
        if !plain.is_empty() {
            let (mut batch, started) = (Batch::new(plain), Instant::now());
            let written = match self.go_on(None) {
                Ok(()) => self.write(&mut batch).await,
                Err(failure) => Err(failure),
            };
            fault = self.conclude(batch, started, written);
        }
        // Refused content is found by bisection, so that the other messages are stored.
        let mut parts: Vec<_> = std::iter::once(others).filter(|jobs| !jobs.is_empty()).collect();
        while let Some(jobs) = parts.pop() {
            let (mut batch, started) = (Batch::new(jobs), Instant::now());
            let written = match self.go_on(fault.take()) {
                Ok(()) => self.write_brought(&mut batch).await,
                Err(failure) => Err(failure),
            };
            match written {
                Err(Failure::Refused(_)) if batch.jobs.len() > 1 => {
                    let mut jobs = batch.jobs;
                    let rest = jobs.split_off(jobs.len() / 2);
                    parts.extend([rest, jobs]);
                }
                Err(Failure::Refused(why)) => {
                    log::warning("the database refuses the data of a request").text("error", &why).emit();
                    self.shared.refuses.store(true, Ordering::Relaxed);
                    batch.fail(&StoreError::Unavailable(why));
                    self.conclude(batch, started, Ok(0));
                }
                written => fault = self.conclude(batch, started, written),
            }
        }
    }

    fn go_on(&self, fault: Option<Failure>) -> Result<(), Failure> {
        if self.shared.gives_up() {
            return Err(Failure::Lost("the service stops, and the database is unreachable".to_owned()));
        }
        fault.map_or(Ok(()), Err)
    }

    /// Completes all requests of a batch with this many created messages, and reports errors of the database.
    fn conclude(&self, mut batch: Batch, started: Instant, written: Result<usize, Failure>) -> Option<Failure> {
        let mut fault = None;
        match written {
            Ok(created) => {
                if created > 0 {
                    self.shared.refuses.store(false, Ordering::Relaxed);
                    self.shared.observer.batch_committed(batch.elements(), started.elapsed(), started.elapsed());
                    self.shared.stored.send_modify(|count| *count += created as u64);
                }
                self.shared.wrote();
            }
            Err(failure) => {
                if failure.health().is_some() {
                    self.task.set_fault(Some(failure.clone()));
                }
                self.shared.trouble(&failure, batch.elements());
                fault = failure.health().map(|_| failure.clone());
                // A read that took too long has its own error; for a write only the effect matters.
                let error = match failure {
                    Failure::Deadline => StoreError::Unavailable(Failure::Deadline.to_string()),
                    other => other.into(),
                };
                batch.fail(&error);
            }
        }
        // The receiver is missing only when the process ends.
        let _ = self.answers.send(batch.answers());
        fault
    }

    fn next_ingest_id(&mut self) -> i64 {
        self.batches += 1;
        self.chance.hash_one(self.batches).cast_signed()
    }

    /// Writes jobs with more than messages: all of it, or nothing.
    async fn write_brought(&mut self, batch: &mut Batch) -> Result<usize, Failure> {
        let ingest_id = self.next_ingest_id();
        self.insist(async |client: &Client, attempt| insert_full::write(client, batch, ingest_id, attempt).await).await
    }

    /// Writes the messages. Returns the number of created rows.
    async fn write(&mut self, batch: &mut Batch) -> Result<usize, Failure> {
        let ingest_id = self.next_ingest_id();
        let (mut created, mut statements) = (0, 0);
        // Refused content is found by bisection, so that the other messages are stored.
        let mut ranges: Vec<_> = std::iter::once(0..batch.len()).collect();
        while let Some(range) = ranges.pop().filter(|range| !range.is_empty()) {
            statements += 1;
            let insert = async |client: &Client, attempt: Attempt| {
                messages::insert(client, batch, &range.clone().collect::<Vec<_>>(), ingest_id, attempt.commit).await
            };
            match self.insist(insert).await {
                Ok(places) => {
                    created += places.len();
                    places.into_iter().for_each(|at| batch.set_outcome(at, Known::Created));
                }
                Err(Failure::Refused(why)) if range.len() == 1 => {
                    self.shared.refuses.store(true, Ordering::Relaxed);
                    log::warning("the database refuses a message")
                        .text("message_id", batch.message(range.start).id.as_str())
                        .text("error", &why)
                        .emit();
                    batch.set_outcome(range.start, Known::Failed(StoreError::Unavailable(why)));
                }
                Err(Failure::Refused(_)) => {
                    let middle = range.start + range.len() / 2;
                    ranges.extend([middle..range.end, range.start..middle]);
                }
                Err(failure) => return Err(failure),
            }
        }
        // A conflicting row was committed before our statement ended. So our own
        // commit, if any, waited for everything that the commit of that row waits for.
        let is_fenced = created > 0 && statements == 1;
        if !batch.open().is_empty() {
            let found =
                self.insist(async |client: &Client, _| messages::read_back(client, batch, ingest_id).await).await?;
            if !is_fenced {
                self.insist(async |client: &Client, attempt: Attempt| messages::fence(client, attempt.commit).await)
                    .await?;
            }
            // Not before the fence succeeded: recorded outcomes are returned, whatever happens later.
            found.into_iter().for_each(|(at, known)| batch.set_outcome(at, known));
        }
        Ok(created)
    }

    /// Runs an operation up to its commit, with retries if they may help. All of our operations may run twice.
    async fn insist<T>(
        &mut self,
        mut work: impl AsyncFnMut(&Client, Attempt) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            let session = self.session().await?;
            match self.attempt(session, tries > 1, &mut work).await {
                // The outcome of the commit is unknown; on a fresh connection the same work finds its result.
                Err(Failure::Lost(_)) if tries < 2 && !self.shared.queue.is_shut() => {}
                Err(Failure::Retry(_)) if tries < TRIES_MAX => {
                    let jitter = self.chance.hash_one(Instant::now()) % 8;
                    tokio::time::sleep(Duration::from_millis((1 << tries) + jitter)).await;
                }
                result => return result,
            }
        }
    }

    /// The connection, for one attempt. This batch does not try an unreachable server again.
    async fn session(&mut self) -> Result<Session, Failure> {
        match self.session.take().filter(Session::is_open) {
            Some(session) => Ok(session),
            None => self.connector.connect().await.inspect_err(|failure| {
                self.task.set_fault(failure.health().map(|_| failure.clone()));
                self.shared.hampered(failure);
            }),
        }
    }

    async fn attempt<T>(
        &mut self,
        session: Session,
        is_repeated: bool,
        work: &mut impl AsyncFnMut(&Client, Attempt) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let commit = session.server.effective_commit(&self.connector.config).name();
        let (patience, warnings) = (self.connector.config.write_timeout, session.warnings());
        let done = tokio::time::timeout(patience, work(&session.client, Attempt { commit, is_repeated })).await;
        match done {
            Err(_) => {
                session.cancel().await;
                Err(Failure::Broken(format!("no commit within {} s", patience.as_secs())))
            }
            Ok(_) if session.warnings() > warnings => Err(Failure::Broken(GAVE_UP_WAITING.to_owned())),
            Ok(Ok(answer)) => {
                self.session = Some(session);
                Ok(answer)
            }
            Ok(Err(failure)) => {
                // After an error about the server, the next connection may reach another server.
                if failure.health().is_none() && failure != Failure::Deadline {
                    self.session = Some(session);
                }
                Err(match failure {
                    // Cancelled by someone else: by an operator, or by the server's own limit.
                    Failure::Deadline => Failure::Broken("the statement was canceled".to_owned()),
                    other => other,
                })
            }
        }
    }
}
