//! The search index: texts are numbered and taken in stretches, and for each run of characters in a stretch one row says which
//! texts have it. A stretch of thousands shares its few thousand runs, so a message costs two or three small rows instead of a
//! hundred entries. Stretches are merged into larger ones, so a run never has more than some dozen rows.

use std::collections::BTreeMap;

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::failure::Failure;
use super::{grams, places, sql};
use crate::store::index::postings;
use crate::store::index::search::intersect;
use crate::store::index::source::{put_number, take_bytes, take_number};

/// Up to so many candidates are always looked at one by one.
const FEW: u64 = if cfg!(test) { 2 } else { 20_000 };
/// More candidates than this part of all messages: then it is as quick to look at all texts.
const PART_MAX: u64 = 8;
/// Runs of a term that are counted, to find the rarest among them.
const COUNTED_MAX: usize = 12;
/// The rarest runs of a term that are looked up; each further one says less.
const RUNS_MAX: usize = 4;
/// So few candidates are not worth looking up another run for.
const FEW_ENOUGH: usize = 64;
/// So many stretches of a level are merged into one of the next.
const MERGED_TOGETHER: i64 = if cfg!(test) { 2 } else { 16 };
/// Stretches of this level are not merged any more: they hold millions of texts.
const LEVEL_MAX: i16 = 3;
/// Rows, and bytes of packed numbers, that are merged in one transaction.
const MERGED_ROWS_MAX: i64 = if cfg!(test) { 7 } else { 20_000 };
const MERGED_BYTES_MAX: i64 = 8 << 20;

/// A row that has a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    pub arrival: i64,
    pub from: String,
    pub ts: String,
    pub text: String,
}

/// A stretch on its way into the index.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stretch {
    /// The texts, by number.
    numbers: Vec<i64>,
    arrivals: Vec<i64>,
    senders: Vec<String>,
    times: Vec<String>,
    folded: Vec<Vec<u8>>,
    /// Numbers of runs, ascending; how many texts have each; and which, packed.
    runs: Vec<i64>,
    counts: Vec<i32>,
    packed: Vec<Vec<u8>>,
}

impl Stretch {
    /// Of texts in the order of arrival, which are numbered from `first` on.
    pub fn of(texts: Vec<Text>, first: i64) -> Self {
        let mut stretch = Self { numbers: (first..first + texts.len() as i64).collect(), ..Self::default() };
        let mut found: Vec<(i64, u32)> = Vec::new();
        for (place, Text { arrival, from, ts, text }) in texts.into_iter().enumerate() {
            let (folded, runs) = grams::of_text(&text);
            stretch.arrivals.push(arrival);
            stretch.senders.push(from);
            stretch.times.push(ts);
            stretch.folded.push(folded.into_bytes());
            found.extend(runs.into_iter().map(|run| (run, place as u32)));
        }
        found.sort_unstable();
        let mut places = Vec::new();
        for run in found.chunk_by(|one, next| one.0 == next.0) {
            places.clear();
            places.extend(run.iter().map(|(_, place)| *place));
            stretch.runs.push(run[0].0);
            stretch.counts.push(run.len() as i32);
            stretch.packed.push(pack(first, &places));
        }
        stretch
    }

    /// The number of texts.
    pub fn len(&self) -> i64 {
        self.numbers.len() as i64
    }

    /// Writes it.
    pub async fn write(&self, client: &Client) -> Result<(), Failure> {
        let Some(last) = self.numbers.last() else { return Ok(()) };
        let texts: [(&(dyn ToSql + Sync), Type); 5] = [
            (&self.numbers, Type::INT8_ARRAY),
            (&self.arrivals, Type::INT8_ARRAY),
            (&self.senders, Type::TEXT_ARRAY),
            (&self.times, Type::TEXT_ARRAY),
            (&self.folded, Type::BYTEA_ARRAY),
        ];
        places::note(client, &client.query_typed(sql::INDEX_TEXTS, &texts).await?).await?;
        client.execute_typed(sql::INDEX_STRETCH, &[(last, Type::INT8)]).await?;
        let runs: [(&(dyn ToSql + Sync), Type); 4] = [
            (last, Type::INT8),
            (&self.runs, Type::INT8_ARRAY),
            (&self.counts, Type::INT4_ARRAY),
            (&self.packed, Type::BYTEA_ARRAY),
        ];
        client.execute_typed(sql::INDEX_RUNS, &runs).await?;
        Ok(())
    }
}

/// Merges a piece of the stretches of the lowest level that has enough of them. Answers whether there was one. The index must be
/// locked.
pub(super) async fn merge(client: &Client) -> Result<bool, Failure> {
    let most: [(&(dyn ToSql + Sync), Type); 2] = [(&MERGED_TOGETHER, Type::INT8), (&LEVEL_MAX, Type::INT2)];
    let Some(due) = client.query_typed_opt(sql::MERGE_DUE, &most).await? else { return Ok(false) };
    let (level, last): (i16, i64) = (due.get(0), due.get(1));
    // While the server knows nothing of the table, as after a copy, it would read and sort a whole level for each piece.
    client.batch_execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off").await?;
    let piece: [(&(dyn ToSql + Sync), Type); 4] =
        [(&level, Type::INT2), (&last, Type::INT8), (&MERGED_ROWS_MAX, Type::INT8), (&MERGED_BYTES_MAX, Type::INT8)];
    let merged: i64 = client.query_typed_one(sql::MERGE_PIECE, &piece).await?.get(0);
    if merged == 0 {
        client.execute_typed(sql::MERGED, &[(&level, Type::INT2), (&last, Type::INT8)]).await?;
    }
    Ok(true)
}

