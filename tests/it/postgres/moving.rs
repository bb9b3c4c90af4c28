//! `postroom copy`: from a file to a server and back, interrupted, repeated, and from a source in service.

use super::on;
use super::sources::status_envelope;
use crate::harness::load::{Load, message_of};
use crate::harness::random::Random;
use crate::harness::test_source::all_sources;
use crate::harness::{Running, Server, Setup, TestSource, body, cluster, wait_until};
use crate::sources::samples::samples;
use crate::sources::{envelope, text_message};

/// Copies, and returns the exit code and the report.
fn copy(from: &str, to: &str, more: &[&str]) -> (Option<i32>, serde_json::Value) {
    let setup =
        more.iter().fold(Setup::new().without("DATABASE_URL").arg("copy"), |setup, argument| setup.arg(argument));
    let (status, stdout, stderr) = setup.arg("--json").arg("--from").arg(from).arg("--to").arg(to).run();
    (status.code(), serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}")))
}

fn url_of(server: &Server) -> String {
    format!("sqlite:///{}", server.database().display())
}

/// The responses to all queries of a client, for comparing two inboxes.
fn answers(server: &Server) -> Vec<String> {
    let targets = [
        "/stats",
        "/messages?limit=100",
        "/messages?limit=100&offset=57",
        "/messages?q=hello",
        "/messages?from=%2B919876540003",
    ];
    targets.map(|target| server.get(target).text()).into()
}

/// The responses to all queries about provider data.
fn told(server: &Server) -> Vec<String> {
    let mut targets: Vec<_> =
        ["/events?limit=100", "/stats?by=status", "/messages?source=whatsapp&limit=100", "/messages?kind=image"]
            .map(str::to_owned)
            .into();
    let page = server.get("/messages?limit=100").json();
    for message in page["data"].as_array().unwrap() {
        let id: String = message["message_id"].as_str().unwrap().bytes().map(|byte| format!("%{byte:02X}")).collect();
        targets.extend([format!("/messages/{id}"), format!("/messages/{id}?raw=1")]);
    }
    targets.push("/messages/out/statuses".to_owned());
    targets.iter().map(|target| server.get(target).text()).collect()
}

#[test]
fn what_providers_told_goes_there_and_back() {
    let Some(cluster) = cluster::shared() else { return };
    let file = all_sources(Setup::new()).start();
    file.store(&message_of("plain"));
    for provider in ["whatsapp", "twilio", "telegram", "generic"] {
        let source = TestSource::of(&all_sources(Setup::new()), provider);
        for (name, body) in samples(provider) {
            assert_eq!(source.post(&file, &body, &name).status, 200, "{name}");
        }
    }
    let source = TestSource::of(&all_sources(Setup::new()), "whatsapp");
    for state in ["sent", "read", "delivered"] {
        source.post(&file, &status_envelope("out", state), "1");
    }
    file.stored().execute(
        "UPDATE postroom_statuses SET extra = '{\"pricing\":{\"billable\":true}}' WHERE state = 'read';
         UPDATE postroom_events SET message = '{\"message_id\":\"own\"}' WHERE event_id = 1",
    );
    let expected = told(&file);
    assert!(expected.iter().any(|told| told.contains("billable")) && expected[0].contains("own"));
    let database = cluster.database();
    for created in [true, false] {
        let (code, report) = copy(&url_of(&file), &database, &[]);
        assert_eq!((code, &report["equal"]), (Some(0), &true.into()), "{report}");
        for sort in ["bodies", "details", "statuses", "events"] {
            let counts = &report["beside"][sort];
            assert!(counts["source"].as_u64() > Some(2) && counts["source"] == counts["target"], "{report}");
            assert_eq!(counts["created"].as_u64() == Some(0), !created, "{report}");
        }
    }
    let server = on(&database).start();
    assert_eq!(told(&server), expected);
    let (status, stdout, stderr) = on(&database).arg("check").arg("--data").run();
    assert!(status.success(), "{stdout}{stderr}");
    let folder = tempfile::tempdir().unwrap();
    let back = format!("sqlite:///{}", folder.path().join("back.db").display());
    let total = file.get("/stats").json()["total_messages"].clone();
    wait_until("the last transaction elsewhere has ended", || {
        (copy(&database, &back, &["--from-start"]).1["read"] == total).then_some(())
    });
    let again = on(&back).start();
    assert_eq!(told(&again), expected);
    assert_eq!(answers(&again), answers(&file));
    // The next copy continues from that position.
    source.post(&again, &status_envelope("out", "read"), "1");
    assert_eq!(again.get("/stats?by=status").text(), file.get("/stats?by=status").text());
    source.post(&file, &status_envelope("late", "sent"), "1");
    let (code, report) = copy(&url_of(&file), &database, &[]);
    assert_eq!((code, &report["beside"]["statuses"]["created"]), (Some(0), &1.into()), "{report}");
    assert_eq!(server.get("/messages/late/statuses").text(), file.get("/messages/late/statuses").text());
    assert_eq!(server.get("/stats?by=status").text(), file.get("/stats?by=status").text());
    cluster::sql(&database, "UPDATE postroom_details SET fields = '{}' WHERE kind = 'image'");
    let (code, report) = copy(&url_of(&file), &database, &[]);
    assert_eq!((code, &report["beside"]["details"]["equal"]), (Some(1), &false.into()), "{report}");
}

