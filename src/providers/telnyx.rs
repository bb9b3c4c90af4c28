//! Telnyx messaging: signed with Ed25519, so that Postroom holds a public key and no secret.

use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::element::{self, Content, message_key};
use super::encoding::Encoding;
use super::json::{list, owned, scalar, text};
use super::rule::Part;
use super::twilio::kind_of_media;
use super::{Parse, Parsed, Rule, Scheme, SecretForm, Source};
use crate::domain::{Address, Kind, Media, Moment, NewMessage, State, StatusUpdate};

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
    let kind = text(data, "event_type").unwrap_or("event");
    match kind {
        "message.received" => parsed.messages.extend(message(source, &data["payload"], now)),
        "message.sent" | "message.finalized" => {
            for to in list(&data["payload"], "to") {
                match status(source, data, to, now) {
                    Some(status) => parsed.statuses.push(status),
                    None => parsed.events.push(element::unreadable(source, "an unknown status", to, now)),
                }
            }
        }
        _ => {}
    }
    if parsed.is_empty() {
        parsed.events.push(element::event(source, kind, text(data, "id"), envelope, now));
    }
    parsed
}

fn account<'a>(source: &'a Source, payload: &'a Value) -> &'a str {
    text(payload, "messaging_profile_id").unwrap_or(source.account())
}

/// A number, a short code, or the name of a company.
fn address(raw: &str) -> Address {
    let digits = raw.bytes().all(|byte| byte.is_ascii_digit());
    match Address::number(raw).filter(|_| raw.starts_with('+')) {
        Some(phone) => phone,
        None => Address::tagged(if digits { "short" } else { "alpha" }, raw),
    }
}

fn message(source: &Source, payload: &Value, now: Moment) -> Option<NewMessage> {
    let (id, from) = (scalar(payload, "id")?, text(&payload["from"], "phone_number")?);
    let media: Vec<Media> = list(payload, "media")
        .iter()
        .map(|own| Media {
            url: owned(own, "url"),
            mime_type: owned(own, "content_type"),
            sha256: owned(own, "sha256"),
            bytes: own.get("size").and_then(Value::as_u64),
            ..Media::default()
        })
        .collect();
    let kind = media.first().map_or(Kind::Text, |first| kind_of_media(first.mime_type.as_deref().unwrap_or_default()));
    let mut details =
        element::details(source, account(source, payload), &id, kind, text(payload, "type").unwrap_or_default());
    details.media = media;
    let to = list(payload, "to").first().and_then(|to| text(to, "phone_number"));
    let content = Content {
        key_id: &id,
        from: address(from),
        to: to
            .map(address)
            .or_else(|| source.options.to.clone())
            .unwrap_or_else(|| Address::tagged("telnyx", source.account())),
        time: payload.get("received_at").filter(|time| !time.is_null()),
        text: payload.get("text").and_then(Value::as_str).map(str::to_owned),
    };
    Some(element::message(details, content, now))
}

/// What became of a message at one of its recipients.
fn status(source: &Source, data: &Value, to: &Value, now: Moment) -> Option<StatusUpdate> {
    let payload = &data["payload"];
    let state = match text(to, "status")? {
        "queued" | "sending" => State::Queued,
        "sent" | "delivery_unconfirmed" => State::Sent,
        "delivered" => State::Delivered,
        "sending_failed" | "delivery_failed" => State::Failed,
        _ => return None,
    };
    let id = scalar(payload, "id")?;
    let error = list(payload, "errors").first().map(|error| {
        format!("{} {}", scalar(error, "code").unwrap_or_default(), text(error, "title").unwrap_or_default())
    });
    Some(StatusUpdate {
        message: message_key(SCHEME.kind, account(source, payload), &id),
        provider_id: id,
        source: source.name.clone(),
        recipient: text(to, "phone_number").map(address),
        state,
        at: data.get("occurred_at").and_then(element::timestamp).unwrap_or_else(|| now.to_timestamp()),
        error: error.filter(|_| state == State::Failed),
        extra: Map::new(),
    })
}
