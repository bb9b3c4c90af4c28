//! The search index: texts are numbered and indexed in segments. For each gram of a segment,
//! one row lists the texts that have it. A segment of thousands of texts shares its few
//! thousand grams, so a message costs two or three small rows instead of a hundred entries.
//! Segments are merged into larger ones, so a gram never has more than some dozen rows.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use super::failure::Failure;
use super::limits::Limits;
use super::parameters::Parameters;
use super::{grams, tuple_ids};
use index::postings;
use index::source::{put_number, take_bytes, take_number};

/// Segments of this level are not merged any more: they contain millions of texts.
const LEVEL_MAX: i16 = 3;
/// Bytes of packed numbers that are merged in one transaction.
const MERGED_BYTES_MAX: i64 = 8 << 20;

/// A row that has a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    pub arrival: i64,
    pub from: String,
    pub ts: String,
    pub text: String,
}

/// A segment before it is written to the index.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Segment {
    /// The texts, by number.
    numbers: Vec<i64>,
    arrivals: Vec<i64>,
    senders: Vec<String>,
    times: Vec<String>,
    folded: Vec<Vec<u8>>,
    /// Numbers of n-grams, ascending; the number of texts of each; and their packed posting lists.
    runs: Vec<i64>,
    counts: Vec<i32>,
    packed: Vec<Vec<u8>>,
}

impl Segment {
    /// Builds the segment of texts in the order of arrival, which are numbered from `first` on.
    pub fn of(texts: Vec<Text>, first: i64) -> Self {
        let mut segment = Self { numbers: (first..first + texts.len() as i64).collect(), ..Self::default() };
        let mut found: Vec<(i64, u32)> = Vec::new();
        for (place, Text { arrival, from, ts, text }) in texts.into_iter().enumerate() {
            let (folded, runs) = grams::of_text(&text);
            segment.arrivals.push(arrival);
            segment.senders.push(from);
            segment.times.push(ts);
            segment.folded.push(folded.into_bytes());
            found.extend(runs.into_iter().map(|run| (run, place as u32)));
        }
        found.sort_unstable();
        let mut places = Vec::new();
        for run in found.chunk_by(|one, next| one.0 == next.0) {
            places.clear();
            places.extend(run.iter().map(|(_, place)| *place));
            segment.runs.push(run[0].0);
            segment.counts.push(run.len() as i32);
            segment.packed.push(pack(first, &places));
        }
        segment
    }

    /// The number of texts.
    pub fn len(&self) -> i64 {
        self.numbers.len() as i64
    }

    /// Writes the segment to the index.
    pub async fn write(&self, client: &Client, limits: &Limits) -> Result<(), Failure> {
        let Some(last) = self.numbers.last() else { return Ok(()) };
        let texts = Parameters::new()
            .numbers(&self.numbers)
            .numbers(&self.arrivals)
            .texts(&self.senders)
            .texts(&self.times)
            .bytes(&self.folded);
        tuple_ids::note(client, limits.place_chunk_bits, &texts.rows(client, INDEX_TEXTS).await?).await?;
        Parameters::new().number(*last).execute(client, INDEX_STRETCH).await?;
        let runs = Parameters::new().number(*last).numbers(&self.runs).counts(&self.counts).bytes(&self.packed);
        runs.execute(client, INDEX_RUNS).await?;
        Ok(())
    }
}

const INDEX_TEXTS: &str = "\
    INSERT INTO postroom_folded (number, arrival, from_msisdn, ts, folded)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bytea[]) RETURNING number, ctid";
const INDEX_STRETCH: &str = "INSERT INTO postroom_stretches (level, last) VALUES (0, $1)";
const INDEX_RUNS: &str = "\
    INSERT INTO postroom_runs (level, run, last, texts, numbers)
    SELECT 0, run, $1, texts, numbers FROM unnest($2::bigint[], $3::int[], $4::bytea[]) AS r (run, texts, numbers)";

/// The lowest level with enough segments, and the last segment to be merged.
const MERGE_DUE: &str = "\
    SELECT level, (array_agg(last ORDER BY last))[$1] AS last FROM postroom_stretches
    WHERE level < $2 GROUP BY level HAVING count(*) >= $1 ORDER BY level LIMIT 1";
