//! Vonage Messages: a JSON Web Token whose claims contain a digest of the body.

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::element::{self, Content, message_key};
use super::encoding::encode_hex;
use super::header::bearer;
use super::json::{others, owned, scalar, text};
use super::signature::BadSignature;
use super::{Parse, Parsed, Request, Scheme, Source, jwt};
use domain::{Address, Details, Kind, Media, Moment, NewMessage, State, StatusUpdate};

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: "vonage",
    title: "Vonage Messages API",
    expects: Some("authorization: Bearer <JWT of HS256 with the body's SHA-256 in payload_hash>"),
    // Vonage sometimes sends an unsigned request, and signs the retry after our error.
    by_bearer: true,
    refusal_status: 503,
    verify,
    parse: Parse::Json(parse),
    sign: Some(sign),
    ..Scheme::BASE
};

/// The official SDK only checks the token; without the digest any body would be accepted.
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
    if value.get("status").is_some() && value.get("message_uuid").is_some() {
        match status(source, value, now) {
            Some(status) => parsed.intake.statuses.push(status),
            None => parsed.intake.events.push(element::unreadable(source, "an unknown status", value, now)),
        }
        return parsed;
    }
    match message(source, value, now) {
        Some(message) => parsed.intake.messages.push(message),
        None => parsed.intake.events.push(element::event(source, "event", None, value, now)),
    }
    parsed
}

/// The channel determines the ids. On Messenger they are ids of a page and its users; on Viber our id is
/// that of a service; a WhatsApp user without a number has a BSUID. Version 0.1 names the channel per id.
fn address(value: &Value, name: &str) -> Option<Address> {
    let party = &value[name];
    let raw = scalar(value, name).or_else(|| scalar(party, "number")).or_else(|| scalar(party, "id"))?;
    let channel = text(party, "type").or_else(|| text(value, "channel")).unwrap_or_default();
    let is_service = (name == "to") != value.get("status").is_some();
    Some(match channel {
        "messenger" => Address::tagged("messenger", &raw),
        "viber_service" if is_service => Address::tagged("viber", &raw),
        "viber_service" => Address::international(&raw).unwrap_or_else(|| Address::tagged("viber", &raw)),
        "whatsapp" => Address::international(&raw).unwrap_or_else(|| Address::tagged("bsuid", &raw)),
        "rcs" => Address::international(&raw).unwrap_or_else(|| Address::tagged("rcs", &raw)),
        "" | "sms" | "mms" => Address::read(&raw),
        other => element::address_of_channel(other, &raw),
    })
}

/// Members of a message that have their own fields. Other members are kept unchanged.
const READ: &[&str] =
    &["message_uuid", "from", "to", "timestamp", "text", "message_type", "message", "direction", "profile", "_self"];

fn message(source: &Source, value: &Value, now: Moment) -> Option<NewMessage> {
    let id = scalar(value, "message_uuid")?;
    // In version 0.1 the content is nested deeper.
    let content = if value["message"]["content"].is_object() { &value["message"]["content"] } else { value };
    let provider_kind = text(value, "message_type").or_else(|| text(content, "type"))?;
    let kind = match provider_kind {
        "file" | "vcard" => Kind::Document,
        "reply" => Kind::Interactive,
        "contact" => Kind::Contacts,
        other => Kind::named(other).unwrap_or(Kind::Unknown),
    };
    let mut details = element::details(source, source.account(), &id, kind, provider_kind);
    details.profile_name = owned(&value["profile"], "name").or_else(|| owned(&value["profile"], "username"));
    details.person = owned(&value["whatsapp"]["sender"], "user_id");
    details.reply_to = owned(&value["context"], "message_uuid");
    details.extra = others(value, READ);
    let profile = others(&value["profile"], &["name"]);
    if !profile.is_empty() {
        details.extra.insert("profile".to_owned(), profile.into());
    }
    let said = read_content(content, provider_kind, &mut details);
    let content = Content {
        key_id: &id,
        from: address(value, "from")?,
        to: address(value, "to").or_else(|| source.options.to.clone())?,
        time: value.get("timestamp"),
        text: said,
    };
    Some(element::message(details, content, now))
}

/// The text of a message, by its kind. A file becomes one of `media`. Other data stays in `extra`.
fn read_content(content: &Value, provider_kind: &str, details: &mut Details) -> Option<String> {
    let own = &content[provider_kind];
    if !own.is_null() && provider_kind != "text" {
        details.extra.insert(provider_kind.to_owned(), own.clone());
    }
    let reaction_to = details.reply_to.clone().filter(|_| details.kind == Kind::Reaction);
    details.extra.extend(reaction_to.map(|to| ("reaction_to".to_owned(), to.into())));
    if let Some(url) = owned(own, "url") {
        if others(own, &["url", "name", "filename", "caption"]).is_empty() {
            details.extra.remove(provider_kind);
        }
        let file_name = owned(own, "name").or_else(|| owned(own, "filename"));
        details.media.push(Media { url: Some(url), file_name, ..Media::default() });
    }
    let said = content.get("text").and_then(Value::as_str).map(str::to_owned);
    let names: &[&str] = match details.kind {
        // Without an emoji, the reaction was removed.
        Kind::Reaction => return Some(owned(own, "emoji").unwrap_or_default()),
        Kind::Location | Kind::Contacts => &[],
        _ => &["caption", "title", "text", "body"],
    };
    said.or_else(|| names.iter().find_map(|name| owned(own, name)))
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
    let error = value.get("error").map(|error| {
        let code = scalar(error, "title").or_else(|| scalar(error, "code")).unwrap_or_default();
        let detail = text(error, "detail").or_else(|| text(error, "reason")).unwrap_or_default();
        format!("{code} {detail}").trim().to_owned()
    });
    Some(StatusUpdate {
        message: message_key(SCHEME.kind, source.account(), &id),
        provider_id: id,
        source: source.name.clone(),
        recipient: address(value, "to"),
        state,
        at: value.get("timestamp").and_then(element::timestamp).unwrap_or_else(|| now.to_timestamp()),
        error,
        extra: others(value, &["message_uuid", "status", "timestamp", "_self"]),
    })
}
