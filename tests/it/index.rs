//! The index next to the file: whatever happens to it, and to the file, results match the file.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::server::{Server, Setup};
use crate::harness::{Stored, database, message, wait_until};

/// Requests that together use all parts of the index.
const TARGETS: [&str; 8] = [
    "/messages?limit=100",
    "/messages?limit=7&offset=23",
    "/messages?from=%2B2&limit=3&offset=2",
    "/messages?since=2025-01-15T10:00:20Z&limit=5",
    "/messages?q=number+1",
    "/messages?q=%E6%98%8E%E5%A4%A9",
    "/messages?q=x&to=%2B14155550100",
    "/stats",
];

fn store(server: &Server, ids: std::ops::Range<u32>) {
    for id in ids {
        let mut one = message(&format!("m{id}"));
        one["from"] = json!(format!("+{}", 1 + id % 5));
        one["ts"] = json!(format!("2025-01-15T10:00:{:02}Z", id % 60));
        one["text"] = json!(format!("Number {id} 明天 x"));
        server.store(&one);
    }
}

fn wait_until_indexed(server: &Server) {
    wait_until("the index covers all", || server.metric("postroom_index_lag_messages").filter(|lag| *lag == 0.0));
}

fn answers(server: &Server) -> Vec<String> {
    TARGETS
        .iter()
        .map(|target| server.get(target))
        .map(|reply| (assert_eq!(reply.status, 200), reply.text()).1)
        .collect()
}

fn index_of(folder: &Arc<TempDir>) -> PathBuf {
    folder.path().join("app.db-index")
}

#[test]
fn it_may_be_removed_damaged_or_of_another_time() {
    let server = Server::start();
    store(&server, 0..60);
    wait_until_indexed(&server);
    let expected = answers(&server);
    let folder = server.folder();
    assert!(server.stop().0.success());
    let older = fs::read(folder.path().join("app.db")).unwrap();

    fs::remove_dir_all(index_of(&folder)).unwrap();
    let server = Setup::in_folder(Arc::clone(&folder)).start();
    assert_eq!(answers(&server), expected, "without an index");
    wait_until_indexed(&server);
    assert_eq!(answers(&server), expected, "with a new one");
    store(&server, 60..90);
    wait_until_indexed(&server);
    let later = answers(&server);
    assert!(server.stop().0.success());

    // Every part except the manifest is damaged: its directory is at the end.
    for entry in fs::read_dir(index_of(&folder)).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if path.extension().is_some_and(|extension| extension == "part") {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
            fs::write(path, bytes).unwrap();
        }
    }
    let server = Setup::in_folder(Arc::clone(&folder)).start();
    assert_eq!(answers(&server), later, "damaged");
    wait_until_indexed(&server);
    assert_eq!(answers(&server), later, "built anew");
    assert!(server.stop().0.success());

    // A backup replaces the file, and gets other messages with the same row numbers.
    fs::write(folder.path().join("app.db"), older).unwrap();
    let server = Setup::in_folder(Arc::clone(&folder)).start();
    assert_eq!(answers(&server), expected, "a backup beside an index of later");
    store(&server, 200..245);
    wait_until_indexed(&server);
    let found = answers(&server);
    assert!(server.stop().0.success());
    fs::remove_dir_all(index_of(&folder)).unwrap();
    let server = Setup::in_folder(Arc::clone(&folder)).start();
    assert_eq!(answers(&server), found, "as without an index");
    Stored::File(folder.path().join("app.db")).assert_sound();
}

#[test]
fn what_it_had_in_memory_only_is_found_again_after_kill_9() {
    let server = Server::start();
    store(&server, 0..40);
    wait_until_indexed(&server);
    let expected = answers(&server);
    let folder = server.kill();
    let server = Setup::in_folder(folder).start();
    assert_eq!(answers(&server), expected);
    wait_until_indexed(&server);
    assert_eq!(answers(&server), expected);
}

