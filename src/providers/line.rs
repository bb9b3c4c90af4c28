//! LINE: a list of events a request, signed with the channel's secret.

use serde_json::Value;

use super::algorithm::Algorithm;
use super::element::{self, Content, ELEMENTS_MAX};
use super::encoding::Encoding;
use super::json::{list, scalar, text};
use super::{Parse, Parsed, Rule, Scheme, Source};
use crate::domain::{Address, Kind, Media, Moment, NewMessage};

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
        match message(source, envelope, event, now) {
            Some(message) => parsed.messages.push(message),
            None => {
                let kind = text(event, "type").unwrap_or("event");
                parsed.events.push(element::event(source, kind, text(event, "webhookEventId"), event, now));
            }
        }
    }
    if parsed.is_empty() {
        // The button "Verify" of the console sends an empty list.
        parsed.events.push(element::event(source, "verification", None, envelope, now));
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
    // A secret serves one channel, and one channel is one bot.
    let account = text(envelope, "destination").unwrap_or(source.account());
    let mut details = element::details(source, account, &id, kind, provider_kind);
    let origin = &event["source"];
    let chat = ["groupId", "roomId"].iter().find_map(|name| text(origin, name));
    details.group = chat.map(str::to_owned);
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
    let sender = text(origin, "userId").or(chat).unwrap_or_default();
    let content = Content {
        key_id: &id,
        from: Address::tagged("line", sender),
        to: source.options.to.clone().unwrap_or_else(|| Address::tagged("line", account)),
        time: event.get("timestamp"),
        text: part.get("text").and_then(Value::as_str).map(str::to_owned),
    };
    Some(element::message(details, content, now))
}
