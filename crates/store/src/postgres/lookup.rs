//! Looks a term up in the search index: which texts may contain it.

use tokio_postgres::Client;

use super::failure::Failure;
use super::grams;
use super::parameters::Parameters;
use super::segments::unpack;
use super::snapshot::Snapshot;
use index::search::intersect;

/// If the candidates are more than this fraction of all messages, checking all texts is as fast.
const PART_MAX: u64 = 8;
/// N-grams of a term that are counted, to find the rarest among them.
const COUNTED_MAX: usize = 12;
/// The rarest n-grams of a term that are looked up; each further one is less selective.
const RUNS_MAX: usize = 4;
/// With so few candidates, another lookup is not worth its cost.
const FEW_ENOUGH: usize = 64;

/// The index's result for a term.
pub(super) struct LookedUp {
    /// The number of texts with the term, if the index alone determines it.
    pub count: Option<u64>,
    /// The candidates, ascending; none if checking all texts is as fast.
    pub candidates: Option<Vec<i64>>,
}

/// The number of indexed texts for each of some n-grams, the rarest first.
const RUN_COUNTS: &str = "\
    SELECT run,
           (sum(texts) - coalesce((SELECT l.texts FROM postroom_run_losses l WHERE l.run = r.run), 0))::bigint AS texts
    FROM postroom_runs r WHERE level = ANY('{0,1,2,3}') AND run = ANY($1) GROUP BY run ORDER BY 2";

/// Looks a folded term up. `all` is the approximate number of messages;
/// with `is_stale`, some texts of the index are of deleted rows.
pub(super) async fn look_up(
    snapshot: &Snapshot<'_>,
    folded: &str,
    all: u64,
    is_stale: bool,
) -> Result<LookedUp, Failure> {
    let mut runs = grams::of_term(folded);
    let is_one_run = runs.len() == 1 && folded.chars().count() <= grams::LENGTH_MAX;
    // For a long term, n-grams from all parts of it are counted.
    let step = runs.len().div_ceil(COUNTED_MAX).max(1);
    runs = runs.into_iter().step_by(step).collect();
    let counts = Parameters::new().numbers(&runs).rows(snapshot.client, RUN_COUNTS).await?;
    if counts.len() < runs.len() {
        return Ok(LookedUp { count: Some(0), candidates: Some(Vec::new()) });
    }
    // The rarest first.
    let least = counts.first().map_or(0, |row| u64::try_from(row.get::<_, i64>("texts")).unwrap_or(0));
    let count = (is_one_run && !is_stale).then_some(least);
    if least > snapshot.limits.candidates_few.max(all / PART_MAX) {
        return Ok(LookedUp { count, candidates: None });
    }
    let mut candidates: Option<Vec<i64>> = None;
    for row in counts.iter().take(RUNS_MAX) {
        let numbers = numbers_of(snapshot.client, row.get("run")).await?;
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
    Ok(LookedUp { count, candidates })
}

/// The texts that have a gram, in their order.
const RUN_NUMBERS: &str = "SELECT numbers FROM postroom_runs WHERE level = ANY('{0,1,2,3}') AND run = $1 ORDER BY last";

/// The numbers of the texts that have a gram, ascending.
pub(super) async fn numbers_of(client: &Client, run: i64) -> Result<Vec<i64>, Failure> {
    let mut numbers = Vec::new();
    for row in Parameters::new().number(run).rows(client, RUN_NUMBERS).await? {
        unpack(row.get("numbers"), &mut numbers)?;
    }
    Ok(numbers)
}
