//! The writer thread. It takes one job, then the jobs queued during the last commit (no timer), writes one
//! transaction, commits once, then completes all requests. Load makes batches larger, without latency spikes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, params};
use tokio::sync::mpsc;

use super::append::{Reach, Rows, append, is_refusal, try_out};
use super::checkpoints::{Checkpoints, close_as_it_is};
use super::failure::Failure;
use super::file::{FileIdentity, StrayLog};
use super::queue::Taken;
use super::reading::open_to_read;
use super::schema::{self, Missing, OpenError, checkpoint, move_whole_log, open_for_writing};
use super::shared::{Forget, Shared};
use super::tie;
use super::upgrade;
use crate::StoreConfig;
use crate::observer::DamageKind;
use crate::queue::{Answers, Job};
use crate::{Health, Receipt, StoreError};
use domain::MessageId;
use domain::lock::lock;
use runtime::log;
use runtime::process::give_back_memory;

/// Interval of probes during a failure.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// As large as a small batch: an empty commit would prove nothing, and SQLite does not write equal values.
const PROBE: &str = "UPDATE postroom_index SET probe = randomblob(65536)";
const PROBE_DONE: &str = "UPDATE postroom_index SET probe = NULL";

/// How long a writer with a full log waits for readers. Our own end by then; another program's may not.
const LOG_PATIENCE: Duration = Duration::from_millis(100);

/// Change records deleted in one transaction: a message that arrives meanwhile waits for about a millisecond.
const FORGET_AT_ONCE: i64 = 1_000;

/// Ids of refused messages that are tried again before the failure counts as over.
const SUSPECTS_MAX: usize = 64;

/// The state of the writer thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    config: StoreConfig,
    path: PathBuf,
    /// None after a failure, until it is reopened.
    open: Option<Open>,
    /// A file that must not be next to the database when it is opened.
    stray_log: Option<StrayLog>,
    /// A sync of the file failed: the log must be moved from its beginning.
    log_is_needed: bool,
    /// The state at the last check, of any file.
    reach: Option<Reach>,
    /// Messages whose batch failed: the failure ends only when the database would accept them.
    suspects: Vec<MessageId>,
    /// Whether it was logged that messages are not accepted.
    is_in_trouble: bool,
    /// Time of the last probe.
    probed: Instant,
    /// All results of a batch are sent at once: one wake-up of the runtime, which then wakes the requests itself.
    answers: mpsc::UnboundedSender<Answers>,
}

/// A connection and its properties.
struct Open {
    /// Closed before the connection, which as the last one removes the log.
    checkpoints: Checkpoints,
    connection: Connection,
    identity: FileIdentity,
    /// Changes whenever a table, index or trigger is created or dropped.
    schema_version: i64,
    /// Whether foreign triggers are on the table; then triggers fire here.
    triggers_fire: bool,
    /// Changes with every commit of another connection.
    data_version: i64,
    /// The table's rowids at that version; none if they must be read.
    rows: Option<Rows>,
    /// Pages in the log at the last commit.
    log_pages: Arc<AtomicU32>,
}

impl Writer {
    /// Opens the database; see `open_for_writing`.
    pub fn open(
        shared: Arc<Shared>,
        config: StoreConfig,
        path: PathBuf,
        answers: mpsc::UnboundedSender<Answers>,
    ) -> Result<Self, OpenError> {
        let mut writer = Self {
            shared,
            config,
            path,
            open: None,
            stray_log: None,
            log_is_needed: false,
            reach: None,
            suspects: Vec::new(),
            is_in_trouble: false,
            probed: Instant::now(),
            answers,
        };
        match writer.open_connection(Missing::Create) {
            Ok(open) => writer.open = Some(open),
            // Existing messages can be read; new ones are refused until there is space.
            Err(error @ OpenError::NoSpace(_)) if holds_messages(&writer.path) => {
                writer.failed(Failure::Open(error), 0);
            }
            Err(error) => return Err(error),
        }
        Ok(writer)
    }

