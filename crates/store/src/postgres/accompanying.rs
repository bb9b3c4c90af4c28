//! The details, statuses, events and raw bodies of a batch, each once, as columns for the functions in the
//! database that store them. Rows are written in the order of their keys, like messages, so that concurrent
//! batches take locks in one order and cannot deadlock.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use super::batch::{Batch, escape_nul};
use super::failure::Failure;
use super::parameters::Parameters;
use crate::extras::{Extras, PackedPayload};
use domain::Outcome;
use domain::{Event, State, StatusUpdate};

/// Maximum length of a recipient that is stored unchanged in the key of its status.
const RECIPIENT_BYTES_MAX: usize = 400;

/// Separates the forms of a recipient.
const FORM_END: &str = "\u{1f}";

/// The position of an element: its job, and its index there.
pub(super) type JobPlace = (usize, usize);

/// The elements of a batch other than messages, each once, by the position of its first copy.
pub(super) struct Accompanying {
    /// Jobs that have a payload, in their order.
    payloads: Vec<usize>,
    /// For each job, the index of its payload in `payloads`.
    payload_of: Vec<Option<usize>>,
    pub statuses: Vec<JobPlace>,
    pub events: Vec<JobPlace>,
}

/// The elements of a batch that are stored already.
#[derive(Default)]
pub(super) struct Present {
    /// The number of each payload.
    pub payloads: HashMap<usize, i64>,
    /// Which attempt wrote each status and event.
    pub statuses: HashMap<JobPlace, Option<i64>>,
    pub events: HashMap<JobPlace, Option<i64>>,
}

/// Finds the elements that are stored already: the numbers of payloads, the attempts of statuses and events.
pub(super) const LOOK: &str = "SELECT * FROM postroom_look($1, $2, $3, $4, $5)";
/// Stores raw bodies. Returns the number of new ones.
pub(crate) const BRING_PAYLOADS: &str = "SELECT postroom_bring_payloads($1, $2, $3, $4, $5, $6, $7, $8)";
/// Stores statuses. Returns the places of the new ones.
pub(crate) const BRING_STATUSES: &str =
    "SELECT postroom_bring_statuses($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
pub(super) const BRING_DETAILS: &str = "SELECT postroom_bring_details($1, $2, $3, $4, $5, $6)";

impl Accompanying {
    pub fn of(batch: &Batch) -> Self {
        let (mut payloads, mut known) = (Vec::new(), HashMap::new());
        let mut payload_of = Vec::with_capacity(batch.jobs.len());
        let (mut statuses, mut events) = (BTreeMap::new(), Vec::new());
        let mut keys = HashSet::new();
        for job in 0..batch.jobs.len() {
            let Some(extras) = extras(batch, job) else {
                payload_of.push(None);
                continue;
            };
            payload_of.push(extras.payload.as_ref().map(|payload| {
                *known.entry(payload.digest).or_insert_with(|| {
                    payloads.push(job);
                    payloads.len() - 1
                })
            }));
            for (at, status) in extras.statuses.iter().enumerate() {
                let key = (status.message.as_str(), status.recipient(), status.state);
                statuses.entry(key).or_insert((job, at));
            }
            events
                .extend((0..extras.events.len()).filter(|at| keys.insert(&extras.events[*at].key)).map(|at| (job, at)));
        }
        Self { payloads, payload_of, statuses: statuses.into_values().collect(), events }
    }