#[test]
fn two_servers_on_one_file_answer_alike_and_the_second_takes_over() {
    let first = Server::start();
    store(&first, 0..30);
    wait_until_indexed(&first);
    let second = Setup::in_folder(first.folder()).start();
    store(&second, 30..60);
    first.sql().execute("DELETE FROM messages WHERE message_id IN ('m3', 'm33')", []).unwrap();
    let expected = answers(&first);
    assert_eq!(answers(&second), expected);
    wait_until_indexed(&second);
    assert_eq!(answers(&second), expected);
    let folder = first.folder();
    assert!(first.stop().0.success());
    store(&second, 60..70);
    wait_until_indexed(&second);
    let expected = answers(&second);
    assert!(second.stop().0.success());
    let third = Setup::in_folder(Arc::clone(&folder)).start();
    assert_eq!(answers(&third), expected);
    drop(third);
    Stored::File(folder.path().join("app.db")).assert_sound();
}

#[test]
fn where_it_cannot_be_kept_answers_are_right_all_the_same() {
    let setup = Setup::new();
    fs::write(setup.path().join("app.db-index"), "no folder").unwrap();
    let server = setup.start();
    store(&server, 0..25);
    let tells = |line: &Value| line["message"].as_str().is_some_and(|text| text.contains("folder of the index"));
    server.wait_for_line(tells);
    assert_eq!(server.get("/messages?q=number").json()["total"], 25);
    assert_eq!(server.get("/stats").json()["total_messages"], 25);
    assert_eq!(server.get("/health/ready").status, 200);
    // The index was retried by then.
    wait_until_indexed(&server);
    assert_eq!(server.lines().iter().filter(|line| tells(line)).count(), 1, "it is told once");
    let (status, stdout, stderr) = Setup::in_folder(server.kill()).arg("reindex").run();
    assert!(!status.success() && stderr.contains("File exists"), "{stdout}{stderr}");
}

#[test]
fn what_rests_in_memory_is_written_to_a_file_in_time() {
    let server = Server::start();
    let connection = database::open(&server.database());
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000)
        INSERT INTO messages SELECT 'm' || i, '+1', '+2', '2025-01-15T10:00:00Z', 'text ' || i, 'x' FROM n";
    connection.execute_batch(rows).unwrap();
    let index = index_of(&server.folder());
    wait_until("a part of the index is a file", || {
        let names = fs::read_dir(&index).ok()?.flatten().map(|entry| entry.path());
        names.into_iter().any(|path| path.extension().is_some_and(|extension| extension == "part")).then_some(())
    });
    assert_eq!(server.get("/messages?q=text+9000").json()["total"], 1);
}

#[test]
fn a_file_is_checked_where_nothing_but_its_own_folder_can_be_written_to() {
    if !Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success()) {
        println!("skipped: mounting needs root");
        return;
    }
    // So many senders with long names, as other programs may write them, that their counts exceed memory.
    let setup = Setup::new();
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
        INSERT INTO messages SELECT 'm' || i, printf('%0200d', i * 7919 % 20000), '+2', '2025-01-01T00:00:00Z', 't', 'x' FROM n";
    database::open(&setup.database()).execute_batch(&format!("{}; {rows}", database::MESSAGES)).expect("it is filled");
    let server = setup.start();
    wait_until_indexed(&server);
    let folder = server.folder();
    server.stop();
    // As in the image: the root is read-only, including the usual temporary folders.
    let script = r#"mount --bind "$1" /mnt &&
        for place in /tmp /var/tmp; do mount --bind $place $place && mount -o remount,bind,ro $place; done &&
        cd /tmp && exec "$0" check --data"#;
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_postroom")])
        .arg(folder.path())
        .envs([("DATABASE_URL", "sqlite:////mnt/app.db"), ("WEBHOOK_SECRET", "secret")])
        .env_remove("TMPDIR")
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("index          covers 20000 messages\n") && told.ends_with("integrity ok\n"), "{output:?}");
}