    fn open_connection(&mut self, missing: Missing) -> Result<Open, OpenError> {
        if self.stray_log.is_some_and(|log| log.is_beside(&self.path)) {
            return Err(OpenError::StrayLog);
        }
        if self.log_is_needed {
            self.shared.access.deny();
            move_whole_log(&self.path)?;
            self.log_is_needed = false;
            self.shared.access.grant();
        }
        let mut connection = open_for_writing(&self.path, &self.config, missing)?;
        let identity = FileIdentity::of(&self.path).ok_or(OpenError::FileLost)?;
        let log_pages = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&log_pages);
        connection.wal_hook(Some(move |_: &mut Wal, pages: i32| {
            seen.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let schema_version = schema::version(&connection)?;
        let triggers_fire = connection.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER)?;
        let rows = Rows::look(&connection)?;
        let checkpoints = Checkpoints::open(&self.path, &self.config, Arc::clone(&self.shared.observer))?;
        self.shared.committed_row.store(rows.greatest, Ordering::Relaxed);
        self.shared.writes_to(Some(identity));
        let (data_version, rows) = (0, None);
        Ok(Open { connection, identity, schema_version, triggers_fire, data_version, rows, log_pages, checkpoints })
    }

    /// Writes until the queue is closed and empty.
    pub fn run(mut self) -> Self {
        let mut patience = (self.shared.health() != Health::Ready).then_some(PROBE_INTERVAL);
        loop {
            let more_to_do = match self.shared.queue.take(self.config.batch_max, patience) {
                Taken::Jobs(jobs) => {
                    self.file(jobs);
                    // Also if jobs are always waiting.
                    if self.shared.health() != Health::Ready && self.probed.elapsed() >= PROBE_INTERVAL {
                        self.file(Vec::new());
                    }
                    false
                }
                Taken::Nothing if self.shared.health() == Health::Ready => {
                    if self.shared.tie.is_wanted() {
                        self.file(Vec::new());
                    }
                    let more = self.forget();
                    if !more {
                        self.give_back();
                    }
                    more
                }
                // The probe detects the end of the failure without a risk for messages: readiness must recover before traffic
                // returns.
                Taken::Nothing => {
                    self.file(Vec::new());
                    false
                }
                Taken::Closed => return self,
            };
            patience = match self.shared.health() {
                Health::Ready => more_to_do.then_some(Duration::ZERO),
                _ => Some(PROBE_INTERVAL),
            };
        }
    }

    /// The final checkpoint, after which the file is complete without its log. Called after the readers closed.
    pub fn close(mut self) {
        if self.shared.has_lost(&self.path) {
            log::error("the database file was removed or replaced while it was open").emit();
        }
        let Some(Open { connection, checkpoints, .. }) = &mut self.open else { return };
        let last = checkpoints.finish().and_then(|()| {
            let moved = checkpoint(connection, "TRUNCATE");
            moved.map_err(|error| Failure::of_checkpoint(error, connection))
        });
        match last {
            Ok(moved) if moved.is_whole => {}
            Ok(_) => log::warning("the write-ahead log stays: another process has the database open").emit(),
            Err(failure) => {
                log::error("the last checkpoint failed; the log beside the file is needed").cause(&failure).emit();
                self.give_up();
            }
        }
    }

    /// Commits a batch and completes all of its requests.
    fn file(&mut self, jobs: Vec<Job>) {
        let messages = count_messages(&jobs);
        let mut written = catch_unwind(AssertUnwindSafe(|| self.write(&jobs))).unwrap_or(Err(Failure::Panic));
        if messages == 0 && written.is_ok() && self.shared.health() != Health::Ready {
            let tried = catch_unwind(AssertUnwindSafe(|| self.try_out())).unwrap_or(Err(Failure::Panic));
            written = tried.and(written);
            self.probed = Instant::now();
        }
        let answers: Answers = match written {
            Ok(results) => {
                // Duplicates are answered without a write, and prove nothing about the next write.
                let has_created = results.iter().flatten().any(Receipt::has_created);
                if messages == 0 || has_created && self.suspects.is_empty() {
                    self.recovered();
                }
                // A trial determines whether only these messages are refused, or all.
                if results.iter().any(Result::is_err) && self.shared.health() == Health::Ready {
                    self.shared.set_health(Health::Refusing);
                }
                jobs.into_iter().map(|job| job.reply).zip(results).collect()
            }
            Err(failure) => {
                let error = failure.to_store_error();
                if messages > 0 {
                    let ids = jobs.iter().flat_map(|job| &job.messages).map(|message| message.id.clone());
                    self.suspects = ids.take(SUSPECTS_MAX).collect();
                }
                self.failed(failure, messages);
                jobs.into_iter().map(|job| (job.reply, Err(error.clone()))).collect()
            }
        };
        // The runtime has ended only if no request waits for results any more.
        let _ = self.answers.send(answers);
        self.checkpoint_if_due();
    }

    /// Runs one transaction; returned results are durable. Without messages it tests whether writing works.
    fn write(&mut self, jobs: &[Job]) -> Result<Vec<Result<Receipt, StoreError>>, Failure> {
        match self.try_write(jobs) {
            // A foreign trigger rolled the whole batch back: each request gets its own transaction then.
            Err(Failure::RolledBack(_)) if jobs.len() > 1 => self.write_one_by_one(jobs),
            // Another program changed the schema: missing objects of ours are restored, and no request has to be retried.
            Err(Failure::SchemaChanged) => {
                self.give_up();
                self.try_write(jobs)
            }
            result => result,
        }
    }

    /// A transaction per request. Only messages that a trigger refuses fail alone. Any other failure
    /// applies to all, and requests whose messages were stored before it get a duplicate on their retry.
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
        let open = self.open.as_mut().expect("opened above");
        let Open { connection, identity, .. } = open;
        let is_long = open.log_pages.load(Ordering::Relaxed) >= self.config.log_pages_max;
        if is_long {
            open.checkpoints.finish()?;
            make_log_begin_again(connection, self.config.lock_timeout)?;
        }
        let messages = count_messages(jobs);
        let probing = messages == 0 && self.shared.health() != Health::Ready;
        let started = Instant::now();
        let mut sync_started = started;
        let tie = self.shared.tie.take();
        let committed = (|| {
            execute(connection, "BEGIN IMMEDIATE")?;
            let data_version = schema::data_version(connection)?;
            let known = open.rows.take().filter(|_| data_version == open.data_version);
            let mut rows = match known {
                Some(rows) => rows,
                // Another program wrote, or this is the first batch.
                None if schema::version(connection)? != open.schema_version => return Ok(None),
                None => {
                    let reach = Reach::look(connection)?;
                    let committed = self.shared.committed_row.load(Ordering::Relaxed);
                    if self.reach.replace(reach.clone()).is_some_and(|before| reach.fell_behind(&before, committed)) {
                        // Rows or change records disappeared without a trace: triggers were off, or the rows were
                        // replaced.
                        upgrade::begin_epoch(connection)?;
                        self.reach = None;
                        log::warning("rows were deleted without a trace: all derived data are rebuilt").emit();
                    }
                    Rows::look(connection)?
                }
            };
            let results = append(connection, &mut rows, open.triggers_fire, jobs)?;
            if probing {
                execute(connection, PROBE)?;
            }
            if let Some(tie) = &tie {
                tie::put(connection, &tie.name)?;
            }
            sync_started = Instant::now();
            execute(connection, "COMMIT")?;
            (open.data_version, open.rows) = (data_version, Some(rows));
            self.shared.committed_row.store(rows.greatest, Ordering::Relaxed);
            Ok(Some(results))
        })()
        .map_err(|error| Failure::of(error, connection));
        if !connection.is_autocommit() {
            // If this fails too, the connection is closed, or the next BEGIN reports the error.
            let _ = execute(connection, "ROLLBACK");
        }
        let results = committed?.ok_or(Failure::SchemaChanged)?;
        if FileIdentity::of(&self.path) != Some(*identity) {
            self.stray_log = StrayLog::beside(&self.path, *identity);
            return Err(Failure::FileLost);
        }
        if let Some(tie) = tie {
            tie.done();
        }
        if messages > 0 {
            self.shared.observer.batch_committed(messages, started.elapsed(), sync_started.elapsed());
        }
        Ok(results)
    }

