//! The sources of providers: the result of each sample, authentication, and storing each message once.

mod content;
mod hostile;
mod platforms;
mod reload;
pub mod samples;
mod settings;
mod shapes;
mod tools;
mod trust;

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::test_source::{all_sources, now};
use crate::harness::{Client, Server, Setup, TestSource, wait_until};

fn start() -> (Server, impl Fn(&str) -> TestSource) {
    let setup = all_sources(Setup::new());
    let sources = all_sources(Setup::new());
    (setup.start(), move |name: &str| TestSource::of(&sources, name))
}

/// An envelope of Meta with these messages.
pub fn envelope(messages: &[Value]) -> Vec<u8> {
    let value = json!({
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550783881", "phone_number_id": "7"},
        "messages": messages,
    });
    let entry = json!([{"id": "1", "changes": [{"field": "messages", "value": value}]}]);
    serde_json::to_vec(&json!({"object": "whatsapp_business_account", "entry": entry})).unwrap()
}

pub fn text_message(id: &str, text: &str) -> Value {
    json!({"id": id, "from": "16505551234", "timestamp": "1736935200", "type": "text", "text": {"body": text}})
}

#[test]
fn a_message_is_found_by_its_key_and_by_its_providers_id() {
    let (server, source) = start();
    let body = envelope(&[text_message("wamid.A/B+C==", "hello")]);
    assert_eq!(source("whatsapp").post(&server, &body, "1").text(), r#"{"status":"ok"}"#);
    let page = server.get("/messages").json();
    assert_eq!(
        page["data"][0],
        json!({"message_id": "whatsapp:7:wamid.A/B+C==", "from": "+16505551234", "to": "+15550783881",
            "ts": "2025-01-15T10:00:00Z", "text": "hello"}),
        "the listing keeps to the contract's fields"
    );
    let ids = ["whatsapp:7:wamid.A%2FB%2BC%3D%3D", "whatsapp:7:wamid.A/B+C==", "wamid.A%2FB%2BC%3D%3D"];
    for id in ids {
        let found = server.get(&format!("/messages/{id}"));
        assert_eq!(found.status, 200, "{id}: {}", found.text());
        assert_eq!(found.json()["details"]["provider_id"], "wamid.A/B+C==");
        assert_eq!(server.get(&format!("/messages/{id}?raw=1")).body, body, "the raw body, byte for byte");
    }
    assert_eq!(server.get("/messages/wamid.unknown").status, 404);
    // The same provider id in another account: the bare id is ambiguous.
    let other = String::from_utf8(body).unwrap().replace(r#""phone_number_id":"7""#, r#""phone_number_id":"8""#);
    source("whatsapp").post(&server, other.as_bytes(), "2");
    let ambiguous = server.get("/messages/wamid.A%2FB%2BC%3D%3D");
    assert_eq!((ambiguous.status, ambiguous.json()["keys"].as_array().unwrap().len()), (409, 2));
    assert_eq!(server.get("/messages/whatsapp:8:wamid.A%2FB%2BC%3D%3D").status, 200);
}

#[test]
fn a_message_of_the_original_source_has_no_details() {
    let (server, _) = start();
    server.store(&crate::harness::message("m1"));
    let found = server.get("/messages/m1").json();
    assert_eq!(
        (found["message_id"].as_str(), &found["details"], &found["has_raw"]),
        (Some("m1"), &Value::Null, &json!(false))
    );
    assert_eq!(server.get("/messages/m1?raw=1").status, 404);
    assert_eq!(server.get("/messages/m1/statuses").status, 404);
}

#[test]
fn listings_are_filtered_by_source_kind_recipient_and_end() {
    let (server, source) = start();
    server.store(&crate::harness::message("m1"));
    let mut image = text_message("b", "");
    (image["type"], image["image"]) = (json!("image"), json!({"id": "1", "caption": "look"}));
    image["timestamp"] = json!("1736935201");
    source("whatsapp").post(&server, &envelope(&[text_message("a", "x"), image]), "1");
    let total = |query: &str| server.get(&format!("/messages?{query}")).json()["total"].as_u64().unwrap();
    assert_eq!((total("source=whatsapp"), total("source=postroom"), total("source=twilio")), (2, 1, 0));
    assert_eq!((total("kind=image"), total("kind=text"), total("kind=video")), (1, 2, 0));
    assert_eq!((total("to=%2B15550783881"), total("to=+14155550100"), total("to=x")), (2, 1, 0));
    assert_eq!(total("until=2025-01-15T10:00:01Z"), 2, "until is not included");
    assert_eq!(total("since=2025-01-15T10:00:01Z&until=2025-01-15T10:00:02Z&source=whatsapp&kind=image&q=LOOK"), 1);
    assert_eq!(server.get("/messages?kind=nonsense").status, 422);
    assert_eq!(server.get("/messages?until=yesterday").status, 422);
}

#[test]
fn a_late_status_never_takes_back_a_greater_one() {
    let (server, source) = start();
    let status = |id: &str, status: &str, at: u64| {
        let part = json!([{"id": id, "status": status, "timestamp": at.to_string(), "recipient_id": "1650"}]);
        let value = json!({"metadata": {"phone_number_id": "7"}, "statuses": part});
        let entry = json!([{"id": "1", "changes": [{"field": "messages", "value": value}]}]);
        let body = serde_json::to_vec(&json!({"object": "whatsapp_business_account", "entry": entry})).unwrap();
        assert_eq!(source("whatsapp").post(&server, &body, "1").status, 200);
    };
    for (state, at) in
        [("sent", 1_736_935_200), ("read", 1_736_935_202), ("delivered", 1_736_935_201), ("read", 1_736_935_209)]
    {
        status("wamid.1", state, at);
    }
    status("wamid.2", "sent", 1_736_935_200);
    let found = server.get("/messages/whatsapp:7:wamid.1/statuses").json();
    assert_eq!(found["status"], "read");
    let states: Vec<_> =
        found["statuses"].as_array().unwrap().iter().map(|one| one["status"].as_str().unwrap()).collect();
    assert_eq!(states, ["sent", "delivered", "read"], "each once, by time");
    assert_eq!(server.get("/messages/wamid.1/statuses").json(), found, "by the provider's id too");
    let counts = server.get("/stats?by=status").json();
    let count = |state: &str| {
        let counts = counts["messages_per_status"].as_array().unwrap().iter();
        counts.filter(|one| one["status"] == state).map(|one| one["count"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((count("sent"), count("delivered"), count("read")), (1, 0, 1), "{counts}");
    assert_eq!(server.get("/stats").json()["total_messages"], 0, "what was sent is not in the inbox");
}

#[test]
fn a_copy_with_other_content_keeps_the_first_and_is_an_event() {
    let (server, source) = start();
    let first = envelope(&[text_message("a", "first")]);
    let second = envelope(&[text_message("a", "second"), text_message("b", "new")]);
    source("whatsapp").post(&server, &first, "1");
    assert_eq!(source("whatsapp").post(&server, &second, "2").status, 200);
    assert_eq!(server.get("/messages/a").json()["text"], "first");
    let events = server.get("/events?kind=conflict").json();
    assert_eq!(events["data"][0]["body"]["text"], "second");
    let sample = r#"postroom_messages_total{source="whatsapp",outcome="conflict"}"#;
    assert_eq!(server.metric(sample), Some(1.0));
    assert_eq!(server.rows(), 2);
}

#[test]
fn fifty_deliveries_at_once_store_each_message_once() {
    let (server, source) = start();
    let source = source("whatsapp");
    let messages: Vec<_> = (0..20).map(|at| text_message(&format!("m{at}"), "x")).collect();
    let body = envelope(&messages);
    std::thread::scope(|scope| {
        for at in 0..50 {
            let (server, source, body) = (&server, &source, &body);
            scope.spawn(move || assert_eq!(source.post(server, body, &at.to_string()).status, 200));
        }
    });
    assert_eq!(server.rows(), 20);
    assert_eq!(server.count("postroom_payloads"), 1, "the raw body is kept once");
}

#[test]
fn a_batch_of_a_thousand_with_a_bad_part_survives_a_kill() {
    let (server, source) = start();
    let mut messages: Vec<_> = (0..1000).map(|at| text_message(&format!("m{at}"), &"long ".repeat(100))).collect();
    messages.insert(500, json!({"type": "text"}));
    let body = envelope(&messages);
    assert!(body.len() > 512 << 10);
    assert_eq!(source("whatsapp").post(&server, &body, "1").status, 200);
    let folder = server.kill();
    let again = all_sources(Setup::in_folder(folder)).start();
    assert_eq!(again.rows(), 1000);
    let events = again.get("/events?kind=unreadable").json();
    assert_eq!(events["data"].as_array().unwrap().len(), 1, "the bad part is kept too");
    let line_sample = again.get("/messages?source=whatsapp&limit=1").json();
    assert_eq!(line_sample["total"], 1000);
}

#[test]
fn a_page_of_large_events_ends_early_and_the_next_goes_on() {
    let (server, source) = start();
    let source = source("whatsapp");
    for at in 0..5 {
        let change = json!({"field": "history", "value": {"chunk": at, "threads": "x".repeat(1_500_000)}});
        let body = json!({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [change]}]});
        assert_eq!(source.post(&server, body.to_string().as_bytes(), "1").status, 200);
    }
    let (mut chunks, mut pages, mut query) = (Vec::new(), 0, "/events?limit=100".to_owned());
    while chunks.len() < 5 {
        let page = server.get(&query).json();
        let events = page["data"].as_array().unwrap();
        assert!((1..=2).contains(&events.len()), "{} in one page", events.len());
        chunks.extend(events.iter().map(|event| event["body"]["change"]["value"]["chunk"].as_i64().unwrap()));
        query = format!("/events?limit=100&before={}", page["next_before"]);
        pages += 1;
    }
    assert_eq!((chunks, pages), (vec![4, 3, 2, 1, 0], 3));
}

/// Two million bytes of empty parts: once parsed, they are many times as large.
fn tiny_parts() -> Vec<u8> {
    let parts = vec!["{}"; 700_000].join(",");
    let value = format!(r#"{{"metadata":{{"phone_number_id":"7"}},"messages":[{parts}]}}"#);
    format!(r#"{{"entry":[{{"changes":[{{"field":"messages","value":{value}}}]}}]}}"#).into_bytes()
}

#[test]
fn bodies_of_tiny_parts_side_by_side_do_not_fill_the_memory() {
    let (server, source) = start();
    let (source, body) = (source("whatsapp"), tiny_parts());
    std::thread::scope(|scope| {
        for at in 0..10 {
            let (server, source, body) = (&server, &source, &body);
            // A provider retries if there is no room for so many at once.
            scope.spawn(move || {
                wait_until("it is stored", || (source.post(server, body, &at.to_string()).status == 200).then_some(()));
            });
        }
    });
    let most = server.memory_peak_bytes() >> 20;
    assert!(most < 400, "{most} MiB at the most");
    let why = server.get("/events?kind=unreadable").json().to_string();
    assert!(why.contains("more than 10000 elements"), "{why}");
}

/// Posts batches of thirty messages, each with an unreadable
/// part in its middle, until the server is killed during a
/// request. Adds the keys of the acknowledged messages.
fn killed_among_batches(server: Server, source: &TestSource, round: usize, acked: &mut Vec<String>) -> Arc<TempDir> {
    std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let address = server.address;
        scope.spawn(move || {
            for batch in 0.. {
                let key = format!("r{round}b{batch}");
                let mut messages: Vec<_> = (0..30).map(|at| text_message(&format!("{key}m{at}"), "x")).collect();
                messages.insert(15, json!({"type": "text", "batch": key}));
                let body = envelope(&messages);
                let headers = source.headers(&body, "1", now());
                let headers: Vec<_> =
                    headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
                let Ok(mut client) = Client::try_connect(address) else { return };
                match client.request("POST", &source.path, &headers, &body) {
                    Ok(reply) if reply.status == 200 => sender.send(key).unwrap_or_default(),
                    _ => return,
                }
            }
        });
        acked.extend(receiver.iter().take(10 + 7 * round));
        let stored = server.stored();
        let folder = server.kill();
        acked.extend(receiver.iter());
        stored.wait_for_the_dead();
        folder
    })
}

#[test]
fn batches_under_way_at_a_kill_are_whole_or_not_there() {
    let mut setup = all_sources(Setup::new());
    let sources = all_sources(Setup::new());
    let mut acked = Vec::new();
    for round in 0..4 {
        let (server, source) = (setup.start(), TestSource::of(&sources, "whatsapp"));
        let folder = killed_among_batches(server, &source, round, &mut acked);
        setup = all_sources(Setup::in_folder(folder));
    }
    let server = setup.start();
    let ids = server.stored().ids();
    for key in &acked {
        assert!((0..30).all(|at| ids.contains(&format!("whatsapp:7:{key}m{at}"))), "{key} was acknowledged");
    }
    assert_eq!(ids.len() % 30, 0, "a batch is one commit");
    let batches = ids.len() as i64 / 30;
    let tables = ["postroom_events", "postroom_details", "postroom_payloads"].map(|table| server.count(table));
    assert_eq!(tables, [batches, 30 * batches, batches], "with its bad part, its details and its raw body");
}

#[test]
fn the_log_tells_of_a_batch_without_its_content() {
    let (server, source) = start();
    source("whatsapp").post(&server, &envelope(&[text_message("a", "private words"), text_message("b", "x")]), "1");
    let line = server.wait_for_line(|line| line["path"] == "/webhook/whatsapp");
    assert_eq!(
        (line["source"].as_str(), &line["messages"], &line["created"]),
        (Some("whatsapp"), &json!(2), &json!(2))
    );
    assert!(!server.lines().iter().any(|line| line.to_string().contains("private words")));
    assert_eq!(
        server.metric(r#"postroom_secret_uses_total{source="whatsapp",secret="WHATSAPP_APP_SECRET"}"#),
        Some(1.0)
    );
    assert_eq!(
        server.metric(r#"webhook_requests_total{result="created"}"#),
        Some(0.0),
        "that is the original source's"
    );
}

#[test]
fn what_deleted_messages_left_behind_is_counted_and_removed() {
    let (server, source) = start();
    let post = |messages: &[Value]| assert_eq!(source("whatsapp").post(&server, &envelope(messages), "1").status, 200);
    post(&[text_message("alone", "a secret word")]);
    post(&[text_message("deleted", "x"), text_message("kept", "y")]);
    post(&[text_message("alone", "another word"), text_message("deleted", "other words")]);
    post(&[text_message("kept", "another copy")]);
    post(&[json!({"type": "text"})]);
    let counts = || ["postroom_details", "postroom_payloads", "postroom_events"].map(|table| server.count(table));
    assert_eq!(counts(), [3, 5, 4]);
    let tell = |arguments: &[&str]| {
        arguments.iter().fold(all_sources(Setup::in_folder(server.folder())), |setup, one| setup.arg(one)).run()
    };
    let run = |arguments: &[&str]| {
        let (status, stdout, stderr) = tell(arguments);
        assert!(status.success(), "{stdout}{stderr}");
        stdout
    };
    assert!(!run(&["check", "--data"]).contains("orphans "));
    server.stored().execute("DELETE FROM messages WHERE message_id NOT LIKE '%kept'");
    // On PostgreSQL this makes counters wrong, which is a finding; on a file it does not.
    let (_, told, _) = tell(&["check", "--data"]);
    let left = "2 details, 2 conflicting copies and 2 raw bodies of deleted messages";
    assert!(told.contains(&format!("orphans        {left}; `postroom reindex` removes them")), "{told}");
    assert!(run(&["reindex"]).contains(&format!("removed {left}")));
    assert_eq!(counts(), [1, 3, 2], "what shares a body with others keeps it");
    assert!(!run(&["check", "--data"]).contains("orphans ") && !run(&["reindex"]).contains("removed"));
    let told = run(&["reparse", "--all"]);
    assert!(told.contains("messages   1 new"), "only what stands in a body that is kept comes back: {told}");
    assert_eq!(server.get("/messages/kept?raw=1").status, 200);
    assert_eq!(server.get("/messages/alone").status, 404);
    // A message that is sent again is new.
    post(&[text_message("alone", "again")]);
    assert_eq!(server.get("/messages/alone").json()["text"], "again");
}
