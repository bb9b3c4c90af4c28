//! Slack's Events API: one event a request, signed with a time; its first request wants a challenge back.

use serde_json::Value;

use super::algorithm::Algorithm;
use super::element::{self, Content};
use super::encoding::Encoding;
use super::json::{list, owned, text};
use super::rule::Part;
use super::twilio::kind_of_media;
use super::{Challenge, Parse, Parsed, Rule, Scheme, Source};
use crate::domain::{Address, Kind, Media, Moment, NewMessage};

const TEMPLATE: &[Part] = &[Part::Text(super::text("v0:")), Part::Timestamp, Part::Text(super::text(":")), Part::Body];

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: "slack",
    title: "Slack Events API",
    rule: Some(Rule::with_time(
        ("x-slack-signature", "v0="),
        Algorithm::HmacSha256,
        Encoding::Hex,
        TEMPLATE,
        "x-slack-request-timestamp",
    )),
    parse: Parse::Json(parse),
    ..Scheme::BASE
};

fn parse(source: &Source, envelope: &Value, now: Moment) -> Parsed {
    let mut parsed = Parsed::default();
    if text(envelope, "type") == Some("url_verification") {
        parsed.challenge = owned(envelope, "challenge").map(Challenge);
    } else if let Some(message) = message(source, envelope, now) {
        parsed.messages.push(message);
    } else {
        let kind = text(&envelope["event"], "type").or_else(|| text(envelope, "type")).unwrap_or("event");
        parsed.events.push(element::event(source, kind, text(envelope, "event_id"), envelope, now));
    }
    parsed
}

/// A message of a person: changes, joins and the like have a subtype, and what bots say a `bot_id`.
fn message(source: &Source, envelope: &Value, now: Moment) -> Option<NewMessage> {
    let event = envelope.get("event").filter(|event| text(event, "type") == Some("message"))?;
    let subtype = text(event, "subtype");
    if event.get("bot_id").is_some() || !matches!(subtype, None | Some("file_share" | "thread_broadcast")) {
        return None;
    }
    let (channel, ts, user) = (text(event, "channel")?, text(event, "ts")?, text(event, "user")?);
    // A message has no id of its own: channel and time are what Slack itself finds it by.
    let id = format!("{channel}:{ts}");
    let account = text(envelope, "team_id").unwrap_or(source.account());
    let files: Vec<Media> = list(event, "files").iter().map(file).collect();
    let kind = files.first().map_or(Kind::Text, |file| kind_of_media(file.mime_type.as_deref().unwrap_or_default()));
    let mut details = element::details(source, account, &id, kind, subtype.unwrap_or("message"));
    details.media = files;
    details.group = (text(event, "channel_type") != Some("im")).then(|| channel.to_owned());
    details.reply_to =
        text(event, "thread_ts").filter(|thread| *thread != ts).map(|thread| format!("{channel}:{thread}"));
    let content = Content {
        key_id: &id,
        from: Address::tagged("slack", user),
        to: source.options.to.clone().unwrap_or_else(|| Address::tagged("slack", channel)),
        time: event.get("ts"),
        text: event.get("text").and_then(Value::as_str).map(str::to_owned),
    };
    Some(element::message(details, content, now))
}

fn file(own: &Value) -> Media {
    Media {
        id: owned(own, "id"),
        url: owned(own, "url_private"),
        mime_type: owned(own, "mimetype"),
        file_name: owned(own, "name"),
        bytes: own.get("size").and_then(Value::as_u64),
        ..Media::default()
    }
}
