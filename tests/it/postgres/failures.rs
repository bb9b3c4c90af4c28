//! All failures of the database: responses are 503 or
//! 507 meanwhile, readiness turns red and recovers by
//! itself, and no acknowledged message is missing.

use std::io::Write;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::sources::sources_on;
use super::{assert_holds, filed, on, own_cluster, wait_for_readiness};
use crate::harness::cluster::{as_user, sql};
use crate::harness::load::Load;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::random::Random;
use crate::harness::{Server, Setup, TestSource, body, cluster, message, wait_until};
use crate::overload::{assert_comes_back, assert_refuses_and_stays_small, start_load, with_small_queue};
use crate::sources::{envelope, text_message};

/// The status of posting that id.
fn post(server: &Server, id: &str) -> u16 {
    let reply = server.post(&body(&message(id)));
    let waits = matches!(reply.status, 503 | 507);
    assert_eq!(reply.header("retry-after").is_some(), waits, "whoever is refused is told when to come again");
    reply.status
}

fn wait_for_status(server: &Server, id: &str, status: u16) {
    wait_until("a post is answered so", || (post(server, id) == status).then_some(()));
}

#[test]
fn a_restart_of_the_server_is_ridden_out() {
    let Some(cluster) = own_cluster() else { return };
    let mut random = Random::announced("restarts under load");
    let url = cluster.database();
    let server = on(&url).start();
    let load = Load::start(server.address, 16, "m", &mut random);
    for mode in ["immediate", "fast"] {
        load.wait_for_acks(load.acks() + 200);
        cluster.halt(mode);
        wait_for_readiness(&server, 503);
        assert_eq!(server.get("/health/live").status, 200);
        assert_eq!(server.get("/messages").status, 503);
        cluster.launch("");
        wait_for_readiness(&server, 200);
        load.wait_for_acks(load.acks() + 200);
    }
    let sent = load.finish();
    assert!(sent.refused.keys().all(|status| *status == 503), "{:?}", sent.refused);
    assert_holds(&url, &sent);
    server.wait_for_line(|line| line["message"] == "the database works again");
}

#[test]
fn counting_that_fails_is_told_once_and_goes_on_when_it_can() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let server = on(&url).start();
    sql(&url, "ALTER TABLE postroom_senders ADD CONSTRAINT ours CHECK (messages < 1)");
    for id in ["a", "b"] {
        server.store(&message(id));
    }
    let fails =
        |line: &serde_json::Value| line["message"].as_str().is_some_and(|text| text.starts_with("counting fails"));
    let line = server.wait_for_line(fails);
    assert!(line["error"].as_str().is_some_and(|why| why.contains("(23514)")), "{line}");
    assert_eq!(server.get("/messages").json()["total"], 2, "answers are exact all the same");
    assert_eq!(server.get("/health/ready").status, 200);
    let undone = "SELECT xact_rollback >= 3 FROM pg_stat_database WHERE datname = current_database()";
    wait_until("it was tried again", || (sql(&url, undone) == "t").then_some(()));
    sql(&url, "ALTER TABLE postroom_senders DROP CONSTRAINT ours");
    let counted = "SELECT messages FROM postroom_state";
    wait_until("everything is counted", || (sql(&url, counted) == "2").then_some(()));
    assert_eq!(server.lines().iter().filter(|line| fails(line)).count(), 1);
}

#[test]
fn a_stretch_that_takes_longer_than_the_operator_allows_is_counted_in_shorter_ones() {
    const ROWS: u32 = 5_000;
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let server = on(&url).start();
    // Simulates a statement timeout after this many rows.
    let limit = "CREATE FUNCTION too_long() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION USING ERRCODE = 'query_canceled'; END $$;
         CREATE TRIGGER ours BEFORE UPDATE ON postroom_state FOR EACH ROW
             WHEN (NEW.messages > OLD.messages + 700) EXECUTE FUNCTION too_long()";
    sql(&url, limit);
    let insert = format!(
        "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, created_at)
         SELECT 'm' || n, '+1', '+2', '2025-01-01T00:00:00Z', 'x' FROM generate_series(1, {ROWS}) n"
    );
    sql(&url, &insert);
    let counted = "SELECT messages FROM postroom_state";
    wait_until("everything is counted", || (sql(&url, counted) == ROWS.to_string()).then_some(()));
    assert_eq!(server.get("/messages").json()["total"], ROWS);
    assert!(server.lines().iter().all(|line| line["level"] != "ERROR"), "{:?}", server.lines());
}

