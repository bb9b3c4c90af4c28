//! The rows of the file change without change records: a backup is restored, a file
//! was recovered, a copy was used elsewhere, triggers were off. Then the index is
//! of other rows, and results must come from the table until a new index is built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rusqlite::config::DbConfig;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Server, Setup, database, message, wait_until};

/// Initial number of messages: more than the index samples.
const MESSAGES: i64 = 12_000;

/// Adds messages `from` to `to`, like another program. Their order by time is that of their numbers.
fn add(path: &Path, from: i64, to: i64) {
    let rows = format!(
        "WITH RECURSIVE n(i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i < {to})
         INSERT INTO messages SELECT printf('m%06d', i), '+' || (1 + i % 7), '+2', '2025-01-15T10:00:00Z', 'text ' || i, 'x' FROM n"
    );
    database::open(path).execute_batch(&rows).expect("rows can be added");
}

/// Changes rows without change records.
fn without_triggers(path: &Path, sql: &str) {
    let connection = database::open(path);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).expect("triggers can be switched off");
    assert!(connection.execute(sql, []).expect(sql) > 0, "{sql}");
}

/// Rows between the sampled ones.
const DELETE_SOME: &str = "DELETE FROM messages WHERE (rowid - 1) % 187 = 90 AND rowid < 12000";

fn wait_until_indexed(server: &Server) {
    wait_until("the index covers all", || server.metric("postroom_index_lag_messages").filter(|lag| *lag == 0.0));
    wait_until("it is used", || server.metric("postroom_index_segments").filter(|segments| *segments > 0.0));
}

/// Asserts that the results match the table.
fn assert_true(server: &Server, when: &str) {
    let connection = database::open(&server.database());
    let (messages, senders, by_sender) = database::recount(&connection);
    assert_eq!(server.get("/messages?limit=1").json()["total"], messages, "{when}");
    let stats = server.get("/stats").json();
    assert_eq!((&stats["total_messages"], &stats["senders_count"]), (&messages.into(), &senders.into()), "{when}");
    let of_one = by_sender.get("+3").copied().unwrap_or(0);
    assert_eq!(server.get("/messages?from=%2B3&limit=1").json()["total"], of_one, "{when}");
    let sql = "SELECT count(*) FROM messages NOT INDEXED WHERE text LIKE '%text 11%'";
    let found: i64 = connection.query_row(sql, [], |row| row.get(0)).expect("a number");
    assert_eq!(server.get("/messages?q=text+11&limit=1").json()["total"], found, "{when}");
    database::assert_sound(&connection);
}

/// Asserts this at once, and after the index is rebuilt.
fn assert_stays_true(server: &Server, when: &str) {
    assert_true(server, when);
    wait_until_indexed(server);
    assert_true(server, when);
}

fn tells_of_another_index(line: &Value) -> bool {
    line["message"].as_str().is_some_and(|text| text.starts_with("the index does not match this database"))
}

/// A stopped service with `MESSAGES` in its index.
fn stopped() -> (Arc<TempDir>, PathBuf) {
    let server = Server::start();
    add(&server.database(), 1, MESSAGES);
    wait_until_indexed(&server);
    let (folder, path) = (server.folder(), server.database());
    assert!(server.stop().0.success());
    (folder, path)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[test]
fn rows_that_went_without_a_note_while_it_was_stopped_are_missed_at_the_start() {
    let (folder, path) = stopped();
    without_triggers(&path, DELETE_SOME);
    let server = Setup::in_folder(folder).start();
    assert_stays_true(&server, "rows are gone");
    server.wait_for_line(tells_of_another_index);
    let folder = server.folder();
    assert!(server.stop().0.success());
    let server = Setup::in_folder(folder).start();
    assert_stays_true(&server, "once more");
    assert!(!server.lines().iter().any(tells_of_another_index), "the new index is of this file");
}

#[test]
fn a_row_that_was_changed_without_a_note_is_seen_at_the_start() {
    let (folder, path) = stopped();
    without_triggers(&path, "UPDATE messages SET from_msisdn = '+3' WHERE rowid = 91");
    let server = Setup::in_folder(folder).start();
    assert_stays_true(&server, "a row has another sender");
}

#[test]
fn a_file_that_was_recovered_is_another_one() {
    for keeps_its_place in [false, true] {
        let (folder, path) = stopped();
        // Some pages of the table are damaged, between sampled messages: `.recover` finds the rest,
        // with unchanged rowids, version and names.
        let mut bytes = fs::read(&path).unwrap();
        let marks: Vec<usize> = [b"m003086", b"m007013"].iter().map(|id| place_in(&bytes, *id)).collect();
        for mark in marks {
            let page = mark / 4096 * 4096;
            bytes[page..page + 4096].fill(0);
        }
        fs::write(&path, bytes).unwrap();
        let new = beside(&path, ".recovered");
        let script = r#"sqlite3 "$1" .recover | sqlite3 "$2""#;
        let status = Command::new("sh").args(["-c", script, "sh"]).args([&path, &new]).status();
        if !status.is_ok_and(|status| status.success()) || fs::metadata(&new).map_or(0, |file| file.len()) == 0 {
            println!("skipped: there is no sqlite3 with .recover");
            return;
        }
        if keeps_its_place {
            fs::copy(&new, &path).map(drop).unwrap()
        } else {
            fs::rename(&new, &path).unwrap()
        }
        let server = Setup::in_folder(folder).start();
        let kept = database::recount(&database::open(&path)).0;
        assert!((11_000..MESSAGES).contains(&kept), "some are lost: {kept}");
        assert_stays_true(&server, "it was recovered");
        server.wait_for_line(tells_of_another_index);
    }
}

fn place_in(bytes: &[u8], id: &[u8]) -> usize {
    // In the table the sender follows the id.
    let all = [id, b"+"].concat();
    bytes.windows(all.len()).position(|window| window == all).expect("the row is there")
}

/// A complete copy of a database that may be in use.
fn backup(path: &Path, ending: &str) -> PathBuf {
    let copy = beside(path, ending);
    database::open(path).execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).expect("a copy is made");
    copy
}

