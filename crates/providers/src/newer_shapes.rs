//! Tests of newer bodies, part by part. Snapshots of samples show only the inbox; this table also the events.

use serde_json::{Value, json};

use super::fuzz::{reopened, source};
use super::{Scheme, Source};
use domain::{Event, Intake, Moment, NewMessage};

macro_rules! sample {
    ($provider:literal, $name:literal) => {
        read(
            &source(Scheme::find($provider).unwrap()),
            include_bytes!(concat!("../../../testdata/providers/", $provider, "/", $name)),
        )
    };
}

fn read(source: &Source, body: &[u8]) -> Intake {
    let json = matches!(body.first(), Some(b'{' | b'['));
    let media_type = if json { "application/json" } else { "application/x-www-form-urlencoded" };
    let headers = vec![("content-type".to_owned(), media_type.to_owned())];
    source.parse(&reopened(source, body, headers), Moment::from_microseconds(0)).unwrap().intake
}

/// The only message, without any event.
fn message(intake: Intake) -> NewMessage {
    assert!(intake.events.is_empty() && intake.messages.len() == 1, "{intake:?}");
    intake.messages.into_iter().next().unwrap()
}

/// The only event, without any message.
fn event(intake: Intake) -> Event {
    assert!(intake.messages.is_empty() && intake.events.len() == 1, "{intake:?}");
    intake.events.into_iter().next().unwrap()
}

/// Event kind, kind, sender, recipient and text of an event's message.
fn told(intake: Intake) -> (String, &'static str, String, String, Option<String>) {
    let event = event(intake);
    let message = event.message.unwrap_or_else(|| panic!("{} is about a message: {:?}", event.kind, event.body));
    let kind = message.details.as_ref().unwrap().kind.name();
    (event.kind, kind, message.from.as_str().to_owned(), message.to.as_str().to_owned(), message.text)
}

/// Compares an event's kind and its message's kind, sender, recipient and text.
macro_rules! assert_told {
    ($($provider:literal $name:literal: $event:literal $kind:literal $from:literal $to:literal $text:expr;)+) => {
        $(
            let (event, kind, from, to, text) = told(sample!($provider, $name));
            let text: Option<&str> = text.as_deref();
            let expected: (&str, &str, &str, &str, Option<&str>) = ($event, $kind, $from, $to, $text);
            assert_eq!((event.as_str(), kind, from.as_str(), to.as_str(), text), expected, $name);
        )+
    };
}

