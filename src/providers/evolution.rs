//! Evolution API v2, a self-hosted WhatsApp bridge. It signs no body: a JSON Web Token or a static header is all there is.

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::algorithm::same_secret;
use super::element::{self, Content, ELEMENTS_MAX, message_key};
use super::header::{bearer, single};
use super::json::{list, owned, scalar, text};
use super::rule::first_fitting;
use super::signature::BadSignature;
use super::{Parse, Parsed, Request, Scheme, Source, jid, jwt};
use crate::domain::{Address, Details, Kind, Media, Moment, NewMessage, State, StatusUpdate};

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: "evolution",
    title: "Evolution API v2 (self-hosted WhatsApp bridge)",
    variable: Some("EVOLUTION_JWT_KEY"),
    expects: Some("authorization: Bearer <JWT of HS256 with app evolution and action webhook>"),
    caution: Some(
        "the body is not signed: whoever sees one request can send others for ten minutes (or for ever, with a \
        static header). Keep the bridge and Postroom on one private network",
    ),
    // With `byEvents` the bridge appends the event's name.
    by_bearer: true,
    takes_suffix: true,
    verify,
    parse: Parse::Json(parse),
    sign: Some(sign),
    // The instance's own token stands in every body; kept, it would open the bridge to whoever reads the inbox.
    secret_members: &["apikey"],
    ..Scheme::BASE
};

/// The static header that the source names, or else `Authorization: Bearer` with a token of the bridge's.
fn verify(source: &Source, request: &Request<'_>, now: Moment) -> Result<usize, BadSignature> {
    if let Some(header) = &source.options.header {
        let value = single(request.headers, header)?;
        return first_fitting(&source.keys, |key| same_secret(key.secret.expose(), value));
    }
    let token = jwt::verify(bearer(request.headers)?, &["HS256"], &source.keys, now)?;
    // The same key may sign tokens for other purposes.
    let fits =
        token.claims.get("app") == Some(&json!("evolution")) && token.claims.get("action") == Some(&json!("webhook"));
    if fits { Ok(token.key) } else { Err(BadSignature::BodyMismatch) }
}

