//! Messenger (`object: page`) and Instagram: they sign like WhatsApp, and a Meta app may send all three to one URL.

use serde_json::{Value, json};

use super::reader::Reader;
use crate::element;
use crate::element::{Content, message_key};
use crate::json::{list, members, others, owned, scalar, text};
use domain::{Address, Details, Kind, Media, NewMessage, State, StatusUpdate};

/// Parses an envelope: messages of a page or of an account, and changes that are not messages (comments, mentions).
pub fn read(reader: &mut Reader<'_>, object: &str, envelope: &Value) {
    let tag = if object == "instagram" { "instagram" } else { "messenger" };
    for entry in list(envelope, "entry") {
        let before = reader.count;
        let account = scalar(entry, "id").unwrap_or_else(|| reader.source.account().to_owned());
        let page = Page { tag, account, is_standby: false };
        for item in list(entry, "messaging") {
            page.read(reader, item);
        }
        // Another app responds, and this app only listens.
        let page = Page { is_standby: true, ..page };
        for item in list(entry, "standby") {
            page.read(reader, item);
        }
        let page = Page { is_standby: false, ..page };
        for change in list(entry, "changes") {
            match &change["value"] {
                item if item["sender"].is_object() => page.read(reader, item),
                _ if reader.has_room() => {
                    let whole = json!({ "entry": entry["id"], "time": entry["time"], "change": change });
                    reader.event(text(change, "field").unwrap_or("unknown"), &whole);
                }
                _ => {}
            }
        }
        if reader.count == before && reader.has_room() {
            reader.event(object, entry);
        }
    }
}

/// A page of Facebook or an account of Instagram. Ids of persons are scoped to it.
struct Page {
    tag: &'static str,
    account: String,
    is_standby: bool,
}

impl Page {
    fn read(&self, reader: &mut Reader<'_>, item: &Value) {
        if let Some(mids) = self.mids(item) {
            return self.read_receipts(reader, item, &mids);
        }
        if !reader.has_room() {
            return;
        }
        let message = &item["message"];
        if message.is_object() {
            match self.message(reader, item) {
                None => reader.unreadable("a message without an id or a sender", item),
                own if message["is_echo"] == true => reader.event_with_message("message_echoes", own, item),
                gone if message["is_deleted"] == true => reader.event_with_message("message_deletions", gone, item),
                Some(message) => reader.parsed.intake.messages.push(message),
            }
            return;
        }
        let ways = [Self::edit, Self::postback, Self::reaction];
        if let Some(message) = ways.iter().find_map(|read| read(self, reader, item)) {
            reader.parsed.intake.messages.push(message);
        } else {
            let what = members(item).map(|(name, _)| name.as_str()).find(|name| !BESIDE.contains(name));
            reader.event(what.unwrap_or("unknown"), item);
        }
    }

