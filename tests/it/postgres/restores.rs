//! Rows from restores, replication and other programs, with their own numbers of arrival or without
//! any: totals, searches and followers of arrivals see all of them, and a log line reports the event.

use std::collections::BTreeSet;
use std::process::Stdio;

use super::{ids, on, own_cluster};
use crate::harness::cluster::{self, Cluster, psql, sql};
use crate::harness::load::message_of;
use crate::harness::{Server, Stored, message, wait_until};

/// Consumes this many transaction numbers.
fn burn(url: &str, transactions: u32) {
    let burn =
        format!("DO $$ BEGIN FOR i IN 1..{transactions} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$");
    sql(url, &burn);
}

/// A client that follows arrivals by cursor.
struct Follower {
    target: String,
    seen: BTreeSet<String>,
}

impl Follower {
    fn new() -> Self {
        Self { target: "/messages?order=arrival&limit=100".to_owned(), seen: BTreeSet::new() }
    }

    /// Follows to the current end. Returns the number of messages seen so far.
    fn follow(&mut self, server: &Server) -> usize {
        loop {
            let reply = server.get(&self.target);
            assert_eq!(reply.status, 200);
            let page = reply.json()["data"].as_array().expect("a list").clone();
            self.seen.extend(page.iter().map(|row| row["message_id"].as_str().expect("a text").to_owned()));
            if let Some(next) = reply.next_page(&self.target) {
                self.target = next;
            }
            if page.is_empty() {
                return self.seen.len();
            }
        }
    }
}

/// The number of texts that a search for "hello" finds.
const TEXTS: &str = "SELECT count(*) FROM messages WHERE text ILIKE '%hello%'";

/// Asserts that totals, search and statistics match the table, and that the follower sees all of it.
fn assert_seen(server: &Server, url: &str, follower: &mut Follower) {
    let all = ids(url).len();
    assert_eq!(server.get("/messages").json()["total"], all);
    assert_eq!(server.get("/messages?since=2000-01-01T00:00:00Z").json()["total"], all);
    wait_until("who follows has seen all", || {
        follower.follow(server);
        ids(url).is_subset(&follower.seen).then_some(())
    });
    let texts = sql(url, TEXTS);
    assert_eq!(server.get("/messages?q=hello").json()["total"].to_string(), texts);
    Stored::at(url).assert_counted_by(server);
    wait_until("everything is counted", || (server.metric("postroom_postgres_uncounted")? == 0.0).then_some(()));
    assert_eq!(server.get("/messages").json()["total"], all);
    assert_eq!(server.get("/messages?q=hello").json()["total"].to_string(), texts);
    Stored::at(url).assert_counted_by(server);
}

fn told(server: &Server, what: &str) {
    server.wait_for_line(|line| line["message"].as_str().is_some_and(|message| message.contains(what)));
}

