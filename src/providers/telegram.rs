//! Telegram bots: one update a request, with a secret token in a header. The body is not signed.

use serde_json::Value;

use super::element::{self, Content};
use super::json::{list, members, owned, scalar, text};
use super::rule::Proof;
use super::{AnswerStyle, Parse, Parsed, Rule, Scheme, Source};
use crate::domain::{Address, Details, Kind, Media, Moment, NewMessage};

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: "telegram",
    title: "Telegram Bot API",
    variable: Some("TELEGRAM_SECRET_TOKEN"),
    // A JSON body in the answer would be taken for a call of a bot method.
    answer: AnswerStyle::Empty,
    rule: Some(Rule {
        header: super::text("x-telegram-bot-api-secret-token"),
        prefix: super::text(""),
        prefix_optional: false,
        list: None,
        proof: Proof::Secret,
        time: None,
        id_header: None,
    }),
    parse: Parse::Json(parse),
    ..Scheme::BASE
};

/// Updates that hold a message, and whether it is a later version of one.
const MESSAGES: [(&str, bool); 6] = [
    ("message", false),
    ("channel_post", false),
    ("business_message", false),
    ("edited_message", true),
    ("edited_channel_post", true),
    ("edited_business_message", true),
];

fn parse(source: &Source, update: &Value, now: Moment) -> Parsed {
    let mut parsed = Parsed::default();
    let number = scalar(update, "update_id");
    let held = MESSAGES.iter().find_map(|(name, is_edit)| Some((*name, update.get(*name)?, *is_edit)));
    match held.and_then(|(name, part, is_edit)| message(source, name, part, is_edit, now)) {
        Some(message) => parsed.messages.push(message),
        None => {
            let kind = members(update).map(|(name, _)| name.as_str()).find(|name| *name != "update_id");
            parsed.events.push(element::event(source, kind.unwrap_or("update"), number.as_deref(), update, now));
        }
    }
    parsed
}

fn message(source: &Source, name: &str, part: &Value, is_edit: bool, now: Moment) -> Option<NewMessage> {
    let chat = scalar(&part["chat"], "id")?;
    let id = format!("{chat}:{}", scalar(part, "message_id")?);
    let (kind, provider_kind) = kind(part);
    let mut details = element::details(source, source.account(), &id, kind, provider_kind);
    let sender = ["from", "sender_chat", "chat"].iter().find_map(|name| scalar(&part[*name], "id"))?;
    read_content(part, &mut details);
    details.profile_name = profile_name(&part["from"]).or_else(|| owned(&part["sender_chat"], "title"));
    details.group = (text(&part["chat"], "type") != Some("private")).then(|| chat.clone());
    details.reply_to = scalar(&part["reply_to_message"], "message_id").map(|id| format!("{chat}:{id}"));
    // An edit has the id of what it changes: its time tells the versions apart.
    let edited = part.get("edit_date").filter(|_| is_edit);
    let mut key_id = id.clone();
    if is_edit {
        key_id = format!("{id}#{}", scalar(part, "edit_date").unwrap_or_default());
        details.kind = Kind::Edit;
        details.provider_kind = name.to_owned();
        details.extra.insert("edited".to_owned(), id.into());
    }
    let content = Content {
        key_id: &key_id,
        from: Address::tagged("telegram", &sender),
        to: source.options.to.clone().unwrap_or_else(|| Address::tagged("telegram", source.account())),
        time: edited.or_else(|| part.get("date")),
        text: ["text", "caption"].iter().find_map(|name| part.get(*name)?.as_str()).map(str::to_owned),
    };
    Some(element::message(details, content, now))
}

/// A message has no type: what it is follows from what it has.
fn kind(part: &Value) -> (Kind, &str) {
    const KINDS: [(&str, Kind); 16] = [
        ("text", Kind::Text),
        ("photo", Kind::Image),
        ("animation", Kind::Video),
        ("video", Kind::Video),
        ("video_note", Kind::Video),
        ("voice", Kind::Audio),
        ("audio", Kind::Audio),
        // After `animation`, which comes with a document for older readers.
        ("document", Kind::Document),
        ("sticker", Kind::Sticker),
        ("venue", Kind::Location),
        ("location", Kind::Location),
        ("contact", Kind::Contacts),
        ("poll", Kind::Poll),
        ("new_chat_members", Kind::System),
        ("left_chat_member", Kind::System),
        ("pinned_message", Kind::System),
    ];
    let found = KINDS.iter().find(|(name, _)| part.get(*name).is_some());
    found.map_or((Kind::Unknown, ""), |(name, kind)| (*kind, *name))
}

fn read_content(part: &Value, details: &mut Details) {
    let own = &part[details.provider_kind.as_str()];
    match details.kind {
        // The same picture in several sizes, the largest last.
        Kind::Image => details.media.extend(list(part, "photo").last().map(media)),
        Kind::Video | Kind::Audio | Kind::Document | Kind::Sticker => details.media.push(media(own)),
        Kind::Location | Kind::Contacts | Kind::Poll | Kind::System => {
            details.extra.insert(details.provider_kind.clone(), own.clone());
        }
        _ => {}
    }
    if let Some(user) = text(&part["from"], "username") {
        details.extra.insert("username".to_owned(), user.into());
    }
    if let Some(origin) = part.get("forward_origin").filter(|origin| origin.is_object()) {
        details.extra.insert("forward_origin".to_owned(), origin.clone());
    }
}

fn media(own: &Value) -> Media {
    Media {
        id: owned(own, "file_id"),
        mime_type: owned(own, "mime_type"),
        file_name: owned(own, "file_name"),
        bytes: own.get("file_size").and_then(Value::as_u64),
        ..Media::default()
    }
}

fn profile_name(from: &Value) -> Option<String> {
    let names: Vec<&str> = [text(from, "first_name"), text(from, "last_name")].into_iter().flatten().collect();
    (!names.is_empty()).then(|| names.join(" "))
}
