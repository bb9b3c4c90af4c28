//! The write-ahead log under load, and beside a reader that does not let go.

use crate::harness::load::post_id;
use crate::harness::server::{Server, Setup};

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

    // Whoever holds an older state keeps the log from being written over, and nothing else.
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
