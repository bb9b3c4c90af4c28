//! Where indexed texts are stored: page and line in their table. A search reads thousands of candidates
//! there, in page order; a read by key needs several index pages per candidate and costs three times as much.
//!
//! Tuple ids are hints. Rows are only ever added, but rewriting the table
//! (`VACUUM FULL`, a restore) moves them, and replicas of an earlier build
//! record no tuple ids. So each row found there contains its text number,
//! and a search looks up the candidates that it did not find by number.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Row};

use super::failure::Failure;
use super::parameters::Parameters;
use index::source::{put_number, take_number};

/// A page of a table, and a line on it: the server's `ctid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TupleId {
    page: u32,
    line: u16,
}

/// Texts with consecutive numbers on consecutive lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lines {
    number: i64,
    first: TupleId,
    count: u16,
}

/// A chunk with tuple ids gets more appended.
const NOTE_PLACES: &str = "\
    INSERT INTO postroom_places (chunk, places) SELECT * FROM unnest($1::bigint[], $2::bytea[]) ORDER BY 1
    ON CONFLICT (chunk) DO UPDATE SET places = postroom_places.places || excluded.places";

/// Records tuple ids: rows of number and tuple id. Numbers of a chunk differ in the last `chunk_bits`.
pub(super) async fn note(client: &Client, chunk_bits: u32, written: &[Row]) -> Result<(), Failure> {
    let mut texts: Vec<(i64, TupleId)> = written.iter().map(|row| (row.get("number"), row.get("ctid"))).collect();
    texts.sort_unstable_by_key(|(number, _)| *number);
    let chunks: Vec<_> = texts.chunk_by(|(one, _), (next, _)| one >> chunk_bits == next >> chunk_bits).collect();
    let numbers = chunks.iter().map(|texts| texts[0].0 >> chunk_bits);
    let tuple_ids = chunks.iter().map(|texts| pack(texts));
    Parameters::new().numbers(numbers).bytes(tuple_ids).execute(client, NOTE_PLACES).await?;
    Ok(())
}

const PLACES: &str = "SELECT places FROM postroom_places WHERE chunk BETWEEN $1 AND $2 ORDER BY chunk";

/// Possible tuple ids of texts with these ascending numbers; unknown ones are omitted.
pub(crate) async fn of(client: &Client, chunk_bits: u32, numbers: &[i64]) -> Result<Vec<TupleId>, Failure> {
    let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return Ok(Vec::new()) };
    let chunks = Parameters::new().number(first >> chunk_bits).number(last >> chunk_bits);
    let mut known = Vec::new();
    for row in chunks.rows(client, PLACES).await? {
        unpack(row.get("places"), &mut known);
    }
    Ok(numbers.iter().filter_map(|number| find(&known, *number)).collect())
}

/// Packs tuple ids as self-contained blocks, which can be concatenated. A block has texts
/// with consecutive numbers: the first number and the number of texts. Then, for each group
/// of consecutive lines: the difference in pages, the first line, and the number of lines.
fn pack(texts: &[(i64, TupleId)]) -> Vec<u8> {
    let mut packed = Vec::new();
    let is_below =
        |(_, one): &(i64, TupleId), (_, next): &(i64, TupleId)| one.page == next.page && one.line + 1 == next.line;
    for block in texts.chunk_by(|(one, _), (next, _)| one + 1 == *next) {
        put_number(block[0].0.cast_unsigned(), &mut packed);
        put_number(block.len() as u64, &mut packed);
        let mut before = 0;
        for lines in block.chunk_by(is_below) {
            let TupleId { page, line } = lines[0].1;
            let further = page.wrapping_sub(before).cast_signed();
            // The sign is the lowest bit, so that a step back is a small number too.
            put_number((further << 1 ^ further >> 31).cast_unsigned().into(), &mut packed);
            put_number(line.into(), &mut packed);
            put_number(lines.len() as u64, &mut packed);
            before = page;
        }
    }
    packed
}

/// Appends the readable part. Tuple ids are hints, so damage is ignored.
fn unpack(mut packed: &[u8], known: &mut Vec<Lines>) {
    while unpack_block(&mut packed, known).is_some() {}
}

fn unpack_block(packed: &mut &[u8], known: &mut Vec<Lines>) -> Option<()> {
    let mut take = || take_number(packed).ok();
    let (mut number, mut left, mut page) = (take()?.cast_signed(), take()?, 0_u32);
    while left > 0 {
        let further = u32::try_from(take()?).ok()?;
        page = page.wrapping_add(further >> 1 ^ (further & 1).wrapping_neg());
        let (line, count) = (u16::try_from(take()?).ok()?, u16::try_from(take()?).ok()?);
        known.push(Lines { number, first: TupleId { page, line }, count });
        left = left.checked_sub(count.into())?;
        number = number.checked_add(count.into())?;
    }
    Some(())
}

/// The tuple id of a text. The lines are ascending, unless another build has indexed again in between.
fn find(known: &[Lines], number: i64) -> Option<TupleId> {
    let behind = known.partition_point(|lines| lines.number <= number);
    let Lines { number: first, first: TupleId { page, line }, count } = *known.get(behind.checked_sub(1)?)?;
    let down = u16::try_from(number.checked_sub(first)?).ok().filter(|down| *down < count)?;
    Some(TupleId { page, line: line.checked_add(down)? })
}

impl<'a> FromSql<'a> for TupleId {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let [a, b, c, d, e, f] = <[u8; 6]>::try_from(raw)?;
        Ok(Self { page: u32::from_be_bytes([a, b, c, d]), line: u16::from_be_bytes([e, f]) })
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TID
    }
}

impl ToSql for TupleId {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_u32(self.page);
        out.put_u16(self.line);
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TID
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(page: u32, line: u16) -> TupleId {
        TupleId { page, line }
    }

    #[test]
    fn texts_are_found_where_they_were_written() {
        let texts = [
            (7, place(900, 5)),
            (8, place(900, 6)),
            (9, place(901, 1)),
            (10, place(901, 3)),
            (12, place(u32::MAX, 4)),
            (13, place(0, 9)),
        ];
        let mut packed = pack(&texts[..4]);
        packed.extend(pack(&texts[4..]));
        let mut known = Vec::new();
        unpack(&packed, &mut known);
        assert_eq!((known.len(), known[0].count), (5, 2));
        for (number, place) in texts {
            assert_eq!(find(&known, number), Some(place), "{number}");
        }
        assert_eq!([0, 6, 11, 14, i64::MAX].map(|number| find(&known, number)), [None; 5]);
    }

    #[test]
    fn what_is_damaged_is_left_out() {
        let packed = pack(&[(1, place(1, 1)), (3, place(2, u16::MAX))]);
        let mut known = Vec::new();
        unpack(&packed[..packed.len() - 1], &mut known);
        assert_eq!(known, [Lines { number: 1, first: place(1, 1), count: 1 }]);
        unpack(&packed, &mut known);
        assert_eq!(find(&known, 4), None, "there is no line below the last");
        let last = i64::MAX.cast_unsigned();
        for damaged in
            [[3, 1, 1 << 40, 1, 1], [3, 1, 1, 1 << 20, 1], [3, 1, 1, 1, 2], [3, 9, 1, 1, 0], [last, 9, 1, 1, 9]]
        {
            let mut packed = Vec::new();
            damaged.iter().for_each(|part| put_number(*part, &mut packed));
            unpack(&packed, &mut Vec::new());
        }
    }
}
