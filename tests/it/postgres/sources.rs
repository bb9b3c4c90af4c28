//! The sources of providers on PostgreSQL: the same responses as on a file,
//! from any replica, and each request is stored completely or not at all.

use serde_json::{Value, json};

use super::{on, own_cluster, wait_for_readiness};
use crate::harness::cluster::{self, sql};
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::test_source::{all_sources, now};
use crate::harness::{Server, Setup, TestSource, wait_until};
use crate::sources::samples::samples;
use crate::sources::{envelope, text_message};

pub fn sources_on(url: &str) -> Setup {
    all_sources(on(url))
}

fn source(name: &str) -> TestSource {
    TestSource::of(&all_sources(Setup::new()), name)
}

/// An envelope of Meta with the state of a message.
pub fn status_envelope(id: &str, state: &str) -> Vec<u8> {
    let part = json!([{"id": id, "status": state, "timestamp": "1736935200", "recipient_id": "1650"}]);
    let value = json!({"metadata": {"phone_number_id": "7"}, "statuses": part});
    let entry = json!([{"id": "1", "changes": [{"field": "messages", "value": value}]}]);
    serde_json::to_vec(&json!({"object": "whatsapp_business_account", "entry": entry})).unwrap()
}

fn encoded(id: &str) -> String {
    id.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Replaces the values that differ between any two servers: the times of requests.
fn without_clock(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                let is_ours = match name.as_str() {
                    "created_at" | "received_at" => true,
                    "ts" | "at" | "first_message_ts" | "last_message_ts" => {
                        value.as_str().is_some_and(|ts| !ts.starts_with("2025") && !ts.starts_with("2021"))
                    }
                    _ => false,
                };
                if is_ours {
                    *value = "(now)".into();
                } else {
                    without_clock(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(without_clock),
        _ => {}
    }
}

/// The order of messages with the time of their request may differ between two
/// servers, if a second ended in between. Of a whole listing only the content is
/// compared, of a partial one the length. States of a message are sorted too.
/// listed in part.
fn without_order(value: &mut Value) {
    if let Some(statuses) = value.get_mut("statuses").and_then(Value::as_array_mut)
        && statuses.iter().any(|status| status["ts"] == "(now)")
    {
        statuses.sort_by_cached_key(Value::to_string);
    }
    let total = value["total"].as_u64();
    let Some(messages) = value.get_mut("data").and_then(Value::as_array_mut) else { return };
    if !messages.iter().any(|message| message["ts"] == "(now)") {
        return;
    }
    if total == Some(messages.len() as u64) {
        messages.sort_by_cached_key(Value::to_string);
    } else {
        *messages = vec![messages.len().into()];
    }
}

/// The response of a server to a request.
fn seen(server: &Server, target: &str) -> (u16, String) {
    let reply = server.get(target);
    let told = reply.text();
    // Without times in it, the text itself is compared.
    match serde_json::from_str::<Value>(&told) {
        Ok(mut value) if ["_at\":", "ts\":", "\"at\":"].iter().any(|field| told.contains(field)) => {
            without_clock(&mut value);
            without_order(&mut value);
            (reply.status, value.to_string())
        }
        _ => (reply.status, told),
    }
}

#[test]
fn every_sample_of_every_provider_is_answered_alike() {
    let Some(cluster) = cluster::shared() else { return };
    let providers = [
        "whatsapp",
        "360dialog",
        "twilio",
        "standard",
        "telegram",
        "waha",
        "evolution",
        "vonage",
        "messagebird",
        "bird",
        "line",
        "slack",
        "plivo",
        "github",
        "stripe",
        "generic",
        "telnyx",
    ];
    let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("testdata/providers");
    let configured: Vec<String> = all_sources(Setup::new()).config().sources.into_iter().map(|one| one.name).collect();
    for provider in providers {
        if !folder.join(provider).is_dir() || !configured.iter().any(|name| name == provider) {
            continue;
        }
        let (one, other) = (all_sources(Setup::new()).start(), sources_on(&cluster.database()).start());
        let source = source(provider);
        // Everything is sent twice, like a provider that missed a response.
        for (name, body) in samples(provider).iter().chain(&samples(provider)) {
            let headers = source.headers(body, name, now());
            let replies = [&one, &other].map(|server| {
                let reply = source.post_with(server, body, &headers);
                (reply.status, reply.header("content-type").map(str::to_owned), reply.body)
            });
            assert_eq!(replies[0], replies[1], "{provider} {name}");
            assert_eq!(replies[0].0, 200, "{provider} {name}");
        }
        assert_alike(&one, &other, provider);
    }
}

/// Asserts that both give the same responses to all requests.
fn assert_alike(one: &Server, other: &Server, name: &str) {
    let ask = |target: &str| assert_eq!(seen(one, target), seen(other, target), "{name}: {target}");
    for target in [
        "/stats",
        "/stats?by=status",
        "/messages?limit=100",
        "/messages?kind=image",
        "/messages?kind=text&limit=2&offset=1",
        &format!("/messages?source={name}&kind=text"),
        "/messages?source=postroom",
        "/messages?q=a&until=2025-06-01T00:00:00Z",
        "/messages?to=%2B15550783881",
        "/events?limit=100",
        "/events?limit=3",
        "/events?kind=unreadable",
        &format!("/events?source={name}&limit=2"),
        "/events?source=nobody",
    ] {
        ask(target);
    }
    let mut ids: Vec<String> = Vec::new();
    for message in one.get("/messages?limit=100").json()["data"].as_array().unwrap() {
        let id = message["message_id"].as_str().unwrap();
        let full = one.get(&format!("/messages/{}", encoded(id))).json();
        ids.extend([id.to_owned(), full["details"]["provider_id"].as_str().unwrap_or_default().to_owned()]);
    }
    let sql = one.sql();
    let mut statuses = sql.prepare("SELECT DISTINCT message_id, provider_id FROM postroom_statuses").unwrap();
    let statuses = statuses.query_map([], |row| Ok([row.get(0)?, row.get(1)?])).unwrap();
    ids.extend(statuses.flat_map(|row: Result<[String; 2], _>| row.unwrap()));
    for id in ids.iter().filter(|id| !id.is_empty()).map(|id| encoded(id)) {
        ask(&format!("/messages/{id}"));
        ask(&format!("/messages/{id}/statuses"));
        assert_eq!(one.get(&format!("/messages/{id}?raw=1")).body, other.get(&format!("/messages/{id}?raw=1")).body);
    }
}

#[test]
fn a_batch_a_conflict_and_late_states_are_answered_alike() {
    let Some(cluster) = cluster::shared() else { return };
    let (one, other) = (all_sources(Setup::new()).start(), sources_on(&cluster.database()).start());
    let source = source("whatsapp");
    let mut batch: Vec<_> = (0..200).map(|at| text_message(&format!("m{at:03}"), "hello")).collect();
    batch.insert(50, json!({"type": "text"}));
    batch.insert(60, text_message("m001", "another text"));
    batch.insert(61, text_message("m002", "hello"));
    let mut bodies = vec![envelope(&batch), envelope(&[text_message("m003", "yet another"), text_message("n", "new")])];
    for (id, state) in [("m000", "sent"), ("out", "read"), ("out", "delivered"), ("out", "sent"), ("other", "failed")] {
        bodies.push(status_envelope(id, state));
    }
    for body in bodies.iter().chain(&bodies) {
        let headers = source.headers(body, "1", now());
        let replies = [&one, &other].map(|server| source.post_with(server, body, &headers).body);
        assert_eq!(replies[0], replies[1]);
    }
    assert_alike(&one, &other, "whatsapp");
    assert_eq!(other.get("/messages/out/statuses").json()["status"], "read");
    for outcome in ["created", "duplicate", "conflict"] {
        let sample = format!("postroom_messages_total{{source=\"whatsapp\",outcome=\"{outcome}\"}}");
        assert_eq!(one.metric(&sample), other.metric(&sample), "{outcome}");
        assert!(one.metric(&sample) > Some(0.0), "{outcome}");
    }
}

#[test]
fn deliveries_at_once_to_several_replicas_are_each_stored_once() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let replicas = [sources_on(&url).start(), sources_on(&url).start(), sources_on(&url).start()];
    let source = source("whatsapp");
    let mut messages: Vec<_> = (0..20).map(|at| text_message(&format!("m{at}"), "x")).collect();
    messages.push(json!({"type": "text"}));
    let bodies = [envelope(&messages), status_envelope("out", "sent"), status_envelope("out", "read")];
    std::thread::scope(|scope| {
        for at in 0..60 {
            let (replica, source, body) = (&replicas[at % 3], &source, &bodies[at / 2 % 3]);
            scope.spawn(move || assert_eq!(source.post(replica, body, "1").status, 200));
        }
    });
    for body in &bodies {
        assert_eq!(source.post(&replicas[0], body, "1").status, 200);
    }
    let count = |what: &str| sql(&url, &format!("SELECT count(*) FROM {what}"));
    assert_eq!(
        ["messages", "postroom_details", "postroom_events", "postroom_statuses", "postroom_payloads"].map(count),
        ["20", "20", "1", "2", "3"]
    );
    let counts = replicas[1].get("/stats?by=status").text();
    assert!(
        counts.contains(r#"{"status":"read","count":1}"#) && counts.contains(r#"{"status":"sent","count":0}"#),
        "{counts}"
    );
    wait_until("changes of states are added up", || (count("postroom_state_changes") == "0").then_some(()));
    assert_eq!(replicas[1].get("/stats?by=status").text(), counts, "the same before and afterwards");
    let (status, stdout, stderr) = on(&url).arg("check").arg("--data").run();
    assert!(status.success() && stdout.contains("agree with a recount"), "{stdout}{stderr}");
    sql(&url, "DELETE FROM postroom_state_changes; UPDATE postroom_state_counts SET messages = 7");
    let (status, stdout, _) = on(&url).arg("check").arg("--data").run();
    assert!(!status.success() && stdout.contains("the messages in each state differ"), "{stdout}");
    assert!(on(&url).arg("reindex").run().0.success());
    assert_eq!(replicas[2].get("/stats?by=status").text(), counts);
}

#[test]
fn what_the_database_refuses_fails_alone_and_whole() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let server = sources_on(&url).start();
    sql(&url, "ALTER TABLE postroom_details ADD CONSTRAINT ours CHECK (provider_id NOT LIKE 'bad%')");
    let source = source("whatsapp");
    std::thread::scope(|scope| {
        for at in 0..24 {
            let (server, source) = (&server, &source);
            scope.spawn(move || {
                let bad = at % 6 == 0;
                let id = format!("{}{at}", if bad { "bad" } else { "good" });
                let body = envelope(&[text_message(&format!("first{at}"), "x"), text_message(&id, "x")]);
                assert_eq!(source.post(server, &body, "1").status, if bad { 503 } else { 200 }, "{id}");
            });
        }
    });
    assert_eq!(super::ids(&url).len(), 40, "nothing of a refused request is there");
    assert_eq!(sql(&url, "SELECT count(*) FROM postroom_payloads"), "20");
    assert_eq!(server.get("/health/ready").status, 200, "nothing of ours is wrong");
    sql(&url, "ALTER TABLE postroom_details DROP CONSTRAINT ours");
    let body = envelope(&[text_message("first0", "x"), text_message("bad0", "x")]);
    assert_eq!(source.post(&server, &body, "1").status, 200);
    assert_eq!(super::ids(&url).len(), 42);
}

#[test]
fn a_connection_that_is_cut_in_the_middle_costs_no_answer_and_doubles_nothing() {
    let Some(cluster) = own_cluster() else { return };
    let proxy = Proxy::start(cluster.folder());
    let url = cluster.database();
    let name = url.split(['/', '?']).nth(3).expect("a URL names a database").to_owned();
    let server = sources_on(&format!("postgres://postroom@{}/{name}", proxy.address)).start();
    let source = source("whatsapp");
    let created = || {
        let samples = [r#"messages_total{source="whatsapp",outcome="created"}"#, r#"events_total{source="whatsapp"}"#];
        samples.map(|sample| server.metric(&format!("postroom_{sample}")).expect("the metric is there"))
    };
    for round in 1..=20 {
        // In the middle, when nothing is stored, and after the commit, when everything is.
        let mode = if round % 2 == 0 { Mode::CutAnswers } else { Mode::CutCommits };
        let (cuts, before) = (proxy.cuts(), created());
        proxy.set(mode);
        let body = envelope(&[text_message(&format!("m{round}"), "x"), json!({"type": "text", "round": round})]);
        std::thread::scope(|scope| {
            let (server, source, body) = (&server, &source, &body);
            let sender = scope.spawn(move || source.post(server, body, "1").status);
            wait_until("the answer is cut off", || (proxy.cuts() > cuts).then_some(()));
            proxy.set(Mode::Pass);
            let status = sender.join().expect("the sender does not panic");
            assert!(matches!(status, 200 | 503), "{status}");
            wait_for_readiness(server, 200);
            match status {
                503 => assert_eq!(source.post(server, body, "1").status, 200, "asked again"),
                // Rows that the first attempt committed are ours, and not duplicates.
                _ => assert_eq!(created(), before.map(|count| count + 1.0), "{mode:?}"),
            }
        });
    }
    let count = |what: &str| sql(&url, &format!("SELECT count(*) FROM {what}"));
    let tables = ["messages", "postroom_details", "postroom_events", "postroom_payloads"];
    assert_eq!(tables.map(count), ["20", "20", "20", "20"]);
}
