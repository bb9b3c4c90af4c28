//! MessageBird (the older of Bird's two): a JSON Web Token whose claims contain digests of the URL and the body.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::element::{self, Content, message_key};
use super::encoding::encode_hex;
use super::header::single;
use super::json::{others, owned, scalar, text};
use super::signature::BadSignature;
use super::{Parse, Parsed, Request, Scheme, Source, jwt};
use domain::{Address, Details, Kind, Media, Moment, NewMessage, State, StatusUpdate};

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: "messagebird",
    title: "MessageBird Conversations",
    expects: Some("messagebird-signature-jwt: <JWT of HS256, HS384 or HS512 with url_hash and payload_hash>"),
    needs_url: true,
    verify,
    parse: Parse::Json(parse),
    sign: Some(sign),
    ..Scheme::BASE
};

const TOKEN_HEADER: &str = "messagebird-signature-jwt";

fn verify(source: &Source, request: &Request<'_>, now: Moment) -> Result<usize, BadSignature> {
    let token = single(request.headers, TOKEN_HEADER)?;
    let url = request.url().ok_or(BadSignature::UnknownUrl)?;
    let token = jwt::verify(token, &["HS256", "HS384", "HS512"], &source.keys, now)?;
    let claim = |name: &str| token.claims.get(name).and_then(Value::as_str);
    let right = claim("iss") == Some("MessageBird")
        && token.claims.contains_key("exp")
        && token.digests("url_hash", url.as_bytes())
        // The claim may be absent only if there is no body.
        && match claim("payload_hash") {
            Some(_) => token.digests("payload_hash", request.body),
            None => request.body.is_empty(),
        };
    if right { Ok(token.key) } else { Err(BadSignature::BodyMismatch) }
}

fn sign(source: &Source, request: &Request<'_>, id: &str, now: Moment) -> Option<HeaderMap> {
    let now = now.unix_seconds();
    let claims = json!({
        "iss": "MessageBird", "nbf": now - 1, "exp": now + 60, "jti": id,
        "url_hash": encode_hex(&Sha256::digest(request.url()?)),
        "payload_hash": encode_hex(&Sha256::digest(request.body)),
    });
    let mut headers = request.headers.clone();
    let token = jwt::sign(&claims, source.keys.first()?);
    headers.insert(HeaderName::from_static(TOKEN_HEADER), HeaderValue::try_from(token).ok()?);
    Some(headers)
}

/// Received messages, and delivery states of sent ones: both arrive as `message.created` and `message.updated`.
fn parse(source: &Source, envelope: &Value, now: Moment) -> Parsed {
    let mut parsed = Parsed::default();
    let kind = text(envelope, "type").unwrap_or("event");
    let part = &envelope["message"];
    match (text(part, "direction"), message(source, envelope, now)) {
        (Some("received"), Some(message)) => parsed.intake.messages.push(message),
        (Some("sent"), own) => {
            match status(source, part, now) {
                Some(status) => parsed.intake.statuses.push(status),
                None => parsed.intake.events.push(element::unreadable(source, "an unknown status", part, now)),
            }
            if let Some(own) = own.filter(|_| kind == "message.created") {
                parsed.intake.events.push(element::event_with_message(source, kind, own, envelope, now));
            }
        }
        _ => parsed.intake.events.push(element::event(source, kind, None, envelope, now)),
    }
    parsed
}

fn account<'a>(source: &'a Source, part: &'a Value) -> &'a str {
    text(part, "channelId").unwrap_or(source.account())
}

/// The platform decides whether ids are numbers.
fn address(part: &Value, raw: &str) -> Address {
    match text(part, "platform").unwrap_or_default() {
        "" | "sms" | "mms" => Address::read(raw),
        "whatsapp" | "whatsapp_sandbox" => Address::international(raw).unwrap_or_else(|| Address::tagged("bsuid", raw)),
        "facebook" => Address::tagged("messenger", raw),
        other => element::address_of_channel(other, raw),
    }
}

