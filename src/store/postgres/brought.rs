//! Requests that bring more than messages: all of a batch in one transaction of two round trips, so that details, statuses,
//! events and the raw body are there with the messages, or not at all.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures_util::future::{join, join3, join4};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::batch::{self, Batch, Known, held};
use super::details_sql as sql;
use super::failure::Failure;
use super::sql::STORED;
use super::writer::{Attempt, insert_messages, read_back};
use crate::domain::conflict::{CONFLICT, conflict_body};
use crate::domain::event::UNREADABLE;
use crate::domain::{ConflictKey, Event, NewMessage, Outcome, State, StatusUpdate};
use crate::store::extras::{Extras, PackedPayload};

/// Longest recipient of a status that stands in its key as it is.
const RECIPIENT_BYTES_MAX: usize = 400;

/// Stands between the forms of a recipient.
const FORM_END: &str = "\u{1f}";

/// Where something stands: its job, and its place there.
type Place = (usize, usize);

/// What a batch brings beside its messages, each thing once, by where its first copy stands.
struct Beside {
    /// Jobs, in their order.
    payloads: Vec<usize>,
    /// For each job, which of these is its own.
    payload_of: Vec<Option<usize>>,
    statuses: Vec<Place>,
    events: Vec<Place>,
}

/// What of it is stored.
#[derive(Default)]
struct Stored {
    /// The number of each payload.
    payloads: HashMap<usize, i64>,
    /// Which attempt wrote each status and event.
    statuses: HashMap<Place, Option<i64>>,
    events: HashMap<Place, Option<i64>>,
}

/// An event on its way, and where it stands, unless it is about a conflict.
struct NewEvent<'a> {
    key: Cow<'a, str>,
    source: &'a str,
    provider: &'a str,
    kind: &'a str,
    body: Option<Cow<'a, str>>,
    message: Option<String>,
    received_at: String,
    payload: Option<&'a [u8]>,
    place: Option<Place>,
}

/// Writes a batch whose jobs bring more than messages, and tells the batch what became of everything. Answers how much
/// of it was created. May be run again.
pub(super) async fn write(
    client: &Client,
    batch: &mut Batch,
    ingest_id: i64,
    attempt: Attempt,
) -> Result<usize, Failure> {
    batch.forget();
    let written = transact(client, batch, ingest_id, attempt).await;
    if written.is_err() {
        // What it answers says nothing new: after a failure here the connection is not used again.
        let _ = client.batch_execute("ROLLBACK").await;
    }
    written
}

