//! Files of other programs and earlier versions: a file of the
//! original service opens unchanged, is upgraded, and can go back;
//! an unsupported file is refused and left unchanged, byte for byte.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::random::{Random, long_run};
use super::harness::server::Setup;
use super::harness::test_source::all_sources;
use super::harness::{Server, TestSource, database, message};
use super::sources::{envelope, text_message};

/// A server on a file that this SQL created, like the original service: with a rollback journal.
fn made_by(sql: &str) -> Setup {
    let setup = Setup::new();
    database::open(&setup.database()).execute_batch(sql).expect(sql);
    assert_eq!(journal_versions(&setup.database()), [1, 1], "a file with a rollback journal");
    setup
}

/// Bytes 18 and 19 of a database: 1 for a rollback journal, 2 for a write-ahead log.
fn journal_versions(path: &Path) -> [u8; 2] {
    std::fs::read(path).expect("it can be read")[18..20].try_into().expect("two bytes")
}

fn original(rows: &str) -> String {
    format!("{}; {rows}", database::MESSAGES)
}

fn listed(server: &Server, target: &str) -> (Vec<Value>, i64) {
    let page = server.get(target).json();
    (page["data"].as_array().expect("a list").clone(), page["total"].as_i64().expect("a number"))
}

#[test]
fn the_file_of_the_original_service_opens_and_its_odd_rows_are_served_unchanged() {
    let setup = Setup::new();
    let fixture = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("testdata/upgrade/original.db");
    std::fs::copy(&fixture, setup.database()).expect("the fixture can be copied");
    let server = setup.start();
    let row = |id: &str, from: &str, ts: &str, text: Value| json!({"message_id": id, "from": from, "to": "+14155550100", "ts": ts, "text": text});
    let expected = [
        row("m1", "+919876543210", "2025-01-15T09:00:00Z", "Earlier".into()),
        row("m2", "+919876543210", "2025-01-15T10:00:00Z", "Hello".into()),
        row("m3", "+911234567890", "2025-01-15T11:00:00Z", Value::Null),
        row("newline", "+123\n", "2025-01-15T12:00:00Z", "a line too many".into()),
        row("no such day", "+911234567890", "2025-02-30T99:99:99Z", "".into()),
        row("digits", "+٣٤٥", "２０２５-01-15T13:00:00Z", "数字".into()),
    ];
    assert_eq!(listed(&server, "/messages"), (expected.to_vec(), 6));
    assert_eq!(listed(&server, "/messages?from=%2B123%0A"), (vec![expected[3].clone()], 1));
    assert_eq!(listed(&server, "/messages?from=%2B%D9%A3%D9%A4%D9%A5").1, 1);
    assert_eq!(listed(&server, "/messages?since=2025-01-15T11:00:00Z").1, 4);
    let stats = server.get("/stats").json();
    assert_eq!((&stats["total_messages"], &stats["senders_count"]), (&json!(6), &json!(4)));
    assert_eq!(stats["last_message_ts"], "２０２５-01-15T13:00:00Z");
    server.store(&message("m1"));
    server.store(&message("m7"));
    assert_eq!(listed(&server, "/messages?limit=1").1, 7, "m1 was there already");
    database::assert_sound(&database::open(&server.database()));
}

#[test]
fn the_file_of_version_0_1_0_opens_with_all_its_messages_and_without_its_indices() {
    let setup = Setup::new();
    let fixture = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("testdata/upgrade/v0.1.0.db");
    std::fs::copy(&fixture, setup.database()).expect("the fixture can be copied");
    let server = setup.start();
    assert_eq!(listed(&server, "/messages?limit=1").1, 8);
    assert_eq!(listed(&server, "/messages?from=%2B4915112345678").1, 1);
    assert_eq!(listed(&server, "/messages?q=filed%20by%200.1.0").1, 1);
    assert_eq!(server.get("/stats").json()["senders_count"], 5);
    server.store(&message("v1-1"));
    server.store(&message("new"));
    assert_eq!(listed(&server, "/messages?limit=1").1, 9, "v1-1 was there already");
    let connection = database::open(&server.database());
    let left = "SELECT count(*) FROM sqlite_master WHERE tbl_name = 'messages' AND type = 'index'";
    assert_eq!(connection.query_row(left, [], |row| row.get::<_, i64>(0)), Ok(1), "only the key's");
    // The check of 0.1.0 before it touches a file: it finds a file of ours with a later version.
    let known = "SELECT count(*) FROM sqlite_master WHERE name = 'postroom_totals'";
    assert_eq!(connection.query_row(known, [], |row| row.get::<_, i64>(0)), Ok(1));
    assert!(connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).expect("a number") > 1);
    database::assert_sound(&connection);
}

