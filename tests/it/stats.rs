//! `GET /stats`: the statistics of the inbox.

use serde_json::{Value, json};

use crate::harness::{Server, message};

/// Stores this many messages for each sender; message n of all has minute n.
fn store_counts(server: &Server, counts: &[(&str, usize)]) {
    let senders = counts.iter().flat_map(|(from, count)| std::iter::repeat_n(*from, *count));
    for (at, from) in senders.enumerate() {
        let mut message = message(&format!("{from} {at}"));
        (message["from"], message["ts"]) = (json!(from), json!(format!("2025-01-15T10:{at:02}:00Z")));
        server.store(&message);
    }
}

/// The listed senders, with their counts.
fn top(stats: &Value) -> Vec<(String, u64)> {
    let list = stats["messages_per_sender"].as_array().unwrap().iter();
    list.map(|sender| (sender["from"].as_str().unwrap().to_owned(), sender["count"].as_u64().unwrap())).collect()
}

#[test]
fn empty_and_filled_answers_are_the_golden_json_to_the_byte() {
    let server = Server::start();
    let reply = server.get("/stats");
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let empty = r#"{"total_messages":0,"senders_count":0,"messages_per_sender":[],"first_message_ts":null,"last_message_ts":null}"#;
    assert_eq!(reply.text(), empty);
    for (id, ts) in [("late", "2025-01-15T10:00:00Z"), ("early", "2025-01-15T09:00:00Z")] {
        let mut message = message(id);
        message["ts"] = json!(ts);
        server.store(&message);
        server.store(&message);
    }
    let filled = concat!(
        r#"{"total_messages":2,"senders_count":1,"messages_per_sender":[{"from":"+919876543210","count":2}],"#,
        r#""first_message_ts":"2025-01-15T09:00:00Z","last_message_ts":"2025-01-15T10:00:00Z"}"#
    );
    assert_eq!(server.get("/stats").text(), filled, "duplicates do not count");
    assert_eq!(server.get("/stats?limit=0&unknown&by=").text(), filled);
    let refused = server.get("/stats?by=sender");
    assert_eq!(refused.status, 422);
    assert_eq!(refused.json()["detail"][0]["loc"], json!(["query", "by"]), "{}", refused.text());
}

#[test]
fn senders_come_by_count_and_ties_by_their_own_order() {
    let server = Server::start();
    store_counts(&server, &[("+5", 1), ("+10", 2), ("+1", 1), ("+2", 2), ("+9", 3)]);
    let stats = server.get("/stats").json();
    let expected = [("+9", 3), ("+10", 2), ("+2", 2), ("+1", 1), ("+5", 1)];
    assert_eq!(top(&stats), expected.map(|(from, count)| (from.to_owned(), count)));
    assert_eq!((&stats["total_messages"], &stats["senders_count"]), (&json!(9), &json!(5)));
    assert_eq!(top(&stats).iter().map(|(_, count)| count).sum::<u64>(), 9, "with few senders the counts add up");
}

#[test]
fn ten_senders_are_named_and_all_are_counted() {
    let server = Server::start();
    let senders: Vec<String> = (10..22).map(|number| format!("+{number}")).collect();
    let mut counts: Vec<(&str, usize)> = senders.iter().map(|sender| (sender.as_str(), 1)).collect();
    (counts[4].1, counts[11].1) = (3, 2);
    store_counts(&server, &counts[..10]);
    let stats = server.get("/stats").json();
    assert_eq!((top(&stats).len(), &stats["senders_count"], &stats["total_messages"]), (10, &json!(10), &json!(12)));
    store_counts(&server, &counts[10..]);
    let stats = server.get("/stats").json();
    let named: Vec<String> = top(&stats).into_iter().map(|(from, _)| from).collect();
    assert_eq!(named, ["+14", "+21", "+10", "+11", "+12", "+13", "+15", "+16", "+17", "+18"]);
    assert_eq!((&stats["senders_count"], &stats["total_messages"]), (&json!(12), &json!(15)));
}

#[test]
fn other_programs_inserts_updates_and_deletes_count_at_once() {
    let server = Server::start();
    server.store(&message("ours"));
    let stored = server.stored();
    let numbers = || {
        let stats = server.get("/stats").json();
        (stats["total_messages"].as_u64().unwrap(), stats["senders_count"].as_u64().unwrap(), top(&stats))
    };
    let one = |from: &str, count| (from.to_owned(), count);
    stored.execute("INSERT INTO messages VALUES ('theirs', '+5', '+6', '2020-01-01T00:00:00Z', NULL, 'x')");
    assert_eq!(numbers(), (2, 2, vec![one("+5", 1), one("+919876543210", 1)]));
    assert_eq!(server.get("/stats").json()["first_message_ts"], "2020-01-01T00:00:00Z");
    stored.execute("UPDATE messages SET from_msisdn = '+5'");
    assert_eq!(numbers(), (2, 1, vec![one("+5", 2)]));
    stored.execute("DELETE FROM messages");
    assert_eq!(numbers(), (0, 0, vec![]));
}