/// Moves some rows of these segments into the next level, one row per gram, with concatenated posting lists.
/// If a gram's rows are moved in two steps, it has two rows there; they differ in the last segment of each.
const MERGE_PIECE: &str = "\
    WITH first AS (
        SELECT run, last, octet_length(numbers) AS bytes FROM postroom_runs
        WHERE level = $1 AND last <= $2 ORDER BY run, last LIMIT $3
    ), piece AS (
        SELECT run, last FROM (
            SELECT run, last, bytes, sum(bytes) OVER (ORDER BY run, last) AS upto FROM first
        ) measured WHERE upto - bytes < $4
    ), gone AS (
        DELETE FROM postroom_runs r USING piece p WHERE r.level = $1 AND r.run = p.run AND r.last = p.last
        RETURNING r.run, r.last, r.texts, r.numbers
    ), merged AS (
        INSERT INTO postroom_runs (level, run, last, texts, numbers)
        SELECT $1 + 1, run, max(last), sum(texts), string_agg(numbers, ''::bytea ORDER BY last) FROM gone GROUP BY run
    )
    SELECT count(*) AS rows FROM piece";
/// Records that all rows of these segments were moved.
const MERGED: &str = "\
    WITH gone AS (DELETE FROM postroom_stretches WHERE level = $1 AND last <= $2)
    INSERT INTO postroom_stretches (level, last) VALUES ($1 + 1, $2)";

/// Merges a part of the segments of the lowest level that has enough
/// of them. Returns whether there was one. The index must be locked.
pub(super) async fn merge(client: &Client, limits: &Limits) -> Result<bool, Failure> {
    let most = Parameters::new().number(limits.merged_together).small_number(LEVEL_MAX);
    let Some(due) = most.row_if_any(client, MERGE_DUE).await? else { return Ok(false) };
    let (level, last): (i16, i64) = (due.get("level"), due.get("last"));
    // Without statistics of the table, as after a copy, the server would read and sort a whole level for each
    // step.
    client.batch_execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off").await?;
    let segments = || Parameters::new().small_number(level).number(last);
    let piece = segments().number(limits.merged_rows_max).number(MERGED_BYTES_MAX);
    if piece.row(client, MERGE_PIECE).await?.get::<_, i64>("rows") == 0 {
        segments().execute(client, MERGED).await?;
    }
    Ok(true)
}

/// Removes some texts that were deleted and are indexed, up to a number
/// of bytes. Returns them; null for a text that was never in the index.
const TAKE_OUT: &str = "\
    WITH gone AS MATERIALIZED (
        SELECT g.ctid AS place, sum(octet_length(f.folded)) OVER (
                   ORDER BY g.arrival ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS behind
        FROM (SELECT ctid, arrival FROM postroom_gone_texts WHERE arrival <= $1 ORDER BY arrival LIMIT $2) g
        LEFT JOIN postroom_folded f ON f.arrival = g.arrival
    ), taken AS MATERIALIZED (
        DELETE FROM postroom_gone_texts
        WHERE ctid = ANY(ARRAY(SELECT place FROM gone WHERE coalesce(behind, 0) <= $3)) RETURNING arrival
    ), removed AS (
        DELETE FROM postroom_folded f USING taken t WHERE f.arrival = t.arrival RETURNING f.arrival, f.folded
    )
    SELECT r.folded FROM taken t LEFT JOIN removed r ON r.arrival = t.arrival";
const LOSE_RUNS: &str = "\
    INSERT INTO postroom_run_losses (run, texts) SELECT * FROM unnest($1::bigint[], $2::bigint[])
    ON CONFLICT (run) DO UPDATE SET texts = postroom_run_losses.texts + excluded.texts";
const TAKEN_OUT: &str = "UPDATE postroom_search SET removed = removed + $1";

