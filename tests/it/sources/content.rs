//! Searches find the expected content: for any type of a value, any format of an address or a time, and for
//! accompanying text.

use serde_json::{Value, json};

use super::{envelope, text_message};
use crate::harness::test_source::all_sources;
use crate::harness::{Server, Setup, TestSource};

/// A server with a generic source whose fields have their own names.
struct Crm {
    server: Server,
    source: TestSource,
}

impl Crm {
    fn start() -> Self {
        let text = r#"
            [source.crm]
            provider = "generic"
            secret_env = "CRM_SECRET"
            signature_header = "X-CRM"

            [source.crm.fields]
            when = "/is_message"
            equals = "true"
            id = "/id"
            from = "/from"
            to = "/to"
            text = "/text"
            time = "/at"
            reply_to = "/answers"
        "#;
        let setup = Setup::new();
        let path = setup.path().join("sources.toml");
        std::fs::write(&path, text).expect("it can be written");
        let setup = setup.env("POSTROOM_CONFIG", path.display()).env("CRM_SECRET", "c");
        let source = TestSource::of(&setup, "crm");
        Self { server: setup.start(), source }
    }

    /// Posts a message with these parts, and returns the body.
    fn post(&self, parts: Value) -> Vec<u8> {
        let mut body = json!({"is_message": true, "from": "+491", "to": "+492", "at": 1_736_935_200});
        for (name, value) in parts.as_object().expect("an object") {
            body[name.as_str()] = value.clone();
        }
        let body = serde_json::to_vec(&body).expect("JSON");
        assert_eq!(self.source.post(&self.server, &body, "1").status, 200);
        body
    }
}

fn found(server: &Server, id: &str) -> Value {
    let reply = server.get(&format!("/messages/generic:crm:{id}"));
    assert_eq!(reply.status, 200, "{id}: {}", reply.text());
    reply.json()
}

fn total(server: &Server, query: &str) -> u64 {
    server.get(&format!("/messages?{query}")).json()["total"].as_u64().expect("a number")
}

#[test]
fn a_number_is_a_text_with_all_its_digits() {
    let crm = Crm::start();
    let (server, post) = (&crm.server, |parts| crm.post(parts));
    post(json!({"id": "n", "text": 123_456, "from": 68_849, "to": 49_170_123_456_u64}));
    let code = found(server, "n");
    assert_eq!(
        (&code["text"], &code["details"]["kind"], &code["from"], &code["to"]),
        (&json!("123456"), &json!("text"), &json!("short:68849"), &json!("+49170123456"))
    );
    assert_eq!(total(server, "q=123456"), 1);
    for (id, text, expected) in
        [("b", json!(true), json!("true")), ("f", json!(1.5), json!("1.5")), ("e", json!(""), json!(""))]
    {
        post(json!({"id": id, "text": text}));
        assert_eq!(found(server, id)["text"], expected);
    }
    // A value with parts is stored whole.
    post(json!({"id": "p", "text": ["a", {"b": 1}], "answers": {"id": 7}}));
    let parts = found(server, "p");
    assert_eq!(parts["text"], Value::Null);
    assert_eq!(parts["details"]["extra"], json!({"text": ["a", {"b": 1}], "reply_to": {"id": 7}}));
}

