//! Reading through the index: covered rows come from the index, the others from the table.

use std::io;
use std::time::{Duration, Instant};

use rusqlite::types::Value as SqlValue;
use rusqlite::{CachedStatement, Connection, Row, params_from_iter};

use super::columns::{Columns, value};
use super::coverage::{Extent, Failure, dead_by_notes};
use super::damage::Damage;
use super::queries::{self, condition, message, position};
use super::reader::Snapshot;
use super::verifier::{Verifier, report};
use domain::stats::TOP_SENDERS_MAX;
use domain::{Filter, Order, Page, PageRequest, Position, SenderCount, Start, Stats, Stored};
use index::answer::{Budget, From as Begin, Hit, Part, View};
use index::key;
use index::merge::LiveSegment;
use index::run::{Ranks, Run, Runs, TailRow};
use index::search::Question;
use index::senders::{Changes, count};
use index::state::State;

/// With more uncovered rows than this only the table is read: during the build of the index that
/// is faster.
const TAIL_MAX: i64 = 262_144;
/// Compares the row number itself: if inner pages are damaged, SQLite may start at another row.
const NO_SEEK: &str = "+rowid > ?";
/// Maximum row numbers of the index that are searched for missing messages.
const LOOKED_UP_MAX: u64 = 262_144;
/// Maximum time of counting if a lower bound is enough.
const PATIENCE_FOR_BOUND: Duration = Duration::from_millis(10);

/// A page, through the index if it is available and valid, else from the table alone.
pub(super) fn page(snapshot: &Snapshot<'_>, request: &PageRequest, patience: Duration) -> rusqlite::Result<Page> {
    // The index does not contain sources and kinds.
    if request.filter.asks_details() {
        let verifier = verifier(snapshot)?;
        return queries::page(snapshot.connection, request, patience, |row| match &verifier {
            Some(verifier) => verifier.check_row(row, Columns::LISTED),
            None => Ok(()),
        });
    }
    match by_index(snapshot, |covered| covered.page(request))? {
        Some(page) => Ok(page),
        None => queries::page(snapshot.connection, request, patience, |_| Ok(())),
    }
}

/// Checks rows that were found without the index; none if no index matches.
pub(super) fn verifier<'a>(snapshot: &'a Snapshot<'_>) -> rusqlite::Result<Option<Verifier<'a>>> {
    let Some(state) = snapshot.state.as_deref() else { return Ok(None) };
    let extent = Extent::read(snapshot.connection)?;
    let suits = extent.is_some_and(|extent| extent.suits(state, snapshot.database));
    Ok(suits.then(|| Verifier::new(snapshot, state)))
}

/// The statistics, by the same rules.
pub(super) fn stats(snapshot: &Snapshot<'_>) -> rusqlite::Result<Stats> {
    match by_index(snapshot, |covered| covered.stats())? {
        Some(Some(stats)) => Ok(stats),
        _ => queries::stats(snapshot.connection),
    }
}

fn by_index<T>(
    snapshot: &Snapshot<'_>,
    read: impl FnOnce(&Covered<'_>) -> Result<T, Failure>,
) -> rusqlite::Result<Option<T>> {
    let Some(state) = &snapshot.state else { return Ok(None) };
    let Some(extent) = Extent::read(snapshot.connection)? else { return Ok(None) };
    if !extent.suits(state, snapshot.database) || extent.behind(state.row) > TAIL_MAX {
        return Ok(None);
    }
    let covered = Covered { snapshot, state, connection: snapshot.connection };
    match read(&covered) {
        Ok(answer) => Ok(Some(answer)),
        Err(Failure::Sqlite(error)) => Err(error),
        Err(Failure::Damage(damage)) => Err(damage.into()),
        Err(Failure::Index(error)) if error.kind() == io::ErrorKind::TimedOut => Err(interrupted()),
        Err(Failure::Index(error)) => {
            snapshot.index_is_wrong(&error);
            Ok(None)
        }
    }
}

/// The error that SQLite returns at a deadline.
fn interrupted() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_INTERRUPT), None)
}

/// A snapshot of the table, and a state that covers most of it.
struct Covered<'a> {
    snapshot: &'a Snapshot<'a>,
    connection: &'a Connection,
    state: &'a State,
}

