//! The threads that read: each owns a read-only connection, and every read has a deadline, so that a slow search neither
//! blocks an acknowledgement nor outlives the patience of whoever asked.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use super::file::FileIdentity;
use super::schema::{self, OpenError, open_for_reading};
use crate::store::StoreError;

/// Reads that may wait for a thread; more are refused at once.
const WAITING_MAX: usize = 256;
/// Steps of SQLite's virtual machine between two looks at the clock: some tens of microseconds.
const STEPS_PER_LOOK: i32 = 2_000;

type Work = Box<dyn FnOnce(&mut Reader) + Send>;

/// A pool of reading threads.
#[derive(Debug)]
pub(super) struct Readers {
    work: Option<SyncSender<Work>>,
    threads: Vec<JoinHandle<()>>,
}

/// What one thread owns.
struct Reader {
    path: PathBuf,
    open: Option<Open>,
}

/// A connection, and what it was opened to.
struct Open {
    connection: Connection,
    identity: Option<FileIdentity>,
    schema_version: i64,
}

impl Readers {
    /// Starts `count` threads. The database must exist.
    pub fn start(path: PathBuf, count: usize, name: &str) -> Result<Self, OpenError> {
        let (work, waiting) = sync_channel::<Work>(WAITING_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        let mut threads = Vec::new();
        for at in 0..count {
            let (waiting, mut reader) = (Arc::clone(&waiting), Reader { path: path.clone(), open: None });
            let run = move || {
                while let Some(work) = next(&waiting) {
                    work(&mut reader);
                }
            };
            let thread = std::thread::Builder::new().name(format!("{name}-{at}")).spawn(run);
            threads.push(thread.map_err(OpenError::Thread)?);
        }
        Ok(Self { work: Some(work), threads })
    }

    /// Runs `read` in a read transaction on one of the threads. Gives up after `patience`, waiting time included, and at
    /// once when nobody waits for the answer any more.
    pub async fn read<T: Send + 'static>(
        &self,
        patience: Duration,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + patience;
        let abandoned = SetOnDrop(Arc::default());
        let flag = Arc::clone(&abandoned.0);
        let over = move || flag.load(Ordering::Relaxed) || Instant::now() >= deadline;
        let (reply, answer) = oneshot::channel();
        let work = Box::new(move |reader: &mut Reader| {
            let caught = catch_unwind(AssertUnwindSafe(|| reader.read(over, read)));
            let result = caught.unwrap_or_else(|_| {
                reader.open = None;
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

/// Tells the reading thread that whoever asked went away: a dropped request drops this.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn next(waiting: &Mutex<Receiver<Work>>) -> Option<Work> {
    waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).recv().ok()
}

impl Reader {
    /// Reads until done or `over`.
    fn read<T>(
        &mut self,
        over: impl Fn() -> bool + Send + 'static,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        if over() {
            return Err(StoreError::QueryDeadline);
        }
        let Open { connection, schema_version, .. } = self.open_current().map_err(unavailable)?;
        connection.progress_handler(STEPS_PER_LOOK, Some(over)).map_err(unavailable)?;
        let result = in_transaction(connection, |connection| {
            let now = schema::version(connection)?;
            if now != *schema_version {
                // Whoever drops the table drops our triggers with it, and what we keep beside it is not true any more.
                if !schema::object_exists(connection, schema::FIRST_TO_GO)? {
                    return Ok(None);
                }
                *schema_version = now;
            }
            read(connection).map(Some)
        });
        connection.progress_handler(0, None::<fn() -> bool>).map_err(unavailable)?;
        let changed = || StoreError::Unavailable("the database's schema was changed".to_owned());
        let result = match result {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                return Err(StoreError::QueryDeadline);
            }
            Err(error) => Err(unavailable(error)),
            Ok(answer) => answer.ok_or_else(changed),
        };
        if result.is_err() {
            // Whatever it was, a fresh connection sees the file as it is now.
            self.open = None;
        }
        result
    }

    /// The connection, opened anew where the path leads to another file than before.
    fn open_current(&mut self) -> rusqlite::Result<&mut Open> {
        let now = FileIdentity::of(&self.path);
        if self.open.as_ref().is_none_or(|open| open.identity.is_none() || open.identity != now) {
            self.open = None;
            let connection = open_for_reading(&self.path)?;
            // This first read makes the log where it is absent, and only then is the identity complete.
            let schema_version = schema::version(&connection)?;
            let identity = FileIdentity::of(&self.path);
            self.open = Some(Open { connection, identity, schema_version });
        }
        Ok(self.open.as_mut().expect("opened above"))
    }
}

fn in_transaction<T>(
    connection: &Connection,
    read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.prepare_cached("BEGIN")?.execute([])?;
    let result = read(connection);
    // Nothing was written: COMMIT only lets go of the snapshot, and an interrupted read may have done so already.
    if !connection.is_autocommit() {
        connection.prepare_cached("COMMIT")?.execute([])?;
    }
    result
}

fn unavailable(error: rusqlite::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}
