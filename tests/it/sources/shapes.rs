//! The content of providers' newer bodies:
//! in the listing, the search, the details,
//! and the response to the provider.

use super::settings::with_file;
use super::start;
use crate::harness::{Server, Setup};

/// The only message that a query finds.
fn only(server: &Server, target: &str) -> serde_json::Value {
    let page = server.get(target).json();
    assert_eq!(page["data"].as_array().map(Vec::len), Some(1), "{target}: {page}");
    page["data"][0].clone()
}

#[test]
fn slacks_text_is_found_as_it_was_written() {
    let (server, source) = start();
    let body = r#"{"type":"event_callback","team_id":"T1","event_id":"E1","event":{"type":"message","subtype":"me_message",
        "channel":"C1","user":"U1","ts":"1736935200.000100","text":"a &amp; b &lt;now&gt; &amp;lt;"}}"#;
    let reply = source("slack").post(&server, body.as_bytes(), "1.json");
    assert_eq!((reply.status, reply.text().as_str()), (200, ""), "a body would be shown to the user of a command");
    assert_eq!(only(&server, "/messages?q=a%20%26%20b%20%3Cnow%3E")["text"], "a & b <now> &lt;");
    assert_eq!(server.get("/messages?q=amp").json()["total"], 0);
}

#[test]
fn a_mention_and_its_message_are_one() {
    let (server, source) = start();
    for kind in ["app_mention", "message"] {
        let body = format!(
            r#"{{"type":"event_callback","team_id":"T1","event_id":"{kind}","event":{{"type":"{kind}","channel":"C1",
            "user":"U1","ts":"1736935200.000100","text":"<@UBOT> my order"}}}}"#
        );
        assert_eq!(source("slack").post(&server, body.as_bytes(), "1.json").status, 200);
    }
    assert_eq!(only(&server, "/messages?q=my%20order")["message_id"], "slack:T1:C1:1736935200.000100");
    assert_eq!(server.get("/events").json()["data"], serde_json::json!([]), "no conflict either");
}

#[test]
fn the_same_number_of_two_business_accounts_is_two_messages() {
    let (server, source) = start();
    let body = |connection: &str, text: &str| {
        format!(
            r#"{{"update_id":1,"business_message":{{"message_id":77,"business_connection_id":"{connection}","date":1736935200,
            "chat":{{"id":7,"type":"private"}},"from":{{"id":7,"first_name":"Ann"}},"text":"{text}"}}}}"#
        )
    };
    for (connection, text) in [("A", "to the first"), ("B", "to the second"), ("B", "to the second")] {
        assert_eq!(source("telegram").post(&server, body(connection, text).as_bytes(), "1").status, 200);
    }
    assert_eq!(server.rows(), 2);
    only(&server, "/messages?q=to%20the%20first");
    only(&server, "/messages?q=to%20the%20second");
    assert_eq!(server.get("/events?kind=conflict").json()["data"], serde_json::json!([]));
}

#[test]
fn a_doubled_parameter_costs_no_signed_message() {
    let (server, source) = start();
    let twilio = "MessageSid=SM1&AccountSid=AC1&From=%2B14155550100&To=%2B2&Body=the+code+is+4711&AddOns=a&AddOns=b";
    let plivo = "MessageUUID=u1&From=14155550100&To=2&Text=the+code+is+4712&Units=1&Units=2&Type=sms";
    for (kind, body) in [("twilio", twilio), ("plivo", plivo)] {
        let reply = source(kind).post(&server, body.as_bytes(), "1");
        assert_eq!(reply.header("content-type"), Some("text/xml; charset=utf-8"), "{kind} is answered XML");
    }
    assert_eq!(only(&server, "/messages?q=4711")["from"], "+14155550100");
    assert_eq!(only(&server, "/messages?q=4712")["from"], "+14155550100");
    let recut = twilio.replace("SM1", "SM2").replace("&Body", "&Body=other&Body");
    assert_eq!(source("twilio").post(&server, recut.as_bytes(), "1").status, 200);
    assert_eq!(server.rows(), 2, "what was said is not certain");
    let event = server.get("/events?kind=unreadable").json()["data"][0].clone();
    assert_eq!(event["body"]["part"]["Body"], serde_json::json!(["other", "the code is 4711"]), "but shown: {event}");
}

#[test]
fn forms_of_github_are_events_of_their_kind_once_a_delivery() {
    let (server, source) = start();
    let body = b"payload=%7B%22action%22%3A%22opened%22%2C%22title%22%3A%22a+%26+b%22%7D";
    for _ in 0..2 {
        let mut headers = source("github").headers(body, "1.form", crate::harness::test_source::now());
        headers.insert("x-github-event", "issues".parse().unwrap());
        headers.insert("x-github-delivery", "72d3162e".parse().unwrap());
        assert_eq!(source("github").post_with(&server, body, &headers).status, 200);
    }
    let event = only(&server, "/events");
    assert_eq!((&event["kind"], &event["body"]["title"]), (&"issues".into(), &"a & b".into()), "{event}");
}

#[test]
fn a_recipient_of_the_settings_keeps_its_tag() {
    let text = r#"
        [source.support]
        provider = "telegram"
        secret_env = "TOKEN"
        to = "telegram:7654321"

        [source.sales]
        provider = "telegram"
        secret_env = "TOKEN"
        to = " whatsapp:+49 151 1234567"
    "#;
    let (setup, _) = with_file(Setup::new().env("TOKEN", "token"), text);
    let server = setup.start();
    for (name, to) in [("support", "telegram%3A7654321"), ("sales", "%2B491511234567")] {
        let body = format!(
            r#"{{"update_id":1,"message":{{"message_id":5,"date":1736935200,"chat":{{"id":7}},"from":{{"id":7}},"text":"{name}"}}}}"#
        );
        let header = ("X-Telegram-Bot-Api-Secret-Token", "token");
        let path = format!("/webhook/{name}");
        assert_eq!(server.client().request("POST", &path, &[header], body.as_ref()).unwrap().status, 200);
        assert_eq!(only(&server, &format!("/messages?to={to}"))["text"], name);
    }
}
