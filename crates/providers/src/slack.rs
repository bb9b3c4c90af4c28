//! Slack: one event per request, slash commands and interactive payloads as forms, all signed with a time. The first
//! request expects a challenge back.

use serde_json::Value;

use super::algorithm::Algorithm;
use super::element::{self, Content, kind_of_media};
use super::encoding::Encoding;
use super::fields::{Fields, is_form};
use super::json::{list, owned, read, text};
use super::rule::Part;
use super::{AnswerStyle, Challenge, InvalidBody, Parse, Parsed, Rule, Scheme, Source, VerifiedBody};
use domain::{Address, Details, Event, Intake, Kind, Media, Moment, NewMessage};

const TEMPLATE: &[Part] = &[Part::Text(super::text("v0:")), Part::Timestamp, Part::Text(super::text(":")), Part::Body];

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: "slack",
    title: "Slack (events, slash commands, interactivity)",
    // Slack would show the body of this response to the user, or report an error.
    answer: AnswerStyle::Empty,
    rule: Some(Rule::with_time(
        ("x-slack-signature", "v0="),
        Algorithm::HmacSha256,
        Encoding::Hex,
        TEMPLATE,
        "x-slack-request-timestamp",
    )),
    parse: Parse::Bytes(parse),
    ..Scheme::BASE
};

fn parse(source: &Source, body: &VerifiedBody, now: Moment) -> Result<Parsed, InvalidBody> {
    if is_form(body.as_bytes()) {
        let event = form(source, &Fields::read(body.as_bytes()), now);
        let event = event.unwrap_or_else(|why| element::unreadable_body(source, body.as_bytes(), &why, now));
        return Ok(Intake { events: vec![event], ..Intake::default() }.into());
    }
    Ok(match element::read_json(source, body, now) {
        Ok(envelope) => parse_envelope(source, &envelope, now),
        Err(unreadable) => *unreadable,
    })
}

/// A slash command, or the use of a button, menu, shortcut or dialog.
fn form(source: &Source, fields: &Fields, now: Moment) -> Result<Event, String> {
    if let Some(payload) = fields.get("payload") {
        let payload = read(payload.as_bytes())?;
        return Ok(element::event(source, "interactive", text(&payload, "trigger_id"), &payload, now));
    }
    let value = fields.to_value();
    Ok(match command(source, fields, now) {
        Some(message) => element::event_with_message(source, "slash_command", message, &value, now),
        None => element::event(source, "form", None, &value, now),
    })
}

fn command(source: &Source, fields: &Fields, now: Moment) -> Option<NewMessage> {
    let (command, channel, user) = (fields.get("command")?, fields.get("channel_id")?, fields.get("user_id")?);
    let id = format!("{channel}:{}", fields.get("trigger_id")?);
    let account = fields.get("team_id").unwrap_or(source.account());
    let mut details = element::details(source, account, &id, Kind::Interactive, "slash_command");
    details.profile_name = fields.owned("user_name");
    details.group = Some(channel.to_owned()).filter(|channel| !channel.starts_with('D'));
    let said = format!("{command} {}", fields.get("text").unwrap_or_default());
    let content = Content {
        key_id: &id,
        from: Address::tagged("slack", user),
        to: recipient(source, channel),
        time: None,
        text: Some(decoded(said.trim_end())),
    };
    Some(element::message(details, content, now))
}

fn parse_envelope(source: &Source, envelope: &Value, now: Moment) -> Parsed {
    let mut parsed = Parsed::default();
    if text(envelope, "type") == Some("url_verification") {
        parsed.challenge = owned(envelope, "challenge").map(Challenge);
        return parsed;
    }
    let kind = kind(envelope);
    match Told::of(envelope).and_then(|told| Some((told.message(source, now)?, told))) {
        Some((message, told)) if told.belongs_into_inbox() => parsed.intake.messages.push(message),
        // One message may arrive as a message and as a mention.
        Some((message, told)) if told.what == What::Said => {
            parsed.intake.events.push(element::own_message(source, kind, message, envelope, now));
        }
        Some((message, _)) => {
            parsed.intake.events.push(element::event_with_message(source, kind, message, envelope, now))
        }
        None => parsed.intake.events.push(element::event(source, kind, text(envelope, "event_id"), envelope, now)),
    }
    parsed
}

