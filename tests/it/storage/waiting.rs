//! Waits and their limits: another process's lock, a full queue, a slow read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::Connection;

use crate::harness::load::{Load, message_of, post_id};
use crate::harness::random::Random;
use crate::harness::server::{Server, Setup};
use crate::harness::{Client, Reply, body, database, message, sign, wait_until};

/// A lock of another process on the file.
fn lock(server: &Server) -> Connection {
    let connection = database::open(&server.database());
    connection.execute_batch("BEGIN IMMEDIATE").expect("the lock is free");
    connection
}

fn assert_is_503(reply: &Reply) {
    assert_eq!((reply.status, reply.text().as_str()), (503, r#"{"detail":"Service Unavailable"}"#));
    assert!(reply.header("retry-after").is_some(), "{:?}", reply.headers);
}

#[test]
fn short_locks_of_another_process_are_waited_for() {
    let server = Server::start();
    let load = Load::start(server.address, 8, "lock", &mut Random::announced("short locks"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let other = database::open(&server.database());
            while !done.load(Ordering::SeqCst) {
                other.execute_batch("BEGIN IMMEDIATE").expect("the lock comes free");
                // A short operation, and a pause for other processes.
                std::thread::sleep(Duration::from_millis(20));
                other.execute_batch("COMMIT").expect("it ends");
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        load.wait_for_acks(100);
        done.store(true, Ordering::SeqCst);
    });
    let sent = load.finish();
    assert!(sent.refused.is_empty(), "{:?}", sent.refused);
    let connection = database::open(&server.database());
    database::assert_holds(&connection, &sent);
    database::assert_sound(&connection);
}

#[test]
fn a_lock_held_too_long_is_503_and_the_message_is_taken_afterwards() {
    let server = Setup::new().env("POSTROOM_STORE_LOCK_SECONDS", 0).start();
    server.store(&message("before"));
    let other = lock(&server);
    assert_is_503(&server.post(&body(&message("meanwhile"))));
    // Reading does not need the lock, and nothing of ours is broken.
    assert_eq!(server.get("/messages").json()["total"], 1);
    assert_eq!(server.get("/health/ready").status, 200);
    other.execute_batch("ROLLBACK").expect("it ends");
    server.store(&message("meanwhile"));
    assert_eq!(server.get("/messages").json()["total"], 2);
    database::assert_sound(&other);
}

#[test]
fn a_full_queue_is_503_at_once_and_those_in_it_are_stored() {
    let setup = Setup::new().env("POSTROOM_STORE_LOCK_SECONDS", 600).env("POSTROOM_STORE_QUEUE_MAX", 1);
    let server = setup.start();
    server.store(&message("before"));
    let other = lock(&server);
    let post = |number: usize| {
        let address = server.address;
        move || post_id(&mut Client::connect(address), &format!("{number}.")).expect("an answer")
    };
    let threads: Vec<_> = (0..8).map(|number| std::thread::spawn(post(number))).collect();
    // The writer holds one, one more waits; all others are refused at once, while the lock is still held.
    let answered = || threads.iter().filter(|thread| thread.is_finished()).count();
    wait_until("those without a place are answered", || (answered() >= 6).then_some(()));
    let mut client = server.client();
    let mut signed = |body: &[u8], signature: &str| {
        client.request("POST", "/webhook", &[("X-Signature", signature)], body).expect("an answer").status
    };
    let nonsense = b"{nonsense";
    assert_eq!(signed(nonsense, "00"), 401, "the signature is looked at before the queue");
    if answered() == 6 {
        assert_eq!(signed(nonsense, &sign(nonsense)), 503, "the queue is looked at before the fields");
    }
    assert_eq!(server.get("/health/ready").status, 200);
    other.execute_batch("ROLLBACK").expect("it ends");
    let replies: Vec<Reply> = threads.into_iter().map(|thread| thread.join().expect("an answer")).collect();
    let (stored, refused): (Vec<&Reply>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
    assert!((1..=2).contains(&stored.len()), "{} were stored", stored.len());
    refused.into_iter().for_each(assert_is_503);
    assert_eq!(server.get("/stats").json()["total_messages"], 1 + stored.len());
    server.store(&message_of("after."));
}

#[test]
fn a_read_that_takes_too_long_is_503_and_hurts_nobody_else() {
    let server = Setup::new().env("POSTROOM_STORE_QUERY_SECONDS", 0).start();
    for target in ["/messages", "/messages?q=hello", "/messages?from=%2B1", "/stats"] {
        assert_is_503(&server.get(target));
    }
    server.store(&message("one"));
    assert_eq!(server.get("/health/ready").status, 200);
    assert_eq!(database::recount(&database::open(&server.database())).0, 1);
}

#[test]
fn a_heavy_search_is_given_up_while_messages_go_on_being_stored() {
    let server = Setup::new().env("POSTROOM_STORE_QUERY_SECONDS", 1).env("POSTROOM_STORE_READERS", 1).start();
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
        INSERT INTO messages SELECT 'heavy' || i, '+1', '+2', '2025-01-01T00:00:00Z', printf('%.*c', 4000, 'ä'), 'x' FROM n";
    database::open(&server.database()).execute_batch(rows).expect("they are written");
    let address = server.address;
    let search =
        move || Client::connect(address).request("GET", "/messages?q=%C3%A4b", &[], b"").expect("an answer").status;
    let searches: Vec<_> = (0..3).map(|_| std::thread::spawn(search)).collect();
    let mut stored = 0;
    while !searches.iter().all(std::thread::JoinHandle::is_finished) {
        server.store(&message_of(&format!("{stored}.")));
        stored += 1;
    }
    // A fast machine may find the result in time; then it is correct.
    let statuses: Vec<u16> = searches.into_iter().map(|search| search.join().expect("an answer")).collect();
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    assert_eq!(database::recount(&database::open(&server.database())).0, 3_000 + stored);
}
