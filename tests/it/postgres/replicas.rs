//! Several replicas at once. `crash.rs` shows that each may be killed at any moment.

use super::{filed, on};
use crate::harness::load::message_of;
use crate::harness::random::long_run;
use crate::harness::{Client, Server, body, cluster, message, sign, wait_until};

#[test]
fn replicas_that_start_at_once_make_the_tables_once() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let starts: Vec<_> = (0..4).map(|_| on(&url)).map(|setup| std::thread::spawn(|| setup.start())).collect();
    let replicas: Vec<_> = starts.into_iter().map(|start| start.join().expect("it starts")).collect();
    replicas[0].store(&message("m1"));
    for replica in &replicas {
        assert_eq!(replica.get("/messages").json()["total"], 1, "what one stored, all show");
    }
    assert_eq!(cluster::sql(&url, "SELECT version, upgraded_by IS NULL FROM postroom_schema"), "9|t");
}

#[test]
fn copies_that_reach_three_replicas_at_once_make_one_row() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let replicas: Vec<_> = (0..3).map(|_| on(&url).start()).collect();
    let (rounds, copies) = if long_run() { (2_000, 16) } else { (60, 16) };
    let barrier = std::sync::Barrier::new(copies);
    std::thread::scope(|scope| {
        for at in 0..copies {
            let (address, barrier) = (replicas[at % 3].address, &barrier);
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for round in 0..rounds {
                    let mut message = message_of(&format!("m{round}"));
                    message["text"] = format!("copy {at}").into();
                    let bytes = body(&message);
                    barrier.wait();
                    let reply = client.request("POST", "/webhook", &[("X-Signature", &sign(&bytes))], &bytes);
                    assert_eq!(reply.expect("an answer").status, 200);
                }
            });
        }
    });
    let sum = |outcome| replicas.iter().map(|replica| filed(replica, outcome)).sum::<f64>();
    assert_eq!((sum("created"), sum("duplicate")), (f64::from(rounds), 0.0));
    assert_eq!(sum("conflict"), f64::from(rounds) * (copies as f64 - 1.0));
    assert_eq!(replicas[1].get("/stats").json()["total_messages"], rounds);
}

#[test]
fn another_program_may_insert_and_a_rebuild_changes_no_answer() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let server = on(&url).start();
    for at in 0..40 {
        server.store(&message_of(&format!("m{at}")));
    }
    let insert = "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at) \
                  VALUES ('theirs', '+5', '+6', '2025-01-01T00:00:00Z', 'ÉCOLE', 'x')";
    cluster::sql(&url, insert);
    let answers = || {
        let targets = [
            "/stats",
            "/messages?limit=100",
            "/messages?q=%C3%A9cole",
            "/messages?from=%2B5",
            "/messages?q=hello&offset=3",
        ];
        targets.map(|target| server.get(target).text())
    };
    let before = answers();
    assert_eq!(server.get("/messages?q=%C3%A9cole").json()["total"], 1);
    let (status, stdout, stderr) = on(&url).arg("reindex").run();
    assert!(status.success() && stdout.contains("41 messages"), "{stdout}{stderr}");
    assert_eq!(answers(), before);
    // One of the replicas completes the work.
    wait_until("everything is counted", || (server.metric("postroom_postgres_uncounted")? == 0.0).then_some(()));
    assert_eq!(answers(), before);
    let (status, stdout, _) = on(&url).arg("check").arg("--data").run();
    assert!(status.success(), "{stdout}");
    // Our triggers do not fire, and nothing shows the change later; a running replica would recount.
    server.kill();
    let unasked = |statement: &str| {
        format!("BEGIN; ALTER TABLE messages DISABLE TRIGGER ALL; {statement}; SELECT postroom_watch(); COMMIT")
    };
    cluster::sql(&url, &unasked("DELETE FROM messages WHERE message_id = 'theirs'"));
    let (status, stdout, _) = on(&url).arg("check").arg("--data").run();
    assert!(!status.success() && stdout.contains("differ from a recount"), "{stdout}");
    cluster::sql(
        &url,
        &unasked("UPDATE messages SET arrival = (SELECT min(arrival) FROM messages) WHERE message_id = 'm7'"),
    );
    let (_, stdout, _) = on(&url).arg("check").arg("--data").run();
    assert!(stdout.contains("rows share a number of arrival"), "{stdout}");
    for harm in ["DROP TRIGGER postroom_note_updated ON messages", "ALTER TABLE messages DISABLE TRIGGER USER"] {
        cluster::sql(&url, harm);
        let (status, stdout, _) = on(&url).arg("check").run();
        assert!(!status.success() && stdout.contains("a trigger of postroom"), "{stdout}");
        on(&url).start().wait_for_line(|line| line["message"].to_string().contains("a trigger of postroom"));
        let (status, stdout, stderr) = on(&url).arg("reindex").run();
        assert!(status.success(), "{stdout}{stderr}");
        let (status, stdout, _) = on(&url).arg("check").run();
        assert!(status.success(), "{stdout}");
    }
}

