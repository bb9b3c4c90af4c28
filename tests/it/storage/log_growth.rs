//! The write-ahead log under load, and with a reader that holds an old snapshot.

use crate::harness::load::{Load, post_id};
use crate::harness::random::Random;
use crate::harness::server::{Server, Setup};
use crate::harness::{database, wait_until};

const PAGE_BYTES: u64 = 4_096;
const CHECKPOINT_PAGES: u64 = 16;

fn store(server: &Server, name: &str, count: usize) {
    let mut client = server.client();
    for at in 0..count {
        assert_eq!(post_id(&mut client, &format!("{name}{at}")).expect("an answer").status, 200);
    }
}

fn log_bytes(server: &Server) -> u64 {
    server.metric("postroom_wal_bytes").expect("it is measured") as u64
}

#[test]
fn the_log_begins_again_from_the_front_also_after_a_reader_has_held_it() {
    let server = Setup::new().env("POSTROOM_STORE_CHECKPOINT_PAGES", CHECKPOINT_PAGES).start();
    store(&server, "before", 300);
    let usual = log_bytes(&server);
    assert!(usual <= 8 * CHECKPOINT_PAGES * PAGE_BYTES, "{usual} bytes for {CHECKPOINT_PAGES} pages");

    // A reader with an older snapshot prevents the log from being overwritten, and nothing else.
    let reader = server.sql();
    reader.execute_batch("BEGIN; SELECT count(*) FROM messages").expect("it reads");
    store(&server, "meanwhile", 300);
    let held = log_bytes(&server);
    assert!(held > usual, "the log had to grow");
    reader.execute_batch("COMMIT").expect("it lets go");
    store(&server, "after", 1_500);
    let later = log_bytes(&server);
    assert!(later <= 3 * held, "{later} bytes after {held}: it did not begin again");
    assert_eq!(server.rows(), 2_100);
}

#[test]
fn a_reader_that_does_not_let_go_cannot_grow_the_log_without_limit() {
    const PAGES_MAX: u64 = 256;
    // Larger than the writes of one batch.
    const SLACK: u64 = 64;
    let setup = Setup::new().env("POSTROOM_STORE_CHECKPOINT_PAGES", CHECKPOINT_PAGES);
    let server = setup.env("POSTROOM_STORE_LOG_PAGES_MAX", PAGES_MAX).start();
    let reader = server.sql();
    reader.execute_batch("BEGIN; SELECT count(*) FROM messages").expect("it reads");
    let mut random = Random::announced("a full log");
    let load = Load::start(server.address, 4, "held", &mut random);
    let not_ready = || Some(server.get("/health/ready")).filter(|ready| ready.status == 503);
    let ready = wait_until("it says that the log is full", not_ready);
    assert_eq!(ready.text(), r#"{"status":"not ready","reason":"log full"}"#);
    let mut sent = load.finish();
    assert!(sent.refused.keys().all(|status| *status == 507), "{:?}", sent.refused);
    for at in 0..20 {
        let reply = post_id(&mut server.client(), &format!("none-{at}.")).expect("an answer");
        assert_eq!((reply.status, reply.text().as_str()), (507, r#"{"detail":"Insufficient Storage"}"#));
    }
    let held = log_bytes(&server);
    assert!(held <= (PAGES_MAX + SLACK) * PAGE_BYTES, "{held} bytes for at most {PAGES_MAX} pages");
    assert_eq!(server.get("/messages?q=hello").status, 200, "reading goes on");

    reader.execute_batch("COMMIT").expect("it lets go");
    wait_until("it is ready, by itself", || (server.get("/health/ready").status == 200).then_some(()));
    let load = Load::start(server.address, 4, "after", &mut random);
    load.wait_for_acks(500);
    let after = load.finish();
    assert!(after.refused.is_empty(), "{:?}", after.refused);
    sent.add(after);
    assert!(log_bytes(&server) <= 2 * held, "the log is written over");
    database::assert_holds(&server.sql(), &sent);
}