/// The URL of a database through a proxy.
fn through(url: &str, proxy: &Proxy) -> String {
    let name = url.split(['/', '?']).nth(3).expect("a URL names a database").to_owned();
    format!("postgres://postroom@{}/{name}", proxy.address)
}

#[test]
fn a_connection_that_is_cut_after_the_commit_costs_no_answer_and_the_outcome_is_right() {
    let Some(cluster) = own_cluster() else { return };
    let proxy = Proxy::start(cluster.folder());
    let server = on(&through(&cluster.database(), &proxy)).start();
    server.store(&message("before"));
    for round in 1..=20 {
        proxy.set(Mode::CutAnswers);
        let id = format!("m{round}");
        let sender = {
            let (address, id) = (server.address, id.clone());
            std::thread::spawn(move || {
                let bytes = body(&message(&id));
                crate::harness::Client::connect(address).post(&bytes).status
            })
        };
        wait_until("the answer is cut off", || (proxy.cuts() >= round).then_some(()));
        proxy.set(Mode::Pass);
        let status = sender.join().expect("the sender does not panic");
        // A second cut may have hit the second attempt; then nothing was acknowledged, although the row exists.
        assert!(matches!(status, 200 | 503), "{status}");
        if status == 200 {
            assert_eq!(filed(&server, "duplicate"), 0.0, "our own row is no duplicate");
        }
        assert_eq!(server.get("/messages").json()["total"], round + 1);
        if proxy.cuts() > round {
            return;
        }
    }
    assert_eq!(filed(&server, "created"), 21.0);
}

/// Settings under which no wait for the database ends by a timeout.
fn very_patient(setup: Setup) -> Setup {
    let settings =
        ["POSTROOM_POSTGRES_WRITE_SECONDS", "POSTROOM_POSTGRES_CONNECT_SECONDS", "POSTROOM_STORE_QUERY_SECONDS"];
    settings.into_iter().fold(setup.patient(), |setup, name| setup.env(name, 3_600))
}

#[test]
fn a_server_that_falls_silent_is_given_up_and_taken_back() {
    let Some(cluster) = own_cluster() else { return };
    let proxy = Proxy::start(cluster.folder());
    let settings =
        ["POSTROOM_POSTGRES_WRITE_SECONDS", "POSTROOM_POSTGRES_CONNECT_SECONDS", "POSTROOM_STORE_QUERY_SECONDS"];
    let setup = settings.into_iter().fold(on(&through(&cluster.database(), &proxy)), |setup, name| setup.env(name, 1));
    let server = setup.start();
    server.store(&message("m1"));
    assert_eq!(server.get("/messages").status, 200);
    proxy.set(Mode::Stall);
    assert_eq!(post(&server, "m2"), 503);
    assert_eq!(server.get("/messages").status, 503);
    assert_eq!(server.get("/health/ready").status, 503);
    assert_eq!(server.get("/health/live").status, 200);
    proxy.set(Mode::Pass);
    wait_for_readiness(&server, 200);
    wait_for_status(&server, "m2", 200);
    assert_eq!(server.get("/messages").json()["total"], 2);
}

#[test]
fn connections_that_fall_silent_are_given_up_for_new_ones() {
    let Some(cluster) = own_cluster() else { return };
    let proxy = Proxy::start(cluster.folder());
    let server = very_patient(on(&through(&cluster.database(), &proxy))).start();
    server.store(&message("m1"));
    assert_eq!(server.get("/messages").json()["total"], 1);
    let uncounted = || server.metric("postroom_postgres_uncounted");
    wait_until("it is counted", || (uncounted() == Some(0.0)).then_some(()));
    proxy.set(Mode::StallOld);
    // No timeout ends this wait, only the missing response of the server to a health check.
    assert_eq!(post(&server, "m2"), 200);
    assert_eq!(server.get("/messages").json()["total"], 2);
    wait_for_readiness(&server, 200);
    wait_until("it is counted", || (uncounted() == Some(0.0)).then_some(()));
    assert_eq!((filed(&server, "created"), filed(&server, "duplicate")), (2.0, 0.0));
}

