//! The embedded store: one SQLite file, one thread that writes it, and a few that read it.

mod access;
mod append;
mod audit;
mod batch;
mod begin;
mod checkpoints;
mod columns;
mod control;
mod coverage;
mod damage;
pub(crate) mod details;
mod details_read;
mod error_code;
mod failure;
mod file;
#[cfg(test)]
mod history;
mod indexer;
mod listing;
mod log_scan;
mod merger;
mod orphans;
mod queries;
mod queue;
mod reader;
mod reading;
pub mod schema;
mod shared;
mod tie;
pub(crate) mod upgrade;
mod verifier;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

use super::queue::{append, deliver};
use super::{Health, Lookup, Receipt, StoreError};
use crate::StoreConfig;
use crate::observer::{DamageKind, Gauges, Observer};
pub use audit::{Audit, IndexAudit, audit};
use coverage::Extent;
use domain::event::{EventRequest, StoredEvent};
use domain::lock::lock;
use domain::message::FullMessage;
use domain::payload::StoredPayload;
use domain::status::MessageStatus;
use domain::{Intake, Page, PageRequest, State, Stats};
pub(super) use file::locate;
use index::Index;
use index::folder::Folder;
use indexer::Indexer;
use log_scan::InUse;
pub use orphans::remove_orphans;
use queue::Queue;
use reader::{Readers, Snapshot};
use runtime::log;
use schema::OpenError;
use shared::Shared;
use tie::Found;
use writer::Writer;

/// Maximum time of a health check. It has its own reader thread, so searches do not delay it.
const HEALTH_PATIENCE: Duration = Duration::from_secs(2);

/// An open SQLite file and its threads.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    query_timeout: Duration,
    shared: Arc<Shared>,
    index: Arc<Index>,
    indexer: Indexer,
    writer: JoinHandle<Writer>,
    readers: Readers,
    health_reader: Readers,
    /// A read that failed; readiness repeats it, because other reads may not touch the same pages.
    failed_read: FailedReads,
    _in_use: InUse,
}

/// A read without its result.
type FailedRead = dyn Fn(&Snapshot<'_>) -> rusqlite::Result<()> + Send + Sync;

/// The last read that failed, until it is known to succeed.
#[derive(Default)]
struct FailedReads(Mutex<Option<Arc<FailedRead>>>);

impl FailedReads {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<FailedRead>>> {
        lock(&self.0)
    }
}

impl std::fmt::Debug for FailedReads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FailedReads").field(&self.lock().is_some()).finish()
    }
}

impl SqliteStore {
    /// See `Store::open`.
    pub fn open(path: &Path, config: &StoreConfig, observer: Arc<dyn Observer>) -> Result<Self, OpenError> {
        let path = locate(path).map_err(OpenError::Folder)?;
        log_scan::look(&path, observer.as_ref())?;
        let in_use = InUse::new(&path);
        let shared = Arc::new(Shared::new(Queue::new(config.queue_max), observer));
        let found = Found::at(&path);
        let (answers, answered) = mpsc::unbounded_channel();
        let writer = Writer::open(Arc::clone(&shared), config.clone(), path.clone(), answers)?;
        let index = Arc::new(Index::default());
        let readers = Readers::start(path.clone(), Arc::clone(&index), &shared, config.readers, "reader")?;
        let health_reader = Readers::start(path.clone(), Arc::default(), &shared, 1, "health")?;
        let indexer = Indexer::start(path.clone(), Arc::clone(&shared), Arc::clone(&index), found)?;
        let run = move || writer.run();
        let writer = std::thread::Builder::new().name("writer".to_owned()).spawn(run).map_err(OpenError::Thread)?;
        tokio::spawn(deliver(answered));
        Ok(Self {
            path,
            query_timeout: config.query_timeout,
            shared,
            index,
            indexer,
            writer,
            readers,
            health_reader,
            failed_read: FailedReads::default(),
            _in_use: in_use,
        })
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
        let patience = self.query_timeout / 2;
        self.read(move |snapshot| listing::page(snapshot, &request, patience)).await
    }

    /// See `Store::stats`.
    pub async fn stats(&self) -> Result<Stats, StoreError> {
        self.read(listing::stats).await
    }

    /// See `Store::message`.
    pub async fn message(&self, id: String) -> Result<Lookup<FullMessage>, StoreError> {
        self.read(move |snapshot| details_read::message(snapshot, &id)).await
    }

    /// See `Store::statuses`.
    pub async fn statuses(&self, id: String) -> Result<Lookup<MessageStatus>, StoreError> {
        self.read(move |snapshot| details_read::statuses(snapshot.connection, &id)).await
    }

