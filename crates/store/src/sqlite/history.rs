//! For any history of changes by us and other programs, and any state of
//! the index: a read through the index returns the content of the table.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, params};
use tempfile::TempDir;

use super::batch::Pace;
use super::coverage::{Compared, Extent, compare};
use super::indexer::IndexMaintainer;
use super::reader::Reader;
use super::schema::{Missing, open_for_writing};
use super::tie::Found;
use super::{details_read, listing, queries};
use crate::StoreError;
use crate::{Database, StoreConfig};
use domain::{Filter, Needle, Order, PageRequest, Room, Start, Timestamp};
use index::folder::Folder;
use index::state::State;
use index::{Index, Limits};

/// Messages have ids 0 to 39, times 0 to 4, senders 0 to 13.
#[derive(Debug, Clone)]
struct Values {
    id: u8,
    ts: u8,
    from: u8,
    text: Option<String>,
}

// A few hundred bytes each, a few hundred at a time: boxing them would only complicate the cases.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone)]
enum Operation {
    Ours(Vec<Values>),
    Insert(Values),
    Replace(Values),
    InsertAt(i64, Values),
    ReplaceAt(i64, Values),
    Update(u8, Values),
    Rename(u8, u8),
    Move(u8, i64),
    Delete(u8),
    DeleteNewest,
    DeleteMany(u8),
    Step,
    Restart,
    Crash,
    Ask(Box<PageRequest>),
}

/// An index of more messages than this is compared after its first use.
const COMPARED_FIRST: u64 = 100;
/// A few messages fill a batch, a file and a segment.
const PACE: Pace = Pace {
    batch: 3,
    batch_bytes: 40,
    save_at: 8,
    save_at_bytes: 2_000,
    rest: Duration::MAX,
    compared_first: COMPARED_FIRST,
    index: Limits { segment_messages_max: 400 },
};

struct World {
    folder: TempDir,
    ours: Connection,
    theirs: Connection,
    index: Arc<Index>,
    maintainer: Option<IndexMaintainer>,
    reader: Reader,
}

fn path(folder: &TempDir) -> PathBuf {
    folder.path().join("app.db")
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder);
        let config = StoreConfig {
            database: Database::Sqlite { path: path.clone() },
            queue_max: 1,
            batch_max: 1,
            lock_timeout: Duration::from_secs(5),
            query_timeout: Duration::from_secs(5),
            readers: 1,
            checkpoint_pages: 1_000,
            log_pages_max: 1 << 20,
        };
        let ours = open_for_writing(&path, &config, Missing::Create).unwrap();
        let theirs = Connection::open(&path).unwrap();
        // The tests check the written data, not its durability.
        for connection in [&ours, &theirs] {
            connection.pragma_update(None, "synchronous", "OFF").unwrap();
        }
        let index = Arc::new(Index::default());
        let reader = Reader::new(path, Arc::clone(&index));
        Self { folder, ours, theirs, index, maintainer: None, reader }
    }

    fn maintainer(&mut self) -> &mut IndexMaintainer {
        let (path, index) = (path(&self.folder), Arc::clone(&self.index));
        self.maintainer.get_or_insert_with(|| IndexMaintainer::new(path, None, index, PACE).unwrap())
    }

    fn perform(&mut self, operation: &Operation) {
        let values = |connection: &Connection, sql: &str, row: Option<i64>, values: &Values| {
            let Values { id, ts, from, text } = values;
            let sql = format!(
                "{sql} INTO messages (rowid, message_id, from_msisdn, to_msisdn, ts, text, created_at)
                VALUES (?1, ?2, ?3, ?6, ?4, ?5, 'x')"
            );
            connection
                .prepare_cached(&sql)
                .unwrap()
                .execute(params![row, name(*id), sender(*from), time(*ts), text, recipient(*id)])
                .unwrap();
        };
        let theirs = |sql: &str, parameters: &[&dyn rusqlite::ToSql]| {
            self.theirs.prepare_cached(sql).unwrap().execute(parameters).unwrap();
        };
        match operation {
            Operation::Ours(all) => {
                let sql =
                    "SELECT max(ifnull((SELECT max(rowid) FROM messages), 0), (SELECT high_row FROM postroom_index))";
                for one in all {
                    let greatest: i64 = self.ours.query_row(sql, [], |row| row.get(0)).unwrap();
                    values(&self.ours, "INSERT OR IGNORE", Some(greatest + 1), one);
                }
            }
            Operation::Insert(one) => values(&self.theirs, "INSERT OR IGNORE", None, one),
            Operation::Replace(one) => values(&self.theirs, "INSERT OR REPLACE", None, one),
            Operation::InsertAt(row, one) => values(&self.theirs, "INSERT OR IGNORE", Some(*row), one),
            Operation::ReplaceAt(row, one) => values(&self.theirs, "INSERT OR REPLACE", Some(*row), one),
            Operation::Update(id, Values { ts, from, text, .. }) => theirs(
                "UPDATE messages SET ts = ?2, from_msisdn = ?3, text = ?4 WHERE message_id = ?1",
                &[&name(*id), &time(*ts), &sender(*from), text],
            ),
            Operation::Rename(id, to) => {
                theirs(
                    "UPDATE OR REPLACE messages SET message_id = ?2 WHERE message_id = ?1",
                    &[&name(*id), &name(*to)],
                );
            }
            Operation::Move(id, row) => {
                theirs("UPDATE OR REPLACE messages SET rowid = ?2 WHERE message_id = ?1", &[&name(*id), row]);
            }
            Operation::Delete(id) => theirs("DELETE FROM messages WHERE message_id = ?1", &[&name(*id)]),
            Operation::DeleteNewest => {
                theirs("DELETE FROM messages WHERE rowid = (SELECT max(rowid) FROM messages)", &[]);
            }
            Operation::DeleteMany(ts) => theirs("DELETE FROM messages WHERE ts < ?1", &[&time(*ts)]),
            Operation::Step => {
                self.maintainer().step(false);
            }
            Operation::Restart => {
                self.maintainer();
                self.maintainer.take().into_iter().for_each(IndexMaintainer::end);
                self.index.publish(None);
            }
            Operation::Crash => {
                self.maintainer = None;
                self.index.publish(None);
            }
            Operation::Ask(request) => self.compare(request, false),
        }
    }

    /// Queries index and table in one snapshot.
    fn compare(&mut self, request: &PageRequest, must_be_covered: bool) {
        let patience = Duration::from_secs(9);
        let compared = self.reader.read(
            || false,
            |snapshot| {
                let by_index = listing::page(snapshot, request, patience)?;
                let by_table = queries::page(snapshot.connection, request, patience, |_| Ok(()))?;
                assert_eq!(by_index, by_table, "{request:?}");
                assert_eq!(listing::stats(snapshot)?, queries::stats(snapshot.connection)?);
                let extent = Extent::read(snapshot.connection)?.unwrap();
                let suits = |state: &State| extent.suits(state, snapshot.database);
                assert!(!must_be_covered || snapshot.state.as_deref().is_some_and(suits), "the index is used");
                if let Some(state) = snapshot.state.as_deref().filter(|state| suits(state)) {
                    let compared = compare(snapshot.connection, state).unwrap();
                    assert!(matches!(compared, Compared::Same), "the digest is right");
                }
                Ok(())
            },
        );
        compared.unwrap();
        assert!(!self.index.take_distrust(), "the index was right");
    }
}

