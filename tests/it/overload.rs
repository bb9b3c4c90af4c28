//! Far more load than the store can take, because it is slow or blocked:
//! requests beyond the queue are refused at once, and memory is bounded.

use super::harness::load::Load;
use super::harness::random::Random;
use super::harness::stored::Stored;
use super::harness::{Client, Server, Setup, body, message, sign, wait_until};
use runtime::process::raise_open_file_limit;

const CONNECTIONS: usize = 192;
/// So small that most of the connections are refused.
const QUEUE_MAX: usize = 48;
/// Each has its own id and text: if they were kept, they would exceed the allowed growth.
const REFUSALS: f64 = 20_000.0;
/// The memory of this many requests, beyond that of the same load on a healthy server.
const GROWTH_BYTES_MAX: u64 = 12 << 20;

/// Settings with a small queue, and with time to wait for the blocked store.
pub fn with_small_queue(setup: Setup) -> Setup {
    setup.patient().env("POSTROOM_STORE_QUEUE_MAX", QUEUE_MAX).env("POSTROOM_STORE_BATCH_MAX", 16)
}

/// Starts a load from far more connections than the queue has places.
pub fn start_load(server: &Server, random: &mut Random) -> Load {
    let load = Load::start(server.address, CONNECTIONS, "m", random);
    load.wait_for_acks(1_000);
    load
}

/// Requests that were refused because the queue is full, or the store is known to be unavailable.
fn refusals(server: &Server) -> f64 {
    let count = |reason| server.metric(&format!("postroom_refused_total{{reason=\"{reason}\"}}"));
    ["queue_full", "database_unavailable"].into_iter().map(|reason| count(reason).expect("it is counted")).sum()
}

/// Asserts that thousands of requests are refused while the queue waits, and that memory does not grow.
pub fn assert_refuses_and_stays_small(server: &Server) {
    let (peak, before) = (server.memory_peak_bytes(), refusals(server));
    wait_until("thousands are refused", || {
        let queued = server.metric("postroom_queue_messages").expect("it is counted");
        assert!(queued <= QUEUE_MAX as f64, "{queued} messages wait");
        (refusals(server) >= before + REFUSALS).then_some(())
    });
    // The kernel counts per thread, and may report slightly less than before.
    let grown = server.memory_peak_bytes().saturating_sub(peak);
    println!("{peak} bytes at most before, {grown} more afterwards");
    assert!(grown <= GROWTH_BYTES_MAX, "{grown} bytes more than {peak}");
}

/// Asserts that all acknowledged messages are stored, including those after the recovery.
pub fn assert_comes_back(server: &Server, load: Load) {
    load.wait_for_acks(load.acks() + 1_000);
    assert_eq!(server.get("/health/ready").status, 200);
    let sent = load.finish();
    assert!(sent.refused.keys().all(|status| *status == 503), "{:?}", sent.refused);
    let stored = server.stored();
    stored.assert_holds(&sent);
    stored.assert_sound();
    stored.assert_counted_by(server);
}

#[test]
fn while_another_program_holds_the_store_most_are_refused_at_once() {
    let server = with_small_queue(Setup::new()).start();
    let load = start_load(&server, &mut Random::announced("load on a store that stands still"));
    let lock = server.stored().lock();
    let acks = load.acks();
    assert_refuses_and_stays_small(&server);
    // Right away: only requests whose commit had begun were acknowledged meanwhile.
    assert!(load.acks() - acks <= 2 * CONNECTIONS, "{} were acknowledged", load.acks() - acks);
    assert_eq!(server.get("/health/ready").status, 200, "nothing of ours is broken");
    assert_eq!(server.get("/messages?limit=1").status, 200, "reading goes on");
    lock.release();
    assert_comes_back(&server, load);
}

/// More than the queue and all commits in progress take with
/// the default settings, on either store (two commits on
/// PostgreSQL); fewer than the connections that are accepted.
const CROWD: usize = 3_400;

#[test]
fn as_shipped_the_queue_is_full_before_all_connections_wait_for_the_store() {
    let files = raise_open_file_limit().unwrap_or(u64::MAX);
    if files < CROWD as u64 + 512 {
        return println!("skipped: {files} open files are too few for a crowd");
    }
    let server = Setup::new().patient().start();
    let lock = server.stored().lock();
    let post = |at: usize| {
        let bytes = body(&message(&format!("m{at}")));
        let mut client = server.client();
        client.send("POST", "/webhook", &[("X-Signature", &sign(&bytes))], &bytes).expect("it can be sent");
        client
    };
    let clients: Vec<Client> = (0..CROWD).map(post).collect();
    wait_until("whoever finds no room is told", || (refusals(&server) > 0.0).then_some(()));
    for path in ["/health/live", "/messages?limit=1", "/stats"] {
        assert_eq!(server.get(path).status, 200, "{path} finds a connection and an answer");
    }
    lock.release();
    let statuses: Vec<u16> =
        clients.into_iter().map(|mut client| client.receive().expect("everybody is answered").status).collect();
    let count = |status: u16| statuses.iter().filter(|known| **known == status).count();
    println!("{} stored, {} refused", count(200), count(503));
    assert_eq!(count(200) + count(503), CROWD, "{statuses:?}");
    assert!(count(200) >= 1_024 && count(503) >= CROWD - 3_072 - 1, "{} stored, {} refused", count(200), count(503));
    assert_eq!(server.rows(), count(200) as i64, "stored is what was acknowledged");
}

#[test]
fn a_page_with_more_text_than_an_answer_may_have_is_refused_and_a_shorter_one_is_not() {
    let server = Server::start();
    let stored = server.stored();
    let text = match &stored {
        Stored::File(_) => "hex(zeroblob(4 << 20))",
        Stored::Postgres(_) => "repeat('0', 8 << 20)",
    };
    for at in 0..9 {
        let columns = "message_id, from_msisdn, to_msisdn, ts, text, created_at";
        let values = format!("'m{at}', '+5', '+6', '2025-01-15T09:30:00Z', {text}, 'x'");
        stored.execute(&format!("INSERT INTO messages ({columns}) VALUES ({values})"));
    }
    let refused = |query: &str| {
        let reply = server.get(&format!("/messages?{query}"));
        reply.status == 503 && reply.text().len() < 100
    };
    assert!(refused("limit=100") && refused("limit=9&q=000"));
    // This order ends before transactions in progress, such as one that counts these rows.
    wait_until("all have arrived and are refused", || refused("limit=100&order=arrival").then_some(()));
    let found = server.get("/messages?limit=2").json();
    assert_eq!((found["data"].as_array().map(Vec::len), &found["total"]), (Some(2), &9.into()));
}