#[test]
fn nobody_waits_for_a_server_that_is_known_to_be_silent() {
    let Some(cluster) = own_cluster() else { return };
    let (direct, proxy) = (cluster.database(), Proxy::start(cluster.folder()));
    let server = very_patient(on(&through(&direct, &proxy))).env("POSTROOM_POSTGRES_CONNECT_SECONDS", 1).start();
    server.store(&message("m1"));
    let lock = locker(&direct);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| post(&server, "m2"));
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        wait_until("it is being written", || (sql(&direct, waits) == "1").then_some(()));
        proxy.set(Mode::Stall);
        // No timeout ends this wait, only the missing response of the server to a health check.
        assert_eq!(first.join().expect("it does not panic"), 503, "what became of it is not known");
        for at in 0..100 {
            assert_eq!(post(&server, &format!("other{at}")), 503);
        }
        assert_eq!(server.get("/health/ready").status, 503);
        lock();
        wait_until("it is stored all the same", || (super::ids(&direct).len() == 2).then_some(()));
        proxy.set(Mode::Pass);
    });
    wait_for_readiness(&server, 200);
    assert_eq!(post(&server, "m2"), 200);
    assert_eq!((filed(&server, "created"), filed(&server, "duplicate")), (1.0, 1.0));
    assert_eq!(post(&server, "other1"), 200);
}

#[test]
fn a_server_that_is_away_is_dialled_now_and_then() {
    const POSTS: usize = 1_000;
    let Some(cluster) = own_cluster() else { return };
    let proxy = Proxy::start(cluster.folder());
    let server = on(&through(&cluster.database(), &proxy)).start();
    server.store(&message("m1"));
    proxy.set(Mode::Refuse);
    wait_for_readiness(&server, 503);
    let before = proxy.connections();
    for at in 0..POSTS {
        assert_eq!(post(&server, &format!("other{at}")), 503);
    }
    let dialled = proxy.connections() - before;
    println!("{dialled} connections for {POSTS} posts");
    assert!(dialled < POSTS / 2, "{dialled} connections for {POSTS} posts");
    proxy.set(Mode::Pass);
    wait_for_status(&server, "other1", 200);
    assert_eq!(server.get("/health/ready").status, 200);
}

#[test]
fn a_server_that_is_slow_or_silent_means_early_refusals_and_flat_memory() {
    let Some(cluster) = own_cluster() else { return };
    let proxy = Proxy::start(cluster.folder());
    let server = with_small_queue(on(&through(&cluster.database(), &proxy))).start();
    let load = start_load(&server, &mut Random::announced("load on a slow server"));
    proxy.set(Mode::Slow);
    assert_refuses_and_stays_small(&server);
    assert_eq!(server.get("/health/ready").status, 200, "slow is not broken");
    load.wait_for_acks(load.acks() + 100);
    proxy.set(Mode::Stall);
    assert_refuses_and_stays_small(&server);
    assert_eq!(server.get("/health/ready").status, 503);
    let acks = load.acks();
    assert_eq!(post(&server, "one more"), 503);
    assert_eq!(load.acks(), acks, "nothing was acknowledged while nobody could commit");
    proxy.set(Mode::Pass);
    wait_for_readiness(&server, 200);
    assert_comes_back(&server, load);
}