#[test]
fn a_large_index_beside_its_very_files_is_used_at_once_and_compared_all_the_same() {
    let world = World::new();
    let path = path(&world.folder);
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
        INSERT INTO messages SELECT 'm' || i, '+1', '+2', 'x', NULL, 'x' FROM n";
    world.theirs.execute_batch(rows).unwrap();
    let pace = Pace { compared_first: COMPARED_FIRST, ..Pace::PRODUCTION };
    let maintainer = || IndexMaintainer::new(path.clone(), None, Arc::clone(&world.index), pace).unwrap();
    let mut first = maintainer();
    while first.step(false) {}
    first.end();
    world.index.publish(None);
    let saved = || Folder::load(&Folder::path_of(&path)).unwrap().0;
    assert!(Found::at(&path).continues(&saved()), "after a crash both files are there");
    // All checks pass, although the index is of other rows.
    world.theirs.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    world.theirs.execute_batch("DELETE FROM messages WHERE rowid IN (22, 33)").unwrap();
    let mut second = maintainer();
    second.found = Some(Found::at(&path));
    while second.step(false) {}
    assert_eq!(world.index.current().unwrap().live(), 298);
    second.end();
    // Another file with the same content is not the file of the save.
    std::fs::copy(&path, path.with_extension("copy")).unwrap();
    std::fs::rename(path.with_extension("copy"), &path).unwrap();
    assert!(!Found::at(&path).continues(&saved()));
}

fn name(id: u8) -> String {
    format!("m{id}")
}

fn sender(from: u8) -> String {
    format!("+{from}")
}

fn recipient(id: u8) -> String {
    format!("+{}", id % 2)
}

fn time(ts: u8) -> String {
    format!("2025-01-15T10:00:0{ts}Z")
}

fn any_values() -> impl Strategy<Value = Values> {
    (0u8..40, 0u8..5, 0u8..14, prop::option::of("[abA明 ]{0,6}")).prop_map(|(id, ts, from, text)| Values {
        id,
        ts,
        from,
        text,
    })
}

