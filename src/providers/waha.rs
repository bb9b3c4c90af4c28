//! WAHA, a self-hosted WhatsApp bridge: one event a request, signed by HMAC-SHA512 if a key is configured there.

use serde_json::{Map, Value, json};

use super::algorithm::Algorithm;
use super::element::{self, Content, message_key};
use super::encoding::Encoding;
use super::header::single;
use super::json::{list, owned, scalar, text};
use super::signature::BadSignature;
use super::twilio::kind_of_media;
use super::{Parse, Parsed, Request, Rule, Scheme, Source, jid};
use crate::domain::{Address, Kind, Media, Moment, NewMessage, State, StatusUpdate};

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
    let own = envelope["payload"]["fromMe"] == true;
    let read = match event {
        // What the account itself sent is no incoming message; both events fire for the same incoming one.
        "message" | "message.any" | "message.reaction" | "message.edited" if !own => {
            message(source, envelope, event, now)
        }
        _ => None,
    };
    let status = if event == "message.ack" { status(source, envelope, now) } else { None };
    match (read, status) {
        (Some(message), _) => parsed.messages.push(message),
        (None, Some(status)) => parsed.statuses.push(status),
        (None, None) => {
            let id = owned(envelope, "id");
            let kind = if own { format!("{event}.own") } else { event.to_owned() };
            parsed.events.push(element::event(source, &kind, id.as_deref(), envelope, now));
        }
    }
    parsed
}

/// The session is the account: every session is a number of its own.
fn account<'a>(source: &'a Source, envelope: &'a Value) -> &'a str {
    text(envelope, "session").unwrap_or(source.account())
}

/// WhatsApp's id within `<fromMe>_<chat>_<id>[_<participant>]`. The same message may come twice, under the chat's number and
/// under its opaque id; this part is the same in both.
fn whatsapp_id(id: &str) -> &str {
    let mut parts = id.split('_');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("true" | "false"), Some(_), Some(id)) if !id.is_empty() => id,
        _ => id,
    }
}

fn message(source: &Source, envelope: &Value, event: &str, now: Moment) -> Option<NewMessage> {
    let payload = &envelope["payload"];
    let full_id = text(payload, "id")?;
    let chat = text(payload, "from")?;
    if jid::is_broadcast(chat) {
        return None;
    }
    let id = whatsapp_id(full_id);
    let (kind, said) = match event {
        "message.reaction" => (Kind::Reaction, Some(owned(&payload["reaction"], "text").unwrap_or_default())),
        "message.edited" => (Kind::Edit, owned(payload, "body")),
        _ => (kind(payload), payload.get("body").and_then(Value::as_str).map(str::to_owned)),
    };
    let mut details = element::details(source, account(source, envelope), id, kind, event);
    details.group = jid::is_group(chat).then(|| chat.to_owned());
    details.profile_name = owned(&payload["_data"], "notifyName").or_else(|| owned(&payload["_data"], "pushName"));
    details.reply_to = owned(&payload["replyTo"], "id").or_else(|| owned(payload, "replyTo"));
    details.media.extend(media(payload));
    let reaction_to = text(&payload["reaction"], "messageId").map(whatsapp_id);
    let edited = text(payload, "editedMessageId");
    let extras = [
        ("reaction_to", reaction_to.map(Value::from)),
        ("edited", edited.map(Value::from)),
        ("location", payload.get("location").filter(|place| place.is_object()).cloned()),
        ("contacts", (!list(payload, "vCards").is_empty()).then(|| payload["vCards"].clone())),
        ("engine", text(envelope, "engine").map(Value::from)),
    ];
    details.extra.extend(extras.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    // Several edits of one message may share its id.
    let key_id = match kind {
        Kind::Edit => format!("{id}#{}", scalar(payload, "timestamp").unwrap_or_default()),
        _ => id.to_owned(),
    };
    let content = Content {
        key_id: &key_id,
        from: jid::address(text(payload, "participant").unwrap_or(chat)),
        to: recipient(source, envelope),
        time: payload.get("timestamp"),
        text: said.filter(|said| !said.is_empty() || matches!(kind, Kind::Text | Kind::Reaction)),
    };
    Some(element::message(details, content, now))
}

/// There is no type: what it is follows from what it has.
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

fn recipient(source: &Source, envelope: &Value) -> Address {
    let own = text(&envelope["me"], "id").or_else(|| text(&envelope["payload"], "to"));
    let configured = || source.options.to.clone();
    own.map(jid::address).or_else(configured).unwrap_or_else(|| Address::tagged("waha", account(source, envelope)))
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
        message: message_key(SCHEME.kind, account(source, envelope), id),
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