#[test]
fn a_transaction_of_another_program_has_an_end_before_its_numbers_have() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let server = on(&url).start();
    let insert = |from: u32, to: u32| {
        format!(
            "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, created_at)
             SELECT 'm' || n, '+1', '+2', '2025-01-15T00:00:00Z', 'x' FROM generate_series({from}, {to}) n"
        )
    };
    cluster::sql(&url, &insert(1, 3));
    // Simulates as many inserts of another program meanwhile.
    let skip = "SELECT setval('postroom_foreign_rows', nextval('postroom_foreign_rows') + 524280)";
    let refused = format!("BEGIN; {}; {skip}; {}; COMMIT", insert(4, 6), insert(7, 30));
    let why = cluster::try_sql(&url, &refused).expect_err("there are no numbers for these");
    assert!(why.contains("a transaction may insert or change 524288 messages at most"), "{why}");
    // The inserts work one after the other.
    for statement in [&insert(4, 6), skip, &insert(7, 30)] {
        cluster::sql(&url, statement);
    }
    cluster::sql(&url, "UPDATE messages SET from_msisdn = '+3' WHERE ts > '2025'");
    assert_eq!(server.get("/messages?from=%2B3").json()["total"], 30);
    assert_eq!(cluster::sql(&url, "SELECT count(DISTINCT arrival) FROM messages"), "30");
}