#[test]
fn own_sends_edits_and_deletions_are_events_with_the_parts_of_a_message() {
    let none: Option<&str> = None;
    assert_told! {
        "telegram" "business-own.json": "business_message.own" "text" "telegram:555000111" "telegram:987654321"
            Some("how can we help?");
        "telegram" "business-own-by-bot.json": "business_message.own" "text" "telegram:555000111" "telegram:987654321"
            Some("an automatic answer");
        "slack" "bot-message.json": "bot_message" "text" "slack:B1" "slack:C1" Some("x");
        "slack" "bot-message-of-subtype.json": "bot_message" "text" "slack:B2" "slack:C1" Some("build > green");
        "slack" "message-unfurled.json": "message_changed" "edit" "slack:U1" "slack:C1" Some("a & b");
        "slack" "message-edited-by-bot.json": "message_changed" "edit" "slack:B1" "slack:C1" Some("done");
        "slack" "message-deleted.json": "message_deleted" "revoke" "slack:U1" "slack:C1" none;
        "slack" "thread-parent-deleted.json": "message_changed" "revoke" "slack:U2" "slack:C1" none;
        "slack" "reaction-to-message.json": "reaction_added" "reaction" "slack:U1" "slack:C1" Some(":thumbsup:");
        "slack" "reaction-removed.json": "reaction_removed" "reaction" "slack:U1" "slack:C1" Some("");
        "slack" "slash-command.form": "slash_command" "interactive" "slack:U1" "slack:C1"
            Some("/ticket printer & scanner broken");
        "line" "unsend.json": "unsend" "revoke" "line:Uownuser" "line:Uowndestination" none;
        "twilio" "conversation-message-added.form": "onMessageAdded" "text" "+14158675309" "conversation:CH01"
            Some("hello in the conversation");
        "twilio" "conversation-media-added.form": "onMessageAdded" "text" "alpha:agent-7" "conversation:CH01" none;
        "twilio" "conversation-message-updated.form": "onMessageUpdated" "edit" "+14158675309" "conversation:CH01"
            Some("hello again");
        "twilio" "conversation-message-removed.form": "onMessageRemoved" "revoke" "+14158675309" "conversation:CH01" none;
        "waha" "own.json": "message.any.own" "text" "+15550783881" "+491511234567" Some("hi");
        "waha" "own-to-opaque.json": "message.any.own" "text" "+15550783881" "+491511234567" Some("our answer");
        "waha" "own-by-webjs.json": "message.any.own" "image" "+15550783881" "+491511234567" Some("sent on the phone");
        "waha" "own-in-group.json": "message.any.own" "text" "+15550783881" "group:120363000000000000" Some("to all");
        "waha" "edited-own.json": "message.edited.own" "edit" "+15550783881" "+491511234567" Some("corrected");
        "waha" "revoked.json": "message.revoked" "revoke" "+491511234567" "+15550783881" none;
        "evolution" "own.json": "messages.upsert.own" "text" "+15550783881" "+491511234567" Some("mine");
        "evolution" "sent.json": "send.message.own" "text" "+15550783881" "+491511234567" Some("our answer");
        "evolution" "sent-to-opaque.json": "messages.upsert.own" "image" "+15550783881" "+491511234567" Some("our picture");
        "evolution" "edited-own.json": "messages.edited" "edit" "+15550783881" "+491511234567" Some("our text, corrected");
        "evolution" "edited-by-somebody.json": "messages.edited" "edit" "unknown:evolution" "+15550783881"
            Some("hi there");
        "evolution" "edited-in-group.json": "messages.edited" "edit" "unknown:evolution" "group:120363000000000000"
            Some("in the group, corrected");
        "evolution" "revoked-as-edit.json": "messages.edited" "revoke" "unknown:evolution" "+15550783881" none;
        "evolution" "deleted.json": "messages.delete" "revoke" "+491511234567" "+15550783881" none;
        "evolution" "deleted-own.json": "messages.delete.own" "revoke" "+15550783881" "+491511234567" none;
    }
}

#[test]
fn an_own_message_that_is_told_twice_is_one_event() {
    let body = include_str!("../../../testdata/providers/evolution/sent.json");
    let source = source(Scheme::find("evolution").unwrap());
    let one = event(read(&source, body.as_bytes()));
    let other = event(read(&source, body.replace("send.message", "messages.upsert").as_bytes()));
    assert_eq!((one.key.as_str(), one.kind.as_str()), (other.key.as_str(), "send.message.own"));
    assert_eq!(other.kind, "messages.upsert.own");
}

#[test]
fn one_bot_may_serve_several_business_accounts() {
    let one = message(sample!("telegram", "business.json"));
    let other = message(sample!("telegram", "business-of-another-account.json"));
    let former = |message: &NewMessage| message.former_id.as_ref().map(|id| id.as_str().to_owned());
    assert_eq!(one.id.as_str(), "telegram:telegram:conn-A:987654321:77");
    assert_eq!(other.id.as_str(), "telegram:telegram:conn-B:987654321:77");
    assert_eq!(former(&one).as_deref(), Some("telegram:telegram:987654321:77"), "a retry of before is known");
    assert_eq!(former(&one), former(&other), "and only its content tells whose it was");
    let edit = message(sample!("telegram", "business-edited.json"));
    assert_eq!(former(&edit).as_deref(), Some("telegram:telegram:987654321:77#1736935260"));
    assert_eq!(former(&message(sample!("telegram", "text.json"))), None);
}

#[test]
fn two_bridges_that_call_a_session_the_same_are_told_apart_by_the_settings() {
    for (kind, body, session) in [
        ("waha", &include_bytes!("../../../testdata/providers/waha/group.json")[..], "default"),
        ("evolution", &include_bytes!("../../../testdata/providers/evolution/group.json")[..], "shop"),
    ] {
        let mut source = source(Scheme::find(kind).unwrap());
        let plain = message(read(&source, body));
        assert!(plain.former_id.is_none() && plain.id.as_str().starts_with(&format!("{kind}:{session}:")));
        source.options.account = Some("berlin".to_owned());
        let named = message(read(&source, body));
        assert!(named.id.as_str().starts_with(&format!("{kind}:berlin/{session}:")), "{:?}", named.id);
        assert_eq!(named.former_id.as_deref(), Some(&plain.id));
        assert_eq!(named.details.unwrap().account, format!("berlin/{session}"));
    }
}