/// Removes some texts of deleted rows, up to an arrival. Returns whether any existed. The index must be
/// locked. Their numbers stay in the posting lists and match no text; each gram's missing texts are counted.
pub(super) async fn take_out(client: &Client, limits: &Limits, indexed: i64) -> Result<bool, Failure> {
    let gone = Parameters::new().number(indexed).number(limits.gone_max).number(limits.indexed_bytes_max);
    let rows = gone.rows(client, TAKE_OUT).await?;
    if rows.is_empty() {
        return Ok(false);
    }
    let texts: Vec<Vec<u8>> = rows.iter().filter_map(|row| row.get("folded")).collect();
    let removed = texts.len() as i64;
    // On a blocking thread, as for indexing.
    let losses = tokio::task::spawn_blocking(move || {
        let mut losses = BTreeMap::<i64, i64>::new();
        for folded in texts {
            let runs = grams::of_folded(&String::from_utf8_lossy(&folded));
            runs.into_iter().for_each(|run| *losses.entry(run).or_default() += 1);
        }
        losses
    });
    let losses = losses.await.map_err(|_| Failure::Broken("a text could not be removed from the index".to_owned()))?;
    Parameters::new().numbers(losses.keys()).numbers(losses.values()).execute(client, LOSE_RUNS).await?;
    Parameters::new().number(removed).execute(client, TAKEN_OUT).await?;
    Ok(true)
}

/// Packs ascending numbers after `first` as a self-contained block: concatenated blocks are one list.
fn pack(first: i64, places: &[u32]) -> Vec<u8> {
    let mut packed = Vec::new();
    postings::pack(places, &mut packed);
    let mut block = Vec::with_capacity(packed.len() + 10);
    for number in [places.len() as u64, first.cast_unsigned(), packed.len() as u64] {
        put_number(number, &mut block);
    }
    block.extend_from_slice(&packed);
    block
}

/// Unpacks blocks and appends their numbers.
pub(super) fn unpack(mut blocks: &[u8], numbers: &mut Vec<i64>) -> Result<(), Failure> {
    let mut places = Vec::new();
    while !blocks.is_empty() {
        let first = take_block(&mut blocks, &mut places).map_err(|_| damaged())?;
        numbers.extend(places.iter().map(|place| first + i64::from(*place)));
    }
    Ok(())
}

fn take_block(blocks: &mut &[u8], places: &mut Vec<u32>) -> std::io::Result<i64> {
    let [count, first, length] = [take_number(blocks)?, take_number(blocks)?, take_number(blocks)?];
    let as_size = |number| usize::try_from(number).unwrap_or(usize::MAX);
    let packed = take_bytes(blocks, as_size(length))?;
    places.clear();
    postings::unpack(packed, as_size(count), places)?;
    Ok((first & (u64::MAX >> 2)).cast_signed())
}

fn damaged() -> Failure {
    Failure::Broken("the search index is damaged; `postroom reindex` rebuilds it".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_says_which_of_its_texts_have_a_run() {
        let text = |arrival, text: &str| Text { arrival, from: "+1".into(), ts: "2025".into(), text: text.into() };
        let segment = Segment::of(vec![text(10, "abc"), text(20, "x"), text(30, "ABCD")], 1 << 33);
        assert_eq!((&segment.arrivals[..], segment.len()), (&[10, 20, 30][..], 3));
        assert_eq!(segment.folded, [&b"abc"[..], b"x", b"abcd"]);
        let at = segment.runs.binary_search(&grams::of_term("abc")[0]).unwrap();
        let mut numbers = Vec::new();
        unpack(&segment.packed[at], &mut numbers).unwrap();
        assert_eq!((&numbers[..], segment.counts[at]), (&[1 << 33, (1 << 33) + 2][..], 2));
        assert_eq!(segment.runs.len(), 10, "a, b, c, d, x, ab, bc, cd, abc, bcd");
    }

    #[test]
    fn blocks_one_behind_the_other_are_one_list() {
        let (mut blocks, many) = (pack(5, &[0, 7]), (0..300).collect::<Vec<_>>());
        blocks.extend(pack(1_000, &many));
        let mut numbers = Vec::new();
        unpack(&blocks, &mut numbers).unwrap();
        assert_eq!((&numbers[..3], numbers.len(), numbers[301]), (&[5, 12, 1_000][..], 302, 1_299));
        blocks.pop();
        assert!(unpack(&blocks, &mut Vec::new()).is_err());
    }
}
