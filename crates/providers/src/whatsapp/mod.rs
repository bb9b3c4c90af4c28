//! Meta's WhatsApp Business Cloud API: envelopes with many messages, statuses and events, signed with the app secret.
//! Messenger and Instagram sign in the same way, and are parsed here too.

mod business_app;
mod content;
mod messenger;
mod reader;
mod status;

use serde_json::{Value, json};

use super::algorithm::{Algorithm, same_secret};
use super::element::ELEMENTS_MAX;
use super::encoding::Encoding;
use super::header::form;
use super::json::{list, text};
use super::key::first_fitting;
use super::signature::BadHandshake;
use super::{Challenge, Key, Parse, Parsed, Rule, Scheme, SecretForm, Source};
use domain::Moment;
use reader::{Line, Reader};

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: "whatsapp",
    title: "Meta WhatsApp Business Cloud API",
    variable: Some("WHATSAPP_APP_SECRET"),
    // The app secret looks like hexadecimal, but its characters are the key.
    secret: SecretForm::Text,
    rule: Some(Rule::of_body("x-hub-signature-256", "sha256=", Algorithm::HmacSha256, Encoding::Hex)),
    parse: Parse::Json(parse),
    handshake: Some(handshake),
    ..Scheme::BASE
};

/// `hub.mode=subscribe`, the right `hub.verify_token`, and a `hub.challenge` to return, each exactly once. The names
/// contain dots.
pub fn handshake(source: &Source, query: &str) -> Result<Challenge, BadHandshake> {
    let parameters = form(query.as_bytes());
    let one = |name: &str| {
        let mut values = parameters.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_ref());
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            (None, _) => Err("is missing"),
            (Some(_), Some(_)) => Err("occurs more than once"),
        }
    };
    if one("hub.mode").map_err(BadHandshake::Mode)? != "subscribe" {
        return Err(BadHandshake::Mode("must be subscribe"));
    }
    let token = one("hub.verify_token").map_err(BadHandshake::Token)?;
    if source.options.verify_tokens.is_empty() {
        return Err(BadHandshake::NoToken);
    }
    let fits = |known: &Key| same_secret(token.as_bytes(), known.secret.expose());
    if first_fitting(&source.options.verify_tokens, fits).is_err() {
        return Err(BadHandshake::Token(WRONG_TOKEN));
    }
    let challenge = one("hub.challenge").map_err(BadHandshake::Challenge)?;
    Ok(Challenge(challenge.to_owned()))
}

/// The error for a token that does not match.
const WRONG_TOKEN: &str = "is not the verify token of this source";

/// Parses an envelope, also of relays that pass it on.
pub fn parse(source: &Source, envelope: &Value, now: Moment) -> Parsed {
    let mut reader = Reader { source, now, parsed: Parsed::default(), count: 0 };
    match text(envelope, "object") {
        Some(object @ ("page" | "instagram")) => messenger::read(&mut reader, object, envelope),
        _ if envelope.get("entry").is_some() => {
            for entry in list(envelope, "entry") {
                for change in list(entry, "changes") {
                    read_change(&mut reader, entry, change);
                }
            }
        }
        // 360dialog's events for partners, and the bodies of its older interface, have no envelope.
        _ if envelope["data"].is_object() => {
            let (data, event) = (&envelope["data"], &envelope["event"]);
            read_change(&mut reader, data, &json!({ "field": event, "value": data }));
        }
        _ if holds_messages(envelope) => read_change(&mut reader, &Value::Null, &json!({ "value": envelope })),
        _ => {}
    }
    reader.parsed.is_cut = reader.count > ELEMENTS_MAX;
    reader.parsed
}

fn holds_messages(value: &Value) -> bool {
    ["messages", "statuses"].into_iter().any(|name| value.get(name).is_some_and(Value::is_array))
}

/// One change: messages and statuses of a number, or a change of the account.
fn read_change(reader: &mut Reader<'_>, entry: &Value, change: &Value) {
    let value = &change["value"];
    let field = text(change, "field").unwrap_or(if holds_messages(value) { "messages" } else { "unknown" });
    let before = reader.count;
    let line = Line::new(reader.source, entry, value, reader.now);
    match field {
        "messages" => read_messages(reader, &line, value),
        // Another app responds, and this app only listens. Customers' messages still go to the business.
        "standby" => {
            read_messages(reader, &line, &value["standby"]);
            business_app::read_echoes(reader, &line, field, &value["standby"]);
        }
        "smb_message_echoes" | "message_echoes" => business_app::read_echoes(reader, &line, field, value),
        "history" => business_app::read_history(reader, &line, value),
        "smb_app_state_sync" => business_app::read_contacts(reader, &line, value),
        _ => {}
    }
    if reader.count == before && reader.has_room() {
        // Account events have no number and no id of their own: the whole change identifies them.
        reader.event(field, &json!({ "entry": entry["id"], "time": entry["time"], "change": change }));
    }
}

fn read_messages(reader: &mut Reader<'_>, line: &Line<'_>, value: &Value) {
    for part in list(value, "messages") {
        if reader.has_room() {
            match line.received(part) {
                Some(message) => reader.parsed.intake.messages.push(message),
                None => reader.unreadable("a message without an id", part),
            }
        }
    }
    for part in list(value, "statuses") {
        if reader.has_room() {
            status::read(reader, &line.number, part);
        }
    }
    for error in list(value, "errors") {
        if reader.has_room() {
            reader.occurrence(line, "errors", error);
        }
    }
}
