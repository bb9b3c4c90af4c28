//! What providers told beyond the messages, on its way from one database to another. It has no order of arrival
//! throughout, so every copy goes through all of it: what is there already is found so quickly that no place needs to
//! be remembered.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::{CHUNK_ROWS, CopyError, Day, End, Phase};

/// Bodies, and events, which have some too, that are read and written together.
const CHUNK_BODIES: i64 = 100;

/// What sort of thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    /// Raw bodies.
    Payloads,
    /// Details of messages.
    Details,
    /// What became of sent messages.
    Statuses,
    /// Everything else.
    Events,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Text,
    Number,
    Bytes,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    Text(String),
    Number(i64),
    Bytes(Vec<u8>),
}

/// A thing: its columns, then the digest of the body that brought it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Thing {
    pub cells: Vec<Cell>,
    /// Where it stands in its table.
    pub place: Vec<Cell>,
}

impl Sort {
    /// In the order in which they are copied: what others refer to is there before.
    pub const ALL: [Self; 4] = [Self::Payloads, Self::Details, Self::Statuses, Self::Events];

    /// What people call them.
    pub fn name(self) -> &'static str {
        match self {
            Self::Payloads => "bodies",
            Self::Details => "details",
            Self::Statuses => "statuses",
            Self::Events => "events",
        }
    }

    pub(super) fn table(self) -> &'static str {
        match self {
            Self::Payloads => "postroom_payloads",
            Self::Details => "postroom_details",
            Self::Statuses => "postroom_statuses",
            Self::Events => "postroom_events",
        }
    }

    /// The columns that are the same in every database. Numbers of bodies are not: their digests stand for them.
    pub(super) fn columns(self) -> &'static [(&'static str, Holds)] {
        use Holds::{Bytes, Number, Text};
        match self {
            Self::Payloads => &[
                ("digest", Bytes),
                ("source", Text),
                ("provider", Text),
                ("headers", Text),
                ("encoding", Text),
                ("bytes", Number),
                ("body", Bytes),
                ("received_at", Text),
            ],
            Self::Details => {
                &[("message_id", Text), ("provider_id", Text), ("source", Text), ("kind", Text), ("fields", Text)]
            }
            Self::Statuses => &[
                ("message_id", Text),
                ("recipient", Text),
                ("state", Text),
                ("at", Text),
                ("error", Text),
                ("provider_id", Text),
                ("source", Text),
                ("received_at", Text),
                ("extra", Text),
            ],
            Self::Events => &[
                ("event_key", Text),
                ("source", Text),
                ("provider", Text),
                ("kind", Text),
                ("body", Text),
                ("received_at", Text),
                ("message", Text),
            ],
        }
    }

    /// The column that a source of an earlier version lacks.
    pub(super) fn added(self) -> Option<&'static str> {
        match self {
            Self::Payloads | Self::Details => None,
            Self::Statuses => Some("extra"),
            Self::Events => Some("message"),
        }
    }

    /// How many of the first columns tell one from another.
    pub(super) fn key_columns(self) -> usize {
        if self == Self::Statuses { 3 } else { 1 }
    }

    /// Whether each was brought by a body.
    pub(super) fn has_payload(self) -> bool {
        self != Self::Payloads
    }

    /// The columns of the order in which they are read, and what these hold.
    pub(super) fn order(self) -> &'static [(&'static str, Holds)] {
        match self {
            Self::Payloads => &[("payload_id", Holds::Number)],
            Self::Events => &[("event_id", Holds::Number)],
            Self::Details | Self::Statuses => &self.columns()[..self.key_columns()],
        }
    }

    /// The columns for a SELECT from the table under the name `t`: those of a thing, the digest, and its place. An
    /// added column that the table lacks is null.
    pub(super) fn selected(self, has_added: bool) -> String {
        let columns = self.columns().iter().map(|(name, _)| match self.added() {
            Some(added) if added == *name && !has_added => "CAST(NULL AS TEXT)".to_owned(),
            _ => format!("t.{name}"),
        });
        let digest = "(SELECT p.digest FROM postroom_payloads p WHERE p.payload_id = t.payload_id)".to_owned();
        let digest = self.has_payload().then_some(digest);
        let place = self.order().iter().map(|(name, _)| format!("t.{name}"));
        columns.chain(digest).chain(place).collect::<Vec<_>>().join(", ")
    }

    /// What each selected column holds.
    pub(super) fn held(self) -> impl Iterator<Item = Holds> {
        let digest = self.has_payload().then_some(Holds::Bytes);
        self.columns().iter().map(|(_, holds)| *holds).chain(digest).chain(self.order().iter().map(|(_, holds)| *holds))
    }

    pub(super) fn limit(self) -> i64 {
        if matches!(self, Self::Payloads | Self::Events) { CHUNK_BODIES } else { CHUNK_ROWS }
    }
}