fn any_request() -> impl Strategy<Value = PageRequest> {
    let times = prop::array::uniform2(prop::option::of(0u8..5));
    let filter = (prop::option::of(0u8..15), prop::option::of(0u8..3), times, prop::option::of("[abA明 ]{1,4}"));
    (filter, any::<bool>(), 1u32..6, 0u64..30).prop_map(|((from, to, [since, until], term), by_time, limit, offset)| {
        PageRequest {
            filter: Filter {
                from: from.map(sender),
                since: since.map(|since| Timestamp::parse(&time(since)).unwrap()),
                until: until.map(|until| Timestamp::parse(&time(until)).unwrap()),
                to: to.map(recipient),
                search: term.map(|term| Needle::new(&term)),
                ..Filter::default()
            },
            order: if by_time { Order::Time } else { Order::Arrival },
            limit,
            start: Start::Offset(offset),
            bounded_total: false,
            room: Room::default(),
        }
    })
}

fn any_deed() -> impl Strategy<Value = Operation> {
    let (id, row) = (0u8..40, 1i64..60);
    prop_oneof![
        6 => prop::collection::vec(any_values(), 1..9).prop_map(Operation::Ours),
        2 => any_values().prop_map(Operation::Insert),
        1 => any_values().prop_map(Operation::Replace),
        1 => (row.clone(), any_values()).prop_map(|(row, values)| Operation::InsertAt(row, values)),
        1 => (row.clone(), any_values()).prop_map(|(row, values)| Operation::ReplaceAt(row, values)),
        2 => (id.clone(), any_values()).prop_map(|(id, values)| Operation::Update(id, values)),
        1 => (id.clone(), id.clone()).prop_map(|(id, to)| Operation::Rename(id, to)),
        1 => (id.clone(), row).prop_map(|(id, row)| Operation::Move(id, row)),
        2 => id.prop_map(Operation::Delete),
        1 => Just(Operation::DeleteNewest),
        1 => (0u8..3).prop_map(Operation::DeleteMany),
        8 => Just(Operation::Step),
        1 => Just(Operation::Restart),
        1 => Just(Operation::Crash),
        8 => any_request().prop_map(|request| Operation::Ask(Box::new(request))),
    ]
}

#[test]
fn long_texts_are_added_a_few_at_a_time_and_written_when_they_are_many() {
    let mut world = World::new();
    let insert = |world: &World, text: &str| {
        let sql = "INSERT INTO messages VALUES (hex(randomblob(8)), '+1', '+2', '2025', ?, 'x')";
        world.theirs.execute(sql, [text]).unwrap();
    };
    (0..3).for_each(|_| insert(&world, &"a".repeat(30)));
    let covered = |world: &World| world.index.current().map(|state| (state.live(), state.files.len()));
    assert!(world.maintainer().step(false), "there is more, though a batch holds three");
    assert_eq!(covered(&world), Some((2, 0)));
    assert!(!world.maintainer().step(false));
    assert_eq!(covered(&world), Some((3, 0)));
    insert(&world, &"a".repeat(3_000));
    world.maintainer().step(false);
    assert_eq!(covered(&world), Some((4, 1)), "in a file, though eight have room in memory");
}

/// Requests that together use all parts of the index.
fn requests() -> Vec<PageRequest> {
    let room = Room::default;
    let ask =
        |filter, order, start| PageRequest { filter, order, limit: 100, start, bounded_total: false, room: room() };
    let all = Filter::default;
    let term = Filter { search: Some(Needle::new("number 1")), ..all() };
    vec![
        ask(all(), Order::Time, Start::Offset(0)),
        ask(all(), Order::Arrival, Start::Offset(0)),
        ask(Filter { from: Some(sender(1)), to: Some(recipient(1)), ..all() }, Order::Time, Start::Offset(0)),
        ask(term, Order::Arrival, Start::Offset(1)),
        ask(Filter { since: Some(Timestamp::parse(&time(2)).unwrap()), ..all() }, Order::Time, Start::Offset(3)),
    ]
}

/// A world whose index is only on disk, with deleted messages.
fn world_on_disk(rows: u8) -> World {
    let mut world = World::new();
    let message = |id| Values { id, ts: id % 5, from: id % 3, text: Some(format!("Number {id}")) };
    world.perform(&Operation::Ours((0..rows).map(message).collect()));
    while world.maintainer().step(false) {}
    world.perform(&Operation::Restart);
    world.perform(&Operation::Delete(3));
    world.perform(&Operation::Update(5, message(8)));
    while world.maintainer().step(false) {}
    world.perform(&Operation::Restart);
    world
}