fn message(source: &Source, envelope: &Value, now: Moment) -> Option<NewMessage> {
    let part = &envelope["message"];
    let contact = &envelope["contact"];
    let id = scalar(part, "id")?;
    let provider_kind = text(part, "type").unwrap_or_default();
    let account = account(source, part);
    let mut details = element::details(source, account, &id, kind(provider_kind), provider_kind);
    details.profile_name = owned(contact, "displayName");
    details.extra = others(part, READ);
    let said = read_content(&part["content"], &mut details);
    // Older bodies contain the addresses of a message only in the contact.
    let is_sent = text(part, "direction") == Some("sent");
    let person = || match scalar(contact, "msisdn") {
        Some(number) => Some(Address::read(&number)),
        None => text(contact, "id").map(|id| Address::tagged("messagebird", id)),
    };
    let ours = || source.options.to.clone().unwrap_or_else(|| Address::tagged("account", account));
    let named = |name: &str| scalar(part, name).map(|raw| address(part, &raw));
    let content = Content {
        key_id: &id,
        from: named("from").or_else(|| if is_sent { Some(ours()) } else { person() })?,
        to: named("to").or_else(|| if is_sent { person() } else { None }).unwrap_or_else(ours),
        time: part.get("createdDatetime"),
        text: said,
    };
    Some(element::message(details, content, now))
}

/// Members of a message that have their own fields, or are only structure. Other members are kept unchanged.
const READ: &[&str] = &[
    "id",
    "channelId",
    "from",
    "to",
    "direction",
    "status",
    "type",
    "content",
    "createdDatetime",
    "updatedDatetime",
    "href",
];

fn kind(provider_kind: &str) -> Kind {
    match provider_kind {
        "file" | "externalAttachment" => Kind::Document,
        "whatsappSticker" => Kind::Sticker,
        "whatsappOrder" => Kind::Order,
        "whatsappText" | "hsm" | "email" => Kind::Text,
        other => Kind::named(other).unwrap_or(Kind::Unknown),
    }
}

/// The text of a content. A file becomes one of `media`. Other data stays in `extra`.
fn read_content(content: &Value, details: &mut Details) -> Option<String> {
    let mut said = content.get("text").and_then(Value::as_str).map(str::to_owned);
    for (name, own) in others(content, &["text"]) {
        if let Some(url) = owned(&own, "url").or_else(|| owned(&own, "link")) {
            let (mime_type, file_name) = (owned(&own, "mime_type"), owned(&own, "filename"));
            details.media.push(Media { url: Some(url), mime_type, file_name, ..Media::default() });
            said = said.or_else(|| owned(&own, "caption"));
            if !others(&own, &["url", "link", "caption", "mime_type", "filename"]).is_empty() {
                details.extra.insert(name, own);
            }
        } else {
            let reply = &own["reply"];
            let words = [(&own, "text"), (reply, "text"), (reply, "title"), (&own, "body"), (&own["content"], "text")];
            said = said.or_else(|| words.into_iter().find_map(|(holder, name)| owned(holder, name)));
            details.extra.insert(name, own);
        }
    }
    said
}

fn status(source: &Source, part: &Value, now: Moment) -> Option<StatusUpdate> {
    let state = match text(part, "status")? {
        "accepted" | "pending" | "scheduled" | "buffered" => State::Queued,
        "sent" | "transmitted" => State::Sent,
        "delivered" => State::Delivered,
        "read" => State::Read,
        "failed" | "rejected" | "expired" | "delivery_failed" => State::Failed,
        _ => return None,
    };
    let id = scalar(part, "id")?;
    let time = part.get("updatedDatetime").or_else(|| part.get("createdDatetime"));
    let error = &part["error"];
    let words = format!(
        "{} {}",
        scalar(error, "code").unwrap_or_default(),
        text(error, "description").or_else(|| text(error, "message")).unwrap_or_default()
    );
    Some(StatusUpdate {
        message: message_key(SCHEME.kind, account(source, part), &id),
        provider_id: id,
        source: source.name.clone(),
        recipient: scalar(part, "to").map(|raw| address(part, &raw)),
        state,
        at: time.and_then(element::timestamp).unwrap_or_else(|| now.to_timestamp()),
        error: Some(words.trim().to_owned()).filter(|words| state == State::Failed && !words.is_empty()),
        extra: others(part, &["id", "status", "content", "direction", "href"]),
    })
}
