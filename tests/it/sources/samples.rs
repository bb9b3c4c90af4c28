//! Sends every sample of `testdata/providers/<name>/` to the program. The result is a snapshot.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::start;
use crate::harness::{Server, TestSource, assert_snapshot, on_a_file};

fn folder() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("testdata/providers")
}

/// The samples of a provider, by name.
pub fn samples(provider: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder().join(provider)).expect("there are samples");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).expect("it can be read"))
    };
    paths.into_iter().map(read).collect()
}

/// The earlier content, so that only the additions of a sample are shown.
#[derive(Default)]
struct Seen {
    messages: BTreeSet<String>,
    statuses: BTreeSet<String>,
    last_event: i64,
}

impl Seen {
    /// All additions since the last call.
    fn news(&mut self, server: &Server) -> Map<String, Value> {
        let sql = server.sql();
        let mut ids = sql.prepare("SELECT message_id FROM messages ORDER BY rowid").unwrap();
        let ids: Vec<String> = ids.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let new_ids: Vec<_> = ids.into_iter().filter(|id| self.messages.insert(id.clone())).collect();
        let messages: Vec<Value> = new_ids.iter().map(|id| shown_message(server, id)).collect();
        let sql_of_statuses = "SELECT message_id, recipient, state, at, error, extra FROM postroom_statuses";
        let mut rows = sql.prepare(sql_of_statuses).unwrap();
        let rows = rows.query_map([], |row| {
            let at: String = row.get(3)?;
            let at = if at.starts_with("2025") { at } else { "(now)".to_owned() };
            let mut status = json!({"message_id": row.get::<_, String>(0)?, "recipient": row.get::<_, String>(1)?,
                "state": row.get::<_, String>(2)?, "at": at, "error": row.get::<_, Option<String>>(4)?});
            if let Some(extra) = row.get::<_, Option<String>>(5)? {
                status["extra"] = serde_json::from_str(&extra).unwrap();
            }
            Ok(status)
        });
        let mut statuses: Vec<Value> = rows.unwrap().map(Result::unwrap).collect();
        statuses.retain(|status| self.statuses.insert(status.to_string()));
        let mut events = server.get("/events?limit=100").json()["data"].as_array().unwrap().clone();
        events.retain(|event| event["event_id"].as_i64().unwrap() > self.last_event);
        self.last_event = events.first().map_or(self.last_event, |event| event["event_id"].as_i64().unwrap());
        events.reverse();
        let events = events.iter().map(|event| {
            assert!(event["payload_id"].is_i64(), "the raw body is kept: {event}");
            let mut shown = json!({"kind": event["kind"], "body": event["body"]});
            if let Some(message) = event.get("message") {
                shown["message"] = message.clone();
                if message["details"]["provider_ts"].is_null() {
                    shown["message"]["ts"] = "(now)".into();
                }
            }
            shown
        });
        let parts = [("messages", messages), ("statuses", statuses), ("events", events.collect())];
        parts
            .into_iter()
            .filter(|(_, part)| !part.is_empty())
            .map(|(name, part)| (name.to_owned(), part.into()))
            .collect()
    }
}

/// A message as clients see it, without values that differ between runs.
fn shown_message(server: &Server, id: &str) -> Value {
    let encoded: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let mut message = server.get(&format!("/messages/{encoded}")).json();
    assert_eq!(message["message_id"], id);
    assert_eq!(message["has_raw"], true, "{id}");
    let fields = message.as_object_mut().unwrap();
    fields.remove("created_at");
    fields.remove("has_raw");
    if fields["details"]["provider_ts"].is_null() {
        fields["ts"] = "(now)".into();
    }
    let text = fields["text"].as_str().unwrap_or_default();
    if text.len() > 200 {
        fields["text"] = format!("({} characters)", text.chars().count()).into();
    }
    message
}

fn walk(provider: &str, source: &TestSource, server: &Server) {
    let (mut seen, mut told) = (Seen::default(), Map::new());
    for (name, body) in samples(provider) {
        let reply = source.post(server, &body, &name);
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        let answer = (reply.header("content-type").map(str::to_owned), reply.text());
        let mut news = seen.news(server);
        news.insert("answer".to_owned(), json!(answer));
        told.insert(name, news.into());
    }
    let snapshot = serde_json::to_string_pretty(&told).unwrap() + "\n";
    assert_snapshot(&format!("testdata/providers/{provider}.json"), &snapshot);
    // Everything is sent again, like a provider that missed a response: the same responses, and nothing new.
    for (name, body) in samples(provider) {
        assert_eq!(source.post(server, &body, &name).status, 200, "{name}");
        let news = seen.news(server);
        assert!(news.is_empty(), "{name} was stored before: {news:?}");
    }
}

#[test]
fn every_sample_becomes_what_its_snapshot_says_and_only_once() {
    if !on_a_file("postgres/sources.rs compares what it makes of every sample with what a file has") {
        return;
    }
    let entries = fs::read_dir(folder()).expect("there are samples").map(|entry| entry.unwrap().path());
    let mut providers: Vec<String> = entries
        .filter(|path| path.is_dir())
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    providers.sort();
    assert!(providers.len() > 12, "{providers:?}");
    for provider in providers {
        let (server, source) = start();
        walk(&provider, &source(&provider), &server);
    }
}