/// A file of the build before the columns `extra` and `message`, with a status and an event.
fn without_added_columns() -> String {
    let notes = include_str!("../../crates/store/src/sqlite/migrations/0002_notes.sql");
    let details = include_str!("../../crates/store/src/sqlite/migrations/0003_details.sql");
    original(&format!(
        "{notes}; {details};
         INSERT INTO messages VALUES ('m1', '+1', '+2', '2025-01-15T10:00:00Z', 'before', '2025-01-15T10:00:00Z');
         INSERT INTO postroom_statuses VALUES
             ('k:s', '1650', 'sent', '2025-01-15T10:00:00Z', NULL, 's', 'meta', '2025-01-15T10:00:00Z', NULL);
         INSERT INTO postroom_states VALUES ('k:s', '1650', 'sent');
         INSERT INTO postroom_state_counts VALUES ('sent', 1);
         INSERT INTO postroom_events VALUES (1, 'e', 'meta', 'whatsapp', 'odd', NULL, '2025-01-15T10:00:00Z', NULL);
         PRAGMA user_version = 3"
    ))
}

#[test]
fn a_file_of_an_earlier_build_is_given_two_columns_which_its_writers_need_not_know() {
    let setup = made_by(&without_added_columns());
    // The file can be copied without an upgrade.
    let target = format!("sqlite:///{}", setup.path().join("target.db").display());
    let source = format!("sqlite:///{}", setup.database().display());
    let copy = Setup::new().arg("copy").arg("--json").arg("--from").arg(&source).arg("--to").arg(&target);
    let (status, stdout, stderr) = copy.run();
    assert!(status.success() && stdout.contains("\"equal\":true"), "{stdout}{stderr}");
    let server = setup.start();
    let record = server.get("/messages/k:s/statuses").json()["statuses"][0].clone();
    assert_eq!(
        (&record["recipient"], &record["extra"], &record["has_raw"]),
        (&json!("1650"), &json!({}), &json!(false))
    );
    assert_eq!(server.get("/events/1").json()["kind"], "odd");
    assert_eq!(server.get("/messages/k:s/statuses?raw=1").status, 404);
    server.store(&message("m2"));
    assert_eq!(listed(&server, "/messages?limit=1").1, 2);
    let columns = "SELECT count(extra) + count(message) FROM postroom_statuses, postroom_events";
    assert_eq!(database::open(&server.database()).query_row(columns, [], |row| row.get::<_, i64>(0)), Ok(0));
    // The statements of that build.
    let connection = database::open(&server.database());
    connection
        .execute_batch(
            "INSERT INTO postroom_events (event_key, source, provider, kind, body, received_at, payload_id)
             VALUES ('e2', 'meta', 'whatsapp', 'odd', NULL, '2025-01-15T10:00:00Z', NULL)",
        )
        .expect("it goes on writing");
    assert_eq!(server.get("/events").json()["data"].as_array().map(Vec::len), Some(2));
    database::assert_sound(&connection);
}

/// The keys of the events of kind `conflict`, in order.
fn conflict_keys(path: &Path) -> Vec<String> {
    let connection = database::open(path);
    let sql = "SELECT event_key FROM postroom_events WHERE kind = 'conflict' ORDER BY event_id";
    let mut statement = connection.prepare(sql).expect("it can be asked");
    let keys = statement.query_map([], |row| row.get(0)).expect("it can be read");
    keys.collect::<Result<_, _>>().expect("texts")
}

fn epoch(path: &Path) -> String {
    database::open(path).query_row("SELECT epoch FROM postroom_index", [], |row| row.get(0)).expect("a text")
}

