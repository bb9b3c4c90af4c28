//! Telegram bots: one update per request, with a secret token in a header. The body is not signed.

mod kinds;

use serde_json::Value;

use kinds::{CONTEXT, FILES, kind, own_members};

use super::element::{self, Content};
use super::json::{list, members, owned, scalar, text};
use super::rule::Proof;
use super::{AnswerStyle, Parse, Parsed, Rule, Scheme, Source};
use domain::{Address, Details, Kind, Media, Moment, NewMessage};

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: "telegram",
    title: "Telegram Bot API",
    variable: Some("TELEGRAM_SECRET_TOKEN"),
    // Telegram would read a JSON body in the response as a call of a bot method.
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

/// Updates with a message, and whether it is a later version of one.
const MESSAGES: [(&str, bool); 6] = [
    ("message", false),
    ("channel_post", false),
    ("business_message", false),
    ("edited_message", true),
    ("edited_channel_post", true),
    ("edited_business_message", true),
];

/// Placeholder users in `from`: for an anonymous administrator of a group, and for a channel.
const PLACEHOLDERS: [&str; 2] = ["1087968824", "136817688"];

fn parse(source: &Source, update: &Value, now: Moment) -> Parsed {
    let mut parsed = Parsed::default();
    let number = scalar(update, "update_id");
    let held = MESSAGES.iter().find_map(|(name, is_edit)| Some((*name, update.get(*name)?, *is_edit)));
    let read = match (held, update.get("message_reaction")) {
        (Some((name, part, is_edit)), _) => message(source, name, part, is_edit, now),
        (None, Some(part)) => reaction(source, part, number.as_deref(), now),
        (None, None) => None,
    };
    match (read, held) {
        (Some(message), Some((name, part, _))) if is_own(name, part) => {
            parsed.intake.events.push(element::own_message(source, &format!("{name}.own"), message, update, now));
        }
        (Some(message), _) => parsed.intake.messages.push(message),
        (None, _) => {
            let kind = members(update).map(|(name, _)| name.as_str()).find(|name| *name != "update_id");
            parsed.intake.events.push(element::event(source, kind.unwrap_or("update"), number.as_deref(), update, now));
        }
    }
    parsed
}

/// Whether the business account itself wrote it. A connected bot receives both sides of its private chats, and
/// such a chat has the id of the customer.
fn is_own(name: &str, part: &Value) -> bool {
    name.ends_with("business_message") && scalar(&part["from"], "id") != scalar(&part["chat"], "id")
}

/// The id and name of the sender. If a group or a channel writes, `from` is a placeholder for older programs.
fn speaker(part: &Value) -> Option<(String, Option<String>)> {
    let chat = |chat: &Value| Some((scalar(chat, "id")?, owned(chat, "title").or_else(|| profile_name(chat))));
    let user = |from: &Value| (!is_placeholder(from)).then_some((scalar(from, "id")?, profile_name(from)));
    chat(&part["sender_chat"]).or_else(|| user(&part["from"])).or_else(|| chat(&part["chat"]))
}

fn is_placeholder(from: &Value) -> bool {
    scalar(from, "id").is_some_and(|id| PLACEHOLDERS.contains(&id.as_str()))
}

fn message(source: &Source, name: &str, part: &Value, is_edit: bool, now: Moment) -> Option<NewMessage> {
    let chat = scalar(&part["chat"], "id")?;
    let id = format!("{chat}:{}", scalar(part, "message_id")?);
    let (kind, provider_kind) = kind(part);
    let mut details = element::details(source, source.account(), &id, kind, provider_kind);
    let (sender, profile_name) = speaker(part)?;
    read_content(part, &mut details);
    read_context(part, &mut details);
    details.profile_name = profile_name;
    details.group = (text(&part["chat"], "type") != Some("private")).then(|| chat.clone());
    details.reply_to = scalar(&part["reply_to_message"], "message_id").map(|id| format!("{chat}:{id}"));
    // An edit has the id of the message that it changes: its time distinguishes the versions.
    let edited = part.get("edit_date").filter(|_| is_edit);
    let mut key_id = id.clone();
    if is_edit {
        key_id = format!("{id}#{}", scalar(part, "edit_date").unwrap_or_default());
        details.kind = Kind::Edit;
        details.provider_kind = name.to_owned();
        details.extra.insert("edited".to_owned(), id.into());
    }
    // Each business account numbers its messages by itself, and one bot may serve several accounts.
    let former_id = element::message_key(SCHEME.kind, source.account(), &key_id);
    let connection = scalar(part, "business_connection_id");
    if let Some(connection) = &connection {
        key_id = format!("{connection}:{key_id}");
    }
    let content = Content {
        key_id: &key_id,
        from: Address::tagged("telegram", &sender),
        to: if is_own(name, part) { Address::tagged("telegram", &chat) } else { recipient(source) },
        time: edited.or_else(|| part.get("date")),
        text: words(part),
    };
    let mut message = element::message(details, content, now);
    message.former_id = connection.map(|_| Box::new(former_id));
    Some(message)
}