#[test]
fn a_full_disk_is_507_and_comes_back() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let server = on(&url).start();
    server.store(&message("m1"));
    // A simulation that needs no mount: the server reports exactly this error when it cannot extend a file.
    let full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON messages FOR EACH STATEMENT EXECUTE FUNCTION full_disk();
        CREATE TRIGGER full_disk BEFORE INSERT ON postroom_probe FOR EACH STATEMENT EXECUTE FUNCTION full_disk()";
    sql(&url, full);
    assert_eq!(post(&server, "m2"), 507);
    let ready = server.get("/health/ready");
    assert_eq!((ready.status, ready.text().as_str()), (503, r#"{"status":"not ready","reason":"disk full"}"#));
    assert_eq!(server.get("/messages").json()["total"], 1, "reading goes on");
    sql(&url, "DROP TRIGGER full_disk ON messages; DROP TRIGGER full_disk ON postroom_probe");
    wait_for_readiness(&server, 200);
    assert_eq!(post(&server, "m2"), 200);
}

#[test]
fn a_message_that_the_database_refuses_fails_alone() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let server = on(&url).start();
    sql(&url, "ALTER TABLE messages ADD CONSTRAINT ours CHECK (message_id NOT LIKE 'bad%')");
    std::thread::scope(|scope| {
        for at in 0..24 {
            let server = &server;
            scope.spawn(move || {
                let bad = at % 6 == 0;
                let id = format!("{}{at}", if bad { "bad" } else { "good" });
                assert_eq!(post(server, &id), if bad { 503 } else { 200 }, "{id}");
            });
        }
    });
    assert_eq!(super::ids(&url).len(), 20);
    assert_eq!(server.get("/health/ready").status, 200, "nothing of ours is wrong");
    server.wait_for_line(|line| line["message"] == "the database refuses a message" && line["message_id"] == "bad6");
}

#[test]
fn locks_time_limits_and_read_only_servers_are_503_while_they_last() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let setup = on(&url).env("POSTROOM_POSTGRES_WRITE_SECONDS", 1).env("POSTROOM_STORE_QUERY_SECONDS", 1);
    let server = setup.start();
    server.store(&message("m1"));
    let name = url.split(['/', '?']).nth(3).expect("a URL names a database").to_owned();
    let restart_sessions = || {
        let others = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}' \
                              AND application_name = 'postroom'"
        );
        sql(cluster.url(), &others);
    };
    for (setting, reset) in [
        ("statement_timeout = '1ms'", "statement_timeout"),
        ("default_transaction_read_only = on", "default_transaction_read_only"),
    ] {
        sql(cluster.url(), &format!("ALTER DATABASE {name} SET {setting}"));
        restart_sessions();
        wait_for_status(&server, "m2", 503);
        wait_for_readiness(&server, 503);
        sql(cluster.url(), &format!("ALTER DATABASE {name} RESET {reset}"));
        restart_sessions();
        wait_for_readiness(&server, 200);
        wait_for_status(&server, "m1", 200);
    }
    let lock = "BEGIN; LOCK TABLE messages IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(1000)";
    let locker = {
        let url = url.clone();
        std::thread::spawn(move || cluster::try_sql(&url, lock))
    };
    wait_for_status(&server, "m3", 503);
    wait_until("reads are given up", || (server.get("/messages").status == 503).then_some(()));
    let unlock = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%' AND datname = '{}'";
    sql(cluster.url(), &unlock.replace("{}", &name));
    assert!(locker.join().expect("it ends").is_err());
    wait_for_readiness(&server, 200);
    wait_for_status(&server, "m3", 200);
    assert_eq!(super::ids(&url).len(), if super::ids(&url).contains("m2") { 3 } else { 2 });
}

#[test]
fn no_room_for_connections_is_503_while_it_lasts() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let role = format!("limited_{}", std::process::id());
    let name = url.split(['/', '?']).nth(3).expect("a URL names a database").to_owned();
    sql(&url, &format!("CREATE ROLE {role} LOGIN PASSWORD 'hunter22'; GRANT CREATE ON SCHEMA public TO {role}"));
    let server = on(&as_user(&url, &format!("{role}:hunter22"))).start();
    server.store(&message("m1"));
    sql(&url, &format!("ALTER ROLE {role} CONNECTION LIMIT 0"));
    let end = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{role}' AND datname = '{name}'"
    );
    sql(&url, &end);
    wait_for_readiness(&server, 503);
    assert_eq!(post(&server, "m2"), 503);
    assert_eq!(server.get("/messages").status, 503);
    sql(&url, &format!("ALTER ROLE {role} CONNECTION LIMIT -1"));
    wait_for_readiness(&server, 200);
    wait_for_status(&server, "m2", 200);
}