#[test]
fn conflicts_that_version_4_recorded_by_number_are_recognised_by_the_digest_of_their_body() {
    let setup = || all_sources(Setup::new());
    let server = setup().start();
    let source = TestSource::of(&setup(), "whatsapp");
    let post = |server: &Server, id: &str, text: &str| {
        assert_eq!(source.post(server, &envelope(&[text_message(id, text)]), "1").status, 200);
    };
    for id in ["a", "twice", "bodiless"] {
        post(&server, id, "first");
        post(&server, id, "second");
    }
    let (path, folder) = (server.database(), server.folder());
    server.stop();
    let by_digest = conflict_keys(&path);
    assert_eq!(by_digest.len(), 3);
    // Like a file of version 4 that was also copied to PostgreSQL
    // and back: there one conflict was recorded a second time.
    let of_version_4 =
        "UPDATE postroom_events SET event_key = json_extract(body, '$.message_id') || '#conflict:' || payload_id;
         DELETE FROM postroom_payloads WHERE payload_id IN
             (SELECT payload_id FROM postroom_events WHERE event_key LIKE '%bodiless#%');
         PRAGMA user_version = 4;";
    let connection = database::open(&path);
    connection.execute_batch(of_version_4).expect("it can be changed");
    let again = "INSERT INTO postroom_events (event_key, source, provider, kind, body, received_at, payload_id)
         SELECT ?1, source, provider, kind, body, received_at, payload_id FROM postroom_events WHERE event_key LIKE '%twice#%'";
    assert_eq!(connection.execute(again, [&by_digest[1]]), Ok(1));
    drop(connection);
    let (before, by_number) = (epoch(&path), conflict_keys(&path));
    // The file can be copied without an upgrade; copied conflicts have the digest in their keys, too.
    let target = folder.path().join("target.db");
    let [from, to] = [&path, &target].map(|path| format!("sqlite:///{}", path.display()));
    let (status, stdout, stderr) =
        Setup::new().arg("copy").arg("--json").arg("--from").arg(&from).arg("--to").arg(&to).run();
    assert!(status.success() && stdout.contains("\"equal\":true"), "{stdout}{stderr}");
    let copied = conflict_keys(&target);
    let expected = [&by_digest[0], &by_number[1], &by_number[2], &by_digest[1]];
    assert_eq!(copied, expected.map(String::clone));
    let server = all_sources(Setup::in_folder(folder)).start();
    let expected = [&by_digest[0], &by_number[2], &by_digest[1]];
    assert_eq!(conflict_keys(&path), expected.map(String::clone), "the body of one is gone");
    assert_eq!(epoch(&path), before, "the index stays");
    let recorded = || server.get("/events?kind=conflict").json()["data"].as_array().map(Vec::len);
    for _ in 0..2 {
        post(&server, "a", "second");
        post(&server, "twice", "second");
        assert_eq!(recorded(), Some(3), "they are recorded once");
    }
    for _ in 0..2 {
        post(&server, "bodiless", "second");
        assert_eq!(recorded(), Some(4), "its body is stored anew, and so is the event, once");
    }
}