#[test]
fn a_conflict_that_was_copied_there_and_back_is_recorded_once() {
    let Some(cluster) = cluster::shared() else { return };
    let source = TestSource::of(&all_sources(Setup::new()), "whatsapp");
    let post = |server: &Server, id: &str, text: &str| {
        assert_eq!(source.post(server, &envelope(&[text_message(id, text)]), "1").status, 200);
    };
    let file = all_sources(Setup::new()).start();
    // An id that PostgreSQL can only store with escapes.
    for id in ["a", "b\u{ffff}0"] {
        post(&file, id, "first");
        post(&file, id, "second");
    }
    // Bodies have other numbers in a copy.
    for table in ["postroom_payloads", "postroom_details", "postroom_events"] {
        file.stored().execute(&format!("UPDATE {table} SET payload_id = payload_id + 1000"));
    }
    let recorded = |server: &Server| {
        for id in ["a", "b\u{ffff}0"] {
            post(server, id, "second");
        }
        server.get("/events?kind=conflict").json()["data"].as_array().map(Vec::len)
    };
    let database = cluster.database();
    assert_eq!(copy(&url_of(&file), &database, &[]).0, Some(0));
    let there = all_sources(on(&database)).start();
    assert_eq!(recorded(&there), Some(2), "there");
    let (status, stdout, stderr) = on(&database).arg("check").arg("--data").run();
    assert!(status.success() && !stdout.contains("left over"), "{stdout}{stderr}");
    let folder = tempfile::tempdir().unwrap();
    let back = format!("sqlite:///{}", folder.path().join("back.db").display());
    wait_until("the last transaction elsewhere has ended", || {
        (copy(&database, &back, &["--from-start"]).1["read"] == 2).then_some(())
    });
    let back = all_sources(on(&back)).start();
    assert_eq!(recorded(&back), Some(2), "and back");
    // A conflict recorded on PostgreSQL is recognized in a file.
    post(&there, "a", "third");
    assert_eq!(copy(&database, &url_of(&back), &[]).0, Some(0));
    post(&back, "a", "third");
    assert_eq!(recorded(&back), Some(3));
}

#[test]
fn there_and_back_changes_no_answer() {
    let Some(cluster) = cluster::shared() else { return };
    let file = Server::start();
    for at in 0..150 {
        file.store(&message_of(&format!("m{at}")));
    }
    let mut odd = message_of("odd");
    odd["text"] = "tab\tline\nreturn\r back\\slash \0 nul \\N 明天".into();
    file.store(&odd);
    let database = cluster.database();
    let (code, report) = copy(&url_of(&file), &database, &[]);
    assert_eq!((code, &report["created"], &report["equal"]), (Some(0), &151.into(), &true.into()), "{report}");
    let server = on(&database).start();
    assert_eq!(answers(&server), answers(&file));
    let folder = tempfile::tempdir().unwrap();
    let back = format!("sqlite:///{}", folder.path().join("back.db").display());
    wait_until("the last transaction elsewhere has ended", || {
        (copy(&database, &back, &["--from-start"]).1["read"] == 151).then_some(())
    });
    let again = on(&back).start();
    assert_eq!(answers(&again), answers(&file));
    let created = "SELECT group_concat(message_id || created_at) FROM (SELECT * FROM messages ORDER BY rowid)";
    let [one, other] = [file.sql(), crate::harness::database::open(&folder.path().join("back.db"))]
        .map(|sql| sql.query_row(created, [], |row| row.get::<_, String>(0)).unwrap());
    assert_eq!(one, other, "in the order of arrival, each with the time when it was accepted");
}

