//! The tasks that read: a connection each, every read in one read-only snapshot and with a deadline that the server keeps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc, oneshot};

use super::failure::Failure;
use super::session::{Connector, Session};
use super::{listing, statistics};
use crate::domain::message::FullMessage;
use crate::domain::{Page, PageRequest, Stats};
use crate::store::StoreError;

/// Reads that may wait for a connection; more are refused at once.
pub(super) const WAITING_MAX: usize = 256;
/// How much longer than its own limit the server is waited for.
const SERVER_PATIENCE: Duration = Duration::from_secs(1);

/// A question, and where its answer goes.
pub(super) struct Read {
    pub deadline: Instant,
    pub question: Question,
}

/// What can be asked.
pub(super) enum Question {
    Page(Box<PageRequest>, oneshot::Sender<Result<Page, StoreError>>),
    Stats(oneshot::Sender<Result<Stats, StoreError>>),
    Message(String, oneshot::Sender<Result<Option<FullMessage>, StoreError>>),
}

/// One reading task.
pub(super) struct Reader {
    pub connector: Connector,
    pub questions: Arc<Mutex<mpsc::Receiver<Read>>>,
    pub session: Option<Session>,
}

impl Reader {
    /// Answers until nobody can ask any more.
    pub async fn run(mut self) {
        loop {
            let next = self.questions.lock().await.recv().await;
            let Some(Read { deadline, question }) = next else { return };
            match question {
                Question::Page(request, mut reply) => {
                    let read = self.read(deadline, async |session: &Session| {
                        let patience = deadline.saturating_duration_since(Instant::now()) / 2;
                        listing::page(&session.client, &request, patience).await
                    });
                    let answer = tokio::select! { answer = read => Some(answer), () = reply.closed() => None };
                    self.finish(answer, reply).await;
                }
                Question::Message(id, mut reply) => {
                    let read = self
                        .read(deadline, async |session: &Session| listing::full_message(&session.client, &id).await);
                    let answer = tokio::select! { answer = read => Some(answer), () = reply.closed() => None };
                    self.finish(answer, reply).await;
                }
                Question::Stats(mut reply) => {
                    let read = self.read(deadline, async |session: &Session| statistics::stats(&session.client).await);
                    let answer = tokio::select! { answer = read => Some(answer), () = reply.closed() => None };
                    self.finish(answer, reply).await;
                }
            }
        }
    }

    /// Hands the answer over; where nobody waits for one, the server is told to give up.
    async fn finish<T>(&mut self, answer: Option<Result<T, Failure>>, reply: oneshot::Sender<Result<T, StoreError>>) {
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
        read: impl AsyncFn(&Session) -> Result<T, Failure>,
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
    read: &impl AsyncFn(&Session) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let milliseconds = left.as_millis().max(1);
    let begin =
        format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {milliseconds}");
    session.client.batch_execute(&begin).await?;
    let answer = read(session).await?;
    session.client.batch_execute("COMMIT").await?;
    Ok(answer)
}