/// Replaces the cluster by another one with the dumped content.
fn replace(cluster: &Cluster, url: &str, options: &[&str]) {
    let dump = cluster.folder().join("dump.sql");
    let file = std::fs::File::create(&dump).unwrap();
    let program = cluster::programs().expect("PostgreSQL is installed").join("pg_dump");
    let status = std::process::Command::new(program).args(options).args(["-d", url]).stdout(file).status().unwrap();
    assert!(status.success());
    cluster.halt("fast");
    std::fs::rename(cluster.data(), cluster.folder().join("former")).unwrap();
    let data = cluster.data();
    cluster.run(
        "initdb",
        &["-D", data.to_str().unwrap(), "-U", "postroom", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"],
    );
    cluster.launch("");
    let name = url.split(['/', '?']).nth(3).expect("a URL names a database");
    sql(&cluster.url_of("postgres"), &format!("CREATE DATABASE {name} TEMPLATE template0"));
    let restored = psql(url).arg("-f").arg(&dump).stdout(Stdio::null()).status().unwrap();
    assert!(restored.success());
}

#[test]
fn a_dump_restored_into_a_new_cluster_under_a_running_replica() {
    let Some(cluster) = own_cluster() else { return };
    let url = cluster.database();
    let server = on(&url).start();
    burn(&url, 20_000);
    for at in 0..100 {
        server.store(&message_of(&format!("m{at}")));
    }
    let mut follower = Follower::new();
    assert_seen(&server, &url, &mut follower);
    replace(&cluster, &url, &[]);
    assert!(sql(&url, "SELECT pg_current_xact_id()").parse::<u64>().unwrap() < 20_000, "numbers begin lower");
    wait_until("it is served again", || {
        (server.post(&crate::harness::body(&message("n0"))).status == 200).then_some(())
    });
    for at in 1..60 {
        server.store(&message_of(&format!("n{at}")));
    }
    assert_seen(&server, &url, &mut follower);
    assert_eq!(server.get("/messages").json()["total"], 160);
    told(&server, "the data comes from another cluster");
    Stored::at(&url).assert_sound();
    // A replica that starts also finds another cluster, but has no more work.
    let (_, lines, _) = on(&url).start().stop();
    assert!(lines.iter().all(|line| !line["message"].to_string().contains("another cluster")), "{lines:?}");
}

/// A row with these values of `message_id` and `arrival`, or several.
fn insert(id: &str, arrival: &str, rows: u32) -> String {
    format!(
        "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at, arrival)
         SELECT '{id}' || n, '+1' || n % 7, '+2', '2025-01-15T10:00:00Z', 'Hello ' || n, 'x', {arrival}
         FROM generate_series(1, {rows}) n"
    )
}

#[test]
fn rows_with_numbers_of_their_own_are_counted_found_and_followed() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let server = on(&url).start();
    for at in 0..40 {
        server.store(&message_of(&format!("m{at}")));
    }
    let mut follower = Follower::new();
    assert_seen(&server, &url, &mut follower);
    let any = "(SELECT min(arrival) FROM messages)";
    let replica = "SET session_replication_role = replica";
    let histories = [
        insert("low", "n", 1_500),
        insert("same", any, 3),
        insert("none", "NULL", 3),
        insert("high", "4e18::bigint + n", 3),
        insert("ahead", "9e15::bigint + n", 3),
        // Like a restore or replication: ordinary triggers do not fire.
        format!("{replica}; {}; {}", insert("restored", "n", 20), insert("nameless", "NULL", 2)),
        format!("{replica}; DELETE FROM messages WHERE message_id IN ('m3', 'low3', 'restored2')"),
        format!(
            "{replica}; UPDATE messages SET text = 'hello there', from_msisdn = '+3' WHERE message_id IN ('m4', 'low4')"
        ),
        "BEGIN; SAVEPOINT a; INSERT INTO messages VALUES ('s1', '+1', '+2', '2025-01-15T10:00:00Z', 'hello', 'x');
         ROLLBACK TO a; INSERT INTO messages VALUES ('s2', '+1', '+2', '2025-01-15T10:00:00Z', 'hello', 'x'); COMMIT"
            .to_owned(),
        format!("{replica}; TRUNCATE messages; {}", insert("anew", "n", 5)),
    ];
    for history in histories {
        // A lock of the indexing may conflict with emptying the tables.
        wait_until("it is done", || cluster::try_sql(&url, &history).ok());
        assert_seen(&server, &url, &mut follower);
        Stored::at(&url).assert_sound();
    }
    told(&server, "another program inserted messages without a number of arrival");
    let made_anew = |line: &serde_json::Value| {
        ["recreated", "are rebuilt"].iter().any(|part| line["message"].to_string().contains(part))
    };
    assert!(!server.lines().iter().any(made_anew), "{:?}", server.lines());
}

#[test]
fn what_came_while_triggers_were_off_is_counted_by_the_service_itself() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let server = on(&url).start();
    for at in 0..40 {
        server.store(&message_of(&format!("m{at}")));
    }
    let found = |server: &Server| server.get("/messages?q=hello").json()["total"].to_string();
    let texts = |server: &Server| found(server) == sql(&url, TEXTS);
    let counted = |server: &Server, total: usize| server.get("/messages").json()["total"] == total && texts(server);
    let mut follower = Follower::new();
    assert_seen(&server, &url, &mut follower);
    // Like `pg_restore --data-only --disable-triggers`.
    let (off, on_again) = ("ALTER TABLE messages DISABLE TRIGGER ALL", "ALTER TABLE messages ENABLE TRIGGER ALL");
    sql(
        &url,
        &format!(
            "BEGIN; {off}; {}; DELETE FROM messages WHERE message_id = 'm7'; {on_again}; COMMIT",
            insert("r", "n", 20)
        ),
    );
    wait_until("they are counted", || counted(&server, 59).then_some(()));
    told(
        &server,
        "a trigger of postroom on messages was missing or disabled; it was recreated, and all is counted again",
    );
    wait_until("all is sound", || on(&url).arg("check").arg("--data").run().0.success().then_some(()));
    // Hidden changes, or rows that an earlier build did not count: the next start, and any new connection.
    let hidden = |id| format!("BEGIN; {off}; {}; SELECT postroom_watch(); COMMIT", insert(id, "n + 100", 5));
    let (status, _, _) = server.stop();
    assert!(status.success());
    sql(&url, &hidden("s"));
    let server = on(&url).start();
    wait_until("they are counted", || counted(&server, 64).then_some(()));
    told(&server, "messages were added or deleted unnoticed");
    let counting = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'postroom'";
    sql(&url, &format!("{}; {counting}", hidden("t").replace("n + 100", "n + 200")));
    wait_until("they are counted", || counted(&server, 69).then_some(()));
    wait_until("all is sound", || on(&url).arg("check").arg("--data").run().0.success().then_some(()));
}