async fn transact(client: &Client, batch: &mut Batch, ingest_id: i64, attempt: Attempt) -> Result<usize, Failure> {
    find_former(client, batch).await?;
    let beside = Beside::of(batch);
    let begin = format!("{}'{}'", sql::BEGIN, attempt.commit);
    // Sent one behind the other, and answered in one round trip.
    let (begun, created, stored) = join3(
        client.batch_execute(&begin),
        insert_messages(client, batch, &batch.open(), ingest_id, attempt.commit),
        beside.look(client, batch),
    )
    .await;
    begun?;
    let (created, stored) = (created?, stored?);
    created.iter().for_each(|at| batch.know(*at, Known::Created));
    if !batch.open().is_empty() {
        let found = read_back(client, batch, ingest_id).await?;
        found.into_iter().for_each(|(at, known)| batch.know(at, known));
    }
    // Somebody deleted a row between two of our looks.
    let outcomes: Result<Vec<_>, _> = (0..batch.jobs.len()).map(|job| batch.outcomes(job)).collect();
    let outcomes = outcomes.map_err(|error| Failure::Retry(error.to_string()))?;
    let events = beside.events_of(batch, &outcomes);
    let look_again = async {
        match attempt.is_repeated {
            true => beside.look(client, batch).await,
            false => Ok(Stored::default()),
        }
    };
    // One behind the other again, the commit last: behind one that failed it undoes everything.
    let ((kept, details, statuses, filed), (forgotten, again, committed)) = join(
        join4(
            beside.write_payloads(client, batch, &outcomes, &stored),
            write_details(client, batch, &outcomes),
            beside.write_statuses(client, batch, ingest_id),
            write_events(client, &events, ingest_id),
        ),
        join3(beside.forget_unreadable(client, batch, &stored), look_again, client.batch_execute("COMMIT")),
    )
    .await;
    kept?;
    details?;
    let (mut statuses, mut filed) = (statuses?, filed?);
    forgotten?;
    // An earlier attempt may have committed without our hearing of it: what carries its number is ours.
    let again = again?;
    let ours = |known: &HashMap<Place, Option<i64>>| -> Vec<Place> {
        known.iter().filter(|(_, id)| **id == Some(ingest_id)).map(|(place, _)| *place).collect()
    };
    statuses.extend(ours(&again.statuses));
    filed.extend(ours(&again.events));
    committed?;

    let all = created.len() + statuses.len() + filed.len();
    let outcome = |created: &HashSet<Place>, place| match created.contains(&place) {
        true => Outcome::Created,
        false => Outcome::Duplicate,
    };
    for job in 0..batch.jobs.len() {
        let counts = extras(batch, job).map_or((0, 0), |extras| (extras.statuses.len(), extras.events.len()));
        let of = |created: &HashSet<Place>, count| (0..count).map(|at| outcome(created, (job, at))).collect();
        let beside = (of(&statuses, counts.0), of(&filed, counts.1));
        batch.know_beside(job, beside);
    }
    Ok(all)
}

/// Finds messages that an earlier version stored under another key. They are not stored again.
async fn find_former(client: &Client, batch: &mut Batch) -> Result<(), Failure> {
    let former = batch.former();
    if former.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = former.iter().map(|(_, id)| id.as_str()).collect();
    let rows = client.query_typed(STORED, &[(&ids, Type::TEXT_ARRAY)]).await?;
    let stored: HashMap<String, batch::Stored> =
        rows.into_iter().map(|row| (row.get(0), batch::Stored::of(&row))).collect();
    for (at, id) in &former {
        if let Some(stored) = stored.get(id).filter(|stored| stored.is_copied_by(batch.message(*at))) {
            batch.know(*at, Known::Stored(stored.clone()));
        }
    }
    Ok(())
}

fn extras(batch: &Batch, job: usize) -> Option<&Extras> {
    batch.jobs[job].extras.as_deref()
}

