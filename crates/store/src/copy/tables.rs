//! Copies provider data beyond the messages. Not all of these tables have
//! an order of arrival, so every copy goes through all rows. The look-up
//! of existing rows is so fast that no position has to be stored.

use std::collections::{BTreeMap, BTreeSet};

use super::chunk::Phase;
use super::end::End;
use super::error::CopyError;
use super::table::{CHUNK_BODIES, Cell, Table, TableRow};
use super::tally::Day;

/// The result of one table: copied rows, and the comparison of all in the source with the same keys in the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Rows that were missing in the target.
    pub created: u64,
    /// The result of the comparison.
    pub compared: Day,
}

/// Copies all provider data, and compares them segment by segment.
pub(super) async fn copy(
    source: &mut End,
    target: &mut End,
    tell: &mut impl FnMut(Phase, u64, u64),
) -> Result<BTreeMap<Table, Copied>, CopyError> {
    let (mut done, mut all) = (0, 0);
    for sort in Table::ALL {
        all += source.count_things(sort).await?;
    }
    let mut result = BTreeMap::new();
    for sort in Table::ALL {
        let copied: &mut Copied = result.entry(sort).or_default();
        let mut place = None;
        loop {
            let things = source.read_things(sort, place.as_deref()).await?;
            let Some(last) = things.last() else { break };
            bring_payloads(source, target, sort, &things).await?;
            copied.created += target.write_things(sort, &things).await?;
            let there = target.find_things(sort, &things).await?;
            things.iter().for_each(|thing| copied.compared.add_to_source(thing.sum()));
            there.iter().for_each(|thing| copied.compared.add_to_target(thing.sum()));
            done += things.len() as u64;
            tell(Phase::Details, done, all.max(done));
            place = Some(last.place.clone());
        }
    }
    Ok(result)
}

/// Copies bodies that arrived since the table of bodies was copied.
async fn bring_payloads(source: &mut End, target: &mut End, sort: Table, things: &[TableRow]) -> Result<(), CopyError> {
    let wanted: BTreeSet<&[u8]> = things.iter().filter_map(|thing| thing.payload(sort)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let known = target.known_payloads(&wanted).await?;
    let missing = wanted.into_iter().filter(|digest| !known.contains(*digest));
    let missing: Vec<_> =
        missing.map(|digest| TableRow { cells: vec![Cell::Bytes(digest.to_vec())], place: Vec::new() }).collect();
    for missing in missing.chunks(CHUNK_BODIES as usize) {
        let bodies = source.find_things(Table::Payloads, missing).await?;
        target.write_things(Table::Payloads, &bodies).await?;
    }
    Ok(())
}