/// The kind: the subtype of a message, or else the type of the event.
fn kind(envelope: &Value) -> &str {
    let event = &envelope["event"];
    let of_bot = is_of_bot(event).then_some("bot_message");
    let of_message = || text(event, "subtype").or(of_bot).filter(|_| text(event, "type") == Some("message"));
    of_message().or_else(|| text(event, "type")).or_else(|| text(envelope, "type")).unwrap_or("event")
}

fn is_of_bot(part: &Value) -> bool {
    part.get("bot_id").is_some_and(|id| !id.is_null()) || text(part, "subtype") == Some("bot_message")
}

/// An event that is about a message.
struct Told<'a> {
    envelope: &'a Value,
    event: &'a Value,
    /// The message itself, which may be nested in the event.
    part: &'a Value,
    channel: &'a str,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Said,
    Changed,
    Deleted,
    Reacted,
}

impl<'a> Told<'a> {
    fn of(envelope: &'a Value) -> Option<Self> {
        let event = &envelope["event"];
        let subtype = text(event, "subtype");
        let (what, part, channel) = match (text(event, "type")?, subtype) {
            ("message", Some("message_changed")) => match text(&event["message"], "subtype") {
                // Slack replaces a deleted message that has replies by a tombstone.
                Some("tombstone") => (What::Deleted, &event["previous_message"], &event["channel"]),
                _ => (What::Changed, &event["message"], &event["channel"]),
            },
            ("message", Some("message_deleted")) => (What::Deleted, &event["previous_message"], &event["channel"]),
            ("message", None | Some("file_share" | "thread_broadcast" | "me_message" | "bot_message"))
            | ("app_mention", _) => (What::Said, event, &event["channel"]),
            ("reaction_added" | "reaction_removed", _) => (What::Reacted, event, &event["item"]["channel"]),
            _ => return None,
        };
        Some(Self { envelope, event, part, channel: channel.as_str()?, what })
    }

    /// Messages of people and their later changes; not of bots (our app may be one), and no deletions.
    fn belongs_into_inbox(&self) -> bool {
        let by_person = text(self.part, "user").is_some() && !is_of_bot(self.part) && !is_of_bot(self.event);
        match self.what {
            What::Said => by_person,
            // Link previews and similar additions also change a message.
            What::Changed => {
                let before = &self.event["previous_message"];
                by_person && self.part["edited"].is_object() && before.get("text") != self.part.get("text")
            }
            What::Deleted | What::Reacted => false,
        }
    }

    fn message(&self, source: &Source, now: Moment) -> Option<NewMessage> {
        let (part, channel) = (self.part, self.channel);
        let ts = match self.what {
            What::Said | What::Changed => text(part, "ts"),
            What::Deleted => text(self.event, "deleted_ts").or_else(|| text(part, "ts")),
            What::Reacted => text(&self.event["item"], "ts"),
        }?;
        // A message has no id of its own: Slack itself identifies it by channel and time.
        let id = format!("{channel}:{ts}");
        let mut details = self.details(source, &id);
        details.reply_to =
            text(part, "thread_ts").filter(|thread| *thread != ts).map(|thread| format!("{channel}:{thread}"));
        let time = match self.what {
            What::Said => part.get("ts"),
            What::Changed => part["edited"].get("ts").or_else(|| self.event.get("ts")),
            What::Deleted | What::Reacted => self.event.get("event_ts").or_else(|| self.event.get("ts")),
        };
        let stamp = time.and_then(Value::as_str).unwrap_or_default();
        let user = text(part, "user");
        // Several edits of one message, and reactions to it, share its id.
        let key_id = match self.what {
            What::Said | What::Deleted => id.clone(),
            What::Changed => format!("{id}#{stamp}"),
            What::Reacted => format!("{id}#{}:{}:{stamp}", text(part, "reaction")?, user?),
        };
        let content = Content {
            key_id: &key_id,
            from: user
                .or_else(|| text(part, "bot_id"))
                .map_or_else(|| Address::tagged("unknown", SCHEME.kind), |user| Address::tagged("slack", user)),
            to: recipient(source, channel),
            time,
            text: self.said(),
        };
        Some(element::message(details, content, now))
    }