impl Beside {
    fn of(batch: &Batch) -> Self {
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

    /// Finds what is stored already.
    async fn look(&self, client: &Client, batch: &Batch) -> Result<Stored, Failure> {
        if self.payloads.is_empty() && self.statuses.is_empty() && self.events.is_empty() {
            return Ok(Stored::default());
        }
        let digests: Vec<_> = (0..self.payloads.len()).map(|at| self.payload(batch, at).0.digest.as_slice()).collect();
        let statuses: Vec<_> = self.statuses.iter().map(|place| status(batch, *place)).collect();
        let messages: Vec<_> = statuses.iter().map(|status| status.message.as_str()).collect();
        let recipients: Vec<_> = statuses.iter().map(|status| recipient(status.recipient())).collect();
        let states: Vec<_> = statuses.iter().map(|status| status.state.name()).collect();
        let keys: Vec<_> = self.events.iter().map(|place| held(&event(batch, *place).key)).collect();
        let parameters: [(&(dyn ToSql + Sync), Type); 5] = [
            (&digests, Type::BYTEA_ARRAY),
            (&messages, Type::TEXT_ARRAY),
            (&recipients, Type::TEXT_ARRAY),
            (&states, Type::TEXT_ARRAY),
            (&keys, Type::TEXT_ARRAY),
        ];
        let mut stored = Stored::default();
        for row in client.query_typed(sql::LOOK, &parameters).await? {
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

    /// Stores the bodies that brought anything new. Nothing but copies of what is stored, in other bytes: the first ones are enough.
    async fn write_payloads(
        &self,
        client: &Client,
        batch: &Batch,
        outcomes: &[Vec<Outcome>],
        stored: &Stored,
    ) -> Result<(), Failure> {
        let mut bring_news: BTreeSet<usize> = BTreeSet::new();
        let statuses = self.statuses.iter().filter(|place| !stored.statuses.contains_key(place));
        let events = self.events.iter().filter(|place| !stored.events.contains_key(place));
        bring_news.extend(statuses.chain(events).map(|(job, _)| *job));
        let is_news = |outcome: &Outcome| *outcome != Outcome::Duplicate;
        bring_news.extend((0..outcomes.len()).filter(|job| outcomes[*job].iter().any(is_news)));
        let wanted: BTreeSet<_> = bring_news.into_iter().filter_map(|job| self.payload_of[job]).collect();
        let wanted: Vec<_> = wanted.into_iter().filter(|at| !stored.payloads.contains_key(at)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = wanted.iter().map(|at| self.payload(batch, *at)).collect();
        let digests: Vec<_> = rows.iter().map(|(payload, _)| payload.digest.as_slice()).collect();
        let sources: Vec<_> = rows.iter().map(|(payload, _)| held(&payload.source)).collect();
        let providers: Vec<_> = rows.iter().map(|(payload, _)| payload.provider).collect();
        let headers: Vec<_> = rows.iter().map(|(payload, _)| payload.headers.as_str()).collect();
        let encodings: Vec<_> = rows.iter().map(|(payload, _)| payload.encoding).collect();
        let lengths: Vec<_> = rows.iter().map(|(payload, _)| payload.bytes as i64).collect();
        let bodies: Vec<_> = rows.iter().map(|(payload, _)| payload.body.as_ref()).collect();
        let received: Vec<_> = rows.iter().map(|(_, extras)| extras.accepted_at.to_iso_micros()).collect();
        let parameters: [(&(dyn ToSql + Sync), Type); 8] = [
            (&digests, Type::BYTEA_ARRAY),
            (&sources, Type::TEXT_ARRAY),
            (&providers, Type::TEXT_ARRAY),
            (&headers, Type::TEXT_ARRAY),
            (&encodings, Type::TEXT_ARRAY),
            (&lengths, Type::INT8_ARRAY),
            (&bodies, Type::BYTEA_ARRAY),
            (&received, Type::TEXT_ARRAY),
        ];
        client.query_typed(sql::BRING_PAYLOADS, &parameters).await?;
        Ok(())
    }

    async fn write_statuses(&self, client: &Client, batch: &Batch, ingest_id: i64) -> Result<HashSet<Place>, Failure> {
        if self.statuses.is_empty() {
            return Ok(HashSet::new());
        }
        let rows: Vec<_> = self.statuses.iter().map(|place| status(batch, *place)).collect();
        let messages: Vec<_> = rows.iter().map(|row| row.message.as_str()).collect();
        let recipients: Vec<_> = rows.iter().map(|row| recipient(row.recipient())).collect();
        let states: Vec<_> = rows.iter().map(|row| row.state.name()).collect();
        let times: Vec<_> = rows.iter().map(|row| row.at.as_str()).collect();
        let errors: Vec<_> = rows.iter().map(|row| row.error.as_deref().map(held)).collect();
        let provider_ids: Vec<_> = rows.iter().map(|row| held(&row.provider_id)).collect();
        let sources: Vec<_> = rows.iter().map(|row| held(&row.source)).collect();
        let extras: Vec<_> = rows.iter().map(|row| row.extra_text().map(|extra| held(&extra).into_owned())).collect();
        let forms: Vec<_> =
            rows.iter().map(|row| Some(row.recipient.as_ref()?.recipient_forms().join(FORM_END))).collect();
        let received: Vec<_> = self.statuses.iter().map(|(job, _)| received_at(batch, *job)).collect();
        let digests: Vec<_> = self.statuses.iter().map(|(job, _)| digest(batch, *job)).collect();
        let in_order: Vec<_> = State::ALL.iter().map(|state| state.name()).collect();
        let parameters: [(&(dyn ToSql + Sync), Type); 13] = [
            (&messages, Type::TEXT_ARRAY),
            (&recipients, Type::TEXT_ARRAY),
            (&states, Type::TEXT_ARRAY),
            (&times, Type::TEXT_ARRAY),
            (&errors, Type::TEXT_ARRAY),
            (&provider_ids, Type::TEXT_ARRAY),
            (&sources, Type::TEXT_ARRAY),
            (&received, Type::TEXT_ARRAY),
            (&extras, Type::TEXT_ARRAY),
            (&digests, Type::BYTEA_ARRAY),
            (&ingest_id, Type::INT8),
            (&in_order, Type::TEXT_ARRAY),
            (&forms, Type::TEXT_ARRAY),
        ];
        let created = client.query_typed(sql::BRING_STATUSES, &parameters).await?;
        Ok(created.iter().map(|row| self.statuses[row.get::<_, i64>(0) as usize - 1]).collect())
    }

    /// The events of each job, in order, then those about its conflicts.
    fn events_of<'a>(&self, batch: &'a Batch, outcomes: &[Vec<Outcome>]) -> Vec<NewEvent<'a>> {
        let mut events = Vec::new();
        let mut firsts = self.events.iter().peekable();
        for (job, outcomes) in outcomes.iter().enumerate() {
            while let Some(place) = firsts.next_if(|place| place.0 == job) {
                let Event { key, source, provider, kind, body, .. } = event(batch, *place);
                events.push(NewEvent {
                    key: held(key),
                    source,
                    provider,
                    kind,
                    body: body.as_deref().map(held),
                    message: event(batch, *place).message_text().map(|text| held(&text).into_owned()),
                    received_at: received_at(batch, job),
                    payload: digest(batch, job),
                    place: Some(*place),
                });
            }
            let conflicts = batch.jobs[job].messages.iter().zip(outcomes);
            for (message, _) in conflicts.filter(|(_, outcome)| **outcome == Outcome::Conflict) {
                events.extend(conflict(message, digest(batch, job), received_at(batch, job)));
            }
        }
        events
    }

    async fn forget_unreadable(&self, client: &Client, batch: &Batch, stored: &Stored) -> Result<(), Failure> {
        let came_before: Vec<_> = stored.payloads.values().copied().collect();
        if came_before.is_empty() {
            return Ok(());
        }
        let keys = self.events.iter().map(|place| event(batch, *place)).filter(|event| event.kind == UNREADABLE);
        let keys: Vec<_> = keys.map(|event| held(&event.key)).collect();
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&UNREADABLE, Type::TEXT), (&came_before, Type::INT8_ARRAY), (&keys, Type::TEXT_ARRAY)];
        client.execute_typed(sql::FORGET_UNREADABLE, &parameters).await?;
        Ok(())
    }
}

