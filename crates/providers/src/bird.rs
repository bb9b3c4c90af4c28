//! Bird's channels: a signature over time, URL and a digest of the body; messages of many platforms in one form.

use serde_json::Value;

use super::algorithm::Algorithm;
use super::element::{self, Content, kind_of_media, message_key};
use super::encoding::Encoding;
use super::json::{list, others, owned, scalar, text};
use super::rule::Part;
use super::{Parse, Parsed, Rule, Scheme, Source};
use domain::{Address, Details, Kind, Media, Moment, NewMessage, State, StatusUpdate};

const TEMPLATE: &[Part] =
    &[Part::Timestamp, Part::Text(super::text("\n")), Part::Url, Part::Text(super::text("\n")), Part::BodySha256];

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: "bird",
    title: "Bird (channels)",
    rule: Some(Rule::with_time(
        ("messagebird-signature", ""),
        Algorithm::HmacSha256,
        Encoding::Base64,
        TEMPLATE,
        "messagebird-request-timestamp",
    )),
    needs_url: true,
    parse: Parse::Json(parse),
    ..Scheme::BASE
};

/// `<platform>.inbound` contains messages, `<platform>.outbound` delivery states of sent ones.
fn parse(source: &Source, envelope: &Value, now: Moment) -> Parsed {
    let mut parsed = Parsed::default();
    let kind = ["event", "type"].into_iter().find_map(|name| text(envelope, name)).unwrap_or("event");
    let part = &envelope["payload"];
    let is_outgoing = text(part, "direction").map_or(kind.ends_with(".outbound"), |direction| direction == "outgoing");
    match message(source, kind, part, now) {
        own if is_outgoing => {
            match status(source, kind, part, now) {
                Some(status) => parsed.intake.statuses.push(status),
                None => parsed.intake.events.push(element::unreadable(source, "an unknown status", part, now)),
            }
            // A sent message is the other side of the conversation. It becomes one event, however many states follow.
            let has_content = ["body", "template"].into_iter().any(|name| part[name].is_object());
            if let Some(own) = own.filter(|_| has_content) {
                parsed.intake.events.push(element::event_with_message(source, kind, own, part, now));
            }
        }
        Some(message) => parsed.intake.messages.push(message),
        None => parsed.intake.events.push(element::event(source, kind, None, envelope, now)),
    }
    parsed
}

fn account<'a>(source: &'a Source, part: &'a Value) -> &'a str {
    text(part, "channelId").unwrap_or(source.account())
}

/// A contact or a connector. The name of its identifier, else the platform, determines the kind of its id.
fn address(kind: &str, party: &Value) -> Option<Address> {
    let raw = scalar(party, "identifierValue")?;
    let platform = kind.split('.').next().unwrap_or_default();
    Some(match (text(party, "identifierKey"), platform) {
        (Some("phonenumber"), _) => Address::read(&raw),
        (Some("emailaddress"), _) | (_, "email") => Address::tagged("email", &raw),
        (_, "whatsapp") => Address::international(&raw).unwrap_or_else(|| Address::tagged("bsuid", &raw)),
        (_, "facebook") => Address::tagged("messenger", &raw),
        (_, "sms" | "mms" | "rcs" | "event" | "") => Address::read(&raw),
        (_, other) => element::address_of_channel(other, &raw),
    })
}

/// A sender or receiver: a contact, one of our connectors, or several contacts.
fn party(holder: &Value) -> &Value {
    let first = list(holder, "contacts").first();
    [holder.get("contact"), first, holder.get("connector")].into_iter().flatten().next().unwrap_or(&Value::Null)
}