impl Thing {
    /// Of the selected columns.
    pub fn of(sort: Sort, mut cells: Vec<Cell>) -> Self {
        let place = cells.split_off(cells.len() - sort.order().len());
        Self { cells, place }
    }

    /// What tells it from others.
    pub fn key(&self, sort: Sort) -> &[Cell] {
        &self.cells[..sort.key_columns()]
    }

    /// The digest of the body that brought it.
    pub fn payload(&self, sort: Sort) -> Option<&[u8]> {
        match self.cells.last() {
            Some(Cell::Bytes(digest)) if sort.has_payload() => Some(digest),
            _ => None,
        }
    }

    /// The first eight bytes of a hash over all values, each with what it is and its length in front.
    fn sum(&self) -> u64 {
        let mut hash = Sha256::new();
        for cell in &self.cells {
            let (mark, number);
            let bytes: &[u8] = match cell {
                Cell::Null => {
                    mark = 0;
                    &[]
                }
                Cell::Text(text) => {
                    mark = 1;
                    text.as_bytes()
                }
                Cell::Number(value) => {
                    (mark, number) = (2, value.to_be_bytes());
                    &number
                }
                Cell::Bytes(bytes) => {
                    mark = 3;
                    bytes
                }
            };
            hash.update([mark]);
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        }
        let hash: [u8; 32] = hash.finalize().into();
        u64::from_be_bytes(*hash.first_chunk().expect("32 bytes are more than 8"))
    }
}

/// What was done with one sort, and what was compared: all in the source, and those of the same keys in the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// How many were not in the target before.
    pub created: u64,
    /// What was compared.
    pub compared: Day,
}

/// Copies everything beside the messages, and compares it stretch by stretch.
pub(super) async fn copy(
    source: &mut End,
    target: &mut End,
    tell: &mut impl FnMut(Phase, u64, u64),
) -> Result<BTreeMap<Sort, Copied>, CopyError> {
    let (mut done, mut all) = (0, 0);
    for sort in Sort::ALL {
        all += source.count_things(sort).await?;
    }
    let mut result = BTreeMap::new();
    for sort in Sort::ALL {
        let copied: &mut Copied = result.entry(sort).or_default();
        let mut place = None;
        loop {
            let things = source.read_things(sort, place.as_deref()).await?;
            let Some(last) = things.last() else { break };
            bring_payloads(source, target, sort, &things).await?;
            copied.created += target.write_things(sort, &things).await?;
            let there = target.find_things(sort, &things).await?;
            let sum = |things: &[Thing]| things.iter().fold(0_u64, |sum, thing| sum.wrapping_add(thing.sum()));
            copied.compared.source_messages += things.len() as u64;
            copied.compared.source_sum = copied.compared.source_sum.wrapping_add(sum(&things));
            copied.compared.target_messages += there.len() as u64;
            copied.compared.target_sum = copied.compared.target_sum.wrapping_add(sum(&there));
            done += things.len() as u64;
            tell(Phase::Details, done, all.max(done));
            place = Some(last.place.clone());
        }
    }
    Ok(result)
}

/// Bodies that came since the bodies were copied.
async fn bring_payloads(source: &mut End, target: &mut End, sort: Sort, things: &[Thing]) -> Result<(), CopyError> {
    let wanted: BTreeSet<&[u8]> = things.iter().filter_map(|thing| thing.payload(sort)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let known = target.known_payloads(&wanted).await?;
    let missing = wanted.into_iter().filter(|digest| !known.contains(*digest));
    let missing: Vec<_> =
        missing.map(|digest| Thing { cells: vec![Cell::Bytes(digest.to_vec())], place: Vec::new() }).collect();
    for missing in missing.chunks(CHUNK_BODIES as usize) {
        let bodies = source.find_things(Sort::Payloads, missing).await?;
        target.write_things(Sort::Payloads, &bodies).await?;
    }
    Ok(())
}
