//! Twilio's requests other than messages and their statuses: webhooks of Conversations, and Event Streams.

use serde_json::Value;

use super::super::element::{self, Content, ELEMENTS_MAX};
use super::super::fields::Fields;
use super::super::json::{list, members, owned, read, scalar, text};
use super::super::{Parsed, Source};
use super::address::address;
use domain::{Address, Event, Kind, Media, Moment, NewMessage};

/// A JSON body: a list of CloudEvents, or anything else.
pub fn parse(source: &Source, body: &Value, now: Moment) -> Parsed {
    let mut parsed = Parsed::default();
    let parts = body.as_array().map_or(std::slice::from_ref(body), Vec::as_slice);
    parsed.is_cut = parts.len() > ELEMENTS_MAX;
    parsed.intake.events = parts.iter().take(ELEMENTS_MAX).map(|part| cloud_event(source, part, now)).collect();
    parsed
}

/// An event of Event Streams, with its type as kind. The account may also send the message to a webhook, so it is
/// not a second message of the inbox.
fn cloud_event(source: &Source, part: &Value, now: Moment) -> Event {
    let (Some(_), Some(kind)) = (text(part, "specversion"), text(part, "type")) else {
        return element::event(source, "json", None, part, now);
    };
    let data = &part["data"];
    let message = match kind {
        "com.twilio.messaging.inbound-message.received" => inbound_message(source, data, kind, now),
        "com.twilio.conversations.message.added" => conversation_message(source, data, kind, Kind::Text, now),
        "com.twilio.conversations.message.updated" => conversation_message(source, data, kind, Kind::Edit, now),
        "com.twilio.conversations.message.removed" => conversation_message(source, data, kind, Kind::Revoke, now),
        _ => None,
    };
    match message {
        Some(message) => element::event_with_message(source, kind, message, part, now),
        None => element::event(source, kind, text(part, "id"), part, now),
    }
}

fn inbound_message(source: &Source, data: &Value, word: &str, now: Moment) -> Option<NewMessage> {
    let (id, account) = (text(data, "messageSid")?, text(data, "accountSid")?);
    let mut details = element::details(source, account, id, Kind::Text, word);
    const STANDS_ELSEWHERE: [&str; 7] = ["accountSid", "body", "eventName", "from", "messageSid", "timestamp", "to"];
    keep_others(data, &STANDS_ELSEWHERE, &mut details.extra);
    let content = Content {
        key_id: id,
        from: address(text(data, "from")?),
        to: address(text(data, "to")?),
        time: data.get("timestamp"),
        text: data.get("body").and_then(Value::as_str).map(str::to_owned),
    };
    Some(element::message(details, content, now))
}

/// A webhook of Conversations, with its `EventType` as kind; none for anything else.
pub fn conversation_event(source: &Source, fields: &Fields, now: Moment) -> Option<Event> {
    let word =
        fields.get("EventType").filter(|word| word.starts_with("on") && fields.get("MessageStatus").is_none())?;
    let mut part = fields.to_value();
    // A list, encoded as text.
    if let Some(media) = fields.get("Media").and_then(|media| read(media.as_bytes()).ok()) {
        part["Media"] = media;
    }
    let message = match word {
        "onMessageAdded" => conversation_message(source, &part, word, Kind::Text, now),
        "onMessageUpdated" => conversation_message(source, &part, word, Kind::Edit, now),
        "onMessageRemoved" => conversation_message(source, &part, word, Kind::Revoke, now),
        _ => None,
    };
    // `RetryCount` differs between retries.
    let said: Value =
        members(&part).filter(|(name, _)| *name != "RetryCount").map(|(n, v)| (n.clone(), v.clone())).collect();
    Some(match message {
        Some(message) => element::event_with_message(source, word, message, &said, now),
        None => element::event(source, word, None, &said, now),
    })
}

/// A message of a conversation: the author's address or name is the sender, the conversation is the recipient.
fn conversation_message(source: &Source, part: &Value, word: &str, kind: Kind, now: Moment) -> Option<NewMessage> {
    let (id, account) = (text(part, "MessageSid")?, text(part, "AccountSid")?);
    let conversation = text(part, "ConversationSid")?;
    let mut details = element::details(source, account, id, kind, word);
    details.group = Some(conversation.to_owned());
    details.media = list(part, "Media").iter().map(file).collect();
    const STANDS_ELSEWHERE: [&str; 12] = [
        "AccountSid",
        "Author",
        "Body",
        "ConversationSid",
        "DateCreated",
        "DateRemoved",
        "DateUpdated",
        "EventType",
        "Media",
        "MessageBody",
        "MessageSid",
        "RetryCount",
    ];
    keep_others(part, &STANDS_ELSEWHERE, &mut details.extra);
    let said = ["Body", "MessageBody"].iter().find_map(|name| part.get(*name)?.as_str());
    let content = Content {
        key_id: id,
        from: text(part, "Author").map_or_else(|| Address::tagged("unknown", source.scheme.kind), address),
        to: Address::tagged("conversation", conversation),
        time: ["DateRemoved", "DateUpdated", "DateCreated"].iter().find_map(|name| part.get(*name)),
        text: said.filter(|said| !said.is_empty() && kind != Kind::Revoke).map(str::to_owned),
    };
    Some(element::message(details, content, now))
}

fn file(own: &Value) -> Media {
    Media {
        id: owned(own, "Sid").or_else(|| owned(own, "MediaSid")),
        mime_type: owned(own, "ContentType"),
        file_name: owned(own, "Filename"),
        bytes: scalar(own, "Size").and_then(|size| size.parse().ok()),
        ..Media::default()
    }
}

fn keep_others(part: &Value, represented: &[&str], extra: &mut serde_json::Map<String, Value>) {
    let others = members(part).filter(|(name, _)| !represented.contains(&name.as_str()));
    extra.extend(others.map(|(name, value)| (name.clone(), value.clone())));
}