    /// See `Store::status_counts`.
    pub async fn status_counts(&self) -> Result<Vec<(State, u64)>, StoreError> {
        self.read(|snapshot| details_read::status_counts(snapshot.connection)).await
    }

    /// See `Store::events`.
    pub async fn events(&self, request: EventRequest) -> Result<Vec<StoredEvent>, StoreError> {
        self.read(move |snapshot| details_read::events(snapshot.connection, &request)).await
    }

    /// See `Store::event`.
    pub async fn event(&self, number: i64) -> Result<Option<StoredEvent>, StoreError> {
        self.read(move |snapshot| details_read::event(snapshot.connection, number)).await
    }

    /// See `Store::payload`.
    pub async fn payload(&self, number: i64) -> Result<Option<StoredPayload>, StoreError> {
        self.read(move |snapshot| details_read::payload(snapshot.connection, number)).await
    }

    /// See `Store::unreadable_payloads`.
    pub async fn unreadable_payloads(
        &self,
        after: i64,
        all: bool,
        limit: u32,
    ) -> Result<Vec<StoredPayload>, StoreError> {
        self.read(move |snapshot| details_read::unreadable_payloads(snapshot.connection, after, all, limit)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl Fn(&Snapshot<'_>) -> rusqlite::Result<T> + Clone + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let result = self.readers.read(self.query_timeout, read.clone()).await;
        if matches!(result, Err(StoreError::Damaged(_))) {
            self.shared.observer.damaged(DamageKind::Row);
        }
        if !matches!(result, Err(StoreError::Unavailable(_))) {
            return result;
        }
        // An object of ours may be missing, because another
        // program changed the schema. The writer checks and
        // restores it; then the read is repeated.
        self.shared.set_health(Health::Broken);
        let again = match self.look().await {
            Health::Broken => result,
            _ => self.readers.read(self.query_timeout, read.clone()).await,
        };
        if let Err(StoreError::Unavailable(why)) = &again {
            let failed: Arc<FailedRead> = Arc::new(move |snapshot: &Snapshot<'_>| read(snapshot).map(drop));
            if self.failed_read.lock().replace(failed).is_none() {
                log::error("a read failed; readiness tries it again").text("error", why).emit();
            }
        }
        again
    }

    /// See `Store::health`. Ready if the writer and a reader are, and the last failed read works again.
    pub async fn health(&self) -> Health {
        let health = self.look().await;
        let failed = self.failed_read.lock().clone();
        let Some(failed) = failed.filter(|_| health == Health::Ready) else { return health };
        let again = Arc::clone(&failed);
        // On the reader threads of requests. A timeout is not treated as the former error.
        let result = self.readers.read(HEALTH_PATIENCE, move |snapshot| again(snapshot)).await;
        if let Err(StoreError::Unavailable(_) | StoreError::QueueFull | StoreError::Closed) = result {
            return Health::Broken;
        }
        if self.failed_read.lock().take_if(|now| Arc::ptr_eq(now, &failed)).is_some() {
            log::info("a read that failed succeeds again").emit();
        }
        health
    }

    /// Checks the writer, and reads like requests.
    async fn look(&self) -> Health {
        let has_table = |snapshot: &Snapshot<'_>| {
            let has_table = schema::object_exists(snapshot.connection, "messages")?;
            if has_table {
                Extent::read(snapshot.connection)?;
                details_read::read_some(snapshot.connection)?;
            }
            Ok(has_table)
        };
        let mut table = self.health_reader.read(HEALTH_PATIENCE, has_table).await;
        if table.is_err() || self.shared.has_lost(&self.path) {
            self.shared.set_health(Health::Broken);
        }
        if self.shared.health() == Health::Broken {
            // If the log was replaced, it cannot be opened while connections hold the old one.
            self.shared.access.let_go();
        }
        if self.shared.health() != Health::Ready {
            // An empty batch: the writer tests whether it can write again, and restores missing objects of ours.
            let _ = tokio::time::timeout(HEALTH_PATIENCE, self.append(Intake::default())).await;
            table = self.health_reader.read(HEALTH_PATIENCE, has_table).await;
        }
        if table == Ok(true) { self.shared.health() } else { Health::Broken }
    }

    /// See `Store::gauges`.
    pub async fn gauges(&self) -> Gauges {
        let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let state = self.index.current();
        let covered = state.as_ref().map_or(i64::MIN, |state| state.row);
        let behind = move |snapshot: &Snapshot<'_>| {
            Ok(Extent::read(snapshot.connection)?.map_or(0, |extent| extent.behind(covered)))
        };
        Gauges {
            ready: self.health().await == Health::Ready,
            queued: self.shared.queue.depth(),
            database_bytes: bytes(&self.path),
            wal_bytes: bytes(&file::wal_path(&self.path)),
            index_lag: self.health_reader.read(HEALTH_PATIENCE, behind).await.unwrap_or(0).unsigned_abs(),
            index_segments: state.map_or(0, |state| state.members.len()),
            index_bytes: Folder::bytes(&Folder::path_of(&self.path)),
            ..Gauges::default()
        }
    }

    /// See `Store::close`.
    pub fn close(self) {
        // The indexer needs the writer for its last save.
        self.indexer.close();
        self.shared.queue.close();
        let writer = self.writer.join();
        // The last connection to close removes the log, so it must be the one that can write.
        self.readers.close();
        self.health_reader.close();
        if let Ok(writer) = writer {
            writer.close();
        }
        if let Err(error) = tie::seal(&self.path) {
            log::warning("the seal of the index was not written; the next start compares it with the messages")
                .cause(&error)
                .emit();
        }
    }
}

/// Before a command opens a database for writing: copies its log if
/// SQLite would not read all of it, and reports it in a sentence.
pub fn keep_damaged_log(path: &Path) -> anyhow::Result<Option<String>> {
    let path = locate(path)?;
    let Some(finding) = log_scan::scan(&path)? else { return Ok(None) };
    let copy = finding.keep_copy(&path)?;
    Ok(Some(format!("{finding}; a copy is kept at {}", copy.display())))
}

/// A phase of rebuilding all derived data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebuilding {
    /// The primary key's index.
    Key,
    /// The index next to the file: the number of indexed messages, and of all messages.
    Index(u64, u64),
}