#[test]
fn too_few_connections_for_all_tasks_are_not_readiness() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let role = format!("few_{}", std::process::id());
    let name = url.split(['/', '?']).nth(3).expect("a URL names a database").to_owned();
    sql(&url, &format!("CREATE ROLE {role} LOGIN PASSWORD 'hunter22'; GRANT CREATE ON SCHEMA public TO {role}"));
    let server = on(&as_user(&url, &format!("{role}:hunter22"))).start();
    server.store(&message("m1"));
    let own = format!("pg_stat_activity WHERE usename = '{role}' AND datname = '{name}'");
    // Two connections write, two read, two count and index, and one monitors. With
    // each of these limits, one of the first four or the last gets no connection.
    for limit in [1, 3, 4] {
        sql(&url, &format!("ALTER ROLE {role} CONNECTION LIMIT {limit}"));
        sql(&url, &format!("SELECT count(pg_terminate_backend(pid)) FROM {own}"));
        wait_for_readiness(&server, 503);
        wait_until("all that there are were taken", || {
            (sql(&url, &format!("SELECT count(*) FROM {own}")) == limit.to_string()).then_some(())
        });
        assert!((0..5).all(|_| server.get("/health/ready").status == 503), "it does not turn green in between");
        server.wait_for_line(|line| line.to_string().contains("too many connections for role"));
        sql(&url, &format!("ALTER ROLE {role} CONNECTION LIMIT -1"));
        wait_for_readiness(&server, 200);
        wait_for_status(&server, &format!("after {limit}"), 200);
        assert_eq!(server.get("/messages").status, 200);
    }
}

#[test]
fn whatever_refuses_every_message_or_read_turns_readiness_red_and_back() {
    let Some(cluster) = cluster::shared() else { return };
    let (url, role) = (cluster.database(), format!("bound_{}", std::process::id()));
    on(&url).start().store(&message("m1"));
    let all = format!(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {role}"
    );
    sql(&url, &format!("CREATE ROLE {role} LOGIN PASSWORD 'hunter22'; {all}"));
    let server = on(&as_user(&url, &format!("{role}:hunter22"))).start();
    let raises = "CREATE OR REPLACE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no more'; END $$";
    let revoke = |what: &str| (format!("REVOKE {what} FROM {role}"), all.clone());
    let rename = |from: &str, to: &str| (format!("ALTER {from} RENAME TO {to}"), to.to_owned());
    let column = |table: &str, name: &str| {
        let (there, back) =
            (format!("{table} RENAME COLUMN {name} TO gone"), format!("{table} RENAME COLUMN gone TO {name}"));
        (format!("ALTER TABLE {there}"), format!("ALTER TABLE {back}"))
    };
    let function = |signature: &str, name: &str| {
        let away = rename(&format!("FUNCTION {name}{signature}"), "gone").0;
        (away, format!("ALTER FUNCTION gone{signature} RENAME TO {name}"))
    };
    let of_file = "(text[], text[], text[], text[], text[], bytea[], text[], bigint, text)";
    let of_look = "(bytea[], text[], text[], text[], text[])";
    let of_statuses =
        "(text[], text[], text[], text[], text[], text[], text[], text[], text[], bytea[], bigint, text[], text[])";
    let of_events = "(text[], text[], text[], text[], text[], text[], text[], bytea[], bigint)";
    // No request is sent meanwhile: the failure is detected before it affects a request.
    let before = [
        revoke("INSERT ON messages"),
        revoke("SELECT ON messages"),
        revoke("SELECT ON postroom_state"),
        revoke("SELECT ON postroom_folded"),
        revoke("SELECT ON postroom_senders"),
        revoke("SELECT ON postroom_sender_days"),
        revoke("INSERT ON postroom_statuses"),
        revoke("SELECT ON postroom_events"),
        revoke("SELECT ON postroom_payloads"),
        (format!("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC, {role}"), all.clone()),
        column("messages", "text_exact"),
        column("postroom_details", "fields"),
        column("postroom_places", "places"),
        column("postroom_statuses", "error"),
        column("postroom_statuses", "extra"),
        column("postroom_events", "message"),
        column("postroom_state", "cluster"),
        function(of_file, "postroom_file"),
        function(of_look, "postroom_look"),
        function(of_statuses, "postroom_bring_statuses"),
        function(of_events, "postroom_bring_events"),
        function("()", "postroom_first_arrival"),
        (
            "ALTER TABLE postroom_run_losses RENAME TO gone".to_owned(),
            "ALTER TABLE gone RENAME TO postroom_run_losses".to_owned(),
        ),
        (
            "CREATE TABLE kept AS TABLE postroom_state; DELETE FROM postroom_state".to_owned(),
            "INSERT INTO postroom_state SELECT * FROM kept; DROP TABLE kept".to_owned(),
        ),
    ];
    for (harm, healing) in before {
        sql(&url, &harm);
        wait_until(&harm, || (server.get("/health/ready").status == 503).then_some(()));
        assert!((0..5).all(|_| server.get("/health/ready").status == 503), "{harm}: it does not turn green in between");
        sql(&url, &healing);
        wait_until(&healing, || (server.get("/health/ready").status == 200).then_some(()));
    }
    // Only a message shows the failure here.
    let shown = [
        (
            "ALTER TABLE messages ADD COLUMN theirs TEXT NOT NULL DEFAULT 'x'; ALTER TABLE messages ALTER COLUMN theirs DROP DEFAULT",
            "ALTER TABLE messages DROP COLUMN theirs",
        ),
        (
            "ALTER TABLE messages ADD CONSTRAINT theirs CHECK (length(message_id) = 0) NOT VALID",
            "ALTER TABLE messages DROP CONSTRAINT theirs",
        ),
        (
            "CREATE TRIGGER theirs BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION theirs()",
            "DROP TRIGGER theirs ON messages",
        ),
        (
            "CREATE CONSTRAINT TRIGGER theirs AFTER INSERT ON messages DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION theirs()",
            "DROP TRIGGER theirs ON messages",
        ),
    ];
    sql(&url, raises);
    for (at, (harm, healing)) in shown.into_iter().enumerate() {
        sql(&url, harm);
        let id = format!("shown{at}");
        wait_until(harm, || (post(&server, &id) == 503 && server.get("/health/ready").status == 503).then_some(()));
        assert!((0..5).all(|_| server.get("/health/ready").status == 503), "{harm}: it does not turn green in between");
        server.wait_for_line(|line| line.to_string().contains("the server refuses every message"));
        sql(&url, healing);
        wait_until(healing, || (server.get("/health/ready").status == 200).then_some(()));
        wait_for_status(&server, &id, 200);
    }
    assert_eq!(super::ids(&url).len(), 5, "nothing that was tried is there");
    assert_eq!(server.get("/messages").json()["total"], 5);
}

