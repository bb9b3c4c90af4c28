//! Replicas of an earlier build together with this build: both continue to store and find all messages.

use super::on;
use crate::harness::load::message_of;
use crate::harness::{Server, cluster, wait_until};

/// The number of migrations of the first build with the former index.
const FORMER: usize = 2;
const FORMER_VERSION: &str =
    "CREATE TABLE postroom_schema (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL,
         upgraded_by TEXT, upgraded_until TIMESTAMPTZ);
     INSERT INTO postroom_schema (id, version) VALUES (1, 2);
     INSERT INTO postroom_search (id, unicode) VALUES (1, '16.0.0')";
/// The indexing of the earlier build, one transaction: it locks the state, writes texts, moves its watermark.
const FORMER_INDEX: &str = "BEGIN;
     SELECT indexed FROM postroom_search FOR UPDATE SKIP LOCKED;
     INSERT INTO postroom_texts (arrival, folded, grams)
     SELECT arrival, convert_to(lower(text), 'UTF8'), ARRAY[7] FROM messages
     WHERE arrival > (SELECT indexed FROM postroom_search) AND text IS NOT NULL;
     UPDATE postroom_search SET indexed = (SELECT max(arrival) FROM messages);
     COMMIT";
/// The number of messages that the earlier build finds: the indexed ones, and those after its watermark.
const FORMER_SEARCH: &str = "SELECT
     (SELECT count(*) FROM postroom_texts WHERE grams @> ARRAY[7] AND position('\\x68656c6c6f'::bytea IN folded) > 0)
     + (SELECT count(*) FROM messages WHERE arrival > (SELECT indexed FROM postroom_search) AND lower(text) LIKE '%hello%')";

/// Stores rows like any build.
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
    make(&url, FORMER);
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
    // All replicas are of this build now.
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

/// Every migration, in order.
const STEPS: [&str; 9] = [
    include_str!("../../../crates/store/src/postgres/migrations/0001_inbox.sql"),
    include_str!("../../../crates/store/src/postgres/migrations/0002_details.sql"),
    include_str!("../../../crates/store/src/postgres/migrations/0003_runs.sql"),
    include_str!("../../../crates/store/src/postgres/migrations/0004_places.sql"),
    include_str!("../../../crates/store/src/postgres/migrations/0005_file.sql"),
    include_str!("../../../crates/store/src/postgres/migrations/0006_bring.sql"),
    include_str!("../../../crates/store/src/postgres/migrations/0007_gone.sql"),
    include_str!("../../../crates/store/src/postgres/migrations/0008_content.sql"),
    include_str!("../../../crates/store/src/postgres/migrations/0009_clusters.sql"),
];
/// The number of migrations of the last published build.
const BEFORE: usize = 7;
/// Creates a database like a build with this many migrations.
fn make(url: &str, steps: usize) {
    let version = FORMER_VERSION.replace("VALUES (1, 2)", &format!("VALUES (1, {steps})"));
    STEPS[..steps].iter().chain([&version.as_str()]).for_each(|sql| drop(cluster::sql(url, sql)));
}

/// Stores a status like that build.
const BRING: &str = "SELECT count(*) FROM postroom_bring_statuses(ARRAY['k:s'], ARRAY['1650'], ARRAY['STATE'],
     ARRAY['2025-01-15T10:00:00Z'], ARRAY[NULL], ARRAY['s'], ARRAY['meta'], ARRAY['2025-01-15T10:00:00Z'], ARRAY[NULL]::bytea[],
     7, ARRAY['queued', 'sent', 'delivered', 'read', 'played', 'failed'])";
/// Stores an event like that build.
const BRING_EVENT: &str =
    "SELECT count(*) FROM postroom_bring_events(ARRAY['KEY'], ARRAY['meta'], ARRAY['whatsapp'], ARRAY['odd'],
     ARRAY[NULL], ARRAY['2025-01-15T10:00:00Z'], ARRAY[NULL]::bytea[], 7)";

#[test]
fn statuses_and_events_of_a_build_before_this_one_are_filed_and_read_beside_it() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    make(&url, BEFORE);
    let bring = |state: &str| cluster::sql(&url, &BRING.replace("STATE", state));
    let event = |key: &str| cluster::sql(&url, &BRING_EVENT.replace("KEY", key));
    assert_eq!((bring("sent"), event("before")), ("1".to_owned(), "1".to_owned()));
    // The database can be copied without an upgrade.
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite:///{}", folder.path().join("copy.db").display());
    let copy = crate::harness::Setup::new().without("DATABASE_URL").arg("copy").arg("--json");
    let (status, stdout, stderr) = copy.arg("--from").arg(&url).arg("--to").arg(&file).run();
    assert!(status.success() && stdout.contains("\"equal\":true"), "{stdout}{stderr}");
    let server = on(&url).start();
    assert_eq!(
        (bring("read"), event("beside")),
        ("1".to_owned(), "1".to_owned()),
        "the earlier functions are there still"
    );
    let found = server.get("/messages/k:s/statuses").json();
    assert_eq!((found["status"].as_str(), found["statuses"].as_array().map(Vec::len)), (Some("read"), Some(2)));
    assert_eq!(found["statuses"][0]["extra"], serde_json::json!({}));
    assert_eq!(server.get("/events").json()["data"].as_array().map(Vec::len), Some(2));
    let (status, stdout, stderr) = on(&url).arg("check").arg("--data").run();
    assert!(status.success(), "{stdout}{stderr}");
}

/// All objects of the migrations, one line each, except the index that only an earlier build has.
const SCHEMA: &str = "
    SELECT string_agg(line, chr(10) ORDER BY line) FROM (
        SELECT format('column %s.%s %s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                      a.attcollation::regcollation, pg_get_expr(d.adbin, d.adrelid))
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (c.oid, a.attnum)
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL SELECT format('constraint %s %s', conrelid::regclass, pg_get_constraintdef(oid))
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT format('index %s', indexdef) FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT format('sequence %s', relname)
        FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace
        UNION ALL SELECT format('trigger %s %s', tgenabled, pg_get_triggerdef(oid)) FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT format('function %s', pg_get_functiondef(oid)) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT format('storage %s %s', oid::regclass, reloptions)
        FROM pg_class WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL
    ) lines (line) WHERE line !~ '^(column|constraint|index|storage) .*postroom_texts'";

#[test]
fn an_upgrade_from_any_step_ends_in_the_schema_of_a_fresh_database() {
    let Some(cluster) = cluster::shared() else { return };
    let schema_after = |steps: usize| {
        let url = cluster.database();
        if steps > 0 {
            make(&url, steps);
        }
        drop(on(&url).start());
        cluster::sql(&url, SCHEMA)
    };
    let fresh = schema_after(0);
    assert!(fresh.contains("FUNCTION public.postroom_admit") && fresh.lines().count() > 100, "{fresh}");
    for steps in FORMER..STEPS.len() {
        assert_eq!(schema_after(steps), fresh, "an upgrade from schema {steps}");
    }
}
