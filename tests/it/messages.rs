//! `GET /messages`: the listed messages, their order, and the allowed queries.

use serde_json::{Value, json};

use crate::harness::{Server, message, wait_until};

/// Stores messages of which only some fields matter.
fn store_all(server: &Server, messages: &[(&str, &str, &str, Value)]) {
    for (id, from, ts, text) in messages {
        let mut message = message(id);
        (message["from"], message["ts"], message["text"]) = (json!(from), json!(ts), text.clone());
        server.store(&message);
    }
}

/// The ids of a page, in order, and the total.
fn listed(server: &Server, query: &str) -> (Vec<String>, u64) {
    let reply = server.get(&format!("/messages{query}"));
    assert_eq!(reply.status, 200, "{query}: {}", reply.text());
    let page = reply.json();
    let ids = page["data"].as_array().unwrap().iter().map(|message| message["message_id"].as_str().unwrap().to_owned());
    (ids.collect(), page["total"].as_u64().unwrap())
}

/// Asserts which ids a query lists without a page limit.
fn assert_found(server: &Server, query: &str, ids: &[&str]) {
    assert_eq!(listed(server, query), (ids.iter().map(|id| (*id).to_owned()).collect(), ids.len() as u64), "{query}");
}

const A: &str = "+919876543210";
const B: &str = "+14155550100";