fn sign(source: &Source, request: &Request<'_>, _: &str, now: Moment) -> Option<HeaderMap> {
    let (mut headers, key) = (request.headers.clone(), source.keys.first()?);
    let (name, value) = match &source.options.header {
        Some(name) => (name.as_str(), String::from_utf8_lossy(key.secret.expose()).into_owned()),
        None => {
            let now = now.unix_seconds();
            let claims = json!({ "iat": now, "exp": now + 600, "app": "evolution", "action": "webhook" });
            ("authorization", format!("Bearer {}", jwt::sign(&claims, key)))
        }
    };
    headers.insert(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
    Some(headers)
}

fn parse(source: &Source, envelope: &Value, now: Moment) -> Parsed {
    let mut parsed = Parsed::default();
    let event = text(envelope, "event").unwrap_or("unknown");
    let parts = match &envelope["data"] {
        Value::Array(parts) => parts.as_slice(),
        part => std::slice::from_ref(part),
    };
    parsed.is_cut = parts.len() > ELEMENTS_MAX;
    for part in parts.iter().take(ELEMENTS_MAX) {
        let own = part["key"]["fromMe"] == true;
        let message = (event == "messages.upsert" && !own).then(|| message(source, envelope, part, now)).flatten();
        let status = (event == "messages.update").then(|| status(source, envelope, part, now)).flatten();
        match (message, status) {
            (Some(message), _) => parsed.messages.push(message),
            (None, Some(status)) => parsed.statuses.push(status),
            (None, None) => {
                let kind = if own { format!("{event}.own") } else { event.to_owned() };
                let whole =
                    json!({ "instance": envelope["instance"], "date_time": envelope["date_time"], "data": part });
                parsed.events.push(element::event(source, &kind, None, &whole, now));
            }
        }
    }
    parsed
}

fn account<'a>(source: &'a Source, envelope: &'a Value) -> &'a str {
    text(envelope, "instance").unwrap_or(source.account())
}

fn message(source: &Source, envelope: &Value, part: &Value, now: Moment) -> Option<NewMessage> {
    let key = &part["key"];
    let (id, chat) = (text(key, "id")?, text(key, "remoteJid")?);
    if jid::is_broadcast(chat) {
        return None;
    }
    let provider_kind = text(part, "messageType").unwrap_or_default();
    let mut details = element::details(source, account(source, envelope), id, kind(provider_kind), provider_kind);
    let said = read_content(part, &mut details);
    details.profile_name = owned(part, "pushName");
    details.group = jid::is_group(chat).then(|| chat.to_owned());
    details.reply_to = owned(&part["contextInfo"], "stanzaId");
    // Behind an opaque id the number stands in one field or another, or nowhere.
    let sender = text(key, "participant").unwrap_or(chat);
    let known = ["senderPn", "participantPn", "participantAlt", "remoteJidAlt"].iter().find_map(|name| text(key, name));
    if jid::is_opaque(sender) {
        details.person = Some(sender.to_owned());
    }
    let content = Content {
        key_id: id,
        from: jid::address(if jid::is_opaque(sender) { known.unwrap_or(sender) } else { sender }),
        to: text(envelope, "sender")
            .map(jid::address)
            .or_else(|| source.options.to.clone())
            .unwrap_or_else(|| Address::tagged("evolution", account(source, envelope))),
        // `date_time` of the envelope is local time that claims to be UTC.
        time: part.get("messageTimestamp"),
        text: said,
    };
    Some(element::message(details, content, now))
}

fn kind(provider_kind: &str) -> Kind {
    match provider_kind {
        "conversation" | "extendedTextMessage" => Kind::Text,
        "imageMessage" => Kind::Image,
        "videoMessage" | "ptvMessage" => Kind::Video,
        "audioMessage" => Kind::Audio,
        "documentMessage" | "documentWithCaptionMessage" => Kind::Document,
        "stickerMessage" => Kind::Sticker,
        "locationMessage" | "liveLocationMessage" => Kind::Location,
        "contactMessage" | "contactsArrayMessage" => Kind::Contacts,
        "reactionMessage" => Kind::Reaction,
        "buttonsResponseMessage" | "templateButtonReplyMessage" => Kind::Button,
        "listResponseMessage" | "interactiveResponseMessage" => Kind::Interactive,
        "pollCreationMessage" | "pollCreationMessageV3" | "pollUpdateMessage" => Kind::Poll,
        "editedMessage" => Kind::Edit,
        "protocolMessage" => Kind::System,
        _ => Kind::Unknown,
    }
}

fn read_content(part: &Value, details: &mut Details) -> Option<String> {
    let message = &part["message"];
    let own = &message[details.provider_kind.as_str()];
    match details.kind {
        Kind::Text => owned(message, "conversation").or_else(|| owned(&message["extendedTextMessage"], "text")),
        Kind::Image | Kind::Video | Kind::Audio | Kind::Document | Kind::Sticker => {
            details.media.push(Media {
                url: owned(message, "mediaUrl").or_else(|| owned(own, "url")),
                mime_type: owned(own, "mimetype"),
                sha256: owned(own, "fileSha256"),
                file_name: owned(own, "fileName"),
                bytes: scalar(own, "fileLength").and_then(|length| length.parse().ok()),
                id: None,
            });
            owned(own, "caption")
        }
        Kind::Reaction => {
            if let Some(to) = text(&own["key"], "id") {
                details.extra.insert("reaction_to".to_owned(), to.into());
            }
            Some(owned(own, "text").unwrap_or_default())
        }
        _ => {
            if !own.is_null() {
                details.extra.insert(details.kind.name().to_owned(), own.clone());
            }
            ["selectedDisplayText", "title", "name"].iter().find_map(|name| owned(own, name))
        }
    }
}

fn status(source: &Source, envelope: &Value, part: &Value, now: Moment) -> Option<StatusUpdate> {
    let id = text(part, "keyId").or_else(|| text(&part["key"], "id"))?;
    let state = match text(part, "status").or_else(|| text(&part["update"], "status"))? {
        "PENDING" => State::Queued,
        "SERVER_ACK" => State::Sent,
        "DELIVERY_ACK" => State::Delivered,
        "READ" => State::Read,
        "PLAYED" => State::Played,
        "ERROR" => State::Failed,
        _ => return None,
    };
    let recipient = text(part, "participant").or_else(|| text(part, "remoteJid"));
    Some(StatusUpdate {
        message: message_key(SCHEME.kind, account(source, envelope), id),
        provider_id: id.to_owned(),
        source: source.name.clone(),
        recipient: recipient.or_else(|| text(&part["key"], "remoteJid")).map(jid::address),
        state,
        at: now.to_timestamp(),
        error: (state == State::Failed)
            .then(|| list(part, "messageStubParameters").iter().map(Value::to_string).collect()),
        extra: Map::new(),
    })
}