/// The results of all requests; an error if any is refused.
fn everything(world: &mut World) -> Vec<Result<String, StoreError>> {
    let mut found = Vec::new();
    for request in requests() {
        let page = world.reader.read(|| false, |snapshot| listing::page(snapshot, &request, Duration::from_secs(9)));
        found.push(page.map(|page| format!("{page:?}")));
    }
    found.push(world.reader.read(|| false, listing::stats).map(|stats| format!("{stats:?}")));
    let message = world.reader.read(
        || false,
        |snapshot| {
            let verifier = listing::verifier(snapshot)?;
            details_read::full_message(snapshot.connection, &name(1), verifier.as_ref())
        },
    );
    found.push(message.map(|message| format!("{message:?}")));
    found
}

#[test]
fn no_changed_byte_of_the_index_changes_an_answer() {
    let mut world = world_on_disk(14);
    let folder = Folder::path_of(&path(&world.folder));
    let all = || std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = all().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    let expected = everything(&mut world);
    let mut noticed = 0;
    for (path, bytes) in files.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        for at in 0..bytes.len() {
            all().for_each(|path| std::fs::remove_file(path).unwrap());
            files.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            std::fs::write(path, changed).unwrap();
            world.maintainer().step(false);
            let mut found = everything(&mut world);
            if world.index.current().is_none_or(|state| state.files.is_empty()) {
                noticed += 1;
            }
            assert_eq!(found, expected, "byte {at} of {path:?}");
            // An index that a read found wrong is rebuilt.
            world.maintainer().step(false);
            found = everything(&mut world);
            assert_eq!(found, expected, "byte {at} of {path:?}, a step later");
            world.perform(&Operation::Crash);
        }
        println!("{path:?}: {} bytes, {noticed} changes noticed so far", bytes.len());
    }
    assert!(noticed > 100, "{noticed} changes were noticed");
}

#[test]
fn no_changed_byte_of_a_row_is_served_and_none_is_taken_into_the_index() {
    let mut world = world_on_disk(14);
    // The following rows are on other pages, so that the greatest row stays where it is.
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8)
        INSERT INTO messages SELECT 'n' || i, '+77', '+78', '2026', printf('%.*c', 2000, 'x'), 'x' FROM n";
    world.theirs.execute_batch(sql).unwrap();
    while world.maintainer().step(false) {}
    world.perform(&Operation::Restart);
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    assert_eq!(world.ours.query_row(checkpoint, [], |row| row.get::<_, i64>(0)), Ok(0));
    let database = path(&world.folder);
    let bytes = std::fs::read(&database).unwrap();
    world.maintainer().step(false);
    let expected = everything(&mut world);
    assert!(expected.iter().all(Result::is_ok));
    // The page with the rows, and an inner page whose unused space also contains them.
    let mut pages: Vec<usize> = memchr::memmem::find_iter(&bytes, b"Number 1").map(|at| at / 4096 * 4096).collect();
    pages.dedup();
    assert!(pages.len() >= 2, "{pages:?}");
    let used = |page: usize| page + usize::from(u16::from_be_bytes([bytes[page + 5], bytes[page + 6]]));
    let places = pages.into_iter().flat_map(|page| (page..page + 60).chain(used(page)..page + 4096));
    let file = std::fs::File::options().write(true).open(&database).unwrap();
    let mut refused = 0;
    // If the greatest row is missing, the file looks like another database, or an older state.
    let leads_to_the_greatest = |at: usize| bytes[at / 4096 * 4096] == 5 && (8..12).contains(&(at % 4096));
    for at in places.filter(|at| bytes[*at] != b'x' && !leads_to_the_greatest(*at)) {
        file.write_all_at(&[bytes[at] ^ 1 << (at % 8)], at as u64).unwrap();
        world.reader.let_go();
        for (found, expected) in everything(&mut world).into_iter().zip(&expected) {
            match found {
                Ok(_) => assert_eq!(found, *expected, "byte {} of page {}", at % 4096, at / 4096),
                Err(StoreError::Damaged(_) | StoreError::Unavailable(_)) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(!world.index.take_distrust(), "the index is not to blame for byte {}", at);
        file.write_all_at(&bytes[at..=at], at as u64).unwrap();
    }
    println!("{refused} answers were refused");
    assert!(refused > 1_000, "{refused} answers were refused");
    world.reader.let_go();
    assert_eq!(everything(&mut world), expected, "it is as it was");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var("POSTROOM_TEST_LONG").is_ok_and(|value| value == "1") { 1_000 } else { 60 }))]

    #[test]
    fn what_the_index_says_is_what_the_table_has(
        operations in prop::collection::vec(any_deed(), 1..80), last in prop::collection::vec(any_request(), 6),
    ) {
        let mut world = World::new();
        operations.iter().for_each(|operation| world.perform(operation));
        let mut steps = 0;
        while world.maintainer().step(false) {
            steps += 1;
            assert!(steps < 1_000, "it comes to an end");
        }
        last.iter().for_each(|request| world.compare(request, true));
        world.perform(&Operation::Restart);
        world.perform(&Operation::Step);
        last.iter().for_each(|request| world.compare(request, true));
    }
}
