//! Meta's WhatsApp Business Cloud API: envelopes with many messages, statuses and account events, signed with the app secret.

mod content;

use serde_json::{Map, Value, json};

use super::algorithm::{Algorithm, same_secret};
use super::element::{self, Content, ELEMENTS_MAX, message_key};
use super::encoding::Encoding;
use super::header::form;
use super::json::{list, owned, scalar, text};
use super::rule::first_fitting;
use super::signature::BadSignature;
use super::{Challenge, Key, Parse, Parsed, Rule, Scheme, SecretForm, Source};
use crate::domain::{Address, Moment, NewMessage, State, StatusUpdate};

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

/// `hub.mode=subscribe`, the right `hub.verify_token`, and a `hub.challenge` to be said back, each exactly once. The names
/// contain dots.
pub fn handshake(source: &Source, query: &str) -> Result<Challenge, BadSignature> {
    let parameters = form(query.as_bytes());
    let one = |name: &str| {
        let mut values = parameters.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_ref());
        values.next().filter(|_| values.next().is_none())
    };
    let token = one("hub.verify_token").ok_or(BadSignature::WrongVerifyToken)?;
    let fits = |known: &Key| same_secret(token.as_bytes(), known.secret.expose());
    let known = first_fitting(&source.options.verify_tokens, fits).is_ok();
    match (known && one("hub.mode") == Some("subscribe"), one("hub.challenge")) {
        (true, Some(challenge)) => Ok(Challenge(challenge.to_owned())),
        _ => Err(BadSignature::WrongVerifyToken),
    }
}

/// Reads an envelope. Also of relays that pass it on.
pub fn parse(source: &Source, envelope: &Value, now: Moment) -> Parsed {
    let mut parsed = Parsed::default();
    let mut count = 0;
    for entry in list(envelope, "entry") {
        for change in list(entry, "changes") {
            count += read_change(source, entry, change, now, &mut parsed);
        }
    }
    parsed.is_cut = count > ELEMENTS_MAX;
    parsed
}

/// One change: messages and statuses of a number, or something about the account. Answers how many elements it has; what is
/// beyond the limit of a body is left out.
fn read_change(source: &Source, entry: &Value, change: &Value, now: Moment, parsed: &mut Parsed) -> usize {
    let field = text(change, "field").unwrap_or("unknown");
    let value = &change["value"];
    let room = |parsed: &Parsed| ELEMENTS_MAX.saturating_sub(parsed.len());
    let (Some(number), "messages") = (account(source, entry, value), field) else {
        if room(parsed) > 0 {
            // Account events have no number and no id of their own: the whole change says which it is.
            let whole = json!({ "entry": entry["id"], "time": entry["time"], "change": change });
            parsed.events.push(element::event(source, field, None, &whole, now));
        }
        return 1;
    };
    let (messages, statuses, errors) = (list(value, "messages"), list(value, "statuses"), list(value, "errors"));
    for part in messages.iter().take(room(parsed)) {
        match read_message(source, value, &number, part, now) {
            Some(message) => parsed.messages.push(message),
            None => parsed.events.push(element::unreadable(source, "a message without an id", part, now)),
        }
    }
    for part in statuses.iter().take(room(parsed)) {
        match read_status(source, &number, part, now) {
            Some(status) => parsed.statuses.push(status),
            None => parsed.events.push(element::unreadable(source, "an unknown status", part, now)),
        }
    }
    for error in errors.iter().take(room(parsed)) {
        parsed.events.push(element::event(source, "errors", None, error, now));
    }
    messages.len() + statuses.len() + errors.len()
}

/// The number that messages came to. Meta always names it; where a relay leaves it out, the business account has to do, so that
/// its messages land all the same. None if there is nothing to store under it.
fn account(source: &Source, entry: &Value, value: &Value) -> Option<String> {
    let holds = |name: &str| value.get(name).is_some_and(Value::is_array);
    let without = || {
        (holds("messages") || holds("statuses"))
            .then(|| scalar(entry, "id").unwrap_or_else(|| source.account().to_owned()))
    };
    scalar(&value["metadata"], "phone_number_id").or_else(without)
}

