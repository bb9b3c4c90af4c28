//! Copies every message of one database into another, in the order of arrival, while both
//! stay in service. The reached position is written together with the rows. So an
//! interrupted copy continues where it stopped, and a repeated copy takes only the new rows.

mod chunk;
mod end;
mod error;
mod postgres;
mod sqlite;
mod table;
mod tables;
mod tally;

use std::collections::BTreeMap;

use super::sqlite::locate;
use super::{Database, StoreConfig};
pub use chunk::{Phase, Row};
use end::End;
pub use error::CopyError;
pub use table::Table;
pub use tables::Copied;
pub use tally::{Day, Tally};

/// Maximum ids that are reported for rows which the target cannot store.
const TOLD_MAX: usize = 10;

/// The result of a copy.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Rows read this time.
    pub read: u64,
    /// Rows that were missing in the target.
    pub created: u64,
    /// How many rows could not be copied, and some of them.
    pub odd: (u64, Vec<String>),
    /// The result of the comparison.
    pub tally: Tally,
    /// The result for all provider data.
    pub beside: BTreeMap<Table, Copied>,
}

impl Summary {
    /// Whether everything that was compared is the same on both sides.
    pub fn agrees(&self) -> bool {
        self.tally.agrees() && self.beside.values().all(|copied| copied.compared.agrees())
    }
}

/// Whether both are the same file under two names.
fn same_file(one: &Database, other: &Database) -> bool {
    let (Database::Sqlite { path: one }, Database::Sqlite { path: other }) = (one, other) else { return false };
    locate(one).is_ok_and(|one| locate(other).is_ok_and(|other| one == other))
}

/// Copies `from` into `to`, then compares all copied rows, of this copy and of earlier ones. With `anew`,
/// the position of earlier copies is ignored. `tell` receives the number of processed rows and the total.
pub async fn copy(
    from: &StoreConfig,
    to: &StoreConfig,
    anew: bool,
    mut tell: impl FnMut(Phase, u64, u64),
) -> Result<Summary, CopyError> {
    if from.database == to.database || same_file(&from.database, &to.database) {
        return Err(CopyError::SameDatabase);
    }
    let mut source = End::source(&from.database).await?;
    let mut target = End::target(to).await?;
    let name = from.database.to_string();
    let start = if anew { i64::MIN } else { target.position(&name).await?.unwrap_or(i64::MIN) };
    let (mut position, mut summary) = (start, Summary::default());
    let total = source.count_behind(position).await?;
    loop {
        let chunk = source.read(position, i64::MAX).await?;
        let Some(end) = chunk.end else { break };
        summary.read += (chunk.rows.len() + chunk.odd.len()) as u64;
        summary.created += target.write(&name, &chunk.rows, end).await?;
        summary.odd.0 += chunk.odd.len() as u64;
        summary.odd.1.extend(chunk.odd.into_iter().take(TOLD_MAX - summary.odd.1.len().min(TOLD_MAX)));
        position = end;
        tell(Phase::Copying, summary.read, total.max(summary.read));
    }
    summary.beside = tables::copy(&mut source, &mut target, &mut tell).await?;
    verify(&mut source, &mut target, position, &mut summary, &mut tell).await?;
    Ok(summary)
}

/// Compares everything in the source up to `last` with the rows of the same ids in the target.
async fn verify(
    source: &mut End,
    target: &mut End,
    last: i64,
    summary: &mut Summary,
    tell: &mut impl FnMut(Phase, u64, u64),
) -> Result<(), CopyError> {
    let (mut position, mut done) = (i64::MIN, 0);
    let total = source.count_behind(i64::MIN).await?;
    // Rows that arrived in the source after `last` are not missing.
    while position < last {
        let mut chunk = source.read(position, last).await?;
        let Some(end) = chunk.end else { break };
        done += chunk.rows.len() as u64;
        chunk.rows.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let found = target.find(&chunk.rows).await?;
        summary.tally.add(&chunk.rows, &found);
        position = end;
        tell(Phase::Verifying, done, total.max(done));
    }
    Ok(())
}