#[test]
fn a_placeholder_is_nobody() {
    let from = |message: NewMessage| message.from.as_str().to_owned();
    let group = "telegram:-1001234567890";
    assert_eq!(from(message(sample!("telegram", "anonymous-admin.json"))), group);
    assert_eq!(from(message(sample!("telegram", "placeholder-alone.json"))), group);
    assert_eq!(from(message(sample!("telegram", "channel-in-group.json"))), "telegram:-1009876543210");
    assert_eq!(from(message(sample!("telegram", "channel-forwarded-into-group.json"))), "telegram:-1009876543210");
    assert_eq!(from(message(sample!("line", "without-source.json"))), "unknown:line");
}

#[test]
fn a_parameter_that_comes_twice_costs_a_message_only_where_it_decides_what_was_said() {
    let text = |message: NewMessage| message.text.unwrap();
    assert_eq!(text(message(sample!("twilio", "sms-with-doubled-addons.form"))), "a doubled parameter");
    assert_eq!(text(message(sample!("twilio", "sms-with-same-text-twice.form"))), "once");
    assert_eq!(text(message(sample!("plivo", "sms-with-doubled-units.form"))), "a doubled parameter");
    let files = message(sample!("twilio", "mms-with-doubled-url.form")).details.unwrap().media;
    let urls: Vec<_> = files.iter().map(|file| file.url.as_deref().unwrap()).collect();
    assert_eq!(urls, ["https://api.example/Media/ME3", "https://api.example/Media/ME4"]);
    for (intake, name) in [
        (sample!("twilio", "recut.form"), "From"),
        (sample!("twilio", "sms-with-doubled-text.form"), "Body"),
        (sample!("plivo", "recut.form"), "From"),
        (sample!("plivo", "sms-with-doubled-text.form"), "Text"),
    ] {
        let event = event(intake);
        let body: Value = serde_json::from_str(event.body.as_ref().unwrap()).unwrap();
        assert_eq!(event.kind, "unreadable");
        assert_eq!(body["why"], format!("the parameter {name} is repeated with different values"));
        assert_eq!(body["part"][name].as_array().unwrap().len(), 2, "both stand in the event: {body}");
    }
}

#[test]
fn what_else_a_status_says_stays() {
    let extra = |intake: Intake| Value::Object(intake.statuses.into_iter().next().unwrap().extra);
    assert_eq!(
        extra(sample!("twilio", "status-with-more.form")),
        json!({"ChannelPrefix": "whatsapp", "ChannelStatusMessage": "outside the window",
            "ChannelToAddress": "+1415XXXXXXX", "EventType": "UNDELIVERED", "From": "whatsapp:+14155238886",
            "RawDlrDoneDate": "2501151000"})
    );
    assert_eq!(
        extra(sample!("plivo", "delivery-with-cost.form")),
        json!({"From": "14155238886", "MCC": "310", "MNC": "150", "ParentMessageUUID": "u-26", "PartInfo": "1 of 1",
            "TotalAmount": "0.0035", "TotalRate": "0.0035", "Units": "1"})
    );
    let recipient = sample!("waha", "ack.json").statuses[0].recipient().to_owned();
    assert_eq!(recipient, "+491511234567", "in the form of every address");
}

#[test]
fn event_streams_and_forms_have_kinds_of_their_own() {
    let events = sample!("twilio", "event-streams.json").events;
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    let message = "com.twilio.conversations.message.added";
    let expected = ["com.twilio.messaging.inbound-message.received", "com.twilio.messaging.message.delivered", message];
    assert_eq!(kinds, expected);
    let texts: Vec<_> =
        events.iter().map(|event| event.message.as_ref().and_then(|message| message.text.as_deref())).collect();
    assert_eq!(texts, [Some("Ahoy!"), None, Some("Ahoy, conversation")]);
    let one = event(sample!("twilio", "conversation-message-added.form"));
    let again = event(sample!("twilio", "conversation-message-added-again.form"));
    assert_eq!(one.key, again.key, "another try is the same event");
    for (intake, kind) in [
        (sample!("slack", "interactive.form"), "interactive"),
        (sample!("slack", "form-of-the-future.form"), "form"),
        (sample!("slack", "channel-join.json"), "channel_join"),
        (sample!("github", "issue-opened.form"), "event"),
    ] {
        assert_eq!(event(intake).kind, kind);
    }
}