#[test]
fn what_other_programs_delete_and_change_is_seen_at_once_and_taken_in() {
    const ROWS: u64 = 3_000;
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let replicas: Vec<_> = (0..2).map(|_| on(&url).start()).collect();
    let insert = format!(
        "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at)
         SELECT 'm' || n, '+' || n % 30, '+1', '2025-01-0' || n % 5 + 1 || 'T00:00:00Z', 'word ' || n % 10, 'x'
         FROM generate_series(1, {ROWS}) n"
    );
    cluster::sql(&url, &insert);
    // A role with only this privilege. It owns a table of the same name, which must have no effect.
    let role = format!("cleaner_{}", std::process::id());
    cluster::sql(&url, &format!("CREATE ROLE {role} LOGIN; GRANT SELECT, UPDATE, DELETE ON messages TO {role}"));
    let theirs = |statement: &str| {
        let decoy = "CREATE TEMPORARY TABLE postroom_gone (arrival BIGINT, from_msisdn TEXT, ts TEXT)";
        cluster::sql(&url, &format!("SET ROLE {role}; {decoy}; {statement}"));
    };
    let totals = |server: &Server| {
        let total = |query: &str| server.get(&format!("/messages?limit=1{query}")).json()["total"].as_u64();
        let of = |query: &str| total(query).expect("a total");
        let stats = server.get("/stats").json();
        assert_eq!(stats["total_messages"], of(""));
        let senders = stats["senders_count"].as_u64().expect("a number");
        [of(""), of("&from=%2B7"), of("&since=2025-01-03T00:00:00Z"), of("&q=word"), of("&q=d+3"), senders]
    };
    let expect = |totals_now: [u64; 6]| {
        replicas.iter().for_each(|replica| assert_eq!(totals(replica), totals_now));
        let left = "SELECT (SELECT count(*) FROM postroom_gone) + (SELECT count(*) FROM postroom_gone_texts)";
        wait_until("it is taken in", || (cluster::sql(&url, left) == "0").then_some(()));
        replicas.iter().for_each(|replica| assert_eq!(totals(replica), totals_now));
    };
    let is_done = "SELECT s.messages + i.texts - i.removed FROM postroom_state s, postroom_search i";
    wait_until("all is counted and indexed", || {
        (cluster::sql(&url, is_done).parse::<u64>().expect("a number") >= ROWS + 2_001).then_some(())
    });
    expect([3_000, 100, 1_800, 3_000, 300, 30]);
    theirs("DELETE FROM messages WHERE ts < '2025-01-03'");
    expect([1_800, 100, 1_800, 1_800, 300, 18]);
    theirs("UPDATE messages SET text = 'WORD 3', from_msisdn = '+7' WHERE ts > '2025-01-05'");
    expect([1_800, 700, 1_800, 1_800, 900, 12]);
    let (status, stdout, stderr) = on(&url).arg("check").arg("--data").run();
    assert!(status.success() && stdout.contains("agree with a recount"), "{stdout}{stderr}");
    cluster::sql(&url, "TRUNCATE messages");
    expect([0, 0, 0, 0, 0, 0]);
    replicas[0].store(&message("m1"));
    expect([1, 0, 1, 0, 0, 1]);
    let (status, stdout, stderr) = on(&url).arg("check").arg("--data").run();
    assert!(status.success(), "{stdout}{stderr}");
}

#[test]
fn a_backlog_is_counted_once_by_two_replicas_of_which_one_is_killed_and_answers_are_exact_meanwhile() {
    const ROWS: u64 = 60_000;
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let (killed, server) = (on(&url).start(), on(&url).start());
    let insert = format!(
        "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, created_at)
         SELECT 'm' || n, '+' || n % 600, '+1', to_char(timestamp '2025-01-01' + n / 4 * interval '1 minute', 'YYYY-MM-DD\"T\"HH24:MI:00Z'), 'x'
         FROM generate_series(1, {ROWS}) n"
    );
    cluster::sql(&url, &insert);
    let counted = || cluster::sql(&url, "SELECT messages FROM postroom_state").parse::<u64>().expect("a number");
    wait_until("counting has begun", || (counted() > 0).then_some(()));
    killed.kill();
    let total = |query: &str| server.get(&format!("/messages?limit=1{query}")).json()["total"].as_u64();
    wait_until("everything is counted", || {
        let is_counted = counted() == ROWS;
        assert_eq!(total(""), Some(ROWS));
        assert_eq!(total("&from=%2B7"), Some(ROWS / 600));
        // Four per minute: a week later, row 40,320 is the first one.
        assert_eq!(total("&since=2025-01-08T00:00:00Z"), Some(ROWS - 40_319));
        is_counted.then_some(())
    });
    assert_eq!(server.get("/stats").json()["senders_count"], 600);
    let (status, stdout, stderr) = on(&url).arg("check").arg("--data").run();
    assert!(status.success(), "{stdout}{stderr}");
}

#[test]
fn long_texts_are_indexed_a_few_at_a_time() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let server = on(&url).start();
    let insert = "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at) \
                  SELECT 'm' || n, '+5', '+6', '2025-01-15T09:30:00Z', repeat('0', 16384), 'x' FROM generate_series(1, 1000) n";
    cluster::sql(&url, insert);
    // One megabyte and one text per segment. The rest is smaller, and has too few rows for indexing.
    let indexed = || cluster::sql(&url, "SELECT texts, (SELECT count(*) FROM postroom_stretches) FROM postroom_search");
    wait_until("most are indexed", || (indexed() == "975|15").then_some(()));
    assert_eq!(server.get("/messages?limit=1&q=00000").json()["total"], 1_000);
}
