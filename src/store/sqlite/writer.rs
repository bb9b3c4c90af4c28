//! The one thread that writes. It takes one job, then whatever queued during the last commit (no timer), writes one
//! transaction, commits once, then answers everyone. Load makes batches larger, not latency spiky.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode, params};
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::failure::Failure;
use super::file::FileIdentity;
use super::schema::{self, Missing, OpenError, checkpoint, open_for_writing};
use crate::config::StoreConfig;
use crate::domain::NewMessage;
use crate::store::queue::{Job, Taken};
use crate::store::{Health, Receipt, StoreError};
use crate::telemetry::log;
use crate::telemetry::metrics::Outcome;

/// How often a writer in trouble looks whether the trouble is over.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// Writes as much as a small batch does: a commit of nothing would prove nothing, and SQLite does not write what is equal.
const PROBE: &str = "UPDATE postroom_totals SET probe = randomblob(65536)";
const PROBE_DONE: &str = "UPDATE postroom_totals SET probe = NULL";

/// A request's result on its way to the request.
pub(super) type Answer = (oneshot::Sender<Result<Receipt, StoreError>>, Result<Receipt, StoreError>);

/// Everything that the writer's thread owns.
pub(super) struct Writer {
    shared: Arc<Shared>,
    config: StoreConfig,
    path: PathBuf,
    /// None after a failure, until it could be opened again.
    open: Option<Open>,
    /// A whole batch of answers at a time: one wake-up of the runtime, which then wakes the requests itself.
    answers: mpsc::UnboundedSender<Vec<Answer>>,
    /// The log is moved when it has this many pages.
    checkpoint_at_pages: u32,
}

/// A connection, and what has to be known about it.
struct Open {
    connection: Connection,
    identity: FileIdentity,
    /// Changes with every table, index or trigger that anybody makes or drops.
    schema_version: i64,
    /// Pages in the log, as of the last commit.
    log_pages: Arc<AtomicU32>,
}

impl Writer {
    /// Opens the database; see `open_for_writing`.
    pub fn open(
        shared: Arc<Shared>,
        config: StoreConfig,
        path: PathBuf,
        answers: mpsc::UnboundedSender<Vec<Answer>>,
    ) -> Result<Self, OpenError> {
        let checkpoint_at_pages = config.checkpoint_pages;
        let mut writer = Self { shared, config, path, open: None, answers, checkpoint_at_pages };
        writer.open = Some(writer.open_connection(Missing::Create)?);
        Ok(writer)
    }

