//! Telnyx messaging: signed with Ed25519, so that Postroom holds a public key and no secret.

use serde_json::Value;

use super::algorithm::Algorithm;
use super::element::{self, Content, message_key};
use super::encoding::Encoding;
use super::json::{list, owned, scalar, text};
use super::rule::Part;
use super::twilio::kind_of_media;
use super::{InvalidBody, Parsed, Rule, Scheme, SecretForm, Source, VerifiedBody};
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
    sign: None,
    parse,
    ..Scheme::BASE
};

fn parse(source: &Source, body: &VerifiedBody, now: Moment) -> Result<Parsed, InvalidBody> {
    let envelope = match element::read_json(source, body, now) {
        Ok(envelope) => envelope,
        Err(unreadable) => return Ok(*unreadable),
    };
    let mut parsed = Parsed::default();
    let data = &envelope["data"];
    let kind = text(data, "event_type").unwrap_or("event");
    match kind {
        "message.received" => parsed.messages.extend(message(source, &data["payload"], now)),
        "message.sent" | "message.finalized" => parsed.statuses = statuses(source, data, now),
        _ => {}
    }
    if parsed.is_empty() {
        parsed.events.push(element::event(source, kind, text(data, "id"), &envelope, now));
    }
    Ok(parsed)
}

fn account<'a>(source: &'a Source, payload: &'a Value) -> &'a str {
    text(payload, "messaging_profile_id").unwrap_or(source.account())
}

/// A number, a short code, or the name of a company.
fn address(raw: &str) -> Address {
    let digits = raw.bytes().all(|byte| byte.is_ascii_digit());
    match Address::loose_phone(raw).filter(|_| raw.starts_with('+')) {
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

/// One status per recipient.
fn statuses(source: &Source, data: &Value, now: Moment) -> Vec<StatusUpdate> {
    let payload = &data["payload"];
    let status = |to: &Value| {
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
            recipient: owned(to, "phone_number").unwrap_or_default(),
            state,
            at: data.get("occurred_at").and_then(element::timestamp).unwrap_or_else(|| now.to_timestamp()),
            error: error.filter(|_| state == State::Failed),
        })
    };
    list(payload, "to").iter().filter_map(status).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::fuzz::door;

    fn read(body: &str) -> Parsed {
        let source = door(&SCHEME_ROW);
        source.parse(&source.reopen(body.into(), Vec::new()), Moment::from_microseconds(0)).unwrap()
    }

    static SCHEME_ROW: Scheme = SCHEME;

    #[test]
    fn messages_come_with_their_files_and_statuses_per_recipient() {
        let received = r#"{"data":{"event_type":"message.received","id":"e1","occurred_at":"2025-01-15T10:00:00.5Z","payload":{
            "id":"m1","type":"MMS","messaging_profile_id":"p1","received_at":"2025-01-15T10:00:00.000+00:00","text":"hi",
            "from":{"phone_number":"12345"},"to":[{"phone_number":"+15550783881"}],
            "media":[{"url":"https://media.example/1","content_type":"image/png","size":10}]}}}"#;
        let message = read(received).messages.remove(0);
        assert_eq!((message.id.as_str(), message.from.as_str()), ("telnyx:p1:m1", "short:12345"));
        assert_eq!((message.to.as_str(), message.ts.as_str()), ("+15550783881", "2025-01-15T10:00:00Z"));
        let details = message.details.unwrap();
        assert_eq!((details.kind, details.media[0].bytes), (Kind::Image, Some(10)));
        let finalized = r#"{"data":{"event_type":"message.finalized","occurred_at":"2025-01-15T10:00:01Z","payload":{"id":"out",
            "to":[{"phone_number":"+1","status":"delivered"},{"phone_number":"+2","status":"delivery_failed"}],
            "errors":[{"code":"40008","title":"Undeliverable"}]}}}"#;
        let states: Vec<_> =
            read(finalized).statuses.into_iter().map(|one| (one.recipient, one.state, one.error)).collect();
        let error = Some("40008 Undeliverable".to_owned());
        assert_eq!(states, [("+1".to_owned(), State::Delivered, None), ("+2".to_owned(), State::Failed, error)]);
        assert_eq!(read(r#"{"data":{"event_type":"call.hangup","id":"e2"}}"#).events[0].kind, "call.hangup");
    }
}
