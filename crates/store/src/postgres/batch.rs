//! A batch: the messages of several requests, each id once and sorted, with their outcomes.

use std::borrow::Cow;
use std::collections::HashMap;

use tokio_postgres::Row;

use crate::queue::{Answers, Job};
use crate::{Receipt, StoreError};
use domain::{NewMessage, Outcome};

/// Jobs, and the index of each of their messages among the distinct ids.
pub(super) struct Batch {
    pub jobs: Vec<Job>,
    /// For each distinct id, sorted bytewise: job and index of its first message.
    /// Sorted, so that concurrent batches take locks in one order and cannot deadlock.
    first: Vec<(usize, usize)>,
    /// The outcome of each distinct id.
    known: Vec<Known>,
    /// The outcomes of each job's statuses and events. If a job has failed here, all of it has failed.
    beside: Vec<Result<Beside, StoreError>>,
}

/// The outcomes of the statuses and of the events of a job.
pub(super) type Beside = (Vec<Outcome>, Vec<Outcome>);

/// The outcome of an id.
#[derive(Debug, Clone)]
pub(super) enum Known {
    /// Undecided.
    Undecided,
    /// This batch wrote it.
    Created,
    /// It existed before.
    Stored(Stored),
    /// The server refused it, or failed.
    Failed(StoreError),
}

/// The content of a row, as far as it counts in a comparison of copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub from: String,
    pub to: String,
    pub ts: String,
    pub text: Option<String>,
}

impl Stored {
    /// From a row that `sql::STORED` finds.
    pub fn of(row: &Row) -> Self {
        Self { from: row.get(1), to: row.get(2), ts: row.get(3), text: exact(row.get(4), row.get(5)) }
    }

    /// Whether a message has the same content.
    pub fn is_copied_by(&self, message: &NewMessage) -> bool {
        message.is_between(&self.from, &self.to)
            && message.compared_ts().is_none_or(|ts| self.ts == ts.as_str())
            && self.text == message.text
    }
}

impl Batch {
    pub fn new(jobs: Vec<Job>) -> Self {
        let mut places = HashMap::new();
        for (job_at, job) in jobs.iter().enumerate() {
            for (at, message) in job.messages.iter().enumerate() {
                places.entry(message.id.as_str()).or_insert((job_at, at));
            }
        }
        let mut sorted: Vec<_> = places.into_iter().collect();
        sorted.sort_unstable();
        let first: Vec<_> = sorted.into_iter().map(|(_, place)| place).collect();
        let known = vec![Known::Undecided; first.len()];
        let beside = vec![Ok(Beside::default()); jobs.len()];
        Self { jobs, first, known, beside }
    }

    /// Distinct ids.
    pub fn len(&self) -> usize {
        self.first.len()
    }

    /// Messages, including copies, and other elements.
    pub fn elements(&self) -> usize {
        self.jobs.iter().map(Job::elements).sum()
    }

    /// The first message of the id with index `at`.
    pub fn message(&self, at: usize) -> &NewMessage {
        let (job, place) = self.first[at];
        &self.jobs[job].messages[place]
    }

    pub fn set_outcome(&mut self, at: usize, known: Known) {
        self.known[at] = known;
    }

    /// Sets the outcomes of a job's elements other than messages.
    pub fn know_beside(&mut self, job: usize, beside: Beside) {
        self.beside[job] = Ok(beside);
    }

    /// Resets all outcomes: the batch is tried again.
    pub fn reset(&mut self) {
        self.known.fill(Known::Undecided);
    }

    /// Marks undecided messages failed. A job with more than messages fails whole, because it is one
    /// transaction.
    pub fn fail(&mut self, error: &StoreError) {
        self.open().into_iter().for_each(|at| self.set_outcome(at, Known::Failed(error.clone())));
        for (_, beside) in self.jobs.iter().zip(&mut self.beside).filter(|(job, _)| job.extras.is_some()) {
            *beside = Err(error.clone());
        }
    }

    /// The undecided ids.
    pub fn open(&self) -> Vec<usize> {
        (0..self.len()).filter(|at| matches!(self.known[*at], Known::Undecided)).collect()
    }

    /// The indexes of messages that an earlier version may have stored under another key, and that key.
    pub fn former(&self) -> Vec<(usize, String)> {
        let former = |at: usize| Some((at, self.message(at).former_id.as_ref()?.as_str().to_owned()));
        (0..self.len()).filter_map(former).collect()
    }

    /// The index of an id, if it is in the batch.
    pub fn find(&self, id: &str) -> Option<usize> {
        self.first.binary_search_by(|(job, place)| self.jobs[*job].messages[*place].id.as_str().cmp(id)).ok()
    }

    /// All results, in the order of the messages.
    pub fn answers(self) -> Answers {
        let results: Vec<_> = (0..self.jobs.len()).map(|job| self.result(job)).collect();
        self.jobs.into_iter().map(|job| job.reply).zip(results).collect()
    }

    /// One failed message fails its request: the sender tries again, and stored messages are duplicates then.
    fn result(&self, job: usize) -> Result<Receipt, StoreError> {
        let (statuses, events) = self.beside[job].clone()?;
        Ok(Receipt { outcomes: self.outcomes(job)?, statuses, events })
    }

