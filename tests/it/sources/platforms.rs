//! Newer message types of WhatsApp, Messenger, Instagram, and of
//! platforms with several channels (Telnyx, Vonage, MessageBird,
//! Bird): their content is found in the expected fields, and
//! events that are not about a delivery change no state.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::start;
use crate::harness::{Server, TestSource};

/// The bytes of `testdata/providers/<provider>/<name>.json`.
fn sample(provider: &str, name: &str) -> Vec<u8> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .join(format!("testdata/providers/{provider}/{name}.json"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn post(server: &Server, source: &TestSource, provider: &str, name: &str) {
    assert_eq!(source.post(server, &sample(provider, name), name).status, 200, "{provider} {name}");
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// The ids of all messages of a source.
fn ids(server: &Server, source: &str) -> Vec<String> {
    let page = server.get(&format!("/messages?source={source}&limit=100")).json();
    let rows = page["data"].as_array().expect("a page");
    rows.iter().map(|row| row["message_id"].as_str().expect("an id").to_owned()).collect()
}

/// The state of a sent message.
fn state(server: &Server, id: &str) -> Value {
    server.get(&format!("/messages/{}/statuses", escaped(id))).json()["status"].clone()
}

fn events(server: &Server, kind: &str) -> Vec<Value> {
    server.get(&format!("/events?limit=100&kind={kind}")).json()["data"].as_array().expect("a page").clone()
}

#[test]
fn what_was_said_is_found_by_searching_wherever_its_shape_puts_it() {
    let (server, source) = start();
    let said = [
        ("whatsapp", "edit-of-image", "the other caption"),
        ("whatsapp", "standby", "asked while a bot answers"),
        ("whatsapp", "field-left-out", "by a relay that names no field"),
        ("whatsapp", "messenger-text", "Do you open on Sunday?"),
        ("whatsapp", "messenger-postback", "Get started"),
        ("whatsapp", "messenger-edit", "Do you open on Monday?"),
        ("whatsapp", "messenger-standby", "while another app answers"),
        ("whatsapp", "instagram", "Is it in stock?"),
        ("whatsapp", "instagram-change", "by a change"),
        ("360dialog", "on-premises", "in the older form"),
        ("telnyx", "rcs-text", "hello from RCS"),
        ("telnyx", "rcs-suggestion", "Yes, please"),
        ("vonage", "button", "Pay now"),
        ("vonage", "reaction", "👍"),
        ("vonage", "order", "please by Friday"),
        ("vonage", "older-version", "of version 0.1"),
        ("vonage", "viber", "in Viber"),
        ("messagebird", "image", "look"),
        ("messagebird", "video", "and hear"),
        ("messagebird", "file", "the bill"),
        ("messagebird", "interactive", "Yes, please"),
        ("messagebird", "without-addresses", "without from and to"),
        ("bird", "image", "two doors"),
        ("bird", "images-beside", "one door"),
        ("bird", "document", "the bill"),
        ("standard", "numbers", "123456"),
    ];
    for (provider, name, text) in said {
        post(&server, &source(provider), provider, name);
        let path = format!("/messages?source={provider}&q={}", escaped(text));
        assert_eq!(server.get(&path).json()["total"], 1, "{provider} {name}: {text}");
    }
}

#[test]
fn what_has_no_text_is_in_the_details() {
    let (server, source) = start();
    let told = [
        ("telnyx", "rcs-file", "/media/0/url", json!("https://rcs.example/door.png")),
        ("telnyx", "rcs-location", "/extra/location/latitude", json!(41.8)),
        ("telnyx", "rcs-of-the-future", "/extra/hologram/text", json!("said where nobody looked")),
        ("telnyx", "mms-of-a-group", "/extra/cc", json!(["+14155550177", "+14155550178"])),
        ("vonage", "referral", "/extra/whatsapp/referral/source_id", json!("212731241638144")),
        ("vonage", "reaction", "/extra/reaction_to", json!("out-1")),
        ("vonage", "mms-vcard", "/media/0/url", json!("https://api.example/c.vcf")),
        ("vonage", "sms-short-code", "/extra/usage/price", json!("0.0333")),
        ("messagebird", "audio", "/media/0/url", json!("https://media.example/3.ogg")),
        ("messagebird", "location", "/extra/location/latitude", json!(52.1)),
        ("messagebird", "of-the-future", "/extra/hologram/text", json!("inside")),
        ("bird", "voice", "/media/0/mime_type", json!("audio/ogg; codecs=opus")),
        ("bird", "location", "/extra/location/location/label", json!("Home")),
        ("bird", "of-the-future", "/extra/hologram/words", json!("inside")),
        ("whatsapp", "type-with-parts-elsewhere", "/extra/another_member/body", json!("said where nobody looked")),
        ("standard", "with-more", "/extra/order/id", json!(7)),
    ];
    for (provider, name, pointer, value) in told {
        let known = ids(&server, provider);
        post(&server, &source(provider), provider, name);
        let id = ids(&server, provider).into_iter().find(|id| !known.contains(id)).expect("a new message");
        let message = server.get(&format!("/messages/{}", escaped(&id))).json();
        assert_eq!(message["details"].pointer(pointer), Some(&value), "{provider} {name}: {message}");
    }
}

#[test]
fn an_id_of_a_channel_is_no_phone_number() {
    let (server, source) = start();
    let people = [
        ("vonage", "messenger", "messenger:9876543210", "messenger:0123456789"),
        ("vonage", "older-version-messenger", "messenger:9876543210", "messenger:0123456789"),
        ("vonage", "viber", "+447700900001", "viber:0123456789"),
        ("vonage", "rcs", "+447700900001", "rcs:Vonage"),
        ("vonage", "sms-short-code", "short:68849", "+447700900000"),
        ("vonage", "sms-from-a-name", "alpha:AcmeCorp", "+447700900000"),
        ("vonage", "whatsapp-without-number", "bsuid:US.13491208655302741918", "+447700900000"),
        ("messagebird", "facebook", "messenger:7250157395091238", "messenger:1906385232743451"),
        ("bird", "facebook", "messenger:7250157395091238", "messenger:1906385232743451"),
        ("bird", "line", "line:U82767028f6ac7935be3c631e2993212b", "line:2005309875"),
        ("telnyx", "rcs-text", "+14155550100", "rcs:TestAgent"),
        ("whatsapp", "messenger-standby", "messenger:7250157395091238", "messenger:1906385232743451"),
        ("whatsapp", "instagram-change", "instagram:1254477777772919", "instagram:17841405793187218"),
    ];
    for (provider, name, from, to) in people {
        post(&server, &source(provider), provider, name);
        let page = server.get(&format!("/messages?source={provider}&limit=100")).json();
        let found = page["data"].as_array().expect("a page").iter().any(|row| row["from"] == from && row["to"] == to);
        assert!(found, "{provider} {name}: {page}");
        let page = server.get(&format!("/messages?source={provider}&from={}", escaped(from))).json();
        assert!(page["total"].as_i64() >= Some(1), "{provider} {name}: found by from={from}");
    }
}

#[test]
fn a_payment_is_no_state_of_the_message_that_asks_for_it() {
    let (server, source) = start();
    post(&server, &source("whatsapp"), "whatsapp", "status-payment");
    assert_eq!(state(&server, "whatsapp:106540352242922:wamid.b3V0UEFZ"), "delivered");
    let payments = events(&server, "payment");
    let states: Vec<_> = payments.iter().map(|event| event["body"]["status"].clone()).collect();
    assert_eq!(states, ["failed", "captured", "pending"], "newest first");
    assert!(events(&server, "unreadable").is_empty());
}

#[test]
fn a_state_that_nobody_knows_changes_nothing_and_is_kept() {
    let (server, source) = start();
    let cases = [
        ("whatsapp", "status-unknown-type", "whatsapp:106540352242922:wamid.b3V0VFlQRQ==", Value::Null, 2),
        (
            "telnyx",
            "finalized",
            "telnyx:40017a3c-1111-4222-8333-0123456789ab:0ut60000-0000-4000-8000-000000000001",
            json!("failed"),
            1,
        ),
        ("vonage", "status-of-the-future", "vonage:vonage:out-3", Value::Null, 1),
        ("messagebird", "updated-of-the-future", "messagebird:ch-1:mb-11", Value::Null, 1),
        ("bird", "outbound-of-the-future", "bird:ch-1:bd-11", Value::Null, 1),
    ];
    for (provider, name, id, expected, kept) in cases {
        post(&server, &source(provider), provider, name);
        assert_eq!(state(&server, id), expected, "{provider} {name}");
        let path = format!("/events?source={provider}&kind=unreadable");
        assert_eq!(server.get(&path).json()["data"].as_array().map(Vec::len), Some(kept), "{provider} {name}");
    }
}

#[test]
fn states_come_by_every_way_that_a_provider_has_for_them() {
    let (server, source) = start();
    let telnyx = "telnyx:40017a3c-1111-4222-8333-0123456789ab:0ut60000-0000-4000-8000-00000000000";
    let cases = [
        ("telnyx", "rcs-read", format!("{telnyx}2"), "read"),
        ("telnyx", "rcs-read-without-state", format!("{telnyx}3"), "read"),
        ("telnyx", "expired", format!("{telnyx}4"), "failed"),
        ("messagebird", "created-sent", "messagebird:ch-1:mb-11".to_owned(), "queued"),
        ("messagebird", "updated-delivered", "messagebird:ch-1:mb-11".to_owned(), "delivered"),
        ("messagebird", "updated-failed", "messagebird:ch-1:mb-12".to_owned(), "failed"),
        ("bird", "outbound-accepted", "bird:ch-1:bd-11".to_owned(), "queued"),
        ("bird", "outbound-delivered", "bird:ch-1:bd-11".to_owned(), "delivered"),
        ("bird", "outbound-failed", "bird:ch-1:bd-12".to_owned(), "failed"),
        ("whatsapp", "messenger-receipts", "whatsapp:1906385232743451:m_echo".to_owned(), "delivered"),
        ("whatsapp", "instagram", "whatsapp:17841405793187218:ig_echo".to_owned(), "read"),
    ];
    for (provider, name, id, expected) in cases {
        post(&server, &source(provider), provider, name);
        assert_eq!(state(&server, &id), expected, "{provider} {name}");
    }
}

#[test]
fn a_status_keeps_what_was_said_beside_it_and_names_its_recipient_as_messages_do() {
    let (server, source) = start();
    let cases = [
        (
            "whatsapp",
            "status-told-in-full",
            "whatsapp:106540352242922:wamid.b3V0RlVMTA==",
            "+16505551234",
            "/extra/biz_opaque_callback_data",
            json!("ticket-4711"),
        ),
        (
            "whatsapp",
            "status-told-in-full",
            "whatsapp:106540352242922:wamid.b3V0RlVMTA==",
            "+16505551234",
            "/extra/pricing/category",
            json!("utility"),
        ),
        (
            "whatsapp",
            "status-told-in-full",
            "whatsapp:106540352242922:wamid.b3V0RlVMTA==",
            "+16505551234",
            "/extra/errors/0/error_data/details",
            json!("Unsupported video codec: hevc"),
        ),
        (
            "whatsapp",
            "status-told-in-full",
            "whatsapp:106540352242922:wamid.b3V0R1JPVVA=",
            "bsuid:US.13491208655302741918",
            "/extra/recipient_type",
            json!("group"),
        ),
        (
            "whatsapp",
            "status-told-in-full",
            "whatsapp:106540352242922:wamid.b3V0R1JPVVA=",
            "group:Y2FwaV9ncm91cDox",
            "/extra/recipient_id",
            json!("Y2FwaV9ncm91cDox"),
        ),
        (
            "telnyx",
            "expired",
            "telnyx:40017a3c-1111-4222-8333-0123456789ab:0ut60000-0000-4000-8000-000000000004",
            "+14155550100",
            "/extra/cost/amount",
            json!("0.0051"),
        ),
        ("vonage", "status-with-usage", "vonage:vonage:out-3", "+447700900001", "/extra/usage/price", json!("0.0333")),
        (
            "vonage",
            "status-messenger-read",
            "vonage:vonage:out-4",
            "messenger:9876543210",
            "/extra/channel",
            json!("messenger"),
        ),
        ("messagebird", "updated-failed", "messagebird:ch-1:mb-12", "+31612345678", "/extra/error/code", json!(301)),
        ("bird", "outbound-failed", "bird:ch-1:bd-12", "+31612345678", "/extra/details", json!("carrier said no")),
    ];
    for (provider, name, id, recipient, pointer, value) in cases {
        post(&server, &source(provider), provider, name);
        let found = server.get(&format!("/messages/{}/statuses", escaped(id))).json();
        let records = found["statuses"].as_array().expect("records");
        let fits = |record: &Value| record["recipient"] == recipient && record.pointer(pointer) == Some(&value);
        assert!(records.iter().any(fits), "{provider} {name} {pointer}: {found}");
    }
}

#[test]
fn what_the_business_sent_itself_and_the_past_are_no_messages_of_the_inbox() {
    let (server, source) = start();
    let own = [
        (
            "whatsapp",
            "echo-media-and-user",
            "smb_message_echoes",
            "Our new opening hours",
            "+15550783881",
            "+16505551234",
        ),
        (
            "whatsapp",
            "echo-media-and-user",
            "smb_message_echoes",
            "See you at nine",
            "+15550783881",
            "bsuid:US.13491208655302741918",
        ),
        ("whatsapp", "history", "history", "Here is what you asked for", "+15550783881", "+16505551234"),
        ("whatsapp", "history", "history", "Thanks!", "+16505551234", "+15550783881"),
        ("whatsapp", "history-media", "history_media", "Black Prince echeveria", "+15550783881", "unknown:"),
        (
            "whatsapp",
            "messenger-echo",
            "message_echoes",
            "From ten to four",
            "messenger:1906385232743451",
            "messenger:7250157395091238",
        ),
        ("360dialog", "coexistence-history", "history", "long ago", "+16505551234", "+15550783881"),
        ("telnyx", "sent", "message.sent", "x", "+15550783881", "+14155550100"),
        ("messagebird", "created-sent", "message.created", "from the desk", "+31687654321", "+31612345678"),
        ("bird", "outbound-accepted", "whatsapp.outbound", "from the desk", "+31687654321", "+31612345678"),
    ];
    for (provider, name, kind, text, from, to) in own {
        post(&server, &source(provider), provider, name);
        let found = events(&server, kind);
        let fits = |event: &Value| {
            let message = &event["message"];
            event["source"] == provider && message["text"] == text && message["from"] == from && message["to"] == to
        };
        assert_eq!(found.iter().filter(|event| fits(event)).count(), 1, "{provider} {name}: {found:?}");
    }
    assert_eq!(server.get("/messages").json()["total"], 0);
    assert_eq!(server.get("/stats").json()["total_messages"], 0);
    // Later states of a sent message do not repeat its content.
    post(&server, &source("bird"), "bird", "outbound-delivered");
    assert_eq!(events(&server, "whatsapp.outbound").len(), 1);
}

#[test]
fn the_same_error_at_another_time_is_another_event() {
    let (server, source) = start();
    for (name, expected) in [("errors-today", 1), ("errors-today", 1), ("errors-tomorrow", 2), ("errors-tomorrow", 2)] {
        post(&server, &source("whatsapp"), "whatsapp", name);
        assert_eq!(events(&server, "errors").len(), expected, "{name}");
    }
}
