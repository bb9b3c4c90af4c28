//! Other programs write to the table while the server runs: changes are visible at once, numbers are exact.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;

use crate::harness::load::{Load, message_of};
use crate::harness::random::Random;
use crate::harness::server::{Server, Setup};
use crate::harness::{Client, body, database, message, sign};

/// One statement of each kind, on ids a to z of a few senders. They run in this order.
const STATEMENTS: [&str; 14] = [
    "INSERT INTO messages VALUES ('a', '+1', '+9', '2025-01-01T00:00:00Z', 'Hello', '2025-01-01T00:00:00Z')",
    "INSERT INTO messages VALUES ('b', '+2', '+9', '2025-01-02T00:00:00Z', NULL, 'x'), ('c', '+2', '+9', '2025-01-03T00:00:00Z', '', 'x')",
    "INSERT OR IGNORE INTO messages VALUES ('b', '+3', '+9', '2025-01-04T00:00:00Z', 'other', 'x')",
    "INSERT OR IGNORE INTO messages VALUES ('d', '+3', '+9', '2025-01-04T00:00:00Z', 'other', 'x')",
    "INSERT OR REPLACE INTO messages VALUES ('a', '+4', '+9', '2024-12-31T00:00:00Z', 'replaced', 'x')",
    "INSERT OR REPLACE INTO messages VALUES ('e', '+4', '+9', '2025-02-01T00:00:00Z', 'new', 'x')",
    "REPLACE INTO messages SELECT message_id, '+5', to_msisdn, ts, text, created_at FROM messages WHERE message_id IN ('b', 'c')",
    "INSERT INTO messages VALUES ('e', '+6', '+9', '2025-02-02T00:00:00Z', 'up', 'x')
        ON CONFLICT (message_id) DO UPDATE SET from_msisdn = excluded.from_msisdn",
    "UPDATE messages SET from_msisdn = '+7' WHERE message_id IN ('a', 'd')",
    "UPDATE messages SET text = 'x', ts = '2025-03-01T00:00:00Z'",
    "UPDATE messages SET message_id = 'z' WHERE message_id = 'a'",
    "UPDATE OR REPLACE messages SET message_id = 'b' WHERE message_id = 'z'",
    "DELETE FROM messages WHERE from_msisdn = '+7'",
    "DELETE FROM messages",
];

