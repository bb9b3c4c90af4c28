//! The rounds that add texts to the search index, or remove them. `segments.rs` defines the content of
//! the index.

use tokio_postgres::{Client, Row};

use super::arrival::{self, within_bytes};
use super::batch::exact;
use super::failure::Failure;
use super::limits::Limits;
use super::parameters::Parameters;
use super::round::{Round, in_transaction, lease};
use super::segments::{self, Segment, Text};

/// Locks the search index, unless another replica has it.
fn index_from() -> String {
    format!(
        "SELECT packed, (SELECT {} FROM postroom_state) AS horizon, texts,
                EXISTS (SELECT 1 FROM postroom_gone_texts) AS is_any_gone
         FROM postroom_search FOR UPDATE SKIP LOCKED",
        arrival::settled()
    )
}
/// The number of rows that wait to be indexed, up to a limit, and the bytes of their texts.
const INDEX_WAITING: &str = "\
    SELECT count(*) AS rows, coalesce(sum(octet_length(text)), 0) AS bytes FROM
        (SELECT text FROM messages WHERE arrival > $1 AND arrival < $2 LIMIT $3) waiting";
const INDEX_ROWS: &str = "\
    SELECT arrival, from_msisdn, ts, text, text_exact FROM messages
    WHERE arrival > $1 AND arrival < $2 ORDER BY arrival LIMIT $3";
/// Drops tombstones of texts that were deleted before they were indexed.
const GONE_UNINDEXED: &str = "DELETE FROM postroom_gone_texts WHERE arrival > $1";
const INDEXED: &str = "UPDATE postroom_search SET packed = $1, texts = texts + $2";

/// Adds a segment of rows to the search index, if at least `least` rows,
/// or long texts, wait: at most `most` rows. Returns the number of rows.
pub(super) async fn index(client: &Client, limits: &Limits, least: i64, most: i64) -> Result<(i64, Round), Failure> {
    let bytes_max = limits.indexed_bytes_max;
    in_transaction(client, async || {
        let Some(locked) = lease(client, &index_from()).await? else { return Ok((0, Round::Done)) };
        let [from, horizon, known]: [i64; 3] = ["packed", "horizon", "texts"].map(|column| locked.get(column));
        if locked.get("is_any_gone") {
            Parameters::new().number(from).execute(client, GONE_UNINDEXED).await?;
            if segments::take_out(client, limits, from).await? {
                return Ok((0, Round::More));
            }
        }
        let segment = |rows_max| Parameters::new().number(from).number(horizon).number(rows_max);
        let waiting = segment(least).row(client, INDEX_WAITING).await?;
        if waiting.get::<_, i64>("rows") < least && waiting.get::<_, i64>("bytes") <= bytes_max {
            return Ok((0, Round::Done));
        }
        let rows = segment(most).rows(client, &within_bytes(INDEX_ROWS, bytes_max)).await?;
        let Some(to) = rows.last().map(|row| row.get::<_, i64>("arrival")) else { return Ok((0, Round::Done)) };
        let bytes: usize = rows.iter().map(|row| row.get::<_, Option<&str>>("text").map_or(0, str::len)).sum();
        let texts: Vec<Text> = rows.iter().filter_map(text).collect();
        // On a blocking thread, so that batches are not delayed.
        let segment = tokio::task::spawn_blocking(move || Segment::of(texts, known)).await;
        let segment = segment.map_err(|_| Failure::Broken("a text could not be indexed".to_owned()))?;
        segment.write(client, limits).await?;
        Parameters::new().number(to).number(segment.len()).execute(client, INDEXED).await?;
        let rows = rows.len() as i64;
        Ok((rows, if rows == most || bytes as i64 > bytes_max { Round::More } else { Round::Done }))
    })
    .await
}

fn text(row: &Row) -> Option<Text> {
    let text = exact(row.get("text"), row.get("text_exact"))?;
    Some(Text { arrival: row.get("arrival"), from: row.get("from_msisdn"), ts: row.get("ts"), text })
}

/// Merges a part of the search index, if enough of its segments have a similar size.
pub(super) async fn merge(client: &Client, limits: &Limits) -> Result<Round, Failure> {
    in_transaction(client, async || {
        let is_ours = lease(client, &index_from()).await?.is_some();
        Ok(if is_ours && segments::merge(client, limits).await? { Round::More } else { Round::Done })
    })
    .await
}

/// Empties the search index. It is deleted, not truncated: a reader of an older snapshot still sees the rows.
pub(super) const FORGET_INDEX: &str = "UPDATE postroom_search SET packed = 0, texts = 0, removed = 0; \
     DELETE FROM postroom_folded; DELETE FROM postroom_gone_texts; DELETE FROM postroom_run_losses; \
     DELETE FROM postroom_places; DELETE FROM postroom_stretches; DELETE FROM postroom_runs";
/// Removes the search index of schema 2, which replicas of an earlier build use.
pub(super) const FORGET_FORMER_INDEX: &str = "DROP TABLE IF EXISTS postroom_texts";