#[test]
fn values_of_any_type_and_length_are_served_and_counted() {
    let long = "x".repeat(5_000);
    let server = made_by(&original(&format!(
        "ALTER TABLE messages ADD COLUMN note TEXT; ALTER TABLE messages ADD COLUMN kind TEXT NOT NULL DEFAULT 'sms';
         INSERT INTO messages VALUES ('long', '+1', '+2', '2025-01-01T00:00:00Z', '{long}', 'x', 'n', 'k'),
             (NULL, '+1', '+2', '2025-01-02T00:00:00Z', 'no id', 'x', NULL, 'k'),
             (NULL, '+1', '+2', '2025-01-03T00:00:00Z', 'no id either', 'x', NULL, 'k'),
             (X'62C328', '+3', '+2', '2025-01-04T00:00:00Z', X'48656C6C6F', X'78', NULL, 'k'),
             ('blob ts', X'2B34', '+2', X'323032352D', X'C328', 'x', NULL, 'k'),
             ('number', '+5', '+2', 20250105, 7, 8, NULL, 'k');"
    )))
    .start();
    let (rows, total) = listed(&server, "/messages");
    assert_eq!((rows.len(), total), (6, 6));
    let text_of = |id: &str| rows.iter().find(|row| row["message_id"] == id).map(|row| row["text"].clone());
    assert_eq!((text_of("long"), text_of("number")), (Some(long.into()), Some("7".into())));
    let texts: Vec<_> = rows.iter().filter_map(|row| row["text"].as_str()).collect();
    assert!(["no id", "no id either", "Hello"].iter().all(|text| texts.contains(text)), "{texts:?}");
    assert_eq!(listed(&server, "/messages?q=NO%20ID").1, 2);
    assert_eq!(listed(&server, "/messages?q=hello").1, 1, "a blob that is text is found");
    assert_eq!(server.get("/stats").json()["total_messages"], 6);
    server.store(&message("ours"));
    // Two rows without an id stay two rows, even if another program deletes one.
    let plain = database::open(&server.database());
    plain.execute_batch("DELETE FROM messages WHERE text = 'no id'").expect("it is deleted");
    assert_eq!(listed(&server, "/messages?limit=1").1, 6);
    plain
        .execute_batch("INSERT INTO messages (from_msisdn, to_msisdn, ts, created_at) VALUES ('+1', '+2', 'x', 'x')")
        .expect("it is written");
    plain.execute_batch("INSERT OR REPLACE INTO messages (message_id, from_msisdn, to_msisdn, ts, created_at) VALUES (NULL, '+9', '+2', 'x', 'x')").expect("it is written");
    assert_eq!(listed(&server, "/messages?limit=1").1, 8);
    let integrity: String = plain.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("it can be read");
    assert_eq!(integrity, "ok");
    let (status, ..) = server.stop();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn after_a_stop_the_original_service_can_go_on_with_the_file_and_we_after_it() {
    let server = Server::start();
    server.store(&message("ours"));
    let (path, folder) = (server.database(), server.folder());
    assert_eq!(server.stop().0.code(), Some(0));
    assert!(!database::log_exists(&path), "a backup copies one file");
    let theirs = database::open(&path);
    let insert = "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at)
        VALUES ('theirs', '+1', '+2', '2025-01-01T00:00:00Z', NULL, 'x')";
    theirs.execute_batch(insert).expect("it can be written");
    // Some programs would even restore the rollback journal.
    let mode: String = theirs.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0)).expect("it can be set");
    assert_eq!(mode, "delete");
    theirs.execute_batch(&insert.replace("'theirs'", "'more'")).expect("it can be written");
    assert_eq!(database::ids(&theirs).len(), 3);
    drop(theirs);
    let server = Setup::in_folder(folder).start();
    assert_eq!(listed(&server, "/messages").1, 3);
    database::assert_sound(&database::open(&path));
}

#[test]
fn what_deployment_says_to_run_leaves_nothing_of_ours_in_the_file() {
    let server = Server::start();
    server.store(&message("ours"));
    let (path, _folder) = (server.database(), server.folder());
    assert_eq!(server.stop().0.code(), Some(0));
    let document = include_str!("../../DEPLOYMENT.md");
    let (_, after) = document.split_once("sqlite3 app.db \"DROP").expect("the document says how");
    let (statements, _) = after.split_once('"').expect("it ends");
    let file = database::open(&path);
    file.execute_batch(&format!("DROP{statements}")).expect("all of it is there");
    let left = "SELECT group_concat(name, ' ') FROM sqlite_master";
    let left: String = file.query_row(left, [], |row| row.get(0)).expect("there is something");
    assert_eq!((left.as_str(), database::ids(&file).len()), ("messages sqlite_autoindex_messages_1", 1));
    assert_eq!(journal_versions(&path), [1, 1]);
}

#[test]
fn rows_written_while_our_triggers_were_gone_are_counted_at_the_next_start() {
    let server = Server::start();
    server.store(&message("ours"));
    let (path, folder) = (server.database(), server.folder());
    assert_eq!(server.stop().0.code(), Some(0));
    // Like a dump and restore of only this table.
    let rebuild = "DROP TRIGGER postroom_note_insert; DROP TRIGGER postroom_note_replaced;
        INSERT INTO messages VALUES ('theirs', '+1', '+2', '2025-01-01T00:00:00Z', NULL, 'x')";
    database::open(&path).execute_batch(rebuild).expect("they are there");
    let server = Setup::in_folder(folder).start();
    assert_eq!(listed(&server, "/messages").1, 2);
    database::assert_sound(&database::open(&path));
}

