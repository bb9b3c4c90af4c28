//! Real messages, if available: `POSTROOM_REAL_INPUT` names
//! 87,300 real SMS in English and Chinese, or they are in a
//! folder next to the checkout. They may not be shipped.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::harness::{SECRET, Server};

fn real_input() -> Option<PathBuf> {
    let beside = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("../shared/data/nus-sms.ndjson.gz");
    let path = std::env::var_os("POSTROOM_REAL_INPUT").map_or(beside, PathBuf::from);
    path.exists().then_some(path)
}

fn send(server: &Server, path: &PathBuf, concurrency: &str) -> Value {
    let url = format!("http://{}/webhook", server.address);
    let output = Command::new(env!("CARGO_BIN_EXE_postroom"))
        .args(["send", "--json", "--concurrency", concurrency, "--url", &url])
        .arg(path)
        .env("WEBHOOK_SECRET", SECRET)
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the summary is JSON")
}

#[test]
fn real_messages_are_filed_once_and_found() {
    let Some(path) = real_input() else {
        println!("skipped: no real input at hand (POSTROOM_REAL_INPUT names it)");
        return;
    };
    let server = Server::start();
    let summary = send(&server, &path, "64");
    assert_eq!((&summary["sent"], &summary["statuses"]["200"]), (&87_300.into(), &87_300.into()), "{summary}");
    for (sample, expected) in [
        ("webhook_requests_total{result=\"created\"}", 77_183.0),
        ("webhook_requests_total{result=\"duplicate\"}", 10_117.0),
        ("postroom_messages_total{source=\"postroom\",outcome=\"conflict\"}", 10_117.0),
    ] {
        assert_eq!(server.metric(sample), Some(expected), "{sample}");
    }
    let stats = server.get("/stats").json();
    assert_eq!((&stats["total_messages"], &stats["senders_count"]), (&77_183.into(), &897.into()));
    assert_eq!(stats["messages_per_sender"][0], serde_json::json!({ "from": "+6580709969", "count": 4951 }));
    assert_eq!(stats["first_message_ts"], "2003-04-01T00:16:05Z");
    assert_eq!(stats["last_message_ts"], "2018-12-25T20:52:00Z");
    let totals = [("lol", 3053), ("%E6%98%8E%E5%A4%A9", 1163), ("100%25", 1), ("%C3%A9", 13), ("HELLO", 147)];
    let found =
        totals.map(|(q, _)| (q, server.get(&format!("/messages?q={q}&limit=1")).json()["total"].as_u64().unwrap()));
    assert_eq!(BTreeMap::from(found), BTreeMap::from(totals));
    // Everything is sent again: no message is new, and nothing changes.
    let summary = send(&server, &path, "16");
    assert_eq!(summary["statuses"]["200"], 87_300);
    assert_eq!(server.get("/stats").json(), stats);
}