/// A recipient as it fits into the key: the end of one that is too long gives way to a digest of the whole.
pub(in crate::store) fn recipient(name: &str) -> Cow<'_, str> {
    let whole = held(name);
    if whole.len() <= RECIPIENT_BYTES_MAX {
        return whole;
    }
    let kept = &whole[..whole.floor_char_boundary(RECIPIENT_BYTES_MAX - 65)];
    Sha256::digest(whole.as_bytes()).iter().fold(format!("{kept}~"), |short, byte| format!("{short}{byte:02x}")).into()
}

fn status(batch: &Batch, (job, at): Place) -> &StatusUpdate {
    &extras(batch, job).expect("it has statuses").statuses[at]
}

fn event(batch: &Batch, (job, at): Place) -> &Event {
    &extras(batch, job).expect("it has events").events[at]
}

/// The digest of the body that brought a job.
fn digest(batch: &Batch, job: usize) -> Option<&[u8]> {
    Some(&extras(batch, job)?.payload.as_ref()?.digest)
}

fn received_at(batch: &Batch, job: usize) -> String {
    extras(batch, job).map(|extras| extras.accepted_at.to_iso_micros()).unwrap_or_default()
}

/// The details of the messages that were created.
async fn write_details(client: &Client, batch: &Batch, outcomes: &[Vec<Outcome>]) -> Result<(), Failure> {
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
    let ids: Vec<_> = rows.iter().map(|(id, ..)| *id).collect();
    let provider_ids: Vec<_> = rows.iter().map(|(_, details, _)| held(&details.provider_id)).collect();
    let sources: Vec<_> = rows.iter().map(|(_, details, _)| held(&details.source)).collect();
    let kinds: Vec<_> = rows.iter().map(|(_, details, _)| details.kind.name()).collect();
    let fields: Vec<_> = rows.iter().map(|(_, details, _)| Value::Object(details.to_fields()).to_string()).collect();
    let digests: Vec<_> = rows.iter().map(|(.., digest)| *digest).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 6] = [
        (&ids, Type::TEXT_ARRAY),
        (&provider_ids, Type::TEXT_ARRAY),
        (&sources, Type::TEXT_ARRAY),
        (&kinds, Type::TEXT_ARRAY),
        (&fields, Type::TEXT_ARRAY),
        (&digests, Type::BYTEA_ARRAY),
    ];
    client.query_typed(sql::BRING_DETAILS, &parameters).await?;
    Ok(())
}