#[test]
fn without_the_standby_that_commits_wait_for_nothing_is_acknowledged() {
    let Some(cluster) = own_cluster() else { return };
    let url = cluster.database();
    let server = on(&url).env("POSTROOM_POSTGRES_WRITE_SECONDS", 1).start();
    server.store(&message("m1"));
    sql(&url, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    sql(&url, "SELECT pg_reload_conf()");
    wait_for_status(&server, "m2", 503);
    let stored = || super::ids(&url).contains("m2");
    wait_until("the row is there, though no standby has it", || stored().then_some(()));
    // A copy must not be acknowledged because of a row that a promotion would lose.
    assert_eq!(post(&server, "m2"), 503);
    wait_for_readiness(&server, 503);
    sql(&url, "ALTER SYSTEM RESET synchronous_standby_names");
    sql(&url, "SELECT pg_reload_conf()");
    wait_for_readiness(&server, 200);
    wait_for_status(&server, "m2", 200);
    assert_eq!(server.get("/messages").json()["total"], 2);
}

#[test]
fn a_given_up_wait_for_a_standby_is_heard_whatever_the_server_hides() {
    let Some(cluster) = own_cluster() else { return };
    let url = cluster.database();
    let setup = sources_on(&url);
    let whatsapp = TestSource::of(&setup, "whatsapp");
    let server = setup.start();
    server.store(&message("m1"));
    sql(&url, "ALTER SYSTEM SET client_min_messages = 'error'");
    let set_standbys = |names: &str| {
        sql(&url, &format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"));
        sql(&url, "SELECT pg_reload_conf()");
    };
    let tried = AtomicUsize::new(0);
    let ways: [(&str, &dyn Fn() -> u16); 3] = [
        ("a new message", &|| post(&server, &format!("new{}", tried.fetch_add(1, Ordering::Relaxed)))),
        ("a copy", &|| post(&server, "m1")),
        ("what a provider tells", &|| whatsapp.post(&server, &envelope(&[text_message("w", "x")]), "1").status),
    ];
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                sql(&url, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
            }
        });
        let _done = Finally(|| is_done.store(true, Ordering::Relaxed));
        for (what, send) in ways {
            set_standbys("nobody");
            wait_until(&format!("{what} is refused"), || (send() == 503).then_some(()));
            assert!(
                (0..5).all(|_| server.get("/health/ready").status == 503),
                "{what}: a given-up wait proves nothing"
            );
            set_standbys("");
            wait_for_readiness(&server, 200);
        }
    });
}

