//! Requests with more than messages: all of a batch in one transaction of two round trips, so that details,
//! statuses, events and the raw body are stored together with the messages, or not at all.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use futures_util::future::{join, join3, join4};
use tokio_postgres::Client;

use super::accompanying::{self, Accompanying, JobPlace, Present, digest, event, extras, received_at};
use super::batch::{self, Batch, Known, escape_nul};
use super::failure::Failure;
use super::messages::{self, Attempt};
use super::parameters::Parameters;
use domain::conflict::{CONFLICT, conflict_body};
use domain::event::UNREADABLE;
use domain::{ConflictKey, Event, NewMessage, Outcome};

/// An event before storage, and its position, unless it is about a conflict.
struct NewEvent<'a> {
    key: Cow<'a, str>,
    source: &'a str,
    provider: &'a str,
    kind: &'a str,
    body: Option<Cow<'a, str>>,
    message: Option<String>,
    received_at: String,
    payload: Option<&'a [u8]>,
    place: Option<JobPlace>,
}

/// Begins a transaction that writes something. So its commit waits for everything that could be
/// read before it, and the server warns if a commit stops waiting. The called functions are planned
/// with index scans of the keys, even if a table is small at planning time, and are never compiled:
/// other scans are given very high costs, and with these the server would choose compilation.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
     SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true), \
     set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true), \
     set_config('idle_in_transaction_session_timeout', '30s', true), \
     set_config('client_min_messages', 'warning', true), \
     pg_logical_emit_message(true, 'postroom', '')::text; SET LOCAL synchronous_commit = ";

/// Writes a batch whose jobs have more than messages, and records all outcomes
/// in the batch. Returns the number of created elements. May be run again.
pub(super) async fn write(
    client: &Client,
    batch: &mut Batch,
    ingest_id: i64,
    attempt: Attempt,
) -> Result<usize, Failure> {
    batch.reset();
    let written = Transaction { client, ingest_id, attempt }.run(batch).await;
    if written.is_err() {
        // The result adds nothing: after a failure here the connection is not used again.
        let _ = client.batch_execute("ROLLBACK").await;
    }
    written
}

/// One attempt to store a batch.
struct Transaction<'a> {
    client: &'a Client,
    /// Written to the rows, so that a later attempt recognizes them as ours.
    ingest_id: i64,
    attempt: Attempt,
}

/// The places of statuses and of events that a transaction created.
struct Created {
    statuses: HashSet<JobPlace>,
    events: HashSet<JobPlace>,
}

impl Transaction<'_> {
    async fn run(&self, batch: &mut Batch) -> Result<usize, Failure> {
        find_former(self.client, batch).await?;
        let accompanying = Accompanying::of(batch);
        let (messages, stored) = self.begin(batch, &accompanying).await?;
        messages.iter().for_each(|at| batch.set_outcome(*at, Known::Created));
        if !batch.open().is_empty() {
            let found = messages::read_back(self.client, batch, self.ingest_id).await?;
            found.into_iter().for_each(|(at, known)| batch.set_outcome(at, known));
        }
        // A row was deleted between two of our reads.
        let outcomes: Result<Vec<_>, _> = (0..batch.jobs.len()).map(|job| batch.outcomes(job)).collect();
        let outcomes = outcomes.map_err(|error| Failure::Retry(error.to_string()))?;
        let created = self.finish(batch, &accompanying, &outcomes, &stored).await?;
        for job in 0..batch.jobs.len() {
            let counts = extras(batch, job).map_or((0, 0), |extras| (extras.statuses.len(), extras.events.len()));
            let of = |created: &HashSet<JobPlace>, count| (0..count).map(|at| outcome(created, (job, at))).collect();
            let beside = (of(&created.statuses, counts.0), of(&created.events, counts.1));
            batch.know_beside(job, beside);
        }
        Ok(messages.len() + created.statuses.len() + created.events.len())
    }

    /// Begins, stores the messages, and finds the other elements that are
    /// stored already: the statements are pipelined in one round trip.
    async fn begin(&self, batch: &Batch, accompanying: &Accompanying) -> Result<(Vec<usize>, Present), Failure> {
        let Self { client, ingest_id, attempt } = *self;
        let begin = format!("{BEGIN}'{}'", attempt.commit);
        let (begun, messages, stored) = join3(
            client.batch_execute(&begin),
            messages::insert(client, batch, &batch.open(), ingest_id, attempt.commit),
            accompanying.look(client, batch),
        )
        .await;
        begun?;
        Ok((messages?, stored?))
    }

    /// Stores the rest and commits: again pipelined, with the commit last. If a statement fails, the commit
    /// rolls everything back.
    async fn finish(
        &self,
        batch: &Batch,
        accompanying: &Accompanying,
        outcomes: &[Vec<Outcome>],
        stored: &Present,
    ) -> Result<Created, Failure> {
        let Self { client, ingest_id, attempt } = *self;
        let events = events_of(accompanying, batch, outcomes);
        let look_again = async {
            match attempt.is_repeated {
                true => accompanying.look(client, batch).await,
                false => Ok(Present::default()),
            }
        };
        let ((kept, details, statuses, events), (forgotten, again, committed)) = join(
            join4(
                accompanying.write_payloads(client, batch, outcomes, stored),
                accompanying::write_details(client, batch, outcomes),
                accompanying.write_statuses(client, batch, ingest_id),
                write_events(client, &events, ingest_id),
            ),
            join3(forget_unreadable(client, batch, accompanying, stored), look_again, client.batch_execute("COMMIT")),
        )
        .await;
        kept?;
        details?;
        let mut created = Created { statuses: statuses?, events: events? };
        forgotten?;
        // An earlier attempt may have committed without a response: rows with its number are ours.
        let again = again?;
        created.statuses.extend(ours(&again.statuses, ingest_id));
        created.events.extend(ours(&again.events, ingest_id));
        committed?;
        Ok(created)
    }
}