fn read_message(source: &Source, value: &Value, number: &str, part: &Value, now: Moment) -> Option<NewMessage> {
    let id = scalar(part, "id")?;
    let provider_kind = text(part, "type").unwrap_or("unknown");
    let mut details = element::details(source, number, &id, content::kind(provider_kind), provider_kind);
    let said = content::read(part, provider_kind, &mut details);
    details.person = owned(part, "from_user_id");
    details.group = owned(part, "group_id");
    details.profile_name = profile_name(value, part);
    let content = Content {
        key_id: &id,
        from: sender(part),
        to: recipient(source, value, number),
        time: part.get("timestamp"),
        text: said,
    };
    Some(element::message(details, content, now))
}

/// The phone number where there is one, else the id that is scoped to the business (BSUID). A system message about a changed
/// number may have neither.
fn sender(part: &Value) -> Address {
    let ids = [text(part, "from_user_id"), text(&part["system"], "user_id"), text(&part["system"], "previous_user_id")];
    match (text(part, "from"), ids.into_iter().flatten().next()) {
        (Some(from), person) => match (Address::international(from), person) {
            (Some(phone), _) => phone,
            (None, person) => Address::tagged("bsuid", person.unwrap_or(from)),
        },
        (None, Some(person)) => Address::tagged("bsuid", person),
        (None, None) => Address::tagged("unknown", ""),
    }
}

/// A status names its recipient by a number or by an id that is scoped to the business.
fn status_recipient(raw: &str) -> Address {
    Address::international(raw).unwrap_or_else(|| Address::tagged("bsuid", raw))
}

/// The business's number as it is displayed; where that is no number, the id of it.
fn recipient(source: &Source, value: &Value, number: &str) -> Address {
    let displayed = text(&value["metadata"], "display_phone_number").and_then(Address::international);
    let tag = if scalar(&value["metadata"], "phone_number_id").is_some() { "phone_number_id" } else { "account" };
    displayed.or_else(|| source.options.to.clone()).unwrap_or_else(|| Address::tagged(tag, number))
}

/// The contacts stand beside the messages, in any order: whose they are is told by their ids.
fn profile_name(value: &Value, part: &Value) -> Option<String> {
    let same = |contact: &Value, name: &str, own: &str| {
        text(contact, name).is_some_and(|id| text(part, own).is_some_and(|from| from == id))
    };
    let contact = list(value, "contacts")
        .iter()
        .find(|contact| same(contact, "user_id", "from_user_id") || same(contact, "wa_id", "from"))?;
    owned(&contact["profile"], "name").or_else(|| owned(&contact["profile"], "username"))
}

/// One status. Those of a group come once per participant, or added up.
fn read_status(source: &Source, number: &str, part: &Value, now: Moment) -> Option<StatusUpdate> {
    let id = scalar(part, "id")?;
    let state = match text(part, "status")? {
        "sent" => State::Sent,
        "delivered" => State::Delivered,
        "read" => State::Read,
        "played" => State::Played,
        "failed" => State::Failed,
        _ => return None,
    };
    let recipients = ["recipient_participant_id", "recipient_participant_user_id", "recipient_id", "recipient_user_id"];
    Some(StatusUpdate {
        message: message_key(source.scheme.kind, number, &id),
        provider_id: id,
        source: source.name.clone(),
        recipient: recipients.into_iter().find_map(|name| text(part, name)).map(status_recipient),
        state,
        at: part.get("timestamp").and_then(element::timestamp).unwrap_or_else(|| now.to_timestamp()),
        error: list(part, "errors").first().map(|error| {
            let title = text(error, "title").or_else(|| text(error, "message")).unwrap_or_default();
            format!("{} {title}", scalar(error, "code").unwrap_or_default()).trim().to_owned()
        }),
        extra: Map::new(),
    })
}