#[test]
fn messages_that_another_server_replicates_are_seen() {
    let Some(publisher) = Cluster::start("-c wal_level=logical") else { return };
    let Some(subscriber) = own_cluster() else { return };
    let (from, to) = (publisher.database(), subscriber.database());
    let (source, server) = (on(&from).start(), on(&to).start());
    burn(&to, 20_000);
    for at in 0..40 {
        source.store(&message_of(&format!("m{at}")));
        server.store(&message_of(&format!("n{at}")));
    }
    let mut follower = Follower::new();
    assert_seen(&server, &to, &mut follower);
    sql(&from, "CREATE PUBLICATION ours FOR TABLE messages");
    let name = from.split(['/', '?']).nth(3).expect("a URL names a database");
    let way = format!("host={} user=postroom dbname={name}", publisher.folder().display());
    sql(&to, &format!("CREATE SUBSCRIPTION theirs CONNECTION '{way}' PUBLICATION ours"));
    wait_until("they are here", || (ids(&to).len() == 80).then_some(()));
    assert_seen(&server, &to, &mut follower);
    source.store(&message_of("later"));
    sql(
        &from,
        "DELETE FROM messages WHERE message_id = 'm3'; UPDATE messages SET from_msisdn = '+3' WHERE message_id = 'm4'",
    );
    let changed =
        "SELECT count(*) FROM messages WHERE message_id = 'later' OR (message_id = 'm4' AND from_msisdn = '+3')";
    wait_until("this too", || (ids(&to).len() == 80 && sql(&to, changed) == "2").then_some(()));
    assert_seen(&server, &to, &mut follower);
    Stored::at(&to).assert_sound();
    sql(&to, "DROP SUBSCRIPTION theirs");
}

#[test]
fn numbers_of_what_a_promotion_lost_are_not_given_again() {
    let Some(primary) = own_cluster() else { return };
    let url = primary.database();
    on(&url).start().store(&message("m1"));
    let standby = super::refusals::standby_of(&primary);
    let name = url.split(['/', '?']).nth(3).expect("a URL names a database");
    let there = standby.url_of(name);
    let base = |url: &str| sql(url, "SELECT arrival_base FROM postroom_state").parse::<i64>().unwrap();
    wait_until("it has the message", || (ids(&there).len() == 1).then_some(()));
    let (_, lines, _) = on(&url).start().stop();
    assert!(lines.iter().all(|line| !line["message"].to_string().contains("another cluster")), "{lines:?}");
    standby.promote();
    let before = base(&there);
    let server = on(&there).start();
    told(&server, "a promoted standby");
    server.store(&message("m2"));
    assert_eq!(base(&there) - before, 1 << 50);
    let above = format!("SELECT max(arrival) > {} FROM messages", 1_i64 << 50);
    assert_eq!(sql(&there, &above), "t");
}

#[test]
fn numbers_that_went_back_under_a_replica_are_raised() {
    let Some(cluster) = own_cluster() else { return };
    let url = cluster.database();
    let server = on(&url).start();
    server.store(&message("m1"));
    let mut follower = Follower::new();
    assert_eq!(follower.follow(&server), 1);
    // Like a restored disk snapshot: the same cluster and timeline, but fewer transactions.
    let data = cluster.data();
    let kept = cluster.folder().join("kept");
    cluster.halt("fast");
    cluster.run("pg_resetwal", &["--dry-run", "-D", data.to_str().unwrap()]);
    assert!(cluster.unprivileged("cp").args(["-a"]).arg(&data).arg(&kept).status().unwrap().success());
    cluster.launch("");
    super::wait_for_readiness(&server, 200);
    burn(&url, 20_000);
    server.store(&message("lost"));
    wait_until("it is followed", || (follower.follow(&server) == 2).then_some(()));
    // So the replica has seen the current numbers.
    wait_until("it is counted", || (server.metric("postroom_postgres_uncounted")? == 0.0).then_some(()));
    let rounds = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    let now: u64 = sql(&url, rounds).parse().unwrap();
    wait_until("a round was made", || (sql(&url, rounds).parse::<u64>().unwrap() > now + 20).then_some(()));
    cluster.halt("immediate");
    std::fs::rename(&data, cluster.folder().join("former")).unwrap();
    std::fs::rename(&kept, &data).unwrap();
    cluster.launch("");
    told(&server, "the data comes from another cluster, a backup");
    wait_until("it is served again", || {
        (server.post(&crate::harness::body(&message("m2"))).status == 200).then_some(())
    });
    wait_until("it is followed", || (follower.follow(&server) == 3).then_some(()));
    assert_seen(&server, &url, &mut follower);
}