    /// Whether messages would be accepted: objects that a probe does not touch may still refuse them.
    fn try_out(&mut self) -> Result<(), Failure> {
        let Some(Open { connection, .. }) = &self.open else { return Ok(()) };
        try_out(connection, self.suspects.iter().cloned()).map_err(|error| match is_refusal(&error) {
            true => Failure::Refusing(error),
            false => Failure::of(error, connection),
        })
    }

    /// Deletes change records that the index has applied, some at a time. Returns whether there are more.
    fn forget(&mut self) -> bool {
        let Some(Open { connection, .. }) = &self.open else { return false };
        let asked = lock(&self.shared.forget).clone();
        let Some(Forget { epoch, change }) = asked else { return false };
        // In another epoch the same numbers may belong to other change records.
        let sql = "DELETE FROM postroom_changes WHERE change IN
                       (SELECT change FROM postroom_changes WHERE change <= ?2 ORDER BY change LIMIT ?3)
                   AND ?1 = (SELECT epoch FROM postroom_index)";
        let deleted = connection
            .prepare_cached(sql)
            .and_then(|mut delete| delete.execute(params![epoch, change, FORGET_AT_ONCE]))
            .inspect_err(|error| log::warning("applied change records were not deleted").cause(error).emit());
        self.checkpoint_if_due();
        deleted.is_ok_and(|deleted| deleted as i64 == FORGET_AT_ONCE)
    }

