//! LINE: a list of events per request, signed with the channel's secret.

use serde_json::Value;

use super::algorithm::Algorithm;
use super::element::{self, Content, ELEMENTS_MAX};
use super::encoding::Encoding;
use super::json::{list, scalar, text};
use super::{Parse, Parsed, Rule, Scheme, Source};
use domain::{Address, Details, Kind, Media, Moment, NewMessage};

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: "line",
    title: "LINE Messaging API",
    rule: Some(Rule::of_body("x-line-signature", "", Algorithm::HmacSha256, Encoding::Base64)),
    parse: Parse::Json(parse),
    ..Scheme::BASE
};

fn parse(source: &Source, envelope: &Value, now: Moment) -> Parsed {
    let mut parsed = Parsed::default();
    let events = list(envelope, "events");
    parsed.is_cut = events.len() > ELEMENTS_MAX;
    for event in events.iter().take(ELEMENTS_MAX) {
        match (message(source, envelope, event, now), unsent(source, envelope, event, now)) {
            (Some(message), _) => parsed.intake.messages.push(message),
            (None, Some(message)) => {
                parsed.intake.events.push(element::event_with_message(source, "unsend", message, event, now));
            }
            (None, None) => {
                let kind = text(event, "type").unwrap_or("event");
                parsed.intake.events.push(element::event(source, kind, text(event, "webhookEventId"), event, now));
            }
        }
    }
    if parsed.intake.is_empty() {
        // The console's button "Verify" sends an empty list.
        parsed.intake.events.push(element::event(source, "verification", None, envelope, now));
    }
    parsed
}

fn message(source: &Source, envelope: &Value, event: &Value, now: Moment) -> Option<NewMessage> {
    let part = event.get("message").filter(|_| text(event, "type") == Some("message"))?;
    let id = scalar(part, "id")?;
    let provider_kind = text(part, "type").unwrap_or_default();
    let kind = match provider_kind {
        "file" => Kind::Document,
        other => Kind::named(other).unwrap_or(Kind::Unknown),
    };
    let mut details = details(source, envelope, event, &id, kind, provider_kind);
    details.reply_to = scalar(part, "quotedMessageId");
    if matches!(kind, Kind::Image | Kind::Video | Kind::Audio | Kind::Document) {
        details.media.push(Media {
            id: Some(id.clone()),
            url: text(&part["contentProvider"], "originalContentUrl").map(str::to_owned),
            file_name: text(part, "fileName").map(str::to_owned),
            bytes: part.get("fileSize").and_then(Value::as_u64),
            ..Media::default()
        });
    } else if kind != Kind::Text {
        details.extra.insert(provider_kind.to_owned(), part.clone());
    }
    let said = part.get("text").and_then(Value::as_str).map(str::to_owned);
    for name in ["emojis", "mention"] {
        if let Some(value) = part.get(name).filter(|value| !value.is_null()) {
            details.extra.insert(name.to_owned(), value.clone());
        }
    }
    Some(element::message(details, content(source, envelope, event, &id, said), now))
}

/// A person unsent (deleted) a message.
fn unsent(source: &Source, envelope: &Value, event: &Value, now: Moment) -> Option<NewMessage> {
    let id = scalar(&event["unsend"], "messageId").filter(|_| text(event, "type") == Some("unsend"))?;
    let mut details = details(source, envelope, event, &id, Kind::Revoke, "unsend");
    details.extra.insert("revoked".to_owned(), id.clone().into());
    Some(element::message(details, content(source, envelope, event, &id, None), now))
}

/// One secret belongs to one channel, and one channel is one bot.
fn account<'a>(source: &'a Source, envelope: &'a Value) -> &'a str {
    text(envelope, "destination").unwrap_or(source.account())
}

fn chat(event: &Value) -> Option<&str> {
    ["groupId", "roomId"].iter().find_map(|name| text(&event["source"], name))
}

fn details(source: &Source, envelope: &Value, event: &Value, id: &str, kind: Kind, word: &str) -> Details {
    let mut details = element::details(source, account(source, envelope), id, kind, word);
    details.group = chat(event).map(str::to_owned);
    details
}

fn content<'a>(source: &Source, envelope: &Value, event: &'a Value, id: &'a str, said: Option<String>) -> Content<'a> {
    // LINE does not identify group members who have not consented: then only the group is known.
    let sender = text(&event["source"], "userId").or(chat(event));
    Content {
        key_id: id,
        from: sender.map_or_else(|| Address::tagged("unknown", SCHEME.kind), |id| Address::tagged("line", id)),
        to: source.options.to.clone().unwrap_or_else(|| Address::tagged("line", account(source, envelope))),
        time: event.get("timestamp"),
        text: said,
    }
}
