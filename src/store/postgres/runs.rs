//! The search index: rows are taken in stretches, and for each run of characters in a stretch one row says which messages have
//! it. A stretch of thousands shares its few thousand runs, so a message costs two or three small rows instead of a hundred entries.

use std::collections::BTreeMap;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::failure::Failure;
use super::{grams, sql};
use crate::store::index::postings;
use crate::store::index::source::{put_number, take_number};

/// Up to so many candidates are always looked at one by one.
const FEW: u64 = if cfg!(test) { 2 } else { 20_000 };
/// More candidates than this part of all messages: then it is as quick to look at all texts.
const PART_MAX: u64 = 8;
/// The rarest runs of a term that are looked up; each further one says less.
const RUNS_MAX: usize = 4;
/// So few candidates are not worth looking up another run for.
const FEW_ENOUGH: usize = 64;

/// A stretch on its way into the index.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stretch {
    /// The rows that have a text, and what it folds to.
    pub arrivals: Vec<i64>,
    pub folded: Vec<Vec<u8>>,
    /// Numbers of runs, ascending; in how many rows each is; and the packed places of these.
    pub runs: Vec<i32>,
    pub messages: Vec<i32>,
    pub places: Vec<Vec<u8>>,
}

impl Stretch {
    /// Of rows with texts, in the order of arrival.
    pub fn of(rows: &[(i64, String)]) -> Self {
        let mut stretch = Self::default();
        let mut found: Vec<(i32, u32)> = Vec::new();
        for (place, (arrival, text)) in rows.iter().enumerate() {
            let (folded, numbers) = grams::of_text(text);
            stretch.arrivals.push(*arrival);
            stretch.folded.push(folded.into_bytes());
            found.extend(numbers.into_iter().map(|number| (number, place as u32)));
        }
        found.sort_unstable();
        let mut places = Vec::new();
        for run in found.chunk_by(|one, next| one.0 == next.0) {
            places.clear();
            places.extend(run.iter().map(|(_, place)| *place));
            let mut packed = Vec::new();
            postings::pack(&places, &mut packed);
            stretch.runs.push(run[0].0);
            stretch.messages.push(run.len() as i32);
            stretch.places.push(packed);
        }
        stretch
    }

    /// Writes it. `last` is the last arrival that it covers.
    pub async fn write(&self, client: &Client, last: i64) -> Result<(), Failure> {
        let folded: [(&(dyn ToSql + Sync), Type); 2] =
            [(&self.arrivals, Type::INT8_ARRAY), (&self.folded, Type::BYTEA_ARRAY)];
        client.execute_typed(sql::INDEX_FOLDED, &folded).await?;
        let (messages, arrivals) = (self.arrivals.len() as i32, pack_arrivals(&self.arrivals));
        let stretch: [(&(dyn ToSql + Sync), Type); 3] =
            [(&last, Type::INT8), (&messages, Type::INT4), (&arrivals, Type::BYTEA)];
        client.execute_typed(sql::INDEX_STRETCH, &stretch).await?;
        let runs: [(&(dyn ToSql + Sync), Type); 4] = [
            (&last, Type::INT8),
            (&self.runs, Type::INT4_ARRAY),
            (&self.messages, Type::INT4_ARRAY),
            (&self.places, Type::BYTEA_ARRAY),
        ];
        client.execute_typed(sql::INDEX_RUNS, &runs).await?;
        Ok(())
    }
}

/// The indexed rows whose texts may hold a folded term, in no order; none where it is as quick to look at all. `all` is about
/// how many messages there are.
pub(super) async fn candidates(client: &Client, folded: &str, all: u64) -> Result<Option<Vec<i64>>, Failure> {
    let numbers = grams::of_term(folded);
    if numbers.is_empty() {
        return Ok(None);
    }
    let counts = client.query_typed(sql::RUN_COUNTS, &[(&numbers, Type::INT4_ARRAY)]).await?;
    if counts.len() < numbers.len() {
        return Ok(Some(Vec::new()));
    }
    // The rarest first.
    let least = u64::try_from(counts[0].get::<_, i64>(1)).unwrap_or(0);
    if least > FEW.max(all / PART_MAX) {
        return Ok(None);
    }
    let mut hits: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for (at, count) in counts.iter().take(RUNS_MAX).enumerate() {
        let run: i32 = count.get(0);
        let known: Option<Vec<i64>> = (at > 0).then(|| hits.keys().copied().collect());
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&run, Type::INT4), (&known, Type::INT8_ARRAY)];
        let mut both = BTreeMap::new();
        for row in client.query_typed(sql::RUN_PLACES, &parameters).await? {
            let last: i64 = row.get(0);
            let mut places = Vec::new();
            let count = usize::try_from(row.get::<_, i32>(1)).unwrap_or(0);
            postings::unpack(row.get(2), count, &mut places).map_err(|_| damaged())?;
            if let Some(before) = hits.get(&last) {
                places.retain(|place| before.binary_search(place).is_ok());
            }
            if !places.is_empty() {
                both.insert(last, places);
            }
        }
        hits = both;
        if hits.values().map(Vec::len).sum::<usize>() <= FEW_ENOUGH {
            break;
        }
    }
    let stretches: Vec<i64> = hits.keys().copied().collect();
    let mut candidates = Vec::new();
    for row in client.query_typed(sql::STRETCHES, &[(&stretches, Type::INT8_ARRAY)]).await? {
        let arrivals = arrivals_of(&row)?;
        for place in hits.get(&row.get(0)).into_iter().flatten() {
            candidates.push(*arrivals.get(*place as usize).ok_or_else(damaged)?);
        }
    }
    Ok(Some(candidates))
}

/// Ascending numbers, each as its distance from the one before: within a batch that is one byte.
fn pack_arrivals(arrivals: &[i64]) -> Vec<u8> {
    let (mut packed, mut before) = (Vec::with_capacity(arrivals.len() + 8), 0);
    for arrival in arrivals {
        put_number((arrival - before).cast_unsigned(), &mut packed);
        before = *arrival;
    }
    packed
}

/// The arrivals of a row of `STRETCHES`.
pub(super) fn arrivals_of(row: &Row) -> Result<Vec<i64>, Failure> {
    let mut packed: &[u8] = row.get(2);
    let mut before = 0_i64;
    let step = |_| {
        before = before.wrapping_add(take_number(&mut packed).map_err(|_| damaged())?.cast_signed());
        Ok(before)
    };
    (0..row.get::<_, i32>(1)).map(step).collect()
}

fn damaged() -> Failure {
    Failure::Broken("the search index is damaged; `postroom reindex` builds it anew".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_says_which_of_its_rows_have_a_run() {
        let rows = [(10, "abc".to_owned()), (20, "x".to_owned()), (30, "ABCD".to_owned())];
        let stretch = Stretch::of(&rows);
        assert_eq!(stretch.arrivals, [10, 20, 30]);
        assert_eq!(stretch.folded, [&b"abc"[..], b"x", b"abcd"]);
        let at = stretch.runs.binary_search(&grams::of_term("abc")[0]).unwrap();
        let mut places = Vec::new();
        postings::unpack(&stretch.places[at], stretch.messages[at] as usize, &mut places).unwrap();
        assert_eq!(places, [0, 2]);
        assert_eq!(stretch.runs.len(), 5, "ab, bc, cd, abc, bcd");
        assert_eq!(pack_arrivals(&[1 << 40, (1 << 40) + 1, (1 << 40) + 2]).len(), 8, "a byte for all but the first");
    }
}