/// Rebuilds all derived data, and calls `tell` periodically. Returns the number of messages, and whether
/// the index was built: a running service builds it itself, at once.
pub fn rebuild(
    path: &Path,
    config: &StoreConfig,
    tell: impl FnMut(Rebuilding) + Clone + Send + 'static,
) -> anyhow::Result<(u64, bool)> {
    let path = locate(path)?;
    let (mut of_key, mut of_index) = (tell.clone(), tell);
    let messages = schema::rebuild_key(&path, config, move || of_key(Rebuilding::Key))?;
    let built = indexer::build_now(path, |indexed| of_index(Rebuilding::Index(indexed, messages)))?;
    Ok((messages, built))
}

#[cfg(test)]
mod tests {
    use super::shared::Forget;
    use super::*;
    use crate::Database;
    use rusqlite::Connection;
    use std::sync::atomic::Ordering;

    fn number(connection: &Connection, sql: &str) -> i64 {
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Waits for a condition, on the runtime whose task delivers the receipts.
    async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !is_so() {
            assert!(std::time::Instant::now() < deadline, "never: {what}");
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn an_idle_writer_forgets_the_notes_it_is_asked_to_and_no_others() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("app.db");
            let config = StoreConfig {
                database: Database::Sqlite { path: path.clone() },
                queue_max: 64,
                batch_max: 16,
                lock_timeout: Duration::from_secs(20),
                query_timeout: Duration::from_secs(20),
                readers: 1,
                checkpoint_pages: 16,
                log_pages_max: 1 << 20,
            };
            let store = SqliteStore::open(&path, &config, Arc::new(crate::Unobserved)).unwrap();
            let other = Connection::open(&path).unwrap();
            other.busy_timeout(Duration::from_secs(20)).unwrap();
            let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
                INSERT INTO messages SELECT 'm' || i, '+1', '+2', 'x', NULL, 'x' FROM n; UPDATE messages SET ts = 'y'";
            other.execute_batch(rows).unwrap();
            let notes = || number(&other, "SELECT count(*) FROM postroom_changes");
            assert_eq!(notes(), 2500);
            store.shared.forget(Forget { epoch: "of another time".to_owned(), change: 2500 });
            store.append(Intake::default()).await.unwrap();
            until("the writer is idle", || store.shared.is_idle()).await;
            assert_eq!(notes(), 2500, "in another epoch the numbers stand for something else");
            let epoch = other.query_row("SELECT epoch FROM postroom_index", [], |row| row.get(0)).unwrap();
            store.shared.forget(Forget { epoch, change: 2400 });
            until("all that was asked for is forgotten", || notes() == 100).await;
            until("the writer is idle", || store.shared.is_idle()).await;
            assert_eq!(number(&other, "SELECT min(change) FROM postroom_changes"), 2401);
            assert_eq!(store.shared.committed_row.load(Ordering::Relaxed), 2500, "as of the last batch");
            store.close();
        });
    }
}
