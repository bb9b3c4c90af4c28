//! WAHA, a self-hosted WhatsApp bridge: one event per request, signed with HMAC-SHA512 if a key is configured there.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::algorithm::Algorithm;
use super::element::{self, Content, kind_of_media, message_key};
use super::encoding::Encoding;
use super::header::single;
use super::json::{list, owned, scalar, text};
use super::signature::BadSignature;
use super::{Parse, Parsed, Request, Rule, Scheme, Source, jid};
use domain::{Address, Details, Kind, Media, Moment, NewMessage, State, StatusUpdate};

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: "waha",
    title: "WAHA (self-hosted WhatsApp bridge)",
    variable: Some("WAHA_HMAC_KEY"),
    rule: Some(Rule::of_body("x-webhook-hmac", "", Algorithm::HmacSha512, Encoding::Hex)),
    verify,
    parse: Parse::Json(parse),
    ..Scheme::BASE
};

fn verify(source: &Source, request: &Request<'_>, now: Moment) -> Result<usize, BadSignature> {
    match single(request.headers, "x-webhook-hmac-algorithm") {
        Ok(b"sha512") | Err(BadSignature::MissingHeader) => source.verify_by_rule(request, now),
        Ok(_) => Err(BadSignature::WrongAlgorithm),
        Err(why) => Err(why),
    }
}

fn parse(source: &Source, envelope: &Value, now: Moment) -> Parsed {
    let mut parsed = Parsed::default();
    let event = text(envelope, "event").unwrap_or("unknown");
    let payload = &envelope["payload"];
    let part = match event {
        "message" | "message.any" | "message.reaction" | "message.edited" => Some(payload),
        "message.revoked" => ["before", "after"].iter().map(|name| &payload[*name]).find(|part| part.is_object()),
        _ => None,
    };
    let told = part.map(|payload| Told { source, envelope, payload, event });
    // A message that the account itself sent is not incoming. Events of one incoming message share a key.
    let own = told.as_ref().is_some_and(Told::is_own) || payload["fromMe"] == true;
    let kind = if own { format!("{event}.own") } else { event.to_owned() };
    let status = if event == "message.ack" { status(source, envelope, now) } else { None };
    match (told.and_then(|told| told.message(now)), status) {
        (Some(message), _) if event == "message.revoked" => {
            parsed.intake.events.push(element::event_with_message(source, &kind, message, envelope, now));
        }
        (Some(message), _) if own => {
            parsed.intake.events.push(element::own_message(source, &kind, message, envelope, now))
        }
        (Some(message), _) => parsed.intake.messages.push(message),
        (None, Some(status)) => parsed.intake.statuses.push(status),
        (None, None) => {
            let id = owned(envelope, "id");
            parsed.intake.events.push(element::event(source, &kind, id.as_deref(), envelope, now));
        }
    }
    parsed
}

/// The session is the account: every session is a separate number. Several servers may use the same name
/// (`default`); the account of the settings separates them.
fn account<'a>(source: &'a Source, envelope: &'a Value) -> Cow<'a, str> {
    jid::session_account(source, text(envelope, "session"))
}

/// WhatsApp's id within `<fromMe>_<chat>_<id>[_<participant>]`. A message may arrive twice, with the chat's
/// number and with its opaque id. This part is the same in both.
fn whatsapp_id(id: &str) -> &str {
    let mut parts = id.split('_');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("true" | "false"), Some(_), Some(id)) if !id.is_empty() => id,
        _ => id,
    }
}

/// An event that is about a message.
struct Told<'a> {
    source: &'a Source,
    envelope: &'a Value,
    payload: &'a Value,
    event: &'a str,
}

impl<'a> Told<'a> {
    fn is_own(&self) -> bool {
        self.payload["fromMe"] == true
    }