#[test]
fn ids_that_differ_in_their_last_digit_are_two_messages() {
    let long = "1234567890123456789012345";
    let setup = all_sources(Setup::new());
    let source = TestSource::of(&setup, "standard");
    let server = setup.start();
    for last in [1, 2] {
        let body =
            format!(r#"{{"data":{{"message_id":{long}{last},"from":4915112345678,"to":"+1","text":{long}{last}}}}}"#);
        assert_eq!(source.post(&server, body.as_bytes(), &last.to_string()).status, 200);
    }
    let listed = server.get("/messages").json();
    let ids: Vec<_> = listed["data"].as_array().unwrap().iter().map(|one| one["message_id"].clone()).collect();
    assert_eq!(ids, [json!(format!("standard:standard:{long}1")), json!(format!("standard:standard:{long}2"))]);
    assert_eq!(
        (&listed["data"][0]["from"], &listed["data"][1]["text"]),
        (&json!("+4915112345678"), &json!(format!("{long}2")))
    );
}

#[test]
fn what_has_parts_at_a_standard_source_is_kept_whole() {
    let setup = all_sources(Setup::new());
    let source = TestSource::of(&setup, "standard");
    let server = setup.start();
    let body = br#"{"type":"sms","data":{"message_id":1,"from":68849,"to":"+1","text":["a"],"reply_to":{"id":7}}}"#;
    assert_eq!(source.post(&server, body, "1").status, 200);
    let message = server.get("/messages/standard:standard:1").json();
    assert_eq!((&message["text"], &message["from"]), (&Value::Null, &json!("short:68849")));
    let extra = &message["details"]["extra"];
    assert_eq!((&extra["text"], &extra["reply_to"]), (&json!(["a"]), &json!({"id": 7})));
}

#[test]
fn one_person_has_one_address() {
    let crm = Crm::start();
    let (server, post) = (&crm.server, |parts| crm.post(parts));
    let forms = [" +49170123456 ", "0049 170 123456", "49170123456", "+49 (170) 123\u{2011}456", "tel:+49170123456"];
    for (id, from) in forms.iter().enumerate() {
        post(json!({"id": id, "from": from}));
    }
    assert_eq!(total(server, "from=%2B49170123456"), 5);
    assert_eq!(server.get("/stats").json()["senders_count"], 1);
}

#[test]
fn a_retry_of_what_an_earlier_version_stored_is_a_duplicate() {
    let crm = Crm::start();
    let (server, post) = (&crm.server, |parts| crm.post(parts));
    server.stored().execute(
        "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at) VALUES
         ('generic:crm:old', '+68849', 'id: +49170123456 ', '2025-01-15T10:00:00Z', 'hi', '2025-01-15T10:00:00Z')",
    );
    post(json!({"id": "old", "from": "68849", "to": " +49170123456 ", "text": "hi"}));
    assert_eq!((total(server, ""), found(server, "old")["from"].clone()), (1, json!("+68849")));
    assert_eq!(server.get("/events").json()["data"], json!([]), "no conflict");
    post(json!({"id": "old", "from": "68850", "to": " +49170123456 ", "text": "hi"}));
    assert_eq!(server.get("/events?kind=conflict").json()["data"].as_array().unwrap().len(), 1);
}

#[test]
fn a_time_without_a_zone_is_shown_and_not_guessed_at() {
    let crm = Crm::start();
    let (server, post) = (&crm.server, |parts| crm.post(parts));
    for (id, at) in [("r", "2025-01-15T11:00:00.25+01:00"), ("s", "1736935200"), ("m", "1736935200000")] {
        post(json!({"id": id, "at": at}));
        let message = found(server, id);
        assert_eq!((&message["ts"], &message["details"]["provider_ts"]), (&json!("2025-01-15T10:00:00Z"), &json!(at)));
    }
    for (id, at) in [("z", json!("2025-01-15T10:00:00")), ("w", json!("yesterday")), ("l", json!([2025, 1, 15]))] {
        post(json!({"id": id, "at": at}));
        let message = found(server, id);
        assert_eq!(
            (&message["details"]["extra"]["unusable_ts"], &message["details"]["provider_ts"]),
            (&at, &Value::Null)
        );
        assert_ne!(message["ts"], "2025-01-15T10:00:00Z");
    }
}

#[test]
fn an_event_has_a_page_of_its_own_and_its_raw_body() {
    let crm = Crm::start();
    let (server, post) = (&crm.server, |parts| crm.post(parts));
    let body = post(json!({"is_message": false, "type": "opened"}));
    let listed = server.get("/events").json()["data"][0].clone();
    let path = format!("/events/{}", listed["event_id"]);
    assert_eq!((server.get(&path).json(), listed["kind"].as_str()), (listed.clone(), Some("opened")));
    assert!(listed.get("message").is_none());
    let raw = server.get(&format!("{path}?raw=1"));
    assert_eq!((raw.body.as_slice(), raw.header("content-type")), (&body[..], Some("application/octet-stream")));
    for absent in ["/events/0", "/events/99", "/events/x", "/events/-1", "/events/99999999999999999999"] {
        assert_eq!(server.get(absent).status, 404, "{absent}");
    }
    server.stored().execute("UPDATE postroom_events SET payload_id = NULL");
    assert_eq!((server.get(&format!("{path}?raw=1")).status, server.get(&path).status), (404, 200));
}

#[test]
fn statuses_have_addresses_and_raw_bodies() {
    let setup = all_sources(Setup::new());
    let source = TestSource::of(&setup, "whatsapp");
    let server = setup.start();
    let post = |state: &str, at: u32, recipient: &str| {
        let part = json!([{"id": "out", "status": state, "timestamp": at.to_string(), "recipient_id": recipient}]);
        let value = json!({"metadata": {"phone_number_id": "7"}, "statuses": part});
        let entry = json!([{"id": "1", "changes": [{"field": "messages", "value": value}]}]);
        let body = serde_json::to_vec(&json!({"object": "whatsapp_business_account", "entry": entry})).unwrap();
        assert_eq!(source.post(&server, &body, "1").status, 200);
        body
    };
    let sent = post("sent", 1_736_935_200, "16505551234");
    let read = post("read", 1_736_935_201, "16505551234");
    let other = post("sent", 1_736_935_202, "US.123");
    let records = server.get("/messages/out/statuses").json()["statuses"].clone();
    let recipients: Vec<_> = records.as_array().unwrap().iter().map(|one| one["recipient"].as_str().unwrap()).collect();
    assert_eq!(recipients, ["+16505551234", "+16505551234", "bsuid:US.123"]);
    assert_eq!((&records[0]["extra"].is_object(), &records[0]["has_raw"]), (&true, &json!(true)));
    let raw = |query: &str| server.get(&format!("/messages/out/statuses?raw=1{query}"));
    assert_eq!(raw("").body, other, "the latest");
    assert_eq!(raw("&recipient=+16505551234").body, read, "an unescaped + is one");
    assert_eq!(raw("&recipient=%2B16505551234&status=sent").body, sent);
    assert_eq!((raw("&status=failed").status, raw("&status=Sent").status, raw("&recipient=x").status), (404, 422, 404));
}

#[test]
fn a_message_whose_status_an_earlier_version_stored_is_counted_once() {
    let setup = all_sources(Setup::new());
    let source = TestSource::of(&setup, "whatsapp");
    let server = setup.start();
    server.stored().execute(
        "INSERT INTO postroom_statuses (message_id, recipient, state, at, provider_id, source, received_at) VALUES
             ('whatsapp:7:out', '16505551234', 'sent', '2025-01-15T10:00:00Z', 'out', 'whatsapp', '2025-01-15T10:00:00Z');
         INSERT INTO postroom_states (message_id, recipient, state) VALUES ('whatsapp:7:out', '16505551234', 'sent');
         INSERT INTO postroom_state_counts (state, messages) VALUES ('sent', 1)",
    );
    let part = json!([{"id": "out", "status": "read", "timestamp": "1736935201", "recipient_id": "16505551234"}]);
    let value = json!({"metadata": {"phone_number_id": "7"}, "statuses": part});
    let entry = json!([{"id": "1", "changes": [{"field": "messages", "value": value}]}]);
    let body = serde_json::to_vec(&json!({"object": "whatsapp_business_account", "entry": entry})).unwrap();
    assert_eq!(source.post(&server, &body, "1").status, 200);
    let counts = server.get("/stats?by=status").json()["messages_per_status"].clone();
    let counted: Vec<_> = counts.as_array().unwrap().iter().filter(|one| one["count"] != 0).collect();
    assert_eq!(counted, [&json!({"status": "read", "count": 1})]);
    // An address in a message is normalized like that of a status.
    source.post(&server, &envelope(&[text_message("in", "x")]), "2");
    assert_eq!(total(&server, "from=%2B16505551234"), 1);
}
