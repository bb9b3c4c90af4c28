//! The file, or its table, disappears under a
//! running server: 503 and not ready, never a false
//! 200, and the service recovers when it is back.

use std::path::{Path, PathBuf};

use crate::harness::{Server, Setup, body, database, message, wait_until};

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// A complete copy of the database in one file, like a backup.
fn backup(server: &Server) -> PathBuf {
    let path = beside(&server.database(), ".backup");
    let sql = "VACUUM INTO ?1";
    let name = path.to_str().expect("a temporary folder's name is text");
    database::open(&server.database()).execute(sql, [name]).expect("a copy is made");
    path
}

fn remove_all(database: &Path) {
    ["", "-wal", "-shm"].iter().for_each(|ending| remove_if_there(&beside(database, ending)));
}

fn remove_if_there(path: &Path) {
    let _ = std::fs::remove_file(path);
}

fn assert_not_ready(server: &Server) {
    let ready = || server.get("/health/ready");
    let reply = wait_until("it is not ready", || Some(ready()).filter(|reply| reply.status == 503));
    assert_eq!(reply.text(), r#"{"status":"not ready","reason":"database not ready"}"#);
    assert_eq!(server.get("/health/live").status, 200);
}

fn assert_refuses(server: &Server, id: &str) {
    let reply = server.post(&body(&message(id)));
    assert_eq!((reply.status, reply.text().as_str()), (503, r#"{"detail":"Service Unavailable"}"#), "{id}");
    assert!(reply.header("retry-after").is_some());
}

fn wait_until_ready(server: &Server) {
    wait_until("it is ready again", || (server.get("/health/ready").status == 200).then_some(()));
}

fn assert_total(server: &Server, total: i64) {
    assert_eq!(server.get("/messages").json()["total"], total);
    assert_eq!(server.get("/stats").json()["total_messages"], total);
    let connection = database::open(&server.database());
    assert_eq!(database::recount(&connection).0, total);
    database::assert_sound(&connection);
}

#[test]
fn a_removed_file_is_503_and_never_made_anew_until_it_is_back() {
    let server = Server::start();
    server.store(&message("one"));
    assert_total(&server, 1);
    let copy = backup(&server);
    remove_all(&server.database());
    assert_not_ready(&server);
    for id in ["lost", "lost", "one"] {
        assert_refuses(&server, id);
    }
    assert_eq!(server.get("/messages").status, 503);
    assert!(!server.database().exists(), "an empty database in its place would look like a loss of everything");
    std::fs::rename(copy, server.database()).expect("it can be moved");
    wait_until_ready(&server);
    server.store(&message("two"));
    assert_total(&server, 2);
}

#[test]
fn a_removed_file_is_noticed_by_the_first_message_too() {
    let server = Server::start();
    server.store(&message("one"));
    remove_all(&server.database());
    assert_refuses(&server, "two");
    assert_not_ready(&server);
}

#[test]
fn a_link_to_the_file_is_followed_to_where_its_log_is() {
    // The file is in another folder, and does not exist at the start.
    let setup = Setup::new();
    let (link, folder) = (setup.database(), setup.path().join("disk"));
    let file = folder.join("kept.db");
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink("disk/kept.db", &link).unwrap();
    let server = setup.start();
    server.store(&message("one"));
    assert!(beside(&file, "-wal").exists() && !beside(&link, "-wal").exists());
    // Other programs see the messages that are only in the log so far.
    let run = |arguments: &[&str]| {
        let setup = Setup::in_folder(server.folder());
        let (status, told, why) = arguments.iter().fold(setup, |setup, argument| setup.arg(argument)).run();
        (status.code(), told + &why)
    };
    let (code, told) = run(&["check", "--data"]);
    assert!(code == Some(0) && told.contains(" 1 messages"), "{told}");
    let (code, told) = run(&["copy", "--from", "sqlite:///app.db", "--to", "sqlite:///disk/../disk/kept.db"]);
    assert!(code == Some(1) && told.contains("the same database"), "{told}");
    assert_eq!(run(&["reindex"]).0, Some(0));
    let folder = server.folder();
    assert_eq!(server.stop().0.code(), Some(0));
    assert!(!beside(&file, "-wal").exists());
    let server = Setup::in_folder(folder).start();
    server.store(&message("two"));
    assert_total(&server, 2);
}

#[test]
fn a_file_put_in_the_place_of_another_is_served_from_then_on() {
    let server = Server::start();
    server.store(&message("one"));
    let copy = backup(&server);
    for id in ["two", "three"] {
        server.store(&message(id));
    }
    remove_all(&server.database());
    std::fs::rename(copy, server.database()).expect("it can be moved");
    // Until the change is detected a message may be refused, but none may be acknowledged into the old file.
    wait_until("messages are taken again", || (server.post(&body(&message("four"))).status == 200).then_some(()));
    wait_until_ready(&server);
    assert_total(&server, 2);
    assert!(database::ids(&database::open(&server.database())).contains("four"));
}

#[test]
fn a_file_renamed_over_ours_never_takes_an_acknowledged_message_with_it() {
    let server = Server::start();
    server.store(&message("one"));
    let copy = backup(&server);
    server.store(&message("two"));
    assert_eq!(server.get("/messages").json()["total"], 2);
    // A careless restore: the log of the old file stays next to the new one, and SQLite cannot detect that.
    std::fs::rename(copy, server.database()).expect("it can be moved");
    if server.post(&body(&message("three"))).status != 200 {
        assert_not_ready(&server);
        remove_if_there(&beside(&server.database(), "-wal"));
        remove_if_there(&beside(&server.database(), "-shm"));
    }
    wait_until_ready(&server);
    server.store(&message("three"));
    let connection = database::open(&server.database());
    let stored = database::ids(&connection);
    assert!(stored.contains("one") && stored.contains("three"), "{stored:?}");
    database::assert_sound(&connection);
    assert_eq!(server.get("/messages").json()["total"], stored.len());
}

#[test]
fn a_log_removed_from_beside_the_file_is_never_written_on_unseen() {
    let server = Server::start();
    server.store(&message("one"));
    std::fs::remove_file(beside(&server.database(), "-wal")).expect("a running server has one");
    let acked = |id: &str| server.post(&body(&message(id))).status == 200;
    let taken: Vec<&str> = ["two", "three", "four"].into_iter().filter(|id| acked(id)).collect();
    wait_until_ready(&server);
    server.store(&message("five"));
    let connection = database::open(&server.database());
    let stored = database::ids(&connection);
    assert!(taken.iter().chain(&["five"]).all(|id| stored.contains(*id)), "{taken:?} of {stored:?}");
    database::assert_sound(&connection);
}

const DROP: &str = "DROP TABLE messages";

#[test]
fn a_dropped_table_is_503_until_it_is_made_again() {
    let server = Server::start();
    server.store(&message("one"));
    let connection = database::open(&server.database());
    connection.execute_batch(DROP).expect("it was there");
    assert_not_ready(&server);
    assert_refuses(&server, "two");
    assert_eq!(server.get("/messages").status, 503);
    assert_eq!(server.get("/stats").status, 503);
    connection.execute_batch(database::MESSAGES).expect("it is made");
    wait_until_ready(&server);
    assert_total(&server, 0);
    server.store(&message("three"));
    assert_total(&server, 1);
}

#[test]
fn a_table_dropped_and_made_again_between_two_messages_is_counted_anew() {
    let server = Server::start();
    for id in ["one", "two"] {
        server.store(&message(id));
    }
    let connection = database::open(&server.database());
    connection.execute_batch(&format!("{DROP}; {};", database::MESSAGES)).expect("it is made anew");
    // Either an error, or a correct result.
    let reply = server.get("/messages");
    assert!(reply.status == 503 || reply.json()["total"] == 0, "{}", reply.text());
    wait_until("messages are taken again", || (server.post(&body(&message("three"))).status == 200).then_some(()));
    wait_until_ready(&server);
    let listing = wait_until("it can be read", || Some(server.get("/messages")).filter(|reply| reply.status == 200));
    assert_eq!(listing.json()["total"], 1);
    assert_total(&server, 1);
}

#[test]
fn a_file_that_turns_into_garbage_is_503_and_not_written_over() {
    let server = Server::start();
    server.store(&message("one"));
    remove_all(&server.database());
    let garbage = b"This is no database. ".repeat(1_000);
    std::fs::write(server.database(), &garbage).expect("it can be written");
    assert_not_ready(&server);
    assert_refuses(&server, "two");
    assert_eq!(std::fs::read(server.database()).expect("it is there"), garbage);
}