    /// The outcome of each message of a job.
    pub fn outcomes(&self, job: usize) -> Result<Vec<Outcome>, StoreError> {
        let messages = self.jobs[job].messages.iter().enumerate();
        messages.map(|(at, message)| self.outcome((job, at), message)).collect()
    }

    fn outcome(&self, place: (usize, usize), message: &NewMessage) -> Result<Outcome, StoreError> {
        let at = self.find(message.id.as_str()).expect("every id is in the batch");
        let first = self.message(at);
        let is_copy = match &self.known[at] {
            Known::Created if self.first[at] == place => return Ok(Outcome::Created),
            Known::Created => {
                (&first.from, &first.to, &first.text) == (&message.from, &message.to, &message.text)
                    && message.compared_ts().is_none_or(|ts| ts == first.ts)
            }
            Known::Stored(stored) => stored.is_copied_by(message),
            Known::Failed(error) => return Err(error.clone()),
            Known::Undecided => return Err(StoreError::Unavailable("the row was not found again".to_owned())),
        };
        Ok(if is_copy { Outcome::Duplicate } else { Outcome::Conflict })
    }
}

/// A text in a form that the server can store, and its exact bytes if they differ.
pub(crate) fn storable(text: &str) -> (Cow<'_, str>, Option<&[u8]>) {
    if text.contains('\0') {
        (text.replace('\0', "\u{FFFD}").into(), Some(text.as_bytes()))
    } else {
        (text.into(), None)
    }
}

/// The original text of that form.
pub(crate) fn exact(text: Option<String>, exact: Option<&[u8]>) -> Option<String> {
    match exact {
        Some(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        None => text,
    }
}

/// A short text in a form that the server can store, so that different
/// texts stay different: NUL is written as an unused character and a digit.
pub(crate) fn escape_nul(text: &str) -> Cow<'_, str> {
    if text.contains(['\0', ESCAPE]) {
        text.replace(ESCAPE, "\u{FFFF}1").replace('\0', "\u{FFFF}0").into()
    } else {
        text.into()
    }
}

/// The original text of that form.
pub(crate) fn unescape_nul(text: String) -> String {
    if text.contains(ESCAPE) { text.replace("\u{FFFF}0", "\0").replace("\u{FFFF}1", "\u{FFFF}") } else { text }
}

const ESCAPE: char = '\u{FFFF}';

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Address, MessageId, Moment, Timestamp};
    use tokio::sync::oneshot;

    fn job(ids: &[(&str, &str)]) -> Job {
        let message = |(id, text): &(&str, &str)| NewMessage {
            id: MessageId::parse(id).unwrap(),
            from: Address::phone("+1").unwrap(),
            to: Address::phone("+2").unwrap(),
            ts: Timestamp::parse("2025-01-15T10:00:00Z").unwrap(),
            text: Some((*text).to_owned()),
            accepted_at: Moment::from_microseconds(0),
            details: None,
            former_id: None,
        };
        Job { messages: ids.iter().map(message).collect(), extras: None, reply: oneshot::channel().0 }
    }

    #[test]
    fn each_id_once_and_sorted_and_every_copy_is_told() {
        let mut batch = Batch::new(vec![job(&[("b", "1"), ("a", "1")]), job(&[("b", "1"), ("b", "2"), ("c", "1")])]);
        let ids: Vec<_> = (0..batch.len()).map(|at| batch.message(at).id.as_str()).collect();
        assert_eq!((ids, batch.elements()), (vec!["a", "b", "c"], 5));
        batch.set_outcome(0, Known::Created);
        batch.set_outcome(1, Known::Created);
        let content = Stored { from: "+1".into(), to: "+2".into(), ts: "2025-01-15T10:00:00Z".into(), text: None };
        batch.set_outcome(2, Known::Stored(content));
        let outcomes: Vec<_> = batch.answers().into_iter().map(|(_, result)| result.unwrap().outcomes).collect();
        use Outcome::{Conflict, Created, Duplicate};
        assert_eq!(outcomes, [vec![Created, Created], vec![Duplicate, Conflict, Conflict]]);
    }

    #[test]
    fn a_message_that_failed_fails_its_request_alone() {
        let mut batch = Batch::new(vec![job(&[("a", "1")]), job(&[("b", "1")])]);
        batch.set_outcome(0, Known::Failed(StoreError::DiskFull));
        batch.set_outcome(1, Known::Created);
        let results: Vec<_> = batch.answers().into_iter().map(|(_, result)| result.is_ok()).collect();
        assert_eq!(results, [false, true]);
    }

    #[test]
    fn a_short_text_comes_back_whatever_is_in_it() {
        for text in ["", "a", "\0", "a\0\u{FFFF}0", "\u{FFFF}", "\u{FFFF}1\0"] {
            assert!(!escape_nul(text).contains('\0'));
            assert_eq!(unescape_nul(escape_nul(text).into_owned()), text);
        }
        assert!(matches!(escape_nul("a"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_nul_is_kept_beside_the_text() {
        assert_eq!(storable("a"), ("a".into(), None));
        let (text, bytes) = storable("a\0b");
        assert_eq!((&*text, bytes), ("a\u{FFFD}b", Some(&b"a\0b"[..])));
        assert_eq!(exact(Some(text.into_owned()), bytes).as_deref(), Some("a\0b"));
    }
}
