//! Evolution API v2, a self-hosted WhatsApp bridge. It signs no body: it sends a JSON Web Token or a static header.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::algorithm::same_secret;
use super::element::{self, Content, ELEMENTS_MAX, message_key};
use super::header::{bearer, single};
use super::json::{as_scalar, list, members, owned, scalar, text};
use super::key::first_fitting;
use super::signature::BadSignature;
use super::{Parse, Parsed, Request, Scheme, Source, jid, jwt};
use domain::{Address, Details, Kind, Media, Moment, NewMessage, State, StatusUpdate};

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: "evolution",
    title: "Evolution API v2 (self-hosted WhatsApp bridge)",
    variable: Some("EVOLUTION_JWT_KEY"),
    expects: Some("authorization: Bearer <JWT of HS256 with app evolution and action webhook>"),
    caution: Some(
        "the body is not signed: anyone who sees one request can send others for ten minutes (or without limit, with a \
        static header). Keep the bridge and Postroom on one private network",
    ),
    // With `byEvents` the bridge appends the event's name.
    by_bearer: true,
    takes_suffix: true,
    verify,
    parse: Parse::Json(parse),
    sign: Some(sign),
    // Every body contains the instance's own token. If stored, it would give readers of the inbox access.
    secret_members: &["apikey"],
    ..Scheme::BASE
};

/// Accepts the static header that the source names, or else `Authorization: Bearer` with the bridge's token.
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
        let told = Told::of(source, envelope, event, part);
        let status = (event == "messages.update").then(|| status(source, envelope, part, now)).flatten();
        let belongs_into_inbox = told.as_ref().is_some_and(Told::belongs_into_inbox);
        match (told.and_then(|told| told.message(now)), status) {
            (Some(message), _) if belongs_into_inbox => parsed.intake.messages.push(message),
            (None, Some(status)) => parsed.intake.statuses.push(status),
            (message, _) => {
                let own = part["key"]["fromMe"] == true && event != "messages.edited";
                let kind = if own { format!("{event}.own") } else { event.to_owned() };
                let whole =
                    json!({ "instance": envelope["instance"], "date_time": envelope["date_time"], "data": part });
                parsed.intake.events.push(match message {
                    Some(message) if own && event != "messages.delete" => {
                        element::own_message(source, &kind, message, &whole, now)
                    }
                    Some(message) => element::event_with_message(source, &kind, message, &whole, now),
                    None => element::event(source, &kind, None, &whole, now),
                });
            }
        }
    }
    parsed
}

/// Every instance is a separate number. Several servers may use the same name; they are separated by the account of the
/// settings.
fn account<'a>(source: &'a Source, envelope: &'a Value) -> Cow<'a, str> {
    jid::session_account(source, text(envelope, "instance"))
}

/// An event that is about a message.
struct Told<'a> {
    source: &'a Source,
    envelope: &'a Value,
    event: &'a str,
    part: &'a Value,
    key: &'a Value,
    who: Who,
}

/// The sender of an event's message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Another person.
    Other,
    /// The account itself.
    Own,
    /// The event does not report it.
    Unknown,
}

impl<'a> Told<'a> {
    fn of(source: &'a Source, envelope: &'a Value, event: &'a str, part: &'a Value) -> Option<Self> {
        if !matches!(event, "messages.upsert" | "send.message" | "messages.edited" | "messages.delete") {
            return None;
        }
        // The key of a deleted message may be the only data.
        let key = if part["key"].is_object() { &part["key"] } else { part };
        let chat = text(key, "remoteJid").unwrap_or_default();
        let who = match (event, key["fromMe"] == true) {
            ("messages.edited", true) => who_edited(envelope, chat),
            ("messages.edited", false) if jid::is_group(chat) && text(key, "participant").is_none() => Who::Unknown,
            (_, true) => Who::Own,
            (_, false) => Who::Other,
        };
        Some(Self { source, envelope, event, part, key, who })
    }

    /// Messages of other people, and their later changes. A deletion has no content.
    fn belongs_into_inbox(&self) -> bool {
        let is_deletion = self.event == "messages.delete" || self.event == "messages.edited" && is_revoke(self.part);
        self.who == Who::Other && !is_deletion
    }

    fn message(&self, now: Moment) -> Option<NewMessage> {
        let (id, chat) = (text(self.key, "id")?, text(self.key, "remoteJid")?);
        if jid::is_broadcast(chat) {
            return None;
        }
        let mut details = element::details(self.source, &account(self.source, self.envelope), id, Kind::Unknown, "");
        let said = self.read_content(&mut details);
        let (from, to) = self.people(chat, &mut details);
        details.group = jid::is_group(chat).then(|| chat.to_owned());
        details.reply_to = owned(&self.part["contextInfo"], "stanzaId");
        // `date_time` of the envelope is local time, marked as UTC.
        let (key_id, time) = match self.event {
            "messages.edited" => {
                let time = self.part.get("timestampMs");
                (format!("{id}#{}", time.and_then(as_scalar).unwrap_or_default()), time)
            }
            _ => (id.to_owned(), self.part.get("messageTimestamp")),
        };
        let content = Content { key_id: &key_id, from, to, time, text: said };
        let mut message = element::message(details, content, now);
        message.former_id = jid::former_key(self.source, text(self.envelope, "instance"), &key_id);
        Some(message)
    }

