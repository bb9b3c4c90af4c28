//! The tasks that read, with one connection each. A read is a closure
//! over a read-only snapshot, with a deadline that the server enforces.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc, oneshot};

use super::failure::Failure;
use super::limits::Limits;
use super::probe::Ask;
use super::session::{Connector, Session};
use super::snapshot::Snapshot;
use super::task::Task;
use super::{details, listing};
use crate::StoreError;

/// Reads that may wait for a connection; more are refused at once.
pub(super) const WAITING_MAX: usize = 256;
/// The time that the server may exceed its own limit.
const SERVER_PATIENCE: Duration = Duration::from_secs(1);

/// A read and the channel of its result, for any of the tasks.
pub(super) type Work = Box<dyn FnOnce(&mut Reader) -> Reading<'_> + Send>;

/// A read in progress, on the thread of the database.
type Reading<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// The channel of a result.
type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// The reading tasks, as requests see them.
#[derive(Debug)]
pub(crate) struct Readers {
    work: mpsc::Sender<Work>,
    /// Maximum time of a read, including its wait.
    patience: Duration,
}

impl Readers {
    /// Also returns the receiver from which the tasks take their work.
    pub(super) fn new(patience: Duration) -> (Self, mpsc::Receiver<Work>) {
        let (work, waiting) = mpsc::channel(WAITING_MAX);
        (Self { work, patience }, waiting)
    }

    /// Runs `read` in a snapshot on one of the connections, and once more if the first connection turned
    /// out to be lost. Stops at the deadline, or as soon as no request waits for the result any more.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl AsyncFn(&Snapshot<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, result) = oneshot::channel();
        let deadline = Instant::now() + self.patience;
        let work: Work = Box::new(move |reader| Box::pin(async move { reader.answer(deadline, reply, &read).await }));
        self.work.try_send(work).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::QueueFull,
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })?;
        result.await.unwrap_or(Err(StoreError::Closed))
    }
}

/// One reading task.
pub(super) struct Reader {
    pub task: Arc<Task>,
    pub asks: mpsc::Receiver<Ask>,
    /// Maximum time of a read.
    pub patience: Duration,
    pub limits: Limits,
    pub connector: Connector,
    pub work: Arc<Mutex<mpsc::Receiver<Work>>>,
    pub session: Option<Session>,
}

impl Reader {
    /// Reads until no more requests can arrive.
    pub async fn run(mut self) {
        loop {
            let next = tokio::select! {
                biased;
                Some(ask) = self.asks.recv() => {
                    let _ = ask.send(self.probe().await);
                    continue;
                }
                next = async { self.work.lock().await.recv().await } => next,
            };
            let Some(work) = next else { return };
            work(&mut self).await;
        }
    }

    /// Runs a small part of all queries.
    async fn probe(&mut self) -> Result<(), Failure> {
        let read = async |snapshot: &Snapshot<'_>| {
            listing::probe(snapshot).await?;
            details::probe(snapshot).await
        };
        // The full patience: a slow server is not a silent one, even if the probe's caller has stopped waiting.
        match self.read(Instant::now() + self.patience, &read).await {
            Ok(()) => {
                self.task.works();
                Ok(())
            }
            // No content of a request is involved here, so the database is broken.
            Err(Failure::Refused(why)) => Err(Failure::Broken(why)),
            result => result,
        }
    }

    /// Reads, unless the request ends: then the server is asked to cancel.
    async fn answer<T>(
        &mut self,
        deadline: Instant,
        mut reply: Reply<T>,
        read: &impl AsyncFn(&Snapshot<'_>) -> Result<T, Failure>,
    ) {
        let read = self.read(deadline, read);
        let result = tokio::select! { result = read => Some(result), () = reply.closed() => None };
        self.task.works();
        match result {
            Some(result) => {
                let _ = reply.send(result.map_err(StoreError::from));
            }
            None => self.abandon().await,
        }
    }

    async fn abandon(&mut self) {
        if let Some(session) = self.session.take() {
            session.cancel().await;
        }
    }

    /// Reads in one snapshot, once more on a fresh connection if the old one was lost.
    async fn read<T>(
        &mut self,
        deadline: Instant,
        read: &impl AsyncFn(&Snapshot<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut is_fresh = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::Deadline);
            }
            if !self.session.as_ref().is_some_and(Session::is_open) {
                is_fresh = true;
                self.session = Some(self.connector.connect().await?);
            }
            let session = self.session.as_ref().expect("opened above");
            let read = in_snapshot(session, &self.limits, left, read);
            match tokio::time::timeout(left + SERVER_PATIENCE, read).await {
                Err(_) => {
                    self.abandon().await;
                    return Err(Failure::Deadline);
                }
                Ok(Err(Failure::Lost(_))) if !is_fresh => self.session = None,
                Ok(Err(failure)) => {
                    // After any error, a fresh connection has no open transaction and sees the server's current state.
                    self.session = None;
                    return Err(failure);
                }
                Ok(result) => return result,
            }
        }
    }
}

async fn in_snapshot<T>(
    session: &Session,
    limits: &Limits,
    left: Duration,
    read: &impl AsyncFn(&Snapshot<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let milliseconds = left.as_millis().max(1);
    // JIT compilation for a single read takes longer than the read.
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {milliseconds}; \
         SET LOCAL jit = off"
    );
    session.client.batch_execute(&begin).await?;
    let result = read(&Snapshot { client: &session.client, limits }).await?;
    session.client.batch_execute("COMMIT").await?;
    Ok(result)
}