    fn payload<'a>(&self, batch: &'a Batch, at: usize) -> (&'a PackedPayload, &'a Extras) {
        let extras = extras(batch, self.payloads[at]).expect("it has a payload");
        (extras.payload.as_ref().expect("it has a payload"), extras)
    }

    /// Finds elements that are stored already.
    pub async fn look(&self, client: &Client, batch: &Batch) -> Result<Present, Failure> {
        if self.payloads.is_empty() && self.statuses.is_empty() && self.events.is_empty() {
            return Ok(Present::default());
        }
        let statuses: Vec<_> = self.statuses.iter().map(|place| status(batch, *place)).collect();
        let columns = Parameters::new()
            .bytes((0..self.payloads.len()).map(|at| self.payload(batch, at).0.digest.as_slice()))
            .texts(statuses.iter().map(|status| status.message.as_str()))
            .texts(statuses.iter().map(|status| recipient(status.recipient())))
            .texts(statuses.iter().map(|status| status.state.name()))
            .texts(self.events.iter().map(|place| escape_nul(&event(batch, *place).key)));
        let mut stored = Present::default();
        for row in columns.rows(client, LOOK).await? {
            let (what, place, number): (i32, i64, Option<i64>) = (row.get(0), row.get(1), row.get(2));
            let at = place as usize - 1;
            match what {
                0 => drop(stored.payloads.insert(at, number.unwrap_or_default())),
                1 => drop(stored.statuses.insert(self.statuses[at], number)),
                _ => drop(stored.events.insert(self.events[at], number)),
            }
        }
        Ok(stored)
    }

    /// The bodies to store: those of jobs that created something. If a job has only copies of stored elements in
    /// other bytes, the first stored body is enough.
    fn wanted_payloads(&self, outcomes: &[Vec<Outcome>], stored: &Present) -> Vec<usize> {
        let mut bring_news: BTreeSet<usize> = BTreeSet::new();
        let statuses = self.statuses.iter().filter(|place| !stored.statuses.contains_key(place));
        let events = self.events.iter().filter(|place| !stored.events.contains_key(place));
        bring_news.extend(statuses.chain(events).map(|(job, _)| *job));
        let is_news = |outcome: &Outcome| *outcome != Outcome::Duplicate;
        bring_news.extend((0..outcomes.len()).filter(|job| outcomes[*job].iter().any(is_news)));
        let wanted: BTreeSet<_> = bring_news.into_iter().filter_map(|job| self.payload_of[job]).collect();
        wanted.into_iter().filter(|at| !stored.payloads.contains_key(at)).collect()
    }

    /// Stores the bodies of jobs that created something.
    pub async fn write_payloads(
        &self,
        client: &Client,
        batch: &Batch,
        outcomes: &[Vec<Outcome>],
        stored: &Present,
    ) -> Result<(), Failure> {
        let wanted = self.wanted_payloads(outcomes, stored);
        if wanted.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = wanted.iter().map(|at| self.payload(batch, *at)).collect();
        let columns = Parameters::new()
            .bytes(rows.iter().map(|(payload, _)| payload.digest.as_slice()))
            .texts(rows.iter().map(|(payload, _)| escape_nul(&payload.source)))
            .texts(rows.iter().map(|(payload, _)| payload.provider))
            .texts(rows.iter().map(|(payload, _)| payload.headers.as_str()))
            .texts(rows.iter().map(|(payload, _)| payload.encoding))
            .numbers(rows.iter().map(|(payload, _)| payload.bytes as i64))
            .bytes(rows.iter().map(|(payload, _)| payload.body.as_ref()))
            .texts(rows.iter().map(|(_, extras)| extras.accepted_at.to_iso_micros()));
        columns.rows(client, BRING_PAYLOADS).await?;
        Ok(())
    }

    /// Stores the statuses. Returns the places of the new ones.
    pub async fn write_statuses(
        &self,
        client: &Client,
        batch: &Batch,
        ingest_id: i64,
    ) -> Result<HashSet<JobPlace>, Failure> {
        if self.statuses.is_empty() {
            return Ok(HashSet::new());
        }
        let rows: Vec<_> = self.statuses.iter().map(|place| status(batch, *place)).collect();
        let forms = |row: &StatusUpdate| Some(row.recipient.as_ref()?.recipient_forms().join(FORM_END));
        let columns = Parameters::new()
            .texts(rows.iter().map(|row| row.message.as_str()))
            .texts(rows.iter().map(|row| recipient(row.recipient())))
            .texts(rows.iter().map(|row| row.state.name()))
            .texts(rows.iter().map(|row| row.at.as_str()))
            .texts(rows.iter().map(|row| row.error.as_deref().map(escape_nul)))
            .texts(rows.iter().map(|row| escape_nul(&row.provider_id)))
            .texts(rows.iter().map(|row| escape_nul(&row.source)))
            .texts(self.statuses.iter().map(|(job, _)| received_at(batch, *job)))
            .texts(rows.iter().map(|row| row.extra_text().map(|extra| escape_nul(&extra).into_owned())))
            .bytes(self.statuses.iter().map(|(job, _)| digest(batch, *job)))
            .number(ingest_id)
            .texts(State::ALL.iter().map(|state| state.name()))
            .texts(rows.iter().map(|row| forms(row)));
        let created = columns.rows(client, BRING_STATUSES).await?;
        Ok(created.iter().map(|row| self.statuses[row.get::<_, i64>(0) as usize - 1]).collect())
    }
}

/// The details of the created messages.
pub(super) async fn write_details(client: &Client, batch: &Batch, outcomes: &[Vec<Outcome>]) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for (job, outcomes) in outcomes.iter().enumerate() {
        for (message, outcome) in batch.jobs[job].messages.iter().zip(outcomes) {
            let Some(details) = message.details.as_deref().filter(|_| *outcome == Outcome::Created) else { continue };
            rows.push((message.id.as_str(), details, digest(batch, job)));
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let columns = Parameters::new()
        .texts(rows.iter().map(|(id, ..)| *id))
        .texts(rows.iter().map(|(_, details, _)| escape_nul(&details.provider_id)))
        .texts(rows.iter().map(|(_, details, _)| escape_nul(&details.source)))
        .texts(rows.iter().map(|(_, details, _)| details.kind.name()))
        .texts(rows.iter().map(|(_, details, _)| Value::Object(details.to_fields()).to_string()))
        .bytes(rows.iter().map(|(.., digest)| *digest));
    columns.rows(client, BRING_DETAILS).await?;
    Ok(())
}

pub(super) fn extras(batch: &Batch, job: usize) -> Option<&Extras> {
    batch.jobs[job].extras.as_deref()
}

/// A recipient that fits into the key: a long one is cut and ends with a digest of the whole.
pub(crate) fn recipient(name: &str) -> Cow<'_, str> {
    let whole = escape_nul(name);
    if whole.len() <= RECIPIENT_BYTES_MAX {
        return whole;
    }
    let kept = &whole[..whole.floor_char_boundary(RECIPIENT_BYTES_MAX - 65)];
    Sha256::digest(whole.as_bytes()).iter().fold(format!("{kept}~"), |short, byte| format!("{short}{byte:02x}")).into()
}

pub(super) fn status(batch: &Batch, (job, at): JobPlace) -> &StatusUpdate {
    &extras(batch, job).expect("it has statuses").statuses[at]
}

pub(super) fn event(batch: &Batch, (job, at): JobPlace) -> &Event {
    &extras(batch, job).expect("it has events").events[at]
}

/// The digest of a job's body.
pub(super) fn digest(batch: &Batch, job: usize) -> Option<&[u8]> {
    Some(&extras(batch, job)?.payload.as_ref()?.digest)
}

pub(super) fn received_at(batch: &Batch, job: usize) -> String {
    extras(batch, job).map(|extras| extras.accepted_at.to_iso_micros()).unwrap_or_default()
}