/// Asserts that the start is refused with one line and this reason, and that no file is changed or created.
fn assert_refused(setup: &Setup, why: &str) {
    let files = || {
        let entries = std::fs::read_dir(setup.path()).expect("a folder").map(|file| file.expect("a file").file_name());
        entries.collect::<std::collections::BTreeSet<_>>()
    };
    let files_before = files();
    let before = std::fs::read(setup.database()).expect("it can be read");
    let (status, stdout, stderr) = setup.run();
    assert_eq!(status.code(), Some(1), "{stdout}{stderr}");
    assert!(stderr.contains(why) && stderr.contains("DATABASE_URL"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(std::fs::read(setup.database()).expect("it can be read") == before, "the file was changed: {why}");
    assert_eq!(files(), files_before, "nothing is left beside it");
}

#[test]
fn what_cannot_be_served_is_refused_and_not_touched() {
    let columns = "from_msisdn TEXT NOT NULL, to_msisdn TEXT NOT NULL, ts TEXT NOT NULL, text TEXT";
    let cases = [
        (format!("CREATE TABLE messages (message_id TEXT PRIMARY KEY, {columns})"), "created_at"),
        (format!("CREATE TABLE messages (message_id TEXT, {columns}, created_at TEXT NOT NULL)"), "primary key"),
        (
            format!(
                "CREATE TABLE messages (message_id TEXT PRIMARY KEY, {columns}, created_at TEXT, tenant TEXT NOT NULL)"
            ),
            "tenant",
        ),
        (
            format!(
                "CREATE TABLE messages (message_id TEXT PRIMARY KEY, {columns}, created_at TEXT NOT NULL) WITHOUT ROWID"
            ),
            "without rowids",
        ),
        (
            format!(
                "CREATE TABLE messages (message_id TEXT PRIMARY KEY, {columns}, created_at TEXT NOT NULL, RowID TEXT)"
            ),
            "rowid",
        ),
    ];
    for (sql, why) in cases {
        assert_refused(&made_by(&sql), why);
    }
    let garbage = Setup::new();
    std::fs::write(garbage.database(), b"This is no database. ".repeat(500)).expect("it can be written");
    assert_refused(&garbage, "not a database");
}

#[test]
fn a_file_of_a_newer_version_is_refused_and_not_touched() {
    for journal in ["WAL", "DELETE"] {
        let server = Server::start();
        server.store(&message("ours"));
        let (path, folder) = (server.database(), server.folder());
        assert_eq!(server.stop().0.code(), Some(0));
        let change = format!("PRAGMA user_version = 99; PRAGMA journal_mode = {journal};");
        database::open(&path).execute_batch(&change).expect(&change);
        assert_refused(&Setup::in_folder(folder), "newer");
    }
}

#[test]
fn a_version_number_of_another_program_is_not_taken_for_ours() {
    let server = made_by(&original("PRAGMA user_version = 99")).start();
    server.store(&message("ours"));
    database::assert_sound(&database::open(&server.database()));
}

#[test]
fn a_kill_at_any_moment_of_an_upgrade_leaves_a_file_that_opens() {
    const ROWS: i64 = 40_000;
    let mut random = Random::announced("kill -9 during the upgrade");
    let setup = made_by(&original(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO messages SELECT 'm' || i, '+' || i % 97, '+2', '2025-01-01T00:00:00Z', 'text ' || i, 'x' FROM n"
    )));
    let first = setup.path().join("first.db");
    std::fs::copy(setup.database(), &first).expect("it can be copied");
    let started = Instant::now();
    let server = setup.start();
    let duration = started.elapsed();
    let folder = server.kill();
    let path = folder.path().join("app.db");
    let mut upgraded = 0;
    for round in 0..if long_run() { 100 } else { 12 } {
        for name in ["app.db", "app.db-wal", "app.db-shm", "app.db-journal"] {
            let _ = std::fs::remove_file(folder.path().join(name));
        }
        std::fs::copy(&first, &path).expect("it can be copied");
        let setup = Setup::in_folder(Arc::clone(&folder));
        let mut child = setup.command().stdout(std::process::Stdio::null()).spawn().expect("the program starts");
        // The moment is random within the time of an upgrade on this machine.
        std::thread::sleep(Duration::from_micros(random.below(duration.as_micros() as u64)));
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
        // Another SQLite reader sees all rows; then the upgrade is complete, or is repeated.
        if round % 2 == 0 {
            let connection = database::open(&path);
            assert_eq!(database::recount(&connection).0, ROWS);
            let version: i64 =
                connection.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("it can be read");
            upgraded += version;
        }
        let server = Setup::in_folder(Arc::clone(&folder)).start();
        assert_eq!(server.get("/stats").json()["total_messages"], ROWS);
        database::assert_sound(&database::open(&path));
        server.kill();
    }
    println!("an upgrade takes {duration:?}; {upgraded} of the rounds looked at had finished theirs");
}