/// Takes out some texts of rows that are gone, up to an arrival. Answers whether there were any. The index must be locked. Their numbers
/// stay in the lists, and are found to stand for nothing; how many of a run are missing is noted.
pub(super) async fn take_out(client: &Client, indexed: i64, most: i64, bytes: i64) -> Result<bool, Failure> {
    let gone = [(&indexed as _, Type::INT8), (&most as _, Type::INT8), (&bytes as _, Type::INT8)];
    let rows = client.query_typed(sql::TAKE_OUT, &gone).await?;
    if rows.is_empty() {
        return Ok(false);
    }
    let texts: Vec<Vec<u8>> = rows.iter().filter_map(|row| row.get(0)).collect();
    let removed = texts.len() as i64;
    // On a thread for such work, as when they came in.
    let losses = tokio::task::spawn_blocking(move || {
        let mut losses = BTreeMap::<i64, i64>::new();
        for folded in texts {
            let runs = grams::of_folded(&String::from_utf8_lossy(&folded));
            runs.into_iter().for_each(|run| *losses.entry(run).or_default() += 1);
        }
        losses
    });
    let losses = losses.await.map_err(|_| Failure::Broken("a text could not be taken out of the index".to_owned()))?;
    let (runs, counts): (Vec<i64>, Vec<i64>) = losses.into_iter().unzip();
    client.execute_typed(sql::LOSE_RUNS, &[(&runs, Type::INT8_ARRAY), (&counts, Type::INT8_ARRAY)]).await?;
    client.execute_typed(sql::TAKEN_OUT, &[(&removed, Type::INT8)]).await?;
    Ok(true)
}

/// What the index says of a term.
pub(super) struct Looked {
    /// How many texts have the term, where the index alone tells.
    pub count: Option<u64>,
    /// The texts that may have it, ascending; none where it is as quick to look at all.
    pub candidates: Option<Vec<i64>>,
}

/// Looks a folded term up. `all` is about how many messages there are; where `is_stale`, some texts of the index are of rows that are gone.
pub(super) async fn look_up(client: &Client, folded: &str, all: u64, is_stale: bool) -> Result<Looked, Failure> {
    let mut runs = grams::of_term(folded);
    let is_one_run = runs.len() == 1 && folded.chars().count() <= grams::LENGTH_MAX;
    // A long term is counted by runs from all over it.
    let step = runs.len().div_ceil(COUNTED_MAX).max(1);
    runs = runs.into_iter().step_by(step).collect();
    let counts = client.query_typed(sql::RUN_COUNTS, &[(&runs, Type::INT8_ARRAY)]).await?;
    if counts.len() < runs.len() {
        return Ok(Looked { count: Some(0), candidates: Some(Vec::new()) });
    }
    // The rarest first.
    let least = counts.first().map_or(0, |row| u64::try_from(row.get::<_, i64>(1)).unwrap_or(0));
    let count = (is_one_run && !is_stale).then_some(least);
    if least > FEW.max(all / PART_MAX) {
        return Ok(Looked { count, candidates: None });
    }
    let mut candidates: Option<Vec<i64>> = None;
    for row in counts.iter().take(RUNS_MAX) {
        let run: i64 = row.get(0);
        let mut numbers = Vec::new();
        for row in client.query_typed(sql::RUN_NUMBERS, &[(&run, Type::INT8)]).await? {
            unpack(row.get(0), &mut numbers)?;
        }
        let both = match candidates.take() {
            None => numbers,
            Some(mut before) => {
                intersect(&mut before, &numbers);
                before
            }
        };
        let is_enough = both.len() <= FEW_ENOUGH;
        candidates = Some(both);
        if is_enough {
            break;
        }
    }
    Ok(Looked { count, candidates })
}

/// Packs ascending places behind `first` as a block that stands for itself: blocks one behind the other are one list.
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
    Failure::Broken("the search index is damaged; `postroom reindex` builds it anew".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_says_which_of_its_texts_have_a_run() {
        let text = |arrival, text: &str| Text { arrival, from: "+1".into(), ts: "2025".into(), text: text.into() };
        let stretch = Stretch::of(vec![text(10, "abc"), text(20, "x"), text(30, "ABCD")], 1 << 33);
        assert_eq!((&stretch.arrivals[..], stretch.len()), (&[10, 20, 30][..], 3));
        assert_eq!(stretch.folded, [&b"abc"[..], b"x", b"abcd"]);
        let at = stretch.runs.binary_search(&grams::of_term("abc")[0]).unwrap();
        let mut numbers = Vec::new();
        unpack(&stretch.packed[at], &mut numbers).unwrap();
        assert_eq!((&numbers[..], stretch.counts[at]), (&[1 << 33, (1 << 33) + 2][..], 2));
        assert_eq!(stretch.runs.len(), 10, "a, b, c, d, x, ab, bc, cd, abc, bcd");
    }

    #[test]
    fn blocks_one_behind_the_other_are_one_list() {
        let (mut blocks, many) = (pack(5, &[0, 7]), (0..300).collect::<Vec<_>>());
        blocks.extend(pack(1_000, &many));
        let mut numbers = Vec::new();
        unpack(&blocks, &mut numbers).unwrap();
        assert_eq!((&numbers[..3], numbers.len(), numbers[301]), (&[5, 12, 1_000][..], 302, 1_299));
        intersect(&mut numbers, &[1, 5, 6, 1_299, 2_000]);
        assert_eq!(numbers, [5, 1_299]);
        blocks.pop();
        assert!(unpack(&blocks, &mut Vec::new()).is_err());
    }
}
