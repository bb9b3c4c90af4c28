//! Telnyx messaging: signed with Ed25519, so Postroom has a public key and no secret.

use serde_json::{Map, Value, json};

use super::algorithm::Algorithm;
use super::element::{self, Content, kind_of_media, message_key};
use super::encoding::Encoding;
use super::json::{list, others, owned, scalar, text};
use super::rule::Part;
use super::{Parse, Parsed, Rule, Scheme, SecretForm, Source};
use domain::{Address, Details, Kind, Media, Moment, NewMessage, State, StatusUpdate};

const TEMPLATE: &[Part] = &[Part::Timestamp, Part::Text(super::text("|")), Part::Body];

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: "telnyx",
    title: "Telnyx Messaging",
    secret: SecretForm::PublicKey,
    rule: Some(Rule::with_time(
        ("telnyx-signature-ed25519", ""),
        Algorithm::Ed25519,
        Encoding::Base64,
        TEMPLATE,
        "telnyx-timestamp",
    )),
    parse: Parse::Json(parse),
    ..Scheme::BASE
};

fn parse(source: &Source, envelope: &Value, now: Moment) -> Parsed {
    let mut parsed = Parsed::default();
    let data = &envelope["data"];
    let payload = &data["payload"];
    let kind = text(data, "event_type").unwrap_or("event");
    match kind {
        "message.received" => parsed.intake.messages.extend(message(source, payload, now)),
        "message.sent" | "message.finalized" | "message.read" => {
            for to in recipients(payload) {
                match status(source, data, to, now) {
                    Some(status) => parsed.intake.statuses.push(status),
                    None => {
                        let part = json!({ "id": payload["id"], "occurred_at": data["occurred_at"], "to": to });
                        parsed.intake.events.push(element::unreadable(source, "an unknown status", &part, now));
                    }
                }
            }
            // A sent message is the other side of the conversation. It becomes one event, with its first state.
            if let Some(own) = message(source, payload, now).filter(|_| kind == "message.sent") {
                parsed.intake.events.push(element::event_with_message(source, kind, own, payload, now));
            }
        }
        _ => {}
    }
    if parsed.intake.is_empty() {
        parsed.intake.events.push(element::event(source, kind, text(data, "id"), envelope, now));
    }
    parsed
}

/// The recipients of a message. The others of a group are in `cc`; in our messages, each has its own state.
fn recipients(payload: &Value) -> impl Iterator<Item = &Value> {
    let others = list(payload, "cc").iter().filter(|other| other.get("status").is_some());
    list(payload, "to").iter().chain(others)
}

fn account<'a>(source: &'a Source, payload: &'a Value) -> &'a str {
    text(payload, "messaging_profile_id").unwrap_or(source.account())
}

/// A number, a short code, the name of a company, or an agent of RCS.
fn address(party: &Value) -> Option<Address> {
    let number = party.as_str().or_else(|| text(party, "phone_number")).map(Address::read);
    number.or_else(|| text(party, "agent_id").map(|agent| Address::tagged("rcs", agent)))
}

fn message(source: &Source, payload: &Value, now: Moment) -> Option<NewMessage> {
    let (id, from) = (scalar(payload, "id")?, address(&payload["from"])?);
    let mut details =
        element::details(source, account(source, payload), &id, Kind::Text, text(payload, "type").unwrap_or_default());
    details.media = list(payload, "media").iter().map(media).collect();
    let said = read_rcs(&payload["body"], &mut details);
    let said = said.or_else(|| payload.get("text").and_then(Value::as_str).map(str::to_owned));
    if let Some(first) = details.media.first() {
        details.kind = kind_of_media(first.mime_type.as_deref().unwrap_or_default());
    }
    keep_parties(payload, &mut details);
    details.extra.extend(told(payload, &["subject", "cost", "tags", "errors"]));
    let to = list(payload, "to").first().and_then(address).or_else(|| source.options.to.clone());
    let time = ["received_at", "sent_at"].into_iter().find_map(|name| payload.get(name).filter(|time| !time.is_null()));
    let content = Content {
        key_id: &id,
        from,
        to: to.unwrap_or_else(|| Address::tagged("telnyx", source.account())),
        time,
        text: said,
    };
    Some(element::message(details, content, now))
}