fn recipient(source: &Source) -> Address {
    source.options.to.clone().unwrap_or_else(|| Address::tagged("telegram", source.account()))
}

/// A person changed their reactions to a message. The update lists all current ones, so the latest one counts.
fn reaction(source: &Source, part: &Value, number: Option<&str>, now: Moment) -> Option<NewMessage> {
    let chat = scalar(&part["chat"], "id")?;
    let id = format!("{chat}:{}", scalar(part, "message_id")?);
    let actor = if part["user"].is_object() { &part["user"] } else { &part["actor_chat"] };
    let mut details = element::details(source, source.account(), &id, Kind::Reaction, "message_reaction");
    details.profile_name = profile_name(actor).or_else(|| owned(actor, "title"));
    details.group = (text(&part["chat"], "type") != Some("private")).then_some(chat);
    details.extra.insert("reaction_to".to_owned(), id.clone().into());
    keep(&["new_reaction", "old_reaction"], part, &mut details);
    let reactions = list(part, "new_reaction");
    let emoji: String = reactions.iter().filter_map(|reaction| text(reaction, "emoji")).collect();
    let content = Content {
        key_id: &format!("{id}#reaction:{}", number?),
        from: Address::tagged("telegram", &scalar(actor, "id")?),
        to: recipient(source),
        time: part.get("date"),
        // An empty text means that no reaction is left. A custom emoji is a picture and has no text.
        text: Some(emoji).filter(|emoji| !emoji.is_empty() || reactions.is_empty()),
    };
    Some(element::message(details, content, now))
}

fn read_content(part: &Value, details: &mut Details) {
    // All other members, including kinds that were unknown when this code was written.
    let names: Vec<&str> = own_members(part).filter(|name| !FILES.contains(name)).collect();
    keep(&names, part, details);
    match details.provider_kind.as_str() {
        // The same picture in several sizes, the largest last.
        "photo" => details.media.extend(list(part, "photo").last().map(media)),
        "paid_media" => {
            let paid = list(&part["paid_media"], "paid_media").iter();
            let files = paid.filter_map(|item| list(item, "photo").last().or_else(|| item.get("video")));
            details.media.extend(files.map(media));
        }
        name if FILES.contains(&name) => details.media.push(media(&part[name])),
        _ => {}
    }
    if let Some(emoji) = text(&part["sticker"], "emoji") {
        details.extra.insert("emoji".to_owned(), emoji.into());
    }
}

fn read_context(part: &Value, details: &mut Details) {
    keep(&CONTEXT, part, details);
    let speaks = !part["sender_chat"].is_object() && !is_placeholder(&part["from"]);
    if let Some(user) = text(&part["from"], "username").filter(|_| speaks) {
        details.extra.insert("username".to_owned(), user.into());
    }
    // The text does not contain links and people behind words.
    let entities = ["entities", "caption_entities"].iter().flat_map(|name| list(part, name));
    let hidden = entities.filter(|entity| matches!(text(entity, "type"), Some("text_link" | "text_mention")));
    let hidden: Vec<Value> = hidden.cloned().collect();
    if !hidden.is_empty() {
        details.extra.insert("entities".to_owned(), hidden.into());
    }
}

/// The non-empty members, unchanged.
fn keep(names: &[&str], part: &Value, details: &mut Details) {
    let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    let kept = members(part).filter(|(name, value)| names.contains(&name.as_str()) && !is_empty(value));
    details.extra.extend(kept.map(|(name, value)| (name.clone(), value.clone())));
}

/// The text, the caption, or the words of content that has neither of these.
fn words(part: &Value) -> Option<String> {
    let said = ["text", "caption"].iter().find_map(|name| part.get(*name)?.as_str()).map(str::to_owned);
    let poll = || lines(&part["poll"], "question", "options");
    let checklist = || lines(&part["checklist"], "title", "tasks");
    let added = || lines(&part["checklist_tasks_added"], "", "tasks");
    let invoice = || lines(&part["invoice"], "title", "");
    let game = || lines(&part["game"], "title", "");
    said.or_else(poll)
        .or_else(checklist)
        .or_else(added)
        .or_else(|| owned(&part["web_app_data"], "data"))
        .or_else(|| owned(&part["gift"], "text"))
        .or_else(invoice)
        .or_else(game)
}

/// A title, and the texts of a list, one per line.
fn lines(part: &Value, title: &str, list_name: &str) -> Option<String> {
    let entries = list(part, list_name).iter().filter_map(|entry| text(entry, "text"));
    let lines: Vec<&str> = text(part, title).into_iter().chain(entries).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
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