fn message(source: &Source, kind: &str, part: &Value, now: Moment) -> Option<NewMessage> {
    let (id, from) = (scalar(part, "id")?, party(&part["sender"]));
    let (account, body) = (account(source, part), &part["body"]);
    let provider_kind = text(body, "type").unwrap_or_default();
    let mut details = element::details(source, account, &id, Kind::Unknown, provider_kind);
    details.profile_name = owned(&from["annotations"], "name");
    details.reply_to = owned(&part["replyTo"], "id");
    details.extra = others(part, READ);
    let said = read_body(body, provider_kind, &mut details);
    details.kind = match (provider_kind, details.media.first()) {
        ("file", Some(first)) => kind_of_media(first.mime_type.as_deref().unwrap_or_default()),
        ("file", None) => Kind::Document,
        ("html", _) => Kind::Text,
        (other, _) => Kind::named(other).unwrap_or(Kind::Unknown),
    };
    let ours = || source.options.to.clone().unwrap_or_else(|| Address::tagged("account", account));
    let is_ours = part["sender"]["connector"].is_object();
    let content = Content {
        key_id: &id,
        from: address(kind, from).or_else(|| is_ours.then(ours))?,
        to: address(kind, party(&part["receiver"])).unwrap_or_else(ours),
        time: part.get("createdAt"),
        text: said,
    };
    Some(element::message(details, content, now))
}

/// Members of a message that have their own fields, or are only structure. Other members are kept unchanged.
const READ: &[&str] = &[
    "id",
    "channelId",
    "sender",
    "receiver",
    "body",
    "status",
    "direction",
    "createdAt",
    "updatedAt",
    "lastStatusAt",
    "replyTo",
];

/// The text of a body. Its files are in `image.images` or `file.files`, in some bodies one level higher.
/// Other data stays in `extra`.
fn read_body(body: &Value, provider_kind: &str, details: &mut Details) -> Option<String> {
    let own = &body[provider_kind];
    for holder in [own, body] {
        for name in FILES {
            let files = list(holder, name);
            details.media.extend(files.iter().map(media));
            if files.iter().any(|file| !others(file, MEDIA).is_empty()) {
                details.extra.insert((*name).to_owned(), files.into());
            }
        }
    }
    let said = TEXTS.iter().find_map(|name| [own, body].into_iter().find_map(|holder| holder.get(name)?.as_str()));
    match provider_kind {
        "text" | "html" | "image" | "file" => details.extra.extend(others(own, &[TEXTS, FILES].concat())),
        _ if !own.is_null() => drop(details.extra.insert(provider_kind.to_owned(), own.clone())),
        _ => {}
    }
    details.extra.extend(others(body, &[&["type", provider_kind], TEXTS, FILES].concat()));
    said.map(str::to_owned)
}

/// The members with the text and the files of a body.
const TEXTS: &[&str] = &["text", "caption", "html"];
const FILES: &[&str] = &["images", "files", "videos", "audios"];

fn media(file: &Value) -> Media {
    Media {
        url: owned(file, "mediaUrl").or_else(|| owned(file, "url")),
        mime_type: owned(file, "contentType"),
        file_name: owned(file, "filename"),
        bytes: file.get("size").and_then(Value::as_u64),
        ..Media::default()
    }
}

/// Members of a file that have their own fields.
const MEDIA: &[&str] = &["mediaUrl", "url", "contentType", "filename", "size"];

fn status(source: &Source, kind: &str, part: &Value, now: Moment) -> Option<StatusUpdate> {
    let state = match text(part, "status")? {
        "accepted" | "processing" | "scheduled" | "queued" => State::Queued,
        "sent" => State::Sent,
        "delivered" => State::Delivered,
        "read" => State::Read,
        "rejected" | "sending_failed" | "delivery_failed" | "expired" => State::Failed,
        _ => return None,
    };
    let id = scalar(part, "id")?;
    let time = ["lastStatusAt", "updatedAt", "createdAt"].into_iter().find_map(|name| part.get(name));
    Some(StatusUpdate {
        message: message_key(SCHEME.kind, account(source, part), &id),
        provider_id: id,
        source: source.name.clone(),
        recipient: address(kind, party(&part["receiver"])),
        state,
        at: time.and_then(element::timestamp).unwrap_or_else(|| now.to_timestamp()),
        error: owned(part, "reason").filter(|_| state == State::Failed),
        extra: others(part, &["id", "channelId", "sender", "body", "status", "direction"]),
    })
}