    /// The messages of a receipt; none if it only has a time, up to which everything was delivered or read.
    fn mids<'a>(&self, item: &'a Value) -> Option<Vec<(State, &'a str)>> {
        if item["message"].is_object() {
            return None;
        }
        let delivered = list(&item["delivery"], "mids").iter().filter_map(Value::as_str);
        let mut mids: Vec<_> = delivered.map(|mid| (State::Delivered, mid)).collect();
        mids.extend(text(&item["read"], "mid").map(|mid| (State::Read, mid)));
        Some(mids).filter(|mids| !mids.is_empty())
    }

    fn read_receipts(&self, reader: &mut Reader<'_>, item: &Value, mids: &[(State, &str)]) {
        let receipt = if item["read"].is_object() { &item["read"] } else { &item["delivery"] };
        let time = [item.get("timestamp"), receipt.get("watermark")].into_iter().flatten().find_map(element::timestamp);
        for (state, mid) in mids {
            if reader.has_room() {
                let source = reader.source;
                reader.parsed.intake.statuses.push(StatusUpdate {
                    message: message_key(source.scheme.kind, &self.account, mid),
                    provider_id: (*mid).to_owned(),
                    source: source.name.clone(),
                    recipient: self.party(&item["sender"]),
                    state: *state,
                    at: time.unwrap_or_else(|| reader.now.to_timestamp()),
                    error: None,
                    extra: others(receipt, &["mids", "mid"]),
                });
            }
        }
    }

    fn party(&self, party: &Value) -> Option<Address> {
        scalar(party, "id").map(|id| Address::tagged(self.tag, &id))
    }

    /// Common parts of messages. `key_id` is the id with the suffix that makes it unique.
    fn build(
        &self,
        reader: &Reader<'_>,
        item: &Value,
        key_id: &str,
        mut details: Details,
        said: Option<String>,
    ) -> Option<NewMessage> {
        let from = self.party(&item["sender"])?;
        details.person = scalar(&item["sender"], "id");
        if self.is_standby {
            details.extra.insert("standby".to_owned(), true.into());
        }
        let to = self.party(&item["recipient"]).unwrap_or_else(|| Address::tagged(self.tag, &self.account));
        let content = Content { key_id, from, to, time: item.get("timestamp"), text: said };
        Some(element::message(details, content, reader.now))
    }

    fn details(&self, reader: &Reader<'_>, id: &str, kind: Kind, provider_kind: &str) -> Details {
        element::details(reader.source, &self.account, id, kind, provider_kind)
    }

    fn message(&self, reader: &Reader<'_>, item: &Value) -> Option<NewMessage> {
        let message = &item["message"];
        let id = scalar(message, "mid")?;
        let attachments = list(message, "attachments");
        let provider_kind = attachments.first().and_then(|first| text(first, "type")).unwrap_or("text");
        let mut details = self.details(reader, &id, kind(message, provider_kind), provider_kind);
        details.media = attachments.iter().filter_map(media).collect();
        details.reply_to = owned(&message["reply_to"], "mid");
        details.extra = others(message, &["mid", "text", "attachments", "reply_to"]);
        details.extra.extend(others(item, BESIDE));
        details.extra.remove("message");
        let story = others(&message["reply_to"], &["mid"]);
        if !story.is_empty() {
            details.extra.insert("reply_to".to_owned(), story.into());
        }
        if attachments.iter().any(|attachment| !is_plain(attachment)) {
            details.extra.insert("attachments".to_owned(), attachments.into());
        }
        let said = message.get("text").and_then(Value::as_str).map(str::to_owned);
        let is_deleted = message["is_deleted"] == true;
        let key_id = if is_deleted { format!("{id}#deleted") } else { id.clone() };
        if is_deleted {
            details.extra.insert("revoked".to_owned(), id.into());
        }
        self.build(reader, item, &key_id, details, said)
    }

    /// A new text for a message. The id is that of the message, so the key includes the number of the edit.
    fn edit(&self, reader: &Reader<'_>, item: &Value) -> Option<NewMessage> {
        let edit = item.get("message_edit").filter(|edit| edit.is_object())?;
        let id = scalar(edit, "mid")?;
        let mut details = self.details(reader, &id, Kind::Edit, "message_edit");
        details.extra = others(edit, &["mid", "text"]);
        details.extra.insert("edited".to_owned(), id.clone().into());
        let key_id = format!("{id}#{}", scalar(edit, "num_edit").unwrap_or_default());
        self.build(reader, item, &key_id, details, owned(edit, "text"))
    }

    /// A pressed button. Only some have an id of their own.
    fn postback(&self, reader: &Reader<'_>, item: &Value) -> Option<NewMessage> {
        let postback = item.get("postback").filter(|postback| postback.is_object())?;
        let id = scalar(postback, "mid").or_else(|| self.made_up_id("postback", item))?;
        let mut details = self.details(reader, &id, Kind::Button, "postback");
        details.extra.insert("postback".to_owned(), postback.clone());
        self.build(reader, item, &id, details, owned(postback, "title"))
    }

    /// A reaction names its target message, and has no id of its own. Without an emoji it was removed.
    fn reaction(&self, reader: &Reader<'_>, item: &Value) -> Option<NewMessage> {
        let reaction = item.get("reaction").filter(|reaction| reaction.is_object())?;
        let to = scalar(reaction, "mid")?;
        let id = self.made_up_id(&format!("{to}#reaction"), item)?;
        let mut details = self.details(reader, &id, Kind::Reaction, "reaction");
        details.extra.insert("reaction_to".to_owned(), to.into());
        details.extra.extend(others(reaction, &["mid", "emoji"]));
        let is_taken_back = text(reaction, "action") == Some("unreact");
        let said = owned(reaction, "emoji").or_else(|| owned(reaction, "reaction")).filter(|_| !is_taken_back);
        self.build(reader, item, &id, details, Some(said.unwrap_or_default()))
    }

    /// An id for records without one, from person and time.
    fn made_up_id(&self, what: &str, item: &Value) -> Option<String> {
        Some(format!("{what}:{}:{}", scalar(&item["sender"], "id")?, scalar(item, "timestamp")?))
    }
}

/// The context of an item.
const BESIDE: &[&str] = &["sender", "recipient", "timestamp"];

fn kind(message: &Value, provider_kind: &str) -> Kind {
    let is = |name: &str| message[name] == true;
    let first = &list(message, "attachments").first().unwrap_or(&Value::Null)["payload"];
    match provider_kind {
        _ if is("is_deleted") => Kind::Revoke,
        _ if is("is_unsupported") => Kind::Unsupported,
        _ if message["quick_reply"].is_object() => Kind::Interactive,
        "image" if !first["sticker_id"].is_null() => Kind::Sticker,
        "image" | "video" | "audio" | "location" => Kind::named(provider_kind).unwrap_or(Kind::Unknown),
        "file" => Kind::Document,
        "reel" | "ig_reel" => Kind::Video,
        _ if text(message, "text").is_some() => Kind::Text,
        _ => Kind::Unknown,
    }
}

fn media(attachment: &Value) -> Option<Media> {
    let payload = &attachment["payload"];
    let id = scalar(payload, "sticker_id");
    Some(Media { url: Some(owned(payload, "url")?), id, ..Media::default() })
}

/// Whether an attachment has only a type and a URL.
fn is_plain(attachment: &Value) -> bool {
    others(attachment, &["type", "payload"]).is_empty() && others(&attachment["payload"], &["url"]).is_empty()
}
