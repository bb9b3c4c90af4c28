//! Orphans of deleted messages: their details, raw bodies without any other reference, and copies with other
//! content. `reindex` removes them.

use tokio_postgres::Client;

use super::failure::Failure;
use super::parameters::Parameters;
use crate::Orphans;

const DETAILS: &str = "FROM postroom_details t WHERE NOT EXISTS (
    SELECT 1 FROM messages m WHERE m.message_id = t.message_id)";
/// The key distinguishes it from a provider's events of this kind; U+FFFF is escaped (`escape_nul`).
const COPIES: &str =
    "FROM postroom_events t WHERE t.kind = 'conflict' AND t.event_key ~ '#conflict:[0-9a-f]+$' AND NOT EXISTS (
    SELECT 1 FROM messages m
    WHERE m.message_id = replace(substring(t.event_key from '^(.*)#conflict:[0-9a-f]+$'), E'\\uFFFF1', E'\\uFFFF'))";

/// Bodies without any reference once the rows above are deleted.
fn payloads() -> String {
    format!(
        "FROM postroom_payloads p WHERE NOT EXISTS (SELECT 1 FROM (
             SELECT payload_id FROM postroom_details JOIN messages USING (message_id)
             UNION ALL SELECT payload_id FROM postroom_statuses
             UNION ALL SELECT payload_id FROM postroom_events WHERE event_id NOT IN (SELECT event_id {COPIES})
         ) known WHERE known.payload_id = p.payload_id)"
    )
}

/// Counts the orphans.
pub(super) async fn count(client: &Client) -> Result<Orphans, Failure> {
    let count = async |rest: &str| -> Result<u64, Failure> {
        let rows: i64 = Parameters::new().value(client, &format!("SELECT count(*) {rest}")).await?;
        Ok(rows.unsigned_abs())
    };
    Ok(Orphans { details: count(DETAILS).await?, copies: count(COPIES).await?, payloads: count(&payloads()).await? })
}

/// Removes them, in one transaction. Returns their numbers.
pub(super) async fn remove(client: &Client) -> Result<Orphans, Failure> {
    if count(client).await?.is_empty() {
        return Ok(Orphans::default());
    }
    // A transaction that refers to a body has looked it up before,
    // and holds a lock that conflicts with this one until its commit.
    client.batch_execute("BEGIN; LOCK TABLE postroom_payloads IN ACCESS EXCLUSIVE MODE").await?;
    let found = count(client).await?;
    // Bodies first: the other rows determine which bodies are orphans.
    for rest in [payloads().as_str(), DETAILS, COPIES] {
        client.batch_execute(&format!("DELETE {rest}")).await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(found)
}