fn media(own: &Value) -> Media {
    Media {
        url: owned(own, "url"),
        mime_type: owned(own, "content_type"),
        sha256: owned(own, "sha256"),
        bytes: own.get("size").and_then(Value::as_u64),
        ..Media::default()
    }
}

/// The content of an RCS message: a text, a reply to a suggestion, a file or a location. Other data is kept.
fn read_rcs(body: &Value, details: &mut Details) -> Option<String> {
    let is_plain = body["text"].is_string();
    details.extra.extend(others(body, if is_plain { &["text"] } else { &[] }));
    let file = &body["user_file"]["payload"];
    if file.is_object() {
        details.media.push(Media {
            url: owned(file, "file_uri"),
            mime_type: owned(file, "mime_type"),
            file_name: owned(file, "file_name"),
            bytes: file.get("file_size_bytes").and_then(Value::as_u64),
            ..Media::default()
        });
    }
    let places = [body, &body["suggestion_response"], &body["content_message"]];
    let said = places.into_iter().find_map(|place| owned(place, "text")).or_else(|| owned(&body["text"], "body"));
    details.kind = match body {
        Value::Object(body) if body.contains_key("location") => Kind::Location,
        Value::Object(body) if body.contains_key("suggestion_response") => Kind::Interactive,
        Value::Object(body) if said.is_none() && !body.is_empty() => Kind::Unknown,
        _ => details.kind,
    };
    said
}

/// The other participants: a message of a group has several recipients, and only one is `to`.
fn keep_parties(payload: &Value, details: &mut Details) {
    let named = |name: &str| -> Vec<Value> {
        list(payload, name).iter().filter_map(address).map(|address| address.as_str().into()).collect()
    };
    let (to, cc) = (named("to"), named("cc"));
    if to.len() > 1 {
        details.extra.insert("to".to_owned(), to.into());
    }
    if !cc.is_empty() {
        details.extra.insert("cc".to_owned(), cc.into());
    }
    let agent = list(payload, "to").iter().chain([&payload["from"]]).find_map(|party| owned(party, "agent_name"));
    details.extra.extend(agent.map(|agent| ("agent_name".to_owned(), agent.into())));
}

/// The non-empty members with these names.
fn told(payload: &Value, names: &[&str]) -> Map<String, Value> {
    others(payload, &[]).into_iter().filter(|(name, _)| names.contains(&name.as_str())).collect()
}

/// The delivery of a message at one of its recipients.
fn status(source: &Source, data: &Value, to: &Value, now: Moment) -> Option<StatusUpdate> {
    let payload = &data["payload"];
    let is_read = text(data, "event_type") == Some("message.read");
    let state = match text(to, "status") {
        None if is_read => State::Read,
        None => return None,
        Some("queued" | "sending") => State::Queued,
        Some("sent" | "delivery_unconfirmed") => State::Sent,
        Some("delivered") if is_read => State::Read,
        Some("delivered") => State::Delivered,
        Some("read") => State::Read,
        Some("sending_failed" | "delivery_failed" | "expired") => State::Failed,
        Some(_) => return None,
    };
    let id = scalar(payload, "id")?;
    let error = list(payload, "errors").first().map(|error| {
        format!("{} {}", scalar(error, "code").unwrap_or_default(), text(error, "title").unwrap_or_default())
    });
    let mut extra = others(to, &["status"]);
    extra.extend(told(payload, &["cost", "cost_breakdown", "errors", "tags", "type"]));
    Some(StatusUpdate {
        message: message_key(SCHEME.kind, account(source, payload), &id),
        provider_id: id,
        source: source.name.clone(),
        recipient: address(to),
        state,
        at: data.get("occurred_at").and_then(element::timestamp).unwrap_or_else(|| now.to_timestamp()),
        error: error.filter(|_| state == State::Failed),
        extra,
    })
}