    fn open_connection(&self, missing: Missing) -> Result<Open, OpenError> {
        let mut connection = open_for_writing(&self.path, &self.config, missing)?;
        let identity = FileIdentity::of(&self.path).ok_or(OpenError::FileLost)?;
        let log_pages = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&log_pages);
        connection.wal_hook(Some(move |_: &mut Wal, pages: i32| {
            seen.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let schema_version = schema::version(&connection)?;
        self.shared.writes_to(Some(identity));
        Ok(Open { connection, identity, schema_version, log_pages })
    }

    /// Writes until the queue is closed and empty.
    pub fn run(mut self) -> Self {
        loop {
            let patience = (self.shared.health() != Health::Ready).then_some(PROBE_INTERVAL);
            match self.shared.queue.take(self.config.batch_max, patience) {
                Taken::Jobs(jobs) => self.file(jobs),
                // Whether the trouble is over is found out without a message at stake: readiness must come back before
                // traffic does.
                Taken::Nothing => self.file(Vec::new()),
                Taken::Closed => return self,
            }
        }
    }

    /// The checkpoint that makes the file complete by itself. Called when nobody reads any more.
    pub fn close(self) {
        if self.shared.has_lost(&self.path) {
            log::error("the database file was removed or replaced while it was open").emit();
        }
        if let Some(Open { connection, .. }) = self.open {
            match checkpoint(&connection, "TRUNCATE") {
                Ok(true) => {}
                Ok(false) => log::warning("the write-ahead log stays: another process has the database open").emit(),
                Err(error) => {
                    log::error("the last checkpoint failed; the log beside the file is needed").cause(&error).emit()
                }
            }
        }
    }

    /// Commits a batch and answers everyone in it.
    fn file(&mut self, jobs: Vec<Job>) {
        let written = catch_unwind(AssertUnwindSafe(|| self.write(&jobs))).unwrap_or(Err(Failure::Panic));
        let answers: Vec<Answer> = match written {
            Ok(results) => {
                // Copies of what is stored are answered without a write, and prove nothing about the next one.
                if count_messages(&jobs) == 0 || results.iter().flatten().any(Receipt::has_created) {
                    self.recovered();
                }
                jobs.into_iter().map(|job| job.reply).zip(results).collect()
            }
            Err(failure) => {
                let error = failure.to_store_error();
                self.failed(failure, count_messages(&jobs));
                jobs.into_iter().map(|job| (job.reply, Err(error.clone()))).collect()
            }
        };
        // The runtime is gone only when nobody waits for answers any more.
        let _ = self.answers.send(answers);
        self.checkpoint_if_due();
    }

    /// One transaction; when it returns results, they are on disk. Without messages it finds out whether writing works.
    fn write(&mut self, jobs: &[Job]) -> Result<Vec<Result<Receipt, StoreError>>, Failure> {
        match self.try_write(jobs) {
            // A trigger of somebody else's rolled the whole batch back: each request stands for itself then.
            Err(Failure::RolledBack(_)) if jobs.len() > 1 => self.write_one_by_one(jobs),
            // Somebody changed the schema: whatever is missing of ours now is put back, and nobody has to try again.
            Err(Failure::SchemaChanged) => {
                self.open = None;
                self.try_write(jobs)
            }
            result => result,
        }
    }

    /// A transaction per request. Only what a trigger refuses fails alone; any other failure is everybody's, and those whose
    /// messages were stored before it hear so when they ask again.
    fn write_one_by_one(&mut self, jobs: &[Job]) -> Result<Vec<Result<Receipt, StoreError>>, Failure> {
        let mut results = Vec::with_capacity(jobs.len());
        for job in jobs.chunks(1) {
            match self.write(job) {
                Err(refusal @ Failure::RolledBack(_)) => results.push(Err(refusal.to_store_error())),
                written => results.extend(written?),
            }
        }
        Ok(results)
    }

    fn try_write(&mut self, jobs: &[Job]) -> Result<Vec<Result<Receipt, StoreError>>, Failure> {
        if self.open.is_none() {
            self.open = Some(self.open_connection(Missing::Refuse)?);
        }
        let Open { connection, identity, schema_version, .. } = self.open.as_ref().expect("opened above");
        let messages = count_messages(jobs);
        let probing = messages == 0 && self.shared.health() != Health::Ready;
        let started = Instant::now();
        let mut sync_started = started;
        let committed = (|| {
            execute(connection, "BEGIN IMMEDIATE")?;
            if schema::version(connection)? != *schema_version {
                return Ok(None);
            }
            let results = write_batch(connection, jobs)?;
            if probing {
                execute(connection, PROBE)?;
            }
            sync_started = Instant::now();
            execute(connection, "COMMIT")?;
            Ok(Some(results))
        })()
        .map_err(|error| Failure::of(error, connection));
        if !connection.is_autocommit() {
            // If this fails too, the connection is given up or the next BEGIN says so.
            let _ = execute(connection, "ROLLBACK");
        }
        let results = committed?.ok_or(Failure::SchemaChanged)?;
        if FileIdentity::of(&self.path) != Some(*identity) {
            return Err(Failure::FileLost);
        }
        if messages > 0 {
            self.shared.metrics.batch_committed(messages, started.elapsed(), sync_started.elapsed());
        }
        Ok(results)
    }

    fn recovered(&self) {
        if self.shared.set_health(Health::Ready) != Health::Ready {
            if let Some(Open { connection, .. }) = &self.open {
                // If this fails, the next write tells.
                let _ = execute(connection, PROBE_DONE);
            }
            log::info("the database takes writes again").emit();
        }
    }

    /// Notes a failure, once per change of state, and gives up a connection that cannot be trusted any more.
    fn failed(&mut self, failure: Failure, messages: usize) {
        let health = match failure {
            Failure::DiskFull(_) => Health::DiskFull,
            // Somebody else is at work; nothing of ours is wrong.
            Failure::Locked(_) | Failure::RolledBack(_) => self.shared.health(),
            _ => Health::Broken,
        };
        if health == Health::Broken {
            // After a failed fsync the kernel may call pages clean that never reached the disk: it is not tried again.
            // Opening anew reads back what is there and writes it once more.
            self.open = None;
            self.shared.writes_to(None);
        }
        let before = self.shared.set_health(health);
        if before != health || messages > 0 {
            log::error("the database does not take writes").value("messages", messages).cause(&failure).emit();
        }
    }

    /// Moves the log into the database file when it has grown enough. Everyone has been answered by now.
    fn checkpoint_if_due(&mut self) {
        let Some(Open { connection, log_pages, .. }) = &self.open else { return };
        let pages = log_pages.load(Ordering::Relaxed);
        if pages < self.checkpoint_at_pages {
            return;
        }
        let started = Instant::now();
        let moved = checkpoint(connection, "PASSIVE").unwrap_or_else(|error| {
            log::error("a checkpoint failed").cause(&error).emit();
            false
        });
        // A reader that holds an older state keeps the log growing until it lets go.
        self.checkpoint_at_pages = self.config.checkpoint_pages + if moved { 0 } else { pages };
        self.shared.metrics.checkpointed(started.elapsed());
    }
}

fn count_messages(jobs: &[Job]) -> usize {
    jobs.iter().map(|job| job.messages.len()).sum()
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// What a batch does within its transaction. A message that the database itself refuses fails alone, with its request.
fn write_batch(connection: &Connection, jobs: &[Job]) -> rusqlite::Result<Vec<Result<Receipt, StoreError>>> {
    let mut created = HashMap::new();
    let mut results = Vec::with_capacity(jobs.len());
    for job in jobs {
        let mut outcomes = Vec::with_capacity(job.messages.len());
        let mut refused = None;
        for message in &job.messages {
            match insert(connection, message) {
                Ok(outcome) => {
                    if outcome == Outcome::Created {
                        *created.entry(message.from.as_str()).or_insert(0) += 1;
                    }
                    outcomes.push(outcome);
                }
                // Refused by a constraint or a trigger that another program made; the rest of the batch stands.
                Err(error) if is_refusal(&error) && !connection.is_autocommit() => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        results.push(match refused {
            None => Ok(Receipt { outcomes }),
            Some(error) => {
                log::error("the database refused a message").cause(&error).emit();
                Err(StoreError::Unavailable("the database refused a message".to_owned()))
            }
        });
    }
    // With triggers on (because somebody else has some here), ours have counted already.
    if !connection.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER)? {
        count(connection, created)?;
    }
    Ok(results)
}

/// Whether an insert was refused or swallowed (`RAISE(IGNORE)`), rather than failed.
fn is_refusal(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) || *error == rusqlite::Error::QueryReturnedNoRows
}

/// Adds a batch's new messages to the summaries.
fn count(connection: &Connection, created: HashMap<&str, i64>) -> rusqlite::Result<()> {
    if created.is_empty() {
        return Ok(());
    }
    let mut add = connection.prepare_cached(
        "INSERT INTO postroom_senders (from_msisdn, messages) VALUES (?1, ?2)
         ON CONFLICT (from_msisdn) DO UPDATE SET messages = messages + ?2
         RETURNING messages = ?2",
    )?;
    let (mut messages, mut senders) = (0, 0);
    for (from, change) in created {
        let is_new: i64 = add.query_row(params![from, change], |row| row.get(0))?;
        messages += change;
        senders += is_new;
    }
    let sql = "UPDATE postroom_totals SET messages = messages + ?1, senders = senders + ?2";
    connection.prepare_cached(sql)?.execute([messages, senders]).map(drop)
}

/// Stores a message, or finds it stored. The primary key decides, not we.
fn insert(connection: &Connection, message: &NewMessage) -> rusqlite::Result<Outcome> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (message_id) DO NOTHING",
    )?;
    let (id, from, to, ts) = (message.id.as_str(), message.from.as_str(), message.to.as_str(), message.ts.as_str());
    if insert.execute(params![id, from, to, ts, message.text, message.accepted_at.to_iso_micros()])? == 1 {
        return Ok(Outcome::Created);
    }
    let mut compare = connection.prepare_cached(
        "SELECT from_msisdn IS ?2 AND to_msisdn IS ?3 AND ts IS ?4 AND text IS ?5 FROM messages WHERE message_id = ?1",
    )?;
    let same: bool = compare.query_row(params![id, from, to, ts, message.text], |row| row.get(0))?;
    Ok(if same { Outcome::Duplicate } else { Outcome::Conflict })
}