/// A copy that differs from what is stored changes nothing there; that it came is an event, and what it said is in its body.
fn conflict<'a>(message: &'a NewMessage, payload: Option<&'a [u8]>, received_at: String) -> Option<NewEvent<'a>> {
    let details = message.details.as_ref()?;
    Some(NewEvent {
        key: held(ConflictKey::new(&message.id, payload).as_str()).into_owned().into(),
        source: &details.source,
        provider: details.provider,
        kind: CONFLICT,
        body: Some(held(&conflict_body(message)).into_owned().into()),
        message: None,
        received_at,
        payload,
        place: None,
    })
}

/// Answers the places of those that were created.
async fn write_events(client: &Client, events: &[NewEvent<'_>], ingest_id: i64) -> Result<HashSet<Place>, Failure> {
    if events.is_empty() {
        return Ok(HashSet::new());
    }
    let keys: Vec<_> = events.iter().map(|event| event.key.as_ref()).collect();
    let sources: Vec<_> = events.iter().map(|event| held(event.source)).collect();
    let providers: Vec<_> = events.iter().map(|event| event.provider).collect();
    let kinds: Vec<_> = events.iter().map(|event| held(event.kind)).collect();
    let bodies: Vec<_> = events.iter().map(|event| event.body.as_deref()).collect();
    let received: Vec<_> = events.iter().map(|event| event.received_at.as_str()).collect();
    let messages: Vec<_> = events.iter().map(|event| event.message.as_deref()).collect();
    let digests: Vec<_> = events.iter().map(|event| event.payload).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 9] = [
        (&keys, Type::TEXT_ARRAY),
        (&sources, Type::TEXT_ARRAY),
        (&providers, Type::TEXT_ARRAY),
        (&kinds, Type::TEXT_ARRAY),
        (&bodies, Type::TEXT_ARRAY),
        (&received, Type::TEXT_ARRAY),
        (&messages, Type::TEXT_ARRAY),
        (&digests, Type::BYTEA_ARRAY),
        (&ingest_id, Type::INT8),
    ];
    let created = client.query_typed(sql::BRING_EVENTS, &parameters).await?;
    Ok(created.iter().filter_map(|row| events[row.get::<_, i64>(0) as usize - 1].place).collect())
}