/// Makes another program block all writes of messages. Calling the result ends that program, and with it its
/// transaction.
fn locker(url: &str) -> impl FnOnce() {
    let mut program = cluster::psql(url).stdin(Stdio::piped()).spawn().expect("psql runs");
    let mut hands = program.stdin.take().expect("a pipe");
    hands.write_all(b"SET lock_timeout = 0; BEGIN; LOCK TABLE messages IN SHARE MODE;\n").expect("psql listens");
    let held =
        "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE d.datname = current_database()
                AND l.relation = 'messages'::regclass AND l.mode = 'ShareLock' AND l.granted";
    wait_until("the table is locked", || (sql(url, held) == "1").then_some(()));
    move || {
        drop(hands);
        program.wait().expect("it ends");
    }
}

/// Runs a function at the end, also if the test fails.
struct Finally<F: Fn()>(F);

impl<F: Fn()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn a_start_does_not_wait_for_a_standby_that_is_away() {
    let Some(cluster) = own_cluster() else { return };
    let url = cluster.database();
    sql(&url, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    sql(&url, "SELECT pg_reload_conf()");
    let server = on(&url).env("POSTROOM_POSTGRES_WRITE_SECONDS", 1).start();
    assert_eq!(post(&server, "m1"), 503);
    // Immediately, and as long as the standby is absent.
    assert!((0..5).all(|_| server.get("/health/ready").status == 503), "a message was refused");
    let asked = "SELECT count(*) FROM pg_stat_activity
         WHERE state = 'active' AND query LIKE '%INTO postroom_probe%' AND pid <> pg_backend_pid()";
    wait_until("one look at most waits", || (sql(&url, asked).parse::<u32>().expect("a number") <= 1).then_some(()));
    sql(&url, "ALTER SYSTEM RESET synchronous_standby_names");
    sql(&url, "SELECT pg_reload_conf()");
    wait_for_readiness(&server, 200);
    wait_for_status(&server, "m1", 200);
}

#[test]
fn an_operators_limit_on_waiting_for_locks_says_nothing_about_the_server() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let name = url.split(['/', '?']).nth(3).expect("a URL names a database");
    sql(&url, &format!("ALTER DATABASE {name} SET lock_timeout = '5ms'"));
    let server = on(&url).start();
    server.store(&message("m1"));
    let lock = locker(&url);
    wait_for_status(&server, "m2", 503);
    assert_eq!(server.get("/health/ready").status, 200);
    server.wait_for_line(|line| line.to_string().contains("lock timeout (55P03)"));
    lock();
    assert_eq!(post(&server, "m2"), 200);
    let recovered = server.lines().iter().any(|line| line["message"] == "the database works again");
    assert!(!recovered, "it was well all the time");
}

#[test]
fn a_commit_that_waits_for_less_is_told_everywhere() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let durable = |server: &Server| server.metric("postroom_postgres_durable");
    let strict = on(&url).start();
    assert_eq!(durable(&strict), Some(1.0));
    let weak = || on(&url).env("POSTROOM_POSTGRES_SYNCHRONOUS_COMMIT", "off");
    let server = weak().start();
    assert_eq!(durable(&server), Some(0.0));
    let told = "synchronous_commit=off: a 200 does not survive a crash of the server";
    server.wait_for_line(|line| line.to_string().contains(told));
    let (status, stdout, stderr) = weak().arg("check").run();
    assert!(status.success() && stdout.contains(told), "{stdout}{stderr}");
}