/// Asserts that the server's results match a plain count of the table.
fn assert_answers_are_exact(server: &Server, after: &str) {
    let connection = database::open(&server.database());
    let (messages, senders, by_sender) = database::recount(&connection);
    let stats = server.get("/stats").json();
    assert_eq!(server.get("/messages?limit=1").json()["total"], messages, "{after}");
    assert_eq!((&stats["total_messages"], &stats["senders_count"]), (&messages.into(), &senders.into()), "{after}");
    for sender in ["+1", "+2", "+3", "+4", "+5", "+6", "+7"] {
        let reply = server.get(&format!("/messages?from=%2B{}", &sender[1..])).json();
        let expected = by_sender.get(sender).copied().unwrap_or(0);
        assert_eq!(
            (&reply["total"], reply["data"].as_array().map(Vec::len)),
            (&expected.into(), Some(expected as usize)),
            "{after}"
        );
    }
    let edges = "SELECT min(ts), max(ts) FROM messages NOT INDEXED";
    let (first, last): (Option<String>, Option<String>) =
        connection.query_row(edges, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("it can be read");
    assert_eq!(
        (stats["first_message_ts"].as_str(), stats["last_message_ts"].as_str()),
        (first.as_deref(), last.as_deref())
    );
}

fn runs_every_statement(mut run: impl FnMut(&Path, &str)) {
    let server = Server::start();
    server.store(&message("ours"));
    for sql in STATEMENTS {
        run(&server.database(), sql);
        assert_answers_are_exact(&server, sql);
        // Our own messages are stored in between, after any of these changes.
        server.store(&message_of("between."));
        assert_answers_are_exact(&server, sql);
    }
    database::assert_sound(&database::open(&server.database()));
}

#[test]
fn rows_that_plain_sql_writes_changes_and_deletes_show_up_at_once() {
    runs_every_statement(|path, sql| database::open(path).execute_batch(sql).expect(sql));
}

#[test]
fn rows_of_one_connection_that_stays_open_show_up_at_once() {
    let mut kept: Option<Connection> = None;
    runs_every_statement(|path, sql| kept.get_or_insert_with(|| database::open(path)).execute_batch(sql).expect(sql));
}

#[test]
fn rows_that_the_sqlite3_program_writes_show_up_at_once() {
    if Command::new("sqlite3").arg("-version").output().is_err() {
        println!("skipped: there is no program sqlite3");
        return;
    }
    runs_every_statement(|path, sql| {
        // With `.timeout`, like any careful script: our writer may hold its lock for a moment.
        let output =
            Command::new("sqlite3").arg("-cmd").arg(".timeout 5000").arg(path).arg(sql).output().expect("it runs");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    });
}

#[test]
fn recursive_triggers_of_another_program_do_not_count_twice() {
    runs_every_statement(|path, sql| {
        database::open(path).execute_batch(&format!("PRAGMA recursive_triggers = 1; {sql}")).expect(sql);
    });
}

const FOREIGN_TRIGGER: &str = "CREATE TABLE heard (id TEXT);
    CREATE TRIGGER foreign_listener AFTER INSERT ON messages BEGIN INSERT INTO heard VALUES (NEW.message_id); END;";

fn heard(connection: &Connection) -> BTreeSet<String> {
    let mut statement = connection.prepare("SELECT id FROM heard").expect("their table is there");
    statement.query_map([], |row| row.get(0)).expect("it can be read").map(|id| id.expect("an id")).collect()
}

fn ids_of(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn a_trigger_of_another_program_fires_for_our_inserts() {
    let setup = Setup::new();
    let connection = database::open(&setup.database());
    connection.execute_batch(&format!("{}; {FOREIGN_TRIGGER}", database::MESSAGES)).expect("it is made");
    let server = setup.start();
    for id in ["one", "two", "one"] {
        server.store(&message(id));
    }
    assert_eq!(heard(&connection), ids_of(&["one", "two"]));
    database::assert_sound(&connection);
}

#[test]
fn a_trigger_that_another_program_makes_while_we_run_fires_for_our_inserts() {
    let server = Server::start();
    server.store(&message("before"));
    let connection = database::open(&server.database());
    connection.execute_batch(FOREIGN_TRIGGER).expect("it is made");
    server.store(&message("after"));
    assert_eq!(heard(&connection), ids_of(&["after"]));
    database::assert_sound(&connection);
    connection.execute_batch("DROP TRIGGER foreign_listener").expect("it was there");
    server.store(&message("last"));
    database::assert_sound(&connection);
}

#[test]
fn a_trigger_that_refuses_or_swallows_a_message_refuses_that_one_only() {
    let mut random = Random::announced("a trigger that refuses");
    let raises =
        [("refuses", "RAISE(ABORT, 'no')"), ("swallows", "RAISE(IGNORE)"), ("rolls back", "RAISE(ROLLBACK, 'no')")];
    for (name, raise) in raises {
        let setup = Setup::new();
        let connection = database::open(&setup.database());
        let trigger = format!(
            "{}; CREATE TRIGGER foreign_guard BEFORE INSERT ON messages WHEN NEW.message_id = 'unwanted'
                 BEGIN SELECT {raise}; END;",
            database::MESSAGES
        );
        connection.execute_batch(&trigger).expect("it is made");
        let server = setup.start();
        // Other messages are in the same batches, and must not fail with it.
        let load = Load::start(server.address, 8, name, &mut random);
        for _ in 0..30 {
            let reply = server.post(&body(&message("unwanted")));
            assert_eq!(reply.status, 503, "{name}: what is not stored is never 200");
        }
        let sent = load.finish();
        assert!(sent.refused.is_empty(), "{name}: others were refused with it: {:?}", sent.refused);
        assert_eq!(server.get("/health/ready").status, 200, "{name}: nothing of ours is broken");
        database::assert_holds(&connection, &sent);
        database::assert_sound(&connection);
    }
}

#[test]
fn two_programs_on_one_file_create_each_message_once() {
    let first = Server::start();
    let second = Setup::in_folder(first.folder()).start();
    let (ids, mut random) = (300, Random::announced("two programs on one file"));
    let post_all = |address, mut random: Random| {
        std::thread::spawn(move || {
            let mut client = Client::connect(address);
            let mut order: Vec<u64> = (0..ids).collect();
            order.sort_by_cached_key(|_| random.next());
            for number in order {
                let bytes = body(&message_of(&format!("{number}.")));
                let reply =
                    client.request("POST", "/webhook", &[("X-Signature", &sign(&bytes))], &bytes).expect("an answer");
                assert_eq!(reply.status, 200);
            }
        })
    };
    let addresses = [first.address, second.address].repeat(4);
    let threads: Vec<_> = addresses.iter().map(|address| post_all(*address, Random::new(random.next()))).collect();
    threads.into_iter().for_each(|thread| thread.join().expect("every copy is answered 200"));
    let sum = |result| {
        let sample = format!("webhook_requests_total{{result=\"{result}\"}}");
        [&first, &second].map(|server| server.metric(&sample).expect("it is counted")).iter().sum::<f64>()
    };
    assert_eq!((sum("created"), sum("duplicate")), (ids as f64, (7 * ids) as f64));
    for server in [&first, &second] {
        assert_eq!(server.get("/stats").json()["total_messages"], ids);
    }
    database::assert_sound(&database::open(&first.database()));
}
