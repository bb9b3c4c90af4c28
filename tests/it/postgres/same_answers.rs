//! One history on both engines: every response is the same, byte for byte.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::json;

use super::on;
use crate::api::random::{any_body, any_query, runner};
use crate::harness::random::long_run;
use crate::harness::{Client, Reply, Server, body, cluster, sign, wait_until};

/// The visible part of a response, without the parts that differ between any two responses.
fn seen(reply: &Reply) -> (u16, String, Vec<(String, String)>) {
    let varies = |name: &str| matches!(name, "x-request-id" | "date");
    (reply.status, reply.text(), reply.headers.iter().filter(|(name, _)| !varies(name)).cloned().collect())
}

/// Both engines, which get the same requests.
struct Both(Client, Client);

impl Both {
    fn ask(&mut self, method: &str, target: &str, headers: &[(&str, &str)], bytes: &[u8]) -> Reply {
        let one = self.0.request(method, target, headers, bytes).expect("an answer");
        let other = self.1.request(method, target, headers, bytes).expect("an answer");
        assert_eq!(seen(&one), seen(&other), "{method} {target} {}", String::from_utf8_lossy(bytes));
        one
    }
}

#[test]
fn a_random_history_is_answered_alike() {
    let Some(cluster) = cluster::shared() else { return };
    compare(&cluster.database(), if long_run() { 3_000 } else { 400 });
}

/// Settings of an operator for a role or a database. Other programs may need them; responses do not change.
const SETTINGS: [&str; 22] = [
    "search_path = theirs, public",
    "timezone = 'Asia/Kolkata'",
    "datestyle = 'SQL, DMY'",
    "intervalstyle = 'iso_8601'",
    "standard_conforming_strings = off",
    "backslash_quote = off",
    "bytea_output = 'escape'",
    "extra_float_digits = -15",
    "client_encoding = 'LATIN1'",
    "client_min_messages = 'error'",
    "array_nulls = off",
    "transform_null_equals = on",
    "jit_above_cost = 0",
    "plan_cache_mode = force_generic_plan",
    "work_mem = '64kB'",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_deferrable = on",
    "row_security = off",
    "synchronous_commit = off",
    "lock_timeout = '2s'",
    "statement_timeout = '20s'",
    "idle_in_transaction_session_timeout = '20s'",
];

#[test]
fn settings_of_an_operator_change_no_answer() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let name = url.split(['/', '?']).nth(3).expect("a URL names a database");
    SETTINGS.iter().for_each(|setting| drop(cluster::sql(&url, &format!("ALTER DATABASE {name} SET {setting}"))));
    cluster::sql(&url, "CREATE SCHEMA theirs");
    compare(&url, if long_run() { 1_000 } else { 100 });
}

/// Runs one history on a file and on that database.
fn compare(url: &str, steps: u32) {
    let (one, other) = (Server::start(), on(url).start());
    let mut both = Both(one.client(), other.client());
    let mut runner = runner(1);
    let few = ("[a-d]{1,2}", "[a-cé明天%_\u{0} ]{0,6}", 0..4_u32, 0..3_u32).prop_map(|(id, text, sender, second)| {
        json!({"message_id": id, "from": format!("+{sender}"), "to": "+9", "ts": format!("2025-01-15T10:0{second}:00Z"), "text": text})
    });
    let query = prop_oneof![
        any_query(),
        (
            "(&from=%2B[0-4])?",
            "(&since=2025-01-15T10:0[0-3]:00Z)?",
            "(&q=(a|b|%C3%89|%E6%98%8E%E5%A4%A9|%00|%25|_|ab|%20c))?",
            1..20_u32,
            0..30_u32
        )
            .prop_map(|(from, since, q, limit, offset)| format!("limit={limit}&offset={offset}{from}{since}{q}")),
        (
            "(&from=%2B[0-4])?",
            "(&since=2025-01-15T10:0[0-2]:00Z)?",
            "(&until=2025-01-15T10:0[0-3]:00Z)?",
            "(&to=(%2B9|%2B8|%00))?",
            "(&source=(postroom|other))?",
            "(&kind=(text|image))?",
            "(&q=(a|%C3%89))?",
            0..9_u32
        )
            .prop_map(|(from, since, until, to, source, kind, q, offset)| {
                format!("limit=5&offset={offset}{from}{since}{until}{to}{source}{kind}{q}")
            }),
    ];
    for _ in 0..steps {
        let message = few.new_tree(&mut runner).unwrap().current();
        for bytes in [body(&message), any_body().new_tree(&mut runner).unwrap().current()] {
            both.ask("POST", "/webhook", &[("X-Signature", &sign(&bytes))], &bytes);
        }
        let query = query.new_tree(&mut runner).unwrap().current();
        both.ask("GET", &format!("/messages?{query}"), &[], b"");
        both.ask("GET", "/stats", &[], b"");
        let id = message["message_id"].as_str().expect("a text");
        both.ask("GET", &format!("/messages/{id}/statuses"), &[], b"");
        both.ask("GET", &format!("/messages/{id}?raw=1"), &[], b"");
        let full = both.0.get(&format!("/messages/{id}")).json();
        let other = both.1.get(&format!("/messages/{id}")).json();
        for field in ["message_id", "from", "to", "ts", "text", "kind", "details", "source", "payload"] {
            assert_eq!(full[field], other[field], "{field} of {id}");
        }
    }
    for path in ["/events?limit=5", "/stats?by=status"] {
        both.ask("GET", path, &[], b"");
    }
    for path in ["/health/live", "/health/ready", "/openapi.json", "/docs", "/", "/nowhere"] {
        both.ask("GET", path, &[], b"");
    }
    both.ask("POST", "/webhook", &[("X-Signature", "00")], b"{}");
    walk(&mut both, "order=ts&limit=7");
    walk(&mut both, "limit=5&q=a&cursor=");
    assert_eq!(filed(&one), filed(&other));
    arrivals_are_the_same(&one, &other);
}

/// Follows the links of a listing to its end.
fn walk(both: &mut Both, query: &str) {
    let mut target = Some(format!("/messages?{query}"));
    while let Some(here) = target {
        let reply = both.ask("GET", &here, &[], b"");
        target = reply.next_page(&here);
    }
}

/// Asserts that the ids have the same order of arrival; their cursors differ between the engines.
fn arrivals_are_the_same(one: &Server, other: &Server) {
    let ids = |server: &Server| {
        let mut client = server.client();
        let (mut ids, mut target) = (Vec::new(), "/messages?order=arrival&limit=100".to_owned());
        loop {
            let reply = client.get(&target);
            let page = reply.json();
            let data = page["data"].as_array().expect("a list");
            if data.is_empty() {
                return ids;
            }
            ids.extend(data.iter().map(|message| message["message_id"].as_str().unwrap_or_default().to_owned()));
            target = reply.next_page(&target).expect("there is always a next page");
        }
    };
    let expected = ids(one);
    // Messages that other transactions delay will arrive.
    wait_until("all have arrived", || (ids(other).len() == expected.len()).then_some(()));
    assert_eq!(ids(other), expected);
}

fn filed(server: &Server) -> [f64; 3] {
    ["created", "duplicate", "conflict"].map(|outcome| super::filed(server, outcome))
}
