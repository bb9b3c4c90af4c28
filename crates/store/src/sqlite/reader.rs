//! The reader threads: each owns a read-only connection, and every read has a deadline. So a
//! slow search neither blocks an acknowledgement nor continues after its request has ended.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use super::access::{Open, ReadAccess, Slot, open_current};
use super::damage::damage_of;
use super::error_code::is_unreadable;
use super::file::FileIdentity;
use super::schema::{self, OpenError};
use super::shared::Shared;
use crate::StoreError;
use crate::observer::DamageKind;
use crate::observer::Observer;
use domain::lock::lock;
use index::Index;
use index::state::State;
use runtime::log;
use runtime::process::give_back_memory;

/// Reads that may wait for a thread; more are refused at once.
const WAITING_MAX: usize = 256;
/// Steps of SQLite's virtual machine between two checks of the clock: some tens of microseconds.
const STEPS_PER_LOOK: i32 = 2_000;
/// A read of this duration may have used tens of megabytes, which its thread must release.
const LONG_READ: Duration = Duration::from_millis(100);

type Work = Box<dyn FnOnce(&mut Reader) + Send>;

/// A pool of reader threads.
#[derive(Debug)]
pub(super) struct Readers {
    work: Option<SyncSender<Work>>,
    threads: Vec<JoinHandle<()>>,
}

/// The state of one thread.
pub(super) struct Reader {
    path: PathBuf,
    index: Arc<Index>,
    access: Arc<ReadAccess>,
    /// Counts damage; none outside the service.
    observer: Option<Arc<dyn Observer>>,
    slot: Slot,
}

/// The view of a read: one snapshot of the database, and a state of the index that was published before.
pub(super) struct Snapshot<'a> {
    /// In a read transaction.
    pub connection: &'a Connection,
    /// The identity of the file.
    pub database: (u64, u64),
    /// None until the index is loaded.
    pub state: Option<Arc<State>>,
    /// The index of the state.
    pub index: &'a Index,
    over: &'a dyn Fn() -> bool,
}

impl Snapshot<'_> {
    /// Whether the deadline has passed, or no request waits for the read any more.
    pub fn is_over(&self) -> bool {
        (self.over)()
    }

    /// Records that the index cannot be read, or is inconsistent.
    pub fn index_is_wrong(&self, error: &std::io::Error) {
        log::error("the index is wrong").cause(error).emit();
        self.index.distrust();
    }
}