    fn read_content(&self, details: &mut Details) -> Option<String> {
        match self.event {
            "messages.edited" => {
                details.provider_kind = self.event.to_owned();
                read_protocol(self.part, details)
            }
            "messages.delete" => {
                details.provider_kind = self.event.to_owned();
                details.kind = Kind::Revoke;
                details.extra.insert("revoked".to_owned(), details.provider_id.clone().into());
                None
            }
            _ => {
                let word = text(self.part, "messageType").unwrap_or_default();
                let (message, word) = unwrapped(&self.part["message"], word);
                details.provider_kind = word.to_owned();
                details.kind = kind(word);
                read_content(message, details)
            }
        }
    }

    /// Sender and recipient. The number of an opaque id is in one of several fields, or missing.
    fn people(&self, chat: &str, details: &mut Details) -> (Address, Address) {
        let own = text(self.envelope, "sender").map(jid::address).or_else(|| self.source.options.to.clone());
        let own = own.unwrap_or_else(|| Address::tagged("evolution", &account(self.source, self.envelope)));
        let is_group = jid::is_group(chat);
        let other = match self.who {
            Who::Own => chat,
            Who::Other | Who::Unknown => text(self.key, "participant").unwrap_or(chat),
        };
        let number = jid::number_beside(self.key, is_group).filter(|_| jid::is_opaque(other));
        let address = jid::address(number.unwrap_or(other));
        match self.who {
            Who::Own => (own, address),
            Who::Unknown => (Address::tagged("unknown", SCHEME.kind), if is_group { jid::address(chat) } else { own }),
            Who::Other => {
                details.profile_name = owned(self.part, "pushName");
                details.person = jid::is_opaque(other).then(|| other.to_owned());
                (address, own)
            }
        }
    }
}

/// The editor wrote the key of an edit, so `fromMe` is always true in it. Its chat is the other side of the
/// editor: this account, if another person is the editor.
fn who_edited(envelope: &Value, chat: &str) -> Who {
    let account = text(envelope, "sender").map(jid::address);
    let is_ours = account.is_some_and(|account| account == jid::address(chat));
    if is_ours || jid::is_group(chat) || jid::is_opaque(chat) { Who::Unknown } else { Who::Own }
}

/// Messages that only wrap another one.
const WRAPPERS: [&str; 6] = [
    "associatedChildMessage",
    "documentWithCaptionMessage",
    "ephemeralMessage",
    "viewOnceMessage",
    "viewOnceMessageV2",
    "viewOnceMessageV2Extension",
];

/// The message without its wrappers, and its type.
fn unwrapped<'a>(message: &'a Value, word: &'a str) -> (&'a Value, &'a str) {
    let inner = &message[word]["message"];
    let mut names = members(inner).map(|(name, _)| name.as_str());
    match names.find(|name| *name != "messageContextInfo") {
        Some(inner_word) if WRAPPERS.contains(&word) => unwrapped(inner, inner_word),
        _ => (message, word),
    }
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
        "pollCreationMessage" | "pollCreationMessageV2" | "pollCreationMessageV3" | "pollUpdateMessage" => Kind::Poll,
        "orderMessage" | "productMessage" => Kind::Order,
        "editedMessage" => Kind::Edit,
        "protocolMessage" => Kind::System,
        // The bridge could not read the message.
        "secretEncryptedMessage" => Kind::Unsupported,
        _ => Kind::Unknown,
    }
}

fn read_content(message: &Value, details: &mut Details) -> Option<String> {
    let own = &message[details.provider_kind.as_str()];
    // The bridge's own transcript of a voice message.
    if let Some(speech) = text(message, "speechToText") {
        details.extra.insert("speech_to_text".to_owned(), speech.into());
    }
    match (details.kind, details.provider_kind.as_str()) {
        (Kind::Text, _) => owned(message, "conversation").or_else(|| owned(&message["extendedTextMessage"], "text")),
        (Kind::Image | Kind::Video | Kind::Audio | Kind::Document | Kind::Sticker, _) => {
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
        (Kind::Reaction, _) => {
            if let Some(to) = text(&own["key"], "id") {
                details.extra.insert("reaction_to".to_owned(), to.into());
            }
            Some(owned(own, "text").unwrap_or_default())
        }
        (_, "editedMessage") => read_protocol(&own["message"]["protocolMessage"], details),
        (_, "protocolMessage") if own["editedMessage"].is_object() || is_revoke(own) => read_protocol(own, details),
        _ => {
            if !own.is_null() {
                details.extra.insert(details.kind.name().to_owned(), own.clone());
            }
            let entries = list(own, "options").iter().filter_map(|option| text(option, "optionName"));
            let title = ["selectedDisplayText", "title", "name", "text"].iter().find_map(|name| text(own, name));
            let lines: Vec<&str> = title.into_iter().chain(entries).collect();
            (!lines.is_empty()).then(|| lines.join("\n"))
        }
    }
}

/// An edit, or a deletion, of the message that its key names.
fn read_protocol(part: &Value, details: &mut Details) -> Option<String> {
    let (revoked, edited) = (is_revoke(part), &part["editedMessage"]);
    details.kind = match (revoked, edited.is_object()) {
        (true, _) => Kind::Revoke,
        (false, true) => Kind::Edit,
        (false, false) => Kind::System,
    };
    if let Some(id) = text(&part["key"], "id") {
        details.extra.insert(if revoked { "revoked" } else { "edited" }.to_owned(), id.into());
    }
    let captions = members(edited).map(|(_, own)| ["text", "caption"].iter().find_map(|name| owned(own, name)));
    owned(edited, "conversation").or_else(|| captions.flatten().next())
}

/// A protocol message's type is a word or a number.
fn is_revoke(part: &Value) -> bool {
    part["type"] == "REVOKE" || part["type"] == 0
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
        message: message_key(SCHEME.kind, &account(source, envelope), id),
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
