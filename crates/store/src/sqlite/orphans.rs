//! Orphans of messages that were deleted from the table: their details, raw bodies without other references,
//! and conflicting copies. No trigger deletes them, so that deleting stays cheap; `reindex` does.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::file::locate;
use super::schema::{Missing, OpenError, open_for_writing};
use crate::Orphans;
use crate::StoreConfig;

const DETAILS: &str = "FROM postroom_details WHERE NOT EXISTS (
    SELECT 1 FROM messages WHERE messages.message_id = postroom_details.message_id)";
/// Distinguished from a provider's events of the same kind by its key, which ends with a number or a digest.
const COPIES: &str = "FROM postroom_events WHERE kind = 'conflict' AND json_valid(body)
    AND instr(event_key, json_extract(body, '$.message_id') || '#conflict:') = 1
    AND NOT EXISTS (SELECT 1 FROM messages WHERE messages.message_id = json_extract(body, '$.message_id'))";

/// Bodies without any reference once the rows above are deleted.
fn payloads() -> String {
    format!(
        "FROM postroom_payloads WHERE payload_id NOT IN (
             SELECT payload_id FROM postroom_details JOIN messages USING (message_id) WHERE payload_id IS NOT NULL
             UNION ALL SELECT payload_id FROM postroom_statuses WHERE payload_id IS NOT NULL
             UNION ALL SELECT payload_id FROM postroom_events
                 WHERE payload_id IS NOT NULL AND event_id NOT IN (SELECT event_id {COPIES}))"
    )
}

/// Counts the orphans.
pub(super) fn count(connection: &Connection) -> rusqlite::Result<Orphans> {
    let count = |rest: &str| connection.query_row(&format!("SELECT count(*) {rest}"), [], |row| row.get(0));
    Ok(Orphans { details: count(DETAILS)?, copies: count(COPIES)?, payloads: count(&payloads())? })
}

/// Removes them, in one transaction; a running service continues meanwhile. Returns their numbers.
pub fn remove_orphans(path: &Path, config: &StoreConfig) -> Result<Orphans, OpenError> {
    let path = locate(path).map_err(OpenError::Folder)?;
    let mut connection = open_for_writing(&path, config, Missing::Repair)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = count(&transaction)?;
    if !found.is_empty() {
        // Bodies first: the other rows determine which bodies are orphans.
        for rest in [payloads().as_str(), DETAILS, COPIES] {
            transaction.execute(&format!("DELETE {rest}"), [])?;
        }
        transaction.commit()?;
    }
    Ok(found)
}