#[test]
fn a_copy_made_again_takes_what_came_since_and_a_difference_is_told() {
    let Some(cluster) = cluster::shared() else { return };
    let (file, database) = (Server::start(), cluster.database());
    for id in ["a", "b"] {
        file.store(&message_of(id));
    }
    assert_eq!(copy(&url_of(&file), &database, &[]).1["created"], 2);
    file.store(&message_of("c"));
    let (code, report) = copy(&url_of(&file), &database, &[]);
    assert_eq!((code, &report["read"], &report["created"]), (Some(0), &1.into(), &1.into()), "{report}");
    assert_eq!(
        report["days"].as_array().unwrap().iter().map(|day| day["target_messages"].as_u64().unwrap()).sum::<u64>(),
        3
    );
    cluster::sql(&database, "UPDATE messages SET text = 'forged' WHERE message_id = 'b'");
    let (code, report) = copy(&url_of(&file), &database, &["--from-start"]);
    assert_eq!((code, &report["created"], &report["equal"]), (Some(1), &0.into(), &false.into()), "{report}");
    file.sql().execute("INSERT INTO messages VALUES (x'ff00', '+1', '+2', 'ts', 'x', 'y')", []).unwrap();
    cluster::sql(&database, "DELETE FROM messages WHERE message_id = 'b'");
    let (code, report) = copy(&url_of(&file), &database, &["--from-start"]);
    assert_eq!((code, &report["created"], &report["not_copied"]), (Some(1), &1.into(), &1.into()), "{report}");
    let (status, _, stderr) = Setup::new().arg("copy").arg("--from").arg(&database).arg("--to").arg(&database).run();
    assert!(status.code() == Some(1) && stderr.contains("the same database"), "{stderr}");
    let (status, _, stderr) = Setup::new().arg("copy").arg("--from").arg("x").arg("--to").arg(&database).run();
    assert!(status.code() == Some(2) && stderr.contains("--from must be of the form"), "{stderr}");
}

#[test]
fn killed_at_any_moment_beside_a_busy_source_it_goes_on_where_it_was() {
    let Some(cluster) = cluster::shared() else { return };
    let mut random = Random::announced("kill -9 of a copy");
    let (file, database) = (Server::start(), cluster.database());
    {
        let mut sql = file.sql();
        let rows = sql.transaction().unwrap();
        for at in 0..30_000 {
            let values = (format!("old{at}"), format!("+{}", at % 50), format!("2025-01-{:02}T10:00:00Z", 1 + at % 28));
            rows.execute("INSERT INTO messages VALUES (?1, ?2, '+1', ?3, 'Hello', 'x')", values).unwrap();
        }
        rows.commit().unwrap();
    }
    let load = Load::start(file.address, 4, "new", &mut random);
    for _ in 0..4 {
        let setup = Setup::new().arg("copy").arg("--from").arg(&url_of(&file)).arg("--to").arg(&database);
        let mut copying = Running::spawn(&mut setup.command());
        let copied = || cluster::try_sql(&database, "SELECT count(*) FROM messages").ok()?.parse::<u64>().ok();
        let before = copied().unwrap_or(0);
        let wanted = before + random.below(9_000);
        wait_until("some rows are copied", || (copied()? >= wanted.min(30_000)).then_some(()));
        copying.kill();
        copying.wait();
    }
    let sent = load.finish();
    let (code, report) = copy(&url_of(&file), &database, &[]);
    assert_eq!(code, Some(0), "{report}");
    assert!(report["read"].as_u64().unwrap() < 30_000 + sent.acked.len() as u64, "not from the start: {report}");
    let stored = super::ids(&database);
    assert_eq!(stored.len(), 30_000 + sent.acked.len());
    assert!(sent.acked.is_subset(&stored));
    let server = on(&database).start();
    assert_eq!(server.get("/stats").text(), file.get("/stats").text());
    let bytes = body(&message_of("old1"));
    assert_eq!(server.post(&bytes).status, 200, "an id that was copied is known there");
    assert_eq!(super::filed(&server, "created"), 0.0);
}

#[test]
fn urls_may_come_from_the_environment_or_a_file() {
    let source = Server::start();
    source.store(&crate::harness::message("m1"));
    let folder = tempfile::tempdir().unwrap();
    let (file, target) = (folder.path().join("from"), folder.path().join("target.db"));
    std::fs::write(&file, format!("{}\n", url_of(&source))).unwrap();
    let to = format!("sqlite:///{}", target.display());
    let copy = || Setup::new().without("DATABASE_URL").arg("copy").arg("--json");
    let given = copy().env("POSTROOM_COPY_FROM_FILE", file.display()).env("POSTROOM_COPY_TO", &to);
    let (status, stdout, stderr) = given.run();
    assert!(status.success(), "{stderr}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&stdout).unwrap()["created"], 1);
    let (status, _, stderr) = copy().env("POSTROOM_COPY_TO", &to).run();
    assert!(!status.success() && stderr.contains("--from is missing; set it, or POSTROOM_COPY_FROM"), "{stderr}");
    let both = copy().env("POSTROOM_COPY_FROM", url_of(&source)).env("POSTROOM_COPY_FROM_FILE", file.display());
    let (status, _, stderr) = both.env("POSTROOM_COPY_TO", &to).run();
    assert!(
        !status.success() && stderr.contains("POSTROOM_COPY_FROM_FILE is set, and POSTROOM_COPY_FROM too"),
        "{stderr}"
    );
    let bad = copy().env("POSTROOM_COPY_FROM", "postgres://ada:hunter2@db:port/x").env("POSTROOM_COPY_TO", &to);
    let (status, _, stderr) = bad.run();
    assert!(
        !status.success() && stderr.contains("POSTROOM_COPY_FROM is not") && !stderr.contains("hunter2"),
        "{stderr}"
    );
}