#[test]
fn a_page_is_the_golden_json_to_the_byte() {
    let server = Server::start();
    let page = |target: &str| {
        let reply = server.get(target);
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
        reply.text()
    };
    assert_eq!(page("/messages"), r#"{"data":[],"total":0,"limit":50,"offset":0}"#);
    server.store(&message("m1"));
    let one =
        r#"{"message_id":"m1","from":"+919876543210","to":"+14155550100","ts":"2025-01-15T10:00:00Z","text":"Hello"}"#;
    assert_eq!(page("/messages"), format!(r#"{{"data":[{one}],"total":1,"limit":50,"offset":0}}"#));
    store_all(&server, &[("m2", A, "2025-01-15T11:00:00Z", json!(null))]);
    let two =
        r#"{"message_id":"m2","from":"+919876543210","to":"+14155550100","ts":"2025-01-15T11:00:00Z","text":null}"#;
    assert_eq!(page("/messages"), format!(r#"{{"data":[{one},{two}],"total":2,"limit":50,"offset":0}}"#));
    assert_eq!(page("/messages?limit=1&offset=1"), format!(r#"{{"data":[{two}],"total":2,"limit":1,"offset":1}}"#));
}

#[test]
fn messages_are_in_the_order_of_ts_and_then_of_the_bytes_of_their_ids() {
    let server = Server::start();
    let (early, late) = ("2025-01-15T09:59:59Z", "2025-01-15T10:00:00Z");
    let mixed = ["é", "b", "a10", "B", "a2", "a", "😀", "\u{ffff}", "A", "~", "0"];
    store_all(&server, &mixed.map(|id| (id, A, late, json!(null))));
    store_all(&server, &[("z", B, early, json!("x"))]);
    let order = ["z", "0", "A", "B", "a", "a10", "a2", "b", "~", "é", "\u{ffff}", "😀"];
    assert_found(&server, "", &order);
    assert_found(&server, &format!("?from=%2B{}", &A[1..]), &order[1..]);
    assert_found(&server, &format!("?since={late}"), &order[1..]);
    for limit in [1, 5, 12] {
        let pages = (0..12).step_by(limit).map(|offset| listed(&server, &format!("?limit={limit}&offset={offset}")));
        let (ids, totals): (Vec<Vec<String>>, Vec<u64>) = pages.unzip();
        assert_eq!(ids.concat(), order, "pages of {limit} put together are the whole");
        assert!(totals.iter().all(|total| *total == 12), "the total does not depend on the page");
    }
}

#[test]
fn limit_is_50_unless_told_and_100_at_most() {
    let server = Server::start();
    let row = |at| format!("('{at:03}', '+1', '+2', '2025-01-15T10:00:00Z', NULL, '2025-01-15T10:00:00Z')");
    let rows: Vec<String> = (0..120).map(row).collect();
    server.stored().execute(&format!("INSERT INTO messages VALUES {}", rows.join(", ")));
    let sizes = [
        ("", 50),
        ("?limit=1", 1),
        ("?limit=100", 100),
        ("?limit=100&offset=100", 20),
        ("?offset=119", 1),
        ("?offset=120", 0),
    ];
    for (query, size) in sizes {
        let (ids, total) = listed(&server, query);
        assert_eq!((ids.len(), total), (size, 120), "{query}");
    }
    assert_eq!(listed(&server, "?offset=119").0, ["119"]);
}

#[test]
fn an_offset_past_the_end_is_an_empty_page_however_far() {
    let server = Server::start();
    store_all(&server, &[("m1", A, "2025-01-15T10:00:00Z", json!("x")), ("m2", B, "2025-01-15T10:00:00Z", json!("x"))]);
    let far = ["2", "1000000", "9223372036854775807", "9223372036854775808", "18446744073709551616", &"9".repeat(300)];
    for offset in far {
        for (filter, total) in [("", 2), ("&q=x", 2), ("&from=%2B14155550100", 1)] {
            let page = server.get(&format!("/messages?offset={offset}{filter}"));
            assert_eq!(page.status, 200, "{offset}");
            assert_eq!((&page.json()["data"], &page.json()["total"]), (&json!([]), &json!(total)), "{offset}{filter}");
        }
    }
    assert_eq!(server.get("/messages?offset=9223372036854775807").json()["offset"], json!(i64::MAX));
}

#[test]
fn filters_choose_alone_and_together() {
    let server = Server::start();
    let (one, two, three) = ("2025-01-15T09:00:00Z", "2025-01-15T09:30:00Z", "2025-01-15T10:00:00Z");
    store_all(&server, &[("a1", A, one, json!("Hello")), ("a2", A, two, json!("bye")), ("a3", A, three, json!(null))]);
    store_all(
        &server,
        &[("b1", B, one, json!("hello you")), ("b2", B, two, json!("")), ("b3", B, three, json!("Say HELLO"))],
    );
    let cases: [(&str, &[&str]); 27] = [
        ("?from=+919876543210", &["a1", "a2", "a3"]),
        ("?from=%2B919876543210", &["a1", "a2", "a3"]),
        ("?from=%20919876543210", &["a1", "a2", "a3"]),
        ("?from=919876543210", &[]),
        ("?from=%2B91987654321", &[]),
        ("?from=%2B%25", &[]),
        ("?since=2025-01-15T09:30:00Z", &["a2", "b2", "a3", "b3"]),
        ("?since=2025-01-15T09:30:01Z", &["a3", "b3"]),
        ("?since=2025-01-15T09:30:00.000Z", &["a2", "b2", "a3", "b3"]),
        ("?since=2025-01-15T11:30:00+02:00", &["a2", "b2", "a3", "b3"]),
        ("?since=2025-01-15T04:00:00.0000001-05:30", &["a3", "b3"]),
        ("?until=2025-01-15T09:30:00.000%2B00:00", &["a1", "b1"]),
        ("?until=2025-01-15T09:30:00.5Z", &["a1", "b1", "a2", "b2"]),
        ("?since=2025-01-15T09:30:00.5Z&until=9999-12-31T23:59:59.999Z", &["a3", "b3"]),
        ("?since=2025-01-15T10:00:01Z", &[]),
        ("?q=Hello", &["a1", "b1", "b3"]),
        ("?q=hELLO", &["a1", "b1", "b3"]),
        ("?q=hello+you", &["b1"]),
        ("?q=o%20y", &["b1"]),
        ("?from=+14155550100&q=hello", &["b1", "b3"]),
        ("?from=+14155550100&since=2025-01-15T09:30:00Z", &["b2", "b3"]),
        ("?since=2025-01-15T09:30:00Z&q=hello", &["b3"]),
        ("?from=+919876543210&since=2025-01-15T09:00:00Z&q=HELLO", &["a1"]),
        ("?from=+919876543210&since=2025-01-15T09:30:00Z&q=HELLO", &[]),
        ("?from=&since=&q=", &["a1", "b1", "a2", "b2", "a3", "b3"]),
        ("?From=x&Q=x&text=x&unknown", &["a1", "b1", "a2", "b2", "a3", "b3"]),
        ("?from=x&from=+14155550100&q=nothing&q=say", &["b3"]),
    ];
    for (query, ids) in cases {
        assert_found(&server, query, ids);
    }
    for (query, ids) in [("?q=hello&limit=1&offset=1", ["b1"]), ("?q=hello&limit=9&limit=1", ["a1"])] {
        assert_eq!(listed(&server, query), (ids.map(str::to_owned).to_vec(), 3), "{query}: the total is of the filter");
    }
}

#[test]
fn a_search_takes_every_character_literally_and_folds_case_by_unicode() {
    let server = Server::start();
    let texts = [
        "100% sure",
        "1000 sure",
        "a_b",
        "axb",
        r"back\slash",
        "it's \"so\"",
        "ÉCOLE",
        "Straße",
        "ПРИВЕТ",
        "ΜΆΪΟΣ",
        "İ",
        "*?[a]",
    ];
    let rows: Vec<_> = texts.iter().map(|text| (*text, A, "2025-01-15T10:00:00Z", json!(text))).collect();
    store_all(&server, &rows);
    let none = (String::from("no text"), json!(null));
    store_all(&server, &[(&none.0, A, "2025-01-15T10:00:00Z", none.1)]);
    let escape = |term: &str| term.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let cases: [(&str, &[&str]); 17] = [
        ("100%", &["100% sure"]),
        ("%", &["100% sure"]),
        ("_", &["a_b"]),
        ("a_b", &["a_b"]),
        ("\\", &["back\\slash"]),
        ("'", &["it's \"so\""]),
        ("\"SO\"", &["it's \"so\""]),
        ("école", &["ÉCOLE"]),
        ("STRAẞE", &["Straße"]),
        ("strasse", &[]),
        ("привет", &["ПРИВЕТ"]),
        ("μάϊος", &["ΜΆΪΟΣ"]),
        ("i", &["it's \"so\""]),
        ("e\u{301}", &[]),
        ("*?[A]", &["*?[a]"]),
        ("null", &[]),
        ("sure ", &[]),
    ];
    for (term, ids) in cases {
        assert_found(&server, &format!("?q={}", escape(term)), ids);
    }
    assert_found(&server, "?q=%ff%00", &[]);
    assert_eq!(listed(&server, "?q=").1, 13, "an empty search is none, and then texts that are null count too");
    assert_eq!(listed(&server, &format!("?q={}", "a".repeat(1_024))).1, 0);
}

#[test]
fn every_query_error_is_golden_and_all_are_told_at_once() {
    let server = Server::start();
    let least = |name: &str, least: u8, input: &str| {
        let msg = format!("Input should be greater than or equal to {least}");
        format!(
            r#"{{"type":"greater_than_equal","loc":["query","{name}"],"msg":"{msg}","input":"{input}","ctx":{{"ge":{least}}}}}"#
        )
    };
    let most = |input: &str| {
        let msg = "Input should be less than or equal to 100";
        format!(
            r#"{{"type":"less_than_equal","loc":["query","limit"],"msg":"{msg}","input":"{input}","ctx":{{"le":100}}}}"#
        )
    };
    let number = |name: &str, input: &str| {
        let msg = "Input should be a valid integer, unable to parse string as an integer";
        format!(r#"{{"type":"int_parsing","loc":["query","{name}"],"msg":"{msg}","input":"{input}"}}"#)
    };
    let cases = [
        ("limit=0", vec![least("limit", 1, "0")]),
        ("limit=-1", vec![least("limit", 1, "-1")]),
        ("limit=101", vec![most("101")]),
        ("limit=99999999999999999999", vec![most("99999999999999999999")]),
        ("limit=abc", vec![number("limit", "abc")]),
        ("limit=", vec![number("limit", "")]),
        ("limit=1.5", vec![number("limit", "1.5")]),
        ("limit=1e1", vec![number("limit", "1e1")]),
        ("limit=%D9%A5", vec![number("limit", "٥")]),
        ("offset=-1", vec![least("offset", 0, "-1")]),
        ("offset=x", vec![number("offset", "x")]),
        ("offset=", vec![number("offset", "")]),
        ("offset=-1&limit=0", vec![least("limit", 1, "0"), least("offset", 0, "-1")]),
        ("limit=5&limit=0", vec![least("limit", 1, "0")]),
    ];
    for (query, errors) in cases {
        let reply = server.get(&format!("/messages?{query}"));
        assert_eq!((reply.status, reply.text()), (422, format!(r#"{{"detail":[{}]}}"#, errors.join(","))), "{query}");
    }
    assert_eq!(server.get("/messages?limit=0&limit=5").status, 200, "the last one counts");
}

#[test]
fn since_has_the_form_of_ts_and_a_search_has_a_limit() {
    let server = Server::start();
    let error = |query: &str| {
        let reply = server.get(&format!("/messages?{query}"));
        assert_eq!(reply.status, 422, "{query}");
        let detail = reply.json()["detail"].clone();
        (detail.as_array().unwrap().len(), detail[0]["type"].clone(), detail[0]["loc"].clone())
    };
    let bad = [
        "yesterday",
        "2025-01-15",
        "2025-01-15T09:30:00",
        "2025-01-15T09:30:00.Z",
        "2025-01-15T09:30:00+0:00",
        "2025-02-30T00:00:00Z",
        "2025-01-15T24:00:00Z",
        "2025-01-15t09:30:00Z",
        "%202025-01-15T09:30:00Z",
        "%",
    ];
    for since in bad {
        assert_eq!(error(&format!("since={since}")), (1, json!("value_error"), json!(["query", "since"])), "{since}");
    }
    for term in ["a".repeat(1_025), "%C3%A9".repeat(513)] {
        assert_eq!(error(&format!("q={term}")), (1, json!("string_too_long"), json!(["query", "q"])));
    }
    assert_eq!(error("q=&since=x&offset=x&limit=x").0, 3);
}

#[test]
fn rows_of_other_programs_show_up_at_once_and_unchanged() {
    let server = Server::start();
    server.store(&message("ours"));
    let stored = server.stored();
    let insert = "INSERT INTO messages VALUES ('theirs', 'not a number', '', 'some day', 'x', 'whenever')";
    stored.execute(insert);
    let theirs = json!({"message_id": "theirs", "from": "not a number", "to": "", "ts": "some day", "text": "x"});
    let page = server.get("/messages?from=not+a+number").json();
    assert_eq!((&page["data"], &page["total"]), (&json!([theirs]), &json!(1)));
    assert_found(&server, "", &["ours", "theirs"]);
    stored.execute("UPDATE messages SET text = 'changed', ts = '0' WHERE message_id = 'theirs'");
    assert_found(&server, "?q=changed", &["theirs"]);
    assert_found(&server, "", &["theirs", "ours"]);
    stored.execute("DELETE FROM messages WHERE message_id = 'ours'");
    assert_found(&server, "", &["theirs"]);
}

/// The target of the Link header.
fn next(reply: &crate::harness::Reply) -> Option<String> {
    reply.next_page("/messages")
}

/// A listing by arrival ends before transactions in progress, including those of other tests on the same
/// server.
fn wait_for_arrivals(server: &Server, count: usize) {
    let arrived = || server.get("/messages?order=arrival&limit=100").json()["data"].as_array().unwrap().len();
    wait_until("all have arrived", || (arrived() == count).then_some(()));
}

#[test]
fn cursors_lead_through_the_listing_once_and_change_nothing_for_others() {
    let server = Server::start();
    for at in 0..7 {
        store_all(
            &server,
            &[(&format!("m{at}"), [A, B][at % 2], &format!("2025-01-15T10:00:0{}Z", at / 3), json!("é &"))],
        );
    }
    assert_eq!(next(&server.get("/messages?limit=2")), None, "who does not ask gets no link");
    let link = next(&server.get("/messages?cursor=&limit=2")).expect("there is more");
    assert!(link.starts_with("/messages?limit=2&cursor=01"), "{link}");
    for (filters, expected) in
        [("", 7), ("&from=%2B14155550100", 3), ("&q=%C3%89+%26", 7), ("&since=2025-01-15T10:00:01Z", 4)]
    {
        wait_for_arrivals(&server, 7);
        for order in ["ts", "arrival"] {
            let mut target = format!("/messages?cursor=&limit=2&order={order}{filters}");
            let mut seen = Vec::new();
            for _ in 0..10 {
                let reply = server.get(&target);
                assert_eq!((reply.status, &reply.json()["total"]), (200, &json!(expected)), "{target}");
                let page = reply.json()["data"].as_array().unwrap().clone();
                seen.extend(page.iter().map(|message| message["message_id"].as_str().unwrap().to_owned()));
                match next(&reply) {
                    Some(next) if !page.is_empty() => target = next,
                    _ => break,
                }
            }
            let mut sorted = seen.clone();
            sorted.sort();
            sorted.dedup();
            assert_eq!((&seen, seen.len()), (&sorted, expected), "{order} {filters}");
        }
    }
}

#[test]
fn whoever_follows_arrivals_sees_what_comes_late_too() {
    let server = Server::start();
    assert_eq!(next(&server.get("/messages?order=arrival")), None, "nothing to go on from yet");
    store_all(&server, &[("m1", A, "2025-01-15T10:00:00Z", json!("x"))]);
    wait_for_arrivals(&server, 1);
    let link = next(&server.get("/messages?order=arrival")).expect("more may come");
    let empty = server.get(&link);
    assert_eq!((&empty.json()["data"], next(&empty)), (&json!([]), Some(link.clone())));
    store_all(&server, &[("m0", A, "2001-01-15T10:00:00Z", json!("late"))]);
    wait_for_arrivals(&server, 2);
    assert_eq!(server.get(&link).json()["data"][0]["message_id"], "m0");
}

#[test]
fn what_is_no_cursor_of_ours_is_told() {
    let server = Server::start();
    store_all(&server, &[("m1", A, "2025-01-15T10:00:00Z", json!("x")), ("m2", A, "2025-01-15T10:00:00Z", json!("x"))]);
    let by_time = next(&server.get("/messages?cursor=&limit=1")).expect("there is a second page");
    let wrong_order = by_time + "&order=arrival";
    for target in [
        &wrong_order,
        "/messages?cursor=zz",
        "/messages?cursor=&offset=0",
        "/messages?order=up",
        "/messages?total=some",
    ] {
        assert_eq!(server.get(target).status, 422, "{target}");
    }
    let bounded = server.get("/messages?q=x&total=bounded");
    assert_eq!((&bounded.json()["total"], bounded.header("x-total-exact")), (&json!(2), None), "exact after all");
}