    /// The chat: its member depends on the engine if the account itself is the sender.
    fn chat(&self) -> Option<&'a str> {
        let named = text(self.payload, "id").and_then(|id| id.split('_').nth(1)).filter(|part| part.contains('@'));
        let from = text(self.payload, "from");
        if self.is_own() { named.or(text(self.payload, "to")).or(from) } else { from }
    }

    fn message(&self, now: Moment) -> Option<NewMessage> {
        let (payload, chat) = (self.payload, self.chat()?);
        if jid::is_broadcast(chat) {
            return None;
        }
        let id = whatsapp_id(text(payload, "id")?);
        let (kind, said) = match self.event {
            "message.reaction" => (Kind::Reaction, Some(owned(&payload["reaction"], "text").unwrap_or_default())),
            "message.edited" => (Kind::Edit, owned(payload, "body")),
            "message.revoked" => (Kind::Revoke, None),
            _ => (kind(payload), payload.get("body").and_then(Value::as_str).map(str::to_owned)),
        };
        let (from, to, person) = self.people(chat);
        let mut details = self.details(id, kind, chat);
        details.person = person;
        // Several edits of one message may share its id.
        let key_id = match kind {
            Kind::Edit => format!("{id}#{}", scalar(payload, "timestamp").unwrap_or_default()),
            _ => id.to_owned(),
        };
        let content = Content {
            key_id: &key_id,
            from,
            to,
            time: payload.get("timestamp"),
            text: said.filter(|said| !said.is_empty() || matches!(kind, Kind::Text | Kind::Reaction)),
        };
        let mut message = element::message(details, content, now);
        message.former_id = jid::former_key(self.source, text(self.envelope, "session"), &key_id);
        Some(message)
    }

    /// The sender, the recipient, and the opaque id that belongs to a number.
    fn people(&self, chat: &str) -> (Address, Address, Option<String>) {
        let (own, is_group) = (account_address(self.source, self.envelope, self.payload), jid::is_group(chat));
        let other = if self.is_own() { chat } else { text(self.payload, "participant").unwrap_or(chat) };
        let data = &self.payload["_data"];
        // NOWEB has the number in the key, GOWS in `Info`. WEBJS does not report it.
        let info = if self.is_own() { "RecipientAlt" } else { "SenderAlt" };
        let beside = || {
            let of_info = text(&data["Info"], info).filter(|jid| jid::is_number(jid));
            jid::number_beside(&data["key"], is_group).or(of_info)
        };
        let number = if jid::is_opaque(other) { beside() } else { None };
        let address = jid::address(number.unwrap_or(other));
        match self.is_own() {
            true => (own, address, None),
            false => (address, own, number.map(|_| other.to_owned())),
        }
    }

    fn details(&self, id: &str, kind: Kind, chat: &str) -> Details {
        let payload = self.payload;
        let account = account(self.source, self.envelope);
        let mut details = element::details(self.source, &account, id, kind, self.event);
        details.group = jid::is_group(chat).then(|| chat.to_owned());
        if !self.is_own() {
            let data = &payload["_data"];
            let names = [(data, "notifyName"), (data, "pushName"), (&data["Info"], "PushName")];
            details.profile_name = names.iter().find_map(|(part, name)| owned(part, name));
        }
        details.reply_to = owned(&payload["replyTo"], "id").or_else(|| owned(payload, "replyTo"));
        details.media.extend(media(payload));
        let reaction_to = text(&payload["reaction"], "messageId").map(whatsapp_id);
        let edited = text(payload, "editedMessageId");
        let extras = [
            ("reaction_to", reaction_to.map(Value::from)),
            ("edited", edited.map(Value::from)),
            ("revoked", (kind == Kind::Revoke).then(|| id.into())),
            ("location", payload.get("location").filter(|place| place.is_object()).cloned()),
            ("contacts", (!list(payload, "vCards").is_empty()).then(|| payload["vCards"].clone())),
            ("engine", text(self.envelope, "engine").map(Value::from)),
        ];
        details.extra.extend(extras.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        details
    }
}

/// There is no type: the members determine the kind.
fn kind(payload: &Value) -> Kind {
    match payload {
        _ if payload["location"].is_object() => Kind::Location,
        _ if !list(payload, "vCards").is_empty() => Kind::Contacts,
        _ if payload["hasMedia"] == true => kind_of_media(text(&payload["media"], "mimetype").unwrap_or_default()),
        _ => Kind::Text,
    }
}

fn media(payload: &Value) -> Option<Media> {
    let own = payload.get("media").filter(|own| own.is_object() && payload["hasMedia"] == true)?;
    Some(Media {
        url: owned(own, "url"),
        mime_type: owned(own, "mimetype"),
        file_name: owned(own, "filename"),
        ..Media::default()
    })
}

/// The account's own address.
fn account_address(source: &Source, envelope: &Value, payload: &Value) -> Address {
    let to = text(payload, "to").filter(|_| payload["fromMe"] != true);
    let own = text(&envelope["me"], "id").or(to);
    let configured = || source.options.to.clone();
    own.map(jid::address).or_else(configured).unwrap_or_else(|| Address::tagged("waha", &account(source, envelope)))
}

fn status(source: &Source, envelope: &Value, now: Moment) -> Option<StatusUpdate> {
    let payload = &envelope["payload"];
    let id = whatsapp_id(text(payload, "id")?);
    let state = match payload.get("ack").and_then(Value::as_i64)? {
        -1 => State::Failed,
        0 => State::Queued,
        1 => State::Sent,
        2 => State::Delivered,
        3 => State::Read,
        4 => State::Played,
        _ => return None,
    };
    let recipient = text(payload, "participant").or_else(|| text(payload, "to"));
    let time = envelope.get("timestamp").unwrap_or(&Value::Null);
    Some(StatusUpdate {
        message: message_key(SCHEME.kind, &account(source, envelope), id),
        provider_id: id.to_owned(),
        source: source.name.clone(),
        recipient: recipient.map(jid::address),
        state,
        at: element::timestamp(time).unwrap_or_else(|| now.to_timestamp()),
        error: (state == State::Failed).then(|| json!(payload["ackName"]).as_str().unwrap_or("ERROR").to_owned()),
        extra: Map::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatsapps_id_is_the_same_under_both_names_of_a_chat() {
        for id in ["false_491511@c.us_AAA", "false_123@lid_AAA", "true_1@g.us_AAA_491511@c.us", "AAA"] {
            assert_eq!(whatsapp_id(id), "AAA", "{id}");
        }
        assert_eq!(whatsapp_id("A_B_C"), "A_B_C");
        assert_eq!(whatsapp_id("false_1@c.us_"), "false_1@c.us_");
    }
}