impl Covered<'_> {
    /// The segments with tombstones, and the changes of the senders' counts.
    fn members(&self) -> Result<(Vec<LiveSegment>, Changes), Failure> {
        let (dead, changes) = dead_by_notes(self.connection, self.state)?;
        Ok((self.state.without(&dead), changes))
    }

    /// Selects from the rows that the index does not cover: tail rows and exception rows.
    fn uncovered(&self, columns: &str, condition: &str, values: Vec<SqlValue>) -> Result<Uncovered<'_>, Failure> {
        let sql = format!(
            "SELECT {columns} FROM messages WHERE rowid > ? AND {NO_SEEK} AND {condition}
             UNION ALL
             SELECT {columns} FROM messages WHERE rowid IN (
                 SELECT row FROM postroom_changes WHERE change > ? AND row <= ?
             ) AND {condition}"
        );
        let mut all = vec![self.state.row.into(), self.state.row.into()];
        all.extend(values.iter().cloned());
        all.extend([self.state.note.into(), self.state.row.into()]);
        all.extend(values);
        Ok((self.connection.prepare_cached(&sql)?, all))
    }

    fn loose(&self, filter: &Filter) -> Result<Vec<TailRow>, Failure> {
        let (condition, values) = condition(filter);
        let (mut statement, values) = self.uncovered("rowid, ts, message_id", &condition, values)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut loose = Vec::new();
        while let Some(row) = rows.next()? {
            loose.push(TailRow { row: row.get(0)?, place: key::place(value(row.get_ref(1)?), value(row.get_ref(2)?)) });
        }
        loose.sort_unstable();
        Ok(loose)
    }

    fn page(&self, request: &PageRequest) -> Result<Page, Failure> {
        let (members, _) = self.members()?;
        let loose = self.loose(&request.filter)?;
        let view = View { members: &members, loose: &loose };
        let behind;
        let begin = match (&request.start, request.order) {
            (Start::Behind(Position::Arrival(row)), _) => Begin::Row(*row),
            (Start::Behind(Position::Time { ts, id }), _) => {
                behind = key::place(stored(ts), stored(id));
                Begin::Place(&behind)
            }
            (Start::Offset(offset), Order::Time) => Begin::Offset(*offset),
            (Start::Offset(offset), Order::Arrival) => Begin::Arrivals(*offset),
        };
        let Filter { from, to, search, since, until, .. } = &request.filter;
        if request.order == Order::Arrival && from.is_none() && to.is_none() && search.is_none() {
            // The table is stored in this order; only the total needs the index.
            let part = self.part(&view, request, Begin::Offset(0), 0)?;
            let mut page = Page { total: part.total, ..Page::default() };
            let offset = if let Start::Offset(offset) = request.start { offset } else { 0 };
            if offset < page.total {
                let (verifier, mut rows) = (Verifier::new(self.snapshot, self.state), Vec::new());
                queries::list(self.connection, request, offset, &mut page, |row| {
                    rows.push(row.get(5)?);
                    verifier.check_row(row, Columns::LISTED)
                })?;
                if since.is_none() && until.is_none() && !page.is_too_large {
                    self.check_gaps(&members, request, &rows)?;
                }
            }
            return Ok(page);
        }
        // One more row shows whether there is a next page.
        let wanted = request.limit as usize + 1;
        let part = self.part(&view, request, begin, wanted)?;
        self.shown(request, part)
    }

    /// An error if the index has a message between two neighbours of a listing in the
    /// order of arrival. Row numbers are dense except for deleted rows, so look-ups
    /// are rare. The check is skipped if it would take longer than the listing.
    fn check_gaps(&self, members: &[LiveSegment], request: &PageRequest, rows: &[i64]) -> Result<(), Failure> {
        let before = match &request.start {
            Start::Behind(Position::Arrival(row)) => Some(*row),
            Start::Offset(0) => Some(i64::MIN),
            _ => None,
        };
        // A page that is not full reaches the end of the table.
        let behind = (rows.len() < request.limit as usize).then_some(i64::MAX);
        let edges: Vec<i64> = before.into_iter().chain(rows.iter().copied()).chain(behind).collect();
        if let Some(pair) = edges.windows(2).find(|pair| pair[0] >= pair[1] && pair[1] != i64::MAX) {
            return Err(self.missing(pair[1]));
        }
        let is_gap = |pair: &&[i64]| pair[1].saturating_sub(pair[0]) > 1;
        let gaps: Vec<&[i64]> = edges.windows(2).filter(is_gap).collect();
        let may_have = |member: &&LiveSegment| {
            let rows = member.segment.row_range();
            gaps.iter().any(|gap| *rows.start() < gap[1] && *rows.end() > gap[0])
        };
        let members: Vec<&LiveSegment> = members.iter().filter(may_have).collect();
        if members.iter().map(|member| u64::from(member.segment.count())).sum::<u64>() > LOOKED_UP_MAX {
            return Ok(());
        }
        for member in members {
            let mut numbers = member.segment.rows();
            for rank in 0..member.segment.count() {
                let row = numbers.row(rank)?;
                let gap = gaps.partition_point(|gap| gap[1] <= row);
                if gaps.get(gap).is_some_and(|gap| gap[0] < row) && member.dead.binary_search(&rank).is_err() {
                    return Err(self.missing(row));
                }
            }
        }
        Ok(())
    }

    /// The error for a row that differs from its indexed values, or is missing.
    fn missing(&self, row: i64) -> Failure {
        report(self.connection, self.state, self.snapshot.index, row);
        Damage::of_row(row).into()
    }

    fn part(&self, view: &View<'_>, request: &PageRequest, begin: Begin<'_>, wanted: usize) -> Result<Part, Failure> {
        let started = Instant::now();
        let is_enough = || request.bounded_total && started.elapsed() >= PATIENCE_FOR_BOUND;
        let go_on = || if self.snapshot.is_over() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) };
        let looks = Budget { needle: request.filter.search.as_ref(), is_enough: &is_enough, go_on: &go_on };
        Ok(view.part(&Question::new(&request.filter, request.bounded_total), begin, wanted, &looks)?)
    }

    /// The messages of a slice, as in the table.
    fn shown(&self, request: &PageRequest, part: Part) -> Result<Page, Failure> {
        let mut page = Page { total: part.total, total_is_bound: part.total_is_bound, ..Page::default() };
        for found in &part.messages {
            if page.is_full(request.limit) {
                return Ok(page);
            }
            self.fetch(found, |row| {
                page.push(message(row)?, position(row, request.order)?, &request.room);
                Ok(())
            })?;
        }
        if request.order == Order::Time {
            // No row is left over: this is the last page.
            page.next = None;
        }
        Ok(page)
    }

    /// Reads the row of a hit, which must have its indexed values; a tail row was found in the same snapshot.
    fn fetch<T>(&self, hit: &Hit, read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>) -> Result<T, Failure> {
        let sql =
            "SELECT message_id, from_msisdn, to_msisdn, ts, text, rowid, created_at FROM messages WHERE rowid = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([hit.message.row])?;
        let columns = Columns::LISTED;
        if let Some(row) = rows.next()?
            && columns.place(row)? == hit.message.place
            && hit.hash.is_none_or(|hash| columns.hash(row) == Ok(hash))
        {
            return Ok(read(row)?);
        }
        drop(rows);
        Err(self.missing(hit.message.row))
    }

    /// None if the most frequent senders cannot be determined without a count.
    fn stats(&self) -> Result<Option<Stats>, Failure> {
        let (members, mut changes) = self.members()?;
        let (mut statement, values) = self.uncovered("from_msisdn, rowid, ts, message_id", "true", Vec::new())?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut loose = Vec::new();
        while let Some(row) = rows.next()? {
            count(&mut changes, &key::single(value(row.get_ref(0)?)), 1);
            loose.push(TailRow { row: row.get(1)?, place: key::place(value(row.get_ref(2)?), value(row.get_ref(3)?)) });
        }
        loose.sort_unstable();
        let Some((senders_count, top)) = self.state.senders.after(&changes, TOP_SENDERS_MAX)? else { return Ok(None) };
        let runs = members
            .iter()
            .map(|member| Run::new(&member.segment, Ranks::Range(0, member.segment.count(), &member.dead)));
        let mut runs = Runs::new(runs.chain([Run::TailRow(&loose)]).collect());
        let total_messages = runs.total();
        let first_ts = self.ts_of_next(&mut runs)?;
        runs.skip(total_messages.saturating_sub(1))?;
        let last_ts = self.ts_of_next(&mut runs)?;
        let top_senders = top.into_iter().map(|(count, sender)| SenderCount {
            from: key::text_of(&sender).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default(),
            count: count.0,
        });
        Ok(Some(Stats { total_messages, senders_count, top_senders: top_senders.collect(), first_ts, last_ts }))
    }

    fn ts_of_next(&self, runs: &mut Runs<'_>) -> Result<Option<String>, Failure> {
        let Some(next) = runs.next_message()? else { return Ok(None) };
        self.fetch(&Hit { message: next.message, hash: next.hash }, |row| queries::text(row, 3))
    }
}

/// A statement and its values.
type Uncovered<'a> = (CachedStatement<'a>, Vec<SqlValue>);

fn stored(stored: &Stored) -> key::Value<'_> {
    if stored.is_blob { key::Value::Blob(&stored.bytes) } else { key::Value::Text(&stored.bytes) }
}