    fn said(&self) -> Option<String> {
        match self.what {
            What::Said | What::Changed => self.part.get("text").and_then(Value::as_str).map(decoded),
            What::Deleted => None,
            // An empty text removes a reaction.
            What::Reacted if text(self.event, "type") == Some("reaction_removed") => Some(String::new()),
            What::Reacted => text(self.part, "reaction").map(|name| format!(":{name}:")),
        }
    }

    fn details(&self, source: &Source, id: &str) -> Details {
        let part = self.part;
        let account = text(self.envelope, "team_id").unwrap_or(source.account());
        let files: Vec<Media> = list(part, "files").iter().map(file).collect();
        let of_files = files.first().map(|file| kind_of_media(file.mime_type.as_deref().unwrap_or_default()));
        let (kind, reference) = match self.what {
            What::Said => (of_files.unwrap_or(Kind::Text), None),
            What::Changed => (Kind::Edit, Some("edited")),
            What::Deleted => (Kind::Revoke, Some("revoked")),
            What::Reacted => (Kind::Reaction, Some("reaction_to")),
        };
        let word = text(self.event, "subtype").or_else(|| text(self.event, "type")).unwrap_or_default();
        let mut details = element::details(source, account, id, kind, word);
        details.media = if self.what == What::Deleted { Vec::new() } else { files };
        let is_direct = text(self.event, "channel_type") == Some("im") || self.channel.starts_with('D');
        details.group = (!is_direct).then(|| self.channel.to_owned());
        let profile = &part["user_profile"];
        details.profile_name = owned(profile, "display_name").or_else(|| owned(profile, "real_name"));
        let shared = list(part, "attachments");
        let extras = [
            reference.map(|name| (name, Value::from(id))),
            // Shared or quoted content is here, and not in the text.
            (!shared.is_empty() && self.what != What::Deleted).then(|| ("attachments", part["attachments"].clone())),
        ];
        details.extra.extend(extras.into_iter().flatten().map(|(name, value)| (name.to_owned(), value)));
        details
    }
}

fn recipient(source: &Source, channel: &str) -> Address {
    source.options.to.clone().unwrap_or_else(|| Address::tagged("slack", channel))
}

/// Slack escapes only these three characters of a text.
fn decoded(text: &str) -> String {
    const CODES: [(&str, char); 3] = [("&amp;", '&'), ("&lt;", '<'), ("&gt;", '>')];
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('&') {
        let (before, code) = rest.split_at(at);
        out.push_str(before);
        let known = CODES.iter().find_map(|(name, character)| Some((*character, code.strip_prefix(name)?)));
        let (character, after) = known.unwrap_or(('&', &code[1..]));
        out.push(character);
        rest = after;
    }
    out + rest
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_characters_are_decoded_once_and_nothing_else() {
        let cases = [
            ("a &amp; b", "a & b"),
            ("&lt;b&gt;", "<b>"),
            ("&amp;lt;", "&lt;"),
            ("&amp;amp;amp;", "&amp;amp;"),
            ("&quot; &#39; &nbsp; & &amp", "&quot; &#39; &nbsp; & &amp"),
            ("<@U1> é&gt;é", "<@U1> é>é"),
            ("", ""),
        ];
        for (raw, expected) in cases {
            assert_eq!(decoded(raw), expected, "{raw}");
        }
    }
}
