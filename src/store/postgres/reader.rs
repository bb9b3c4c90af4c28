//! The tasks that read: a connection each, every read in one read-only snapshot and with a deadline that the server keeps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_postgres::Client;

use super::failure::Failure;
use super::probe::{Ask, Task};
use super::session::{Connector, Session};
use super::{details, listing, statistics};
use crate::domain::event::{EventRequest, StoredEvent};
use crate::domain::message::FullMessage;
use crate::domain::payload::StoredPayload;
use crate::domain::status::MessageStatus;
use crate::domain::{Page, PageRequest, State, Stats};
use crate::store::{Lookup, StoreError};

/// Reads that may wait for a connection; more are refused at once.
pub(super) const WAITING_MAX: usize = 256;
/// How much longer than its own limit the server is waited for.
const SERVER_PATIENCE: Duration = Duration::from_secs(1);

/// A question, and where its answer goes.
pub(super) struct Read {
    pub deadline: Instant,
    pub question: Question,
}

/// Where an answer goes.
type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What can be asked.
pub(super) enum Question {
    Page(Box<PageRequest>, Reply<Page>),
    Stats(Reply<Stats>),
    Message(String, Reply<Lookup<FullMessage>>),
    Statuses(String, Reply<Lookup<MessageStatus>>),
    StatusCounts(Reply<Vec<(State, u64)>>),
    Events(EventRequest, Reply<Vec<StoredEvent>>),
    Event(i64, Reply<Option<StoredEvent>>),
    Payload(i64, Reply<Option<StoredPayload>>),
    Payloads { after: i64, all: bool, limit: u32, reply: Reply<Vec<StoredPayload>> },
}

/// One reading task.
pub(super) struct Reader {
    pub task: Arc<Task>,
    pub asks: mpsc::Receiver<Ask>,
    /// How long a read may take.
    pub patience: Duration,
    pub connector: Connector,
    pub questions: Arc<Mutex<mpsc::Receiver<Read>>>,
    pub session: Option<Session>,
}

impl Reader {
    /// Answers until nobody can ask any more.
    pub async fn run(mut self) {
        loop {
            let next = tokio::select! {
                biased;
                Some(ask) = self.asks.recv() => {
                    let _ = ask.send(self.probe().await);
                    continue;
                }
                next = async { self.questions.lock().await.recv().await } => next,
            };
            let Some(Read { deadline, question }) = next else { return };
            match question {
                Question::Page(request, reply) => {
                    let read = async |client: &Client| listing::page(client, &request).await;
                    self.answer(deadline, reply, read).await;
                }
                Question::Stats(reply) => self.answer(deadline, reply, statistics::stats).await,
                Question::Message(id, reply) => {
                    self.answer(deadline, reply, async |client: &Client| details::message(client, &id).await).await;
                }
                Question::Statuses(id, reply) => {
                    self.answer(deadline, reply, async |client: &Client| details::statuses(client, &id).await).await;
                }
                Question::StatusCounts(reply) => self.answer(deadline, reply, details::status_counts).await,
                Question::Events(request, reply) => {
                    self.answer(deadline, reply, async |client: &Client| details::events(client, &request).await).await;
                }
                Question::Event(number, reply) => {
                    self.answer(deadline, reply, async |client: &Client| details::event(client, number).await).await;
                }
                Question::Payload(number, reply) => {
                    self.answer(deadline, reply, async |client: &Client| details::payload(client, number).await).await;
                }
                Question::Payloads { after, all, limit, reply } => {
                    let read = async |client: &Client| details::unreadable_payloads(client, after, all, limit).await;
                    self.answer(deadline, reply, read).await;
                }
            }
        }
    }

    /// Reads a little of everything that can be asked.
    async fn probe(&mut self) -> Result<(), Failure> {
        let read = async |client: &Client| {
            listing::probe(client).await?;
            details::probe(client).await
        };
        // As long as any other: a server that is slow is not silent, though who asked has its answer by then.
        match self.read(Instant::now() + self.patience, read).await {
            Ok(()) => {
                self.task.works();
                Ok(())
            }
            // Here nobody's content is at fault.
            Err(Failure::Refused(why)) => Err(Failure::Broken(why)),
            result => result,
        }
    }

    /// Reads, unless whoever asked goes away.
    async fn answer<T>(
        &mut self,
        deadline: Instant,
        mut reply: Reply<T>,
        read: impl AsyncFn(&Client) -> Result<T, Failure>,
    ) {
        let read = self.read(deadline, read);
        let answer = tokio::select! { answer = read => Some(answer), () = reply.closed() => None };
        self.task.works();
        self.finish(answer, reply).await;
    }

    /// Hands the answer over; where nobody waits for one, the server is told to give up.
    async fn finish<T>(&mut self, answer: Option<Result<T, Failure>>, reply: Reply<T>) {
        match answer {
            Some(answer) => {
                let _ = reply.send(answer.map_err(StoreError::from));
            }
            None => self.abandon().await,
        }
    }

    async fn abandon(&mut self) {
        if let Some(session) = self.session.take() {
            session.cancel().await;
        }
    }

    /// Reads in one snapshot, once more on a fresh connection if the old one turned out to be gone.
    async fn read<T>(
        &mut self,
        deadline: Instant,
        read: impl AsyncFn(&Client) -> Result<T, Failure>,
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
            let result = tokio::time::timeout(left + SERVER_PATIENCE, in_snapshot(session, left, &read)).await;
            match result {
                Err(_) => {
                    self.abandon().await;
                    return Err(Failure::Deadline);
                }
                Ok(Err(Failure::Lost(_))) if !is_fresh => self.session = None,
                Ok(Err(failure)) => {
                    // Whatever it was, a fresh connection has no transaction open and sees the server as it is now.
                    self.session = None;
                    return Err(failure);
                }
                Ok(answer) => return answer,
            }
        }
    }
}

async fn in_snapshot<T>(
    session: &Session,
    left: Duration,
    read: &impl AsyncFn(&Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let milliseconds = left.as_millis().max(1);
    // What the server would compile for one read takes longer than the read.
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {milliseconds}; SET LOCAL jit = off"
    );
    session.client.batch_execute(&begin).await?;
    let answer = read(&session.client).await?;
    session.client.batch_execute("COMMIT").await?;
    Ok(answer)
}