    /// Releases the page cache. Called after idle time; pages that are needed again are in
    /// the system's cache.
    fn give_back(&self) {
        let Some(Open { connection, .. }) = &self.open else { return };
        // The remaining memory is used by the next write.
        let _ = execute(connection, "PRAGMA shrink_memory");
        give_back_memory();
    }

    fn recovered(&mut self) {
        self.suspects.clear();
        if self.shared.set_health(Health::Ready) != Health::Ready
            && let Some(Open { connection, .. }) = &self.open
        {
            // If this fails, the next write reports it.
            let _ = execute(connection, PROBE_DONE);
        }
        if std::mem::take(&mut self.is_in_trouble) {
            log::info("the database accepts writes again").emit();
        }
    }

    /// Records a failure, once per change of state, and closes a connection that is no longer valid.
    fn failed(&mut self, failure: Failure, messages: usize) {
        let health = match failure {
            Failure::DiskFull(_) | Failure::Open(OpenError::NoSpace(_)) => Health::DiskFull,
            Failure::LogFull => Health::LogFull,
            // Another program is working; nothing of ours is broken.
            Failure::Locked(_) => self.shared.health(),
            // Nothing of ours is broken; a trial determines whether all messages are affected.
            Failure::RolledBack(_) | Failure::Refusing(_) => Health::Refusing,
            _ => Health::Broken,
        };
        if health == Health::Broken {
            // After a failed fsync the kernel may mark pages clean that never reached the disk, so it is not retried.
            // A reopened database reads the existing data and writes it once more.
            self.give_up();
            self.shared.writes_to(None);
        }
        self.log_is_needed |= failure.may_have_lost_pages();
        if failure.is_of_a_page() {
            self.shared.observer.damaged(DamageKind::Page);
        }
        if health != Health::Broken {
            self.suspects.clear();
        }
        let before = self.shared.set_health(health);
        let was_in_trouble = self.is_in_trouble;
        self.is_in_trouble |= health != Health::Ready;
        if before != health || self.is_in_trouble && !was_in_trouble || messages > 0 {
            log::error("the database does not accept writes").value("messages", messages).cause(&failure).emit();
        }
    }

    /// Closes the file, and leaves the log unchanged.
    fn give_up(&mut self) {
        let Some(Open { connection, checkpoints, .. }) = self.open.take() else { return };
        if let Err(failure) = checkpoints.give_up() {
            self.log_is_needed |= failure.may_have_lost_pages();
            log::error("a checkpoint failed").cause(&failure).emit();
        }
        close_as_it_is(connection);
    }

    /// Moves the log into the database file if it has grown enough. All requests are completed by now.
    fn checkpoint_if_due(&mut self) {
        let Some(Open { connection, log_pages, checkpoints, .. }) = &mut self.open else { return };
        if let Err(failure) = checkpoints.go_on(connection, log_pages.load(Ordering::Relaxed)) {
            self.failed(failure, 0);
        }
    }
}

/// Whether the database has our table, as far as it can be read now.
fn holds_messages(path: &Path) -> bool {
    open_to_read(path).is_ok_and(|(connection, _)| schema::object_exists(&connection, "messages").unwrap_or(false))
}

/// Moves the whole log, and waits briefly for its readers, so that the next commit restarts the log.
fn make_log_begin_again(connection: &Connection, lock_timeout: Duration) -> Result<(), Failure> {
    let patience = |time| connection.busy_timeout(time).map_err(|error| Failure::of(error, connection));
    patience(LOG_PATIENCE)?;
    let moved = checkpoint(connection, "RESTART");
    patience(lock_timeout)?;
    let moved = moved.map_err(|error| Failure::of_checkpoint(error, connection))?;
    if moved.is_whole { Ok(()) } else { Err(Failure::LogFull) }
}

fn count_messages(jobs: &[Job]) -> usize {
    jobs.iter().map(Job::elements).sum()
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}
