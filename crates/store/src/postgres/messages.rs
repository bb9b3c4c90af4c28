//! Writes the messages of a batch, and reads back the ones that existed before.

use tokio_postgres::{Client, Row};

use super::arrival::place_of;
use super::batch::{Batch, Known, Stored, storable};
use super::failure::Failure;
use super::parameters::Parameters;

/// One attempt of an operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    /// The setting of `synchronous_commit`: what its commit waits for.
    pub commit: &'static str,
    /// Whether an earlier attempt may have succeeded.
    pub is_repeated: bool,
}

/// Writes a batch. The setting applies to this transaction only, including its commit,
/// so it affects no other user of a pooler. Returns the arrival numbers of the new rows.
pub(super) const INSERT: &str = "SELECT postroom_file($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// Writes the messages at these indexes of a batch. Returns the indexes of the new ones.
pub(super) async fn insert(
    client: &Client,
    batch: &Batch,
    places: &[usize],
    ingest_id: i64,
    commit: &'static str,
) -> Result<Vec<usize>, Failure> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<_> = places.iter().map(|at| batch.message(*at)).collect();
    let texts: Vec<_> = rows.iter().map(|row| row.text.as_deref().map(storable)).collect();
    let columns = Parameters::new()
        .texts(rows.iter().map(|row| row.id.as_str()))
        .texts(rows.iter().map(|row| row.from.as_str()))
        .texts(rows.iter().map(|row| row.to.as_str()))
        .texts(rows.iter().map(|row| row.ts.as_str()))
        .texts(texts.iter().map(|text| text.as_ref().map(|(text, _)| text.as_ref())))
        .bytes(texts.iter().map(|text| text.as_ref().and_then(|(_, bytes)| *bytes)))
        .texts(rows.iter().map(|row| row.accepted_at.to_iso_micros()))
        .number(ingest_id)
        .text(commit);
    let created = columns.rows(client, INSERT).await?;
    Ok(created.iter().map(|row| places[place_of(row.get(0))]).collect())
}

/// Reads the rows that a batch did not create.
pub(super) const STORED: &str = "\
    SELECT message_id, from_msisdn, to_msisdn, ts, text, text_exact, ingest_id
    FROM messages WHERE message_id = ANY($1)";

/// Resolves the ids that the batch did not create: ours from a commit with a lost response, or others'.
pub(super) async fn read_back(client: &Client, batch: &Batch, ingest_id: i64) -> Result<Vec<(usize, Known)>, Failure> {
    let ids = batch.open().into_iter().map(|at| batch.message(at).id.as_str());
    let rows = Parameters::new().texts(ids).rows(client, STORED).await?;
    let known = |row: Row| {
        let at = batch.find(row.get(0))?;
        if row.get::<_, Option<i64>>(6) == Some(ingest_id) {
            return Some((at, Known::Created));
        }
        Some((at, Known::Stored(Stored::of(&row))))
    };
    Ok(rows.into_iter().filter_map(known).collect())
}

/// Writes a little, so that this transaction's commit waits as long as that
/// of a message. Everything that could be read before is durable after it.
const FENCE: &str = "\
    SELECT set_config('synchronous_commit', $1, true), set_config('client_min_messages', 'warning', true),
           pg_logical_emit_message(true, 'postroom', '')::text";

/// Waits until everything that could be read before is as durable as a message.
pub(super) async fn fence(client: &Client, commit: &'static str) -> Result<(), Failure> {
    // Not `execute`: it returns at the end of the statement, which is before its commit.
    Parameters::new().text(commit).rows(client, FENCE).await?;
    Ok(())
}
