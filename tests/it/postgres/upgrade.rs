//! Replicas of an earlier build beside one of this: both go on storing and finding everything.

use super::on;
use crate::harness::load::message_of;
use crate::harness::{Server, cluster, wait_until};

/// The schema of the earlier build.
const FORMER: [&str; 2] = [
    include_str!("../../../src/store/postgres/migrations/0001_inbox.sql"),
    include_str!("../../../src/store/postgres/migrations/0002_details.sql"),
];
const FORMER_VERSION: &str =
    "CREATE TABLE postroom_schema (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL,
         upgraded_by TEXT, upgraded_until TIMESTAMPTZ);
     INSERT INTO postroom_schema (id, version) VALUES (1, 2);
     INSERT INTO postroom_search (id, unicode) VALUES (1, '16.0.0')";
/// What the earlier build indexes with, in one transaction: it takes the state, writes texts and moves its watermark.
const FORMER_INDEX: &str = "BEGIN;
     SELECT indexed FROM postroom_search FOR UPDATE SKIP LOCKED;
     INSERT INTO postroom_texts (arrival, folded, grams)
     SELECT arrival, convert_to(lower(text), 'UTF8'), ARRAY[7] FROM messages
     WHERE arrival > (SELECT indexed FROM postroom_search) AND text IS NOT NULL;
     UPDATE postroom_search SET indexed = (SELECT max(arrival) FROM messages);
     COMMIT";
/// How many messages the earlier build finds: those that it has indexed, and those behind its watermark.
const FORMER_SEARCH: &str = "SELECT
     (SELECT count(*) FROM postroom_texts WHERE grams @> ARRAY[7] AND position('\\x68656c6c6f'::bytea IN folded) > 0)
     + (SELECT count(*) FROM messages WHERE arrival > (SELECT indexed FROM postroom_search) AND lower(text) LIKE '%hello%')";

/// Rows as any build writes them.
fn store(url: &str, name: &str, rows: u32) {
    let insert = format!(
        "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at)
         SELECT '{name}' || n, '+1', '+2', '2025-01-15T10:00:00Z', 'Hello ' || n, '2025-01-15T10:00:00Z'
         FROM generate_series(1, {rows}) n"
    );
    cluster::sql(url, &insert);
}

fn found(server: &Server) -> u64 {
    server.get("/messages?q=hello&limit=1").json()["total"].as_u64().expect("a total")
}

#[test]
fn an_earlier_build_goes_on_storing_and_searching_beside_this_one() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    FORMER.iter().chain([&FORMER_VERSION]).for_each(|sql| drop(cluster::sql(&url, sql)));
    store(&url, "before", 1_500);
    cluster::sql(&url, FORMER_INDEX);
    let former = || cluster::sql(&url, FORMER_SEARCH).parse::<u64>().expect("a number");
    let server = on(&url).start();
    assert_eq!((former(), found(&server)), (1_500, 1_500));
    store(&url, "beside", 1_500);
    server.store(&message_of("text 1"));
    assert_eq!((former(), found(&server)), (3_001, 3_001), "what either stores, both find");
    cluster::sql(&url, FORMER_INDEX);
    let packed = "SELECT packed > 0 FROM postroom_search";
    wait_until("the new index holds something", || (cluster::sql(&url, packed) == "t").then_some(()));
    store(&url, "behind both", 10);
    let total = 3_011;
    assert_eq!((former(), found(&server)), (total, total), "each has an index of its own");
    // All are of this build now.
    let (status, stdout, stderr) = on(&url).arg("reindex").run();
    assert!(status.success(), "{stdout}{stderr}");
    assert_eq!(cluster::sql(&url, "SELECT to_regclass('postroom_texts') IS NULL"), "t");
    assert_eq!(found(&server), total);
    let (status, stdout, stderr) = on(&url).arg("check").arg("--data").run();
    assert!(status.success(), "{stdout}{stderr}");
    server.kill();
    assert_eq!(found(&on(&url).start()), total);
}

#[test]
fn a_fresh_database_has_no_index_of_an_earlier_build() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let server = on(&url).start();
    server.store(&message_of("text 1"));
    assert_eq!(found(&server), 1);
    assert_eq!(cluster::sql(&url, "SELECT to_regclass('postroom_texts') IS NULL"), "t");
}