impl Readers {
    /// Starts `count` threads. The database must exist.
    pub fn start(
        path: PathBuf,
        index: Arc<Index>,
        shared: &Shared,
        count: usize,
        name: &str,
    ) -> Result<Self, OpenError> {
        let (work, waiting) = sync_channel::<Work>(WAITING_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        let mut threads = Vec::new();
        for at in 0..count {
            let (waiting, mut reader) = (Arc::clone(&waiting), Reader::new(path.clone(), Arc::clone(&index)));
            reader.access = Arc::clone(&shared.access);
            reader.observer = Some(Arc::clone(&shared.observer));
            shared.access.add(Arc::clone(&reader.slot));
            let run = move || {
                while let Some(work) = next(&waiting) {
                    let started = Instant::now();
                    work(&mut reader);
                    if started.elapsed() >= LONG_READ {
                        give_back_memory();
                    }
                }
                reader.let_go();
            };
            let thread = std::thread::Builder::new().name(format!("{name}-{at}")).spawn(run);
            threads.push(thread.map_err(OpenError::Thread)?);
        }
        Ok(Self { work: Some(work), threads })
    }

    /// Runs `read` in a read transaction on one of the threads. Stops after `patience`, including the wait, and at
    /// once when no request waits for the result any more.
    pub async fn read<T: Send + 'static>(
        &self,
        patience: Duration,
        read: impl FnOnce(&Snapshot<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + patience;
        let abandoned = SetOnDrop(Arc::default());
        let flag = Arc::clone(&abandoned.0);
        let over = move || flag.load(Ordering::Relaxed) || Instant::now() >= deadline;
        let (reply, answer) = oneshot::channel();
        let work = Box::new(move |reader: &mut Reader| {
            let caught = catch_unwind(AssertUnwindSafe(|| reader.read(over, read)));
            let result = caught.unwrap_or_else(|_| {
                reader.let_go();
                Err(StoreError::Unavailable("the reader panicked".to_owned()))
            });
            let _ = reply.send(result);
        });
        let sender = self.work.as_ref().ok_or(StoreError::Closed)?;
        sender.try_send(work).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::QueueFull,
            TrySendError::Disconnected(_) => StoreError::Closed,
        })?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Ends the threads and closes their connections.
    pub fn close(mut self) {
        self.work = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Notifies the reader thread that the request ended: a dropped request drops this.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn next(waiting: &Mutex<Receiver<Work>>) -> Option<Work> {
    lock(waiting).recv().ok()
}

impl Reader {
    /// Opens nothing yet.
    pub fn new(path: PathBuf, index: Arc<Index>) -> Self {
        Self { path, index, access: Arc::default(), observer: None, slot: Slot::default() }
    }

    /// Closes the database until the next read.
    pub fn let_go(&mut self) {
        *lock(&self.slot) = None;
    }

    /// Reads until done or `over`.
    pub fn read<T>(
        &mut self,
        over: impl Fn() -> bool + Send + Sync + 'static,
        read: impl FnOnce(&Snapshot<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        if over() {
            return Err(StoreError::QueryDeadline);
        }
        let over = Arc::new(over);
        let index = &self.index;
        let mut slot = lock(&self.slot);
        if self.access.is_denied() {
            *slot = None;
            return Err(StoreError::Unavailable("the database is being repaired".to_owned()));
        }
        let Open { connection, identity, schema_version } = open_current(&self.path, &mut slot).map_err(unavailable)?;
        let is_over = Arc::clone(&over);
        connection.progress_handler(STEPS_PER_LOOK, Some(move || is_over())).map_err(unavailable)?;
        let database = identity.map_or((0, 0), FileIdentity::database);
        // Loaded before the snapshot begins, so that the snapshot has everything that the state covers.
        let state = index.current();
        let result = in_transaction(connection, |connection| {
            let now = schema::version(connection)?;
            if now != *schema_version {
                // Dropping the table also drops our triggers, and our derived data is then outdated.
                if !schema::object_exists(connection, schema::FIRST_TO_GO)? {
                    return Ok(None);
                }
                *schema_version = now;
            }
            read(&Snapshot { connection, database, state, index, over: &*over }).map(Some)
        });
        connection.progress_handler(0, None::<fn() -> bool>).map_err(unavailable)?;
        let changed = || StoreError::Unavailable("the database's schema was changed".to_owned());
        let result = match result {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                return Err(StoreError::QueryDeadline);
            }
            Err(error) => {
                if let Some(damage) = damage_of(&error) {
                    // The connection is still valid; damaged data is not returned.
                    return Err(StoreError::Damaged(damage.to_string()));
                }
                if is_unreadable(&error)
                    && let Some(observer) = &self.observer
                {
                    observer.damaged(DamageKind::Page);
                }
                Err(unavailable(error))
            }
            Ok(answer) => answer.ok_or_else(changed),
        };
        if result.is_err() {
            // After any error, a fresh connection sees the current file.
            *slot = None;
        }
        result
    }
}

fn in_transaction<T>(
    connection: &Connection,
    read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.prepare_cached("BEGIN")?.execute([])?;
    let result = read(connection);
    // Nothing was written: COMMIT only releases the snapshot, and an interrupted read may have done so already.
    if !connection.is_autocommit() {
        connection.prepare_cached("COMMIT")?.execute([])?;
    }
    result
}

fn unavailable(error: rusqlite::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}