#[test]
fn a_backup_that_lived_on_elsewhere_is_another_file() {
    let server = Server::start();
    let path = server.database();
    add(&path, 1, MESSAGES);
    wait_until_indexed(&server);
    let copy = backup(&path, ".backup");
    // Both continue: the copy gets more and different messages with the same row numbers.
    add(&path, MESSAGES + 1, MESSAGES + 50);
    wait_until_indexed(&server);
    let folder = server.folder();
    assert!(server.stop().0.success());
    // The rows that the index samples are the same.
    add(&copy, MESSAGES + 1, MESSAGES + 9);
    add(&copy, 50_010, 50_020);
    add(&copy, MESSAGES + 21, MESSAGES + 90);
    fs::copy(&copy, &path).unwrap();
    let server = Setup::in_folder(folder).start();
    assert_stays_true(&server, "a copy with other messages was put back");
    server.wait_for_line(tells_of_another_index);
}

#[test]
fn a_file_restored_in_place_under_a_running_service_is_seen() {
    let server = Server::start();
    let path = server.database();
    add(&path, 1, MESSAGES);
    wait_until_indexed(&server);
    let copy = backup(&path, ".backup");
    add(&path, MESSAGES + 1, MESSAGES + 50);
    wait_until_indexed(&server);
    without_triggers(&copy, DELETE_SOME);
    add(&copy, 20_001, 20_090);
    // All pages are rewritten in one transaction, through the same file and log.
    let restore = format!(".restore '{}'", copy.display());
    let status = Command::new("sqlite3").args(["-cmd", ".timeout 20000"]).arg(&path).arg(restore).status();
    if !status.is_ok_and(|status| status.success()) {
        println!("skipped: there is no sqlite3 shell");
        return;
    }
    assert_true(&server, "a backup was restored in place");
    server.store(&message("after"));
    assert_stays_true(&server, "and a message came");
    let folder = server.folder();
    assert!(server.stop().0.success());
    assert_stays_true(&Setup::in_folder(folder).start(), "after a restart");
}

#[test]
fn the_newest_rows_that_went_without_a_note_do_not_come_back_by_their_numbers() {
    let server = Server::start();
    let path = server.database();
    add(&path, 1, MESSAGES);
    server.store(&message("a"));
    wait_until_indexed(&server);
    without_triggers(&path, "DELETE FROM messages WHERE rowid > 11900");
    // As many as were removed, at once.
    let mut client = server.client();
    for number in 0..110 {
        let body = crate::harness::body(&message(&format!("new {number}")));
        let signature = crate::harness::sign(&body);
        let reply = client.request("POST", "/webhook", &[("X-Signature", &signature)], &body).expect("an answer");
        assert_eq!(reply.status, 200);
    }
    assert_stays_true(&server, "the newest went, and as many came");
    server.wait_for_line(|line| {
        line["message"].as_str().is_some_and(|text| text.starts_with("rows were deleted without a trace"))
    });
}

#[test]
fn an_index_that_is_of_the_file_is_used_again_wherever_both_are() {
    let (folder, path) = stopped();
    // Changes of other programs during the stop left change records.
    database::open(&path).execute("DELETE FROM messages WHERE rowid % 1000 = 7", []).unwrap();
    let other = Arc::new(tempfile::tempdir().unwrap());
    let status = Command::new("cp").arg("-r").arg(folder.path().join(".")).arg(other.path()).status();
    assert!(status.expect("cp runs").success());
    for folder in [folder, other] {
        let server = Setup::in_folder(folder).start();
        assert_stays_true(&server, "nothing was exchanged");
        let folder = server.kill();
        let server = Setup::in_folder(folder).start();
        assert_stays_true(&server, "after kill -9");
        assert!(!server.lines().iter().any(tells_of_another_index));
    }
}

#[test]
fn of_two_copies_with_their_indexes_neither_takes_the_index_of_the_other() {
    let (folder, path) = stopped();
    let other = Arc::new(tempfile::tempdir().unwrap());
    let status = Command::new("cp").arg("-r").arg(folder.path().join(".")).arg(other.path()).status();
    assert!(status.expect("cp runs").success());
    for (folder, first) in [(&folder, 30_000), (&other, 40_000)] {
        let server = Setup::in_folder(Arc::clone(folder)).start();
        add(&server.database(), first, first + 100);
        server.sql().execute("DELETE FROM messages WHERE rowid = ?1", [first % 11_000]).unwrap();
        wait_until_indexed(&server);
        assert!(server.stop().0.success());
    }
    fs::copy(other.path().join("app.db"), &path).unwrap();
    let server = Setup::in_folder(folder).start();
    assert_stays_true(&server, "the other's file beside this one's index");
    server.wait_for_line(tells_of_another_index);
}
