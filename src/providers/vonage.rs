//! Vonage Messages: a JSON Web Token whose claims hold a digest of the body.

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::element::{self, Content, message_key};
use super::encoding::encode_hex;
use super::header::bearer;
use super::json::{owned, scalar, text};
use super::signature::BadSignature;
use super::{Parse, Parsed, Request, Scheme, Source, jwt};
use crate::domain::{Address, Kind, Media, Moment, NewMessage, State, StatusUpdate};

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: "vonage",
    title: "Vonage Messages API",
    expects: Some("authorization: Bearer <JWT of HS256 with the body's SHA-256 in payload_hash>"),
    // Vonage sometimes sends a request unsigned, and signs the next try after a failure of ours.
    by_bearer: true,
    refusal_status: 503,
    verify,
    parse: Parse::Json(parse),
    sign: Some(sign),
    ..Scheme::BASE
};

/// The official SDK looks at the token alone; without the digest any body would do.
fn verify(source: &Source, request: &Request<'_>, now: Moment) -> Result<usize, BadSignature> {
    let token = jwt::verify(bearer(request.headers)?, &["HS256"], &source.keys, now)?;
    if token.digests("payload_hash", request.body) { Ok(token.key) } else { Err(BadSignature::BodyMismatch) }
}

fn sign(source: &Source, request: &Request<'_>, id: &str, now: Moment) -> Option<HeaderMap> {
    let digest = encode_hex(&Sha256::digest(request.body));
    let claims = json!({ "iat": now.unix_seconds(), "jti": id, "iss": "Vonage", "payload_hash": digest });
    let mut headers = request.headers.clone();
    let token = format!("Bearer {}", jwt::sign(&claims, source.keys.first()?));
    headers.insert(AUTHORIZATION, HeaderValue::try_from(token).ok()?);
    Some(headers)
}

fn parse(source: &Source, value: &Value, now: Moment) -> Parsed {
    let mut parsed = Parsed::default();
    match (status(source, value, now), message(source, value, now)) {
        (Some(status), _) => parsed.statuses.push(status),
        (None, Some(message)) => parsed.messages.push(message),
        (None, None) => parsed.events.push(element::event(source, "event", None, value, now)),
    }
    parsed
}

/// Numbers come without `+`; newer ones of WhatsApp may be ids.
fn address(value: &Value, name: &str) -> Option<Address> {
    let raw = scalar(value, name)?;
    Some(Address::read(&raw))
}

fn message(source: &Source, value: &Value, now: Moment) -> Option<NewMessage> {
    let id = scalar(value, "message_uuid")?;
    let provider_kind = text(value, "message_type").filter(|_| value.get("status").is_none())?;
    let kind = match provider_kind {
        "file" => Kind::Document,
        "reply" => Kind::Interactive,
        other => Kind::named(other).unwrap_or(Kind::Unknown),
    };
    let mut details = element::details(source, source.account(), &id, kind, provider_kind);
    let own = &value[provider_kind];
    details.profile_name = owned(&value["profile"], "name");
    details.reply_to = owned(&value["context"], "message_uuid");
    match kind {
        Kind::Image | Kind::Video | Kind::Audio | Kind::Document | Kind::Sticker => {
            details.media.push(Media { url: owned(own, "url"), file_name: owned(own, "name"), ..Media::default() });
        }
        Kind::Text => {}
        _ if !own.is_null() => drop(details.extra.insert(provider_kind.to_owned(), own.clone())),
        _ => {}
    }
    let said = value.get("text").and_then(Value::as_str).map(str::to_owned);
    let content = Content {
        key_id: &id,
        from: address(value, "from")?,
        to: address(value, "to")?,
        time: value.get("timestamp"),
        text: said.or_else(|| owned(own, "caption")).or_else(|| owned(own, "title")),
    };
    Some(element::message(details, content, now))
}

fn status(source: &Source, value: &Value, now: Moment) -> Option<StatusUpdate> {
    let state = match text(value, "status")? {
        "submitted" => State::Sent,
        "delivered" => State::Delivered,
        "read" => State::Read,
        "rejected" | "undeliverable" => State::Failed,
        _ => return None,
    };
    let id = scalar(value, "message_uuid")?;
    Some(StatusUpdate {
        message: message_key(SCHEME.kind, source.account(), &id),
        provider_id: id,
        source: source.name.clone(),
        recipient: address(value, "to"),
        state,
        at: value.get("timestamp").and_then(element::timestamp).unwrap_or_else(|| now.to_timestamp()),
        error: value.get("error").map(|error| {
            format!("{} {}", scalar(error, "title").unwrap_or_default(), text(error, "detail").unwrap_or_default())
        }),
        extra: Map::new(),
    })
}