/// The places in this list that attempts with this number wrote.
fn ours(known: &HashMap<JobPlace, Option<i64>>, ingest_id: i64) -> impl Iterator<Item = JobPlace> {
    known.iter().filter(move |(_, id)| **id == Some(ingest_id)).map(|(place, _)| *place)
}

fn outcome(created: &HashSet<JobPlace>, place: JobPlace) -> Outcome {
    if created.contains(&place) { Outcome::Created } else { Outcome::Duplicate }
}

/// Finds messages that an earlier version stored under another key. They are not stored again.
async fn find_former(client: &Client, batch: &mut Batch) -> Result<(), Failure> {
    let former = batch.former();
    if former.is_empty() {
        return Ok(());
    }
    let ids = former.iter().map(|(_, id)| id.as_str());
    let rows = Parameters::new().texts(ids).rows(client, messages::STORED).await?;
    let stored: HashMap<String, batch::Stored> =
        rows.into_iter().map(|row| (row.get(0), batch::Stored::of(&row))).collect();
    for (at, id) in &former {
        if let Some(stored) = stored.get(id).filter(|stored| stored.is_copied_by(batch.message(*at))) {
            batch.set_outcome(*at, Known::Stored(stored.clone()));
        }
    }
    Ok(())
}

/// The events of each job, in order, followed by those about its conflicts.
fn events_of<'a>(accompanying: &Accompanying, batch: &'a Batch, outcomes: &[Vec<Outcome>]) -> Vec<NewEvent<'a>> {
    let mut events = Vec::new();
    let mut firsts = accompanying.events.iter().peekable();
    for (job, outcomes) in outcomes.iter().enumerate() {
        while let Some(place) = firsts.next_if(|place| place.0 == job) {
            let Event { key, source, provider, kind, body, .. } = event(batch, *place);
            events.push(NewEvent {
                key: escape_nul(key),
                source,
                provider,
                kind,
                body: body.as_deref().map(escape_nul),
                message: event(batch, *place).message_text().map(|text| escape_nul(&text).into_owned()),
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

/// A copy that differs from the stored message does not change it;
/// an event records the copy, and the raw body has its content.
fn conflict<'a>(message: &'a NewMessage, payload: Option<&'a [u8]>, received_at: String) -> Option<NewEvent<'a>> {
    let details = message.details.as_ref()?;
    Some(NewEvent {
        key: escape_nul(ConflictKey::new(&message.id, payload).as_str()).into_owned().into(),
        source: &details.source,
        provider: details.provider,
        kind: CONFLICT,
        body: Some(escape_nul(&conflict_body(message)).into_owned().into()),
        message: None,
        received_at,
        payload,
        place: None,
    })
}

/// Stores events. Returns the places of the new ones.
pub(crate) const BRING_EVENTS: &str = "SELECT postroom_bring_events($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// Stores events. Returns the places of those that were created.
async fn write_events(client: &Client, events: &[NewEvent<'_>], ingest_id: i64) -> Result<HashSet<JobPlace>, Failure> {
    if events.is_empty() {
        return Ok(HashSet::new());
    }
    let columns = Parameters::new()
        .texts(events.iter().map(|event| event.key.as_ref()))
        .texts(events.iter().map(|event| escape_nul(event.source)))
        .texts(events.iter().map(|event| event.provider))
        .texts(events.iter().map(|event| escape_nul(event.kind)))
        .texts(events.iter().map(|event| event.body.as_deref()))
        .texts(events.iter().map(|event| event.received_at.as_str()))
        .texts(events.iter().map(|event| event.message.as_deref()))
        .bytes(events.iter().map(|event| event.payload))
        .number(ingest_id);
    let created = columns.rows(client, BRING_EVENTS).await?;
    Ok(created.iter().filter_map(|row| events[row.get::<_, i64>(0) as usize - 1].place).collect())
}

/// A repeated body is parsed again: a part that was unreadable, and no longer is, loses its event.
pub(super) const FORGET_UNREADABLE: &str = "DELETE FROM postroom_events \
     WHERE kind = $1 AND payload_id = ANY($2::bigint[]) AND event_key <> ALL ($3::text[])";

async fn forget_unreadable(
    client: &Client,
    batch: &Batch,
    accompanying: &Accompanying,
    stored: &Present,
) -> Result<(), Failure> {
    if stored.payloads.is_empty() {
        return Ok(());
    }
    let events = accompanying.events.iter().map(|place| event(batch, *place));
    let keys = events.filter(|event| event.kind == UNREADABLE).map(|event| escape_nul(&event.key));
    let columns = Parameters::new().text(UNREADABLE).numbers(stored.payloads.values()).texts(keys);
    columns.execute(client, FORGET_UNREADABLE).await?;
    Ok(())
}
