//! Meta's WhatsApp Business Cloud API: envelopes with many messages, statuses and account events, signed with the app secret.
//! Messenger and Instagram sign in the same way, and are read here too.

mod business_app;
mod content;
mod messenger;
mod status;

use serde_json::{Value, json};

use super::algorithm::{Algorithm, same_secret};
use super::element::{self, Content, ELEMENTS_MAX};
use super::encoding::Encoding;
use super::header::form;
use super::json::{list, owned, scalar, text};
use super::rule::first_fitting;
use super::signature::BadHandshake;
use super::{Challenge, Key, Parse, Parsed, Rule, Scheme, SecretForm, Source};
use crate::domain::{Address, Moment, NewMessage};

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
pub fn handshake(source: &Source, query: &str) -> Result<Challenge, BadHandshake> {
    let parameters = form(query.as_bytes());
    let one = |name: &str| {
        let mut values = parameters.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_ref());
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            (None, _) => Err("is missing"),
            (Some(_), Some(_)) => Err("came more than once"),
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

/// Said of a token that is another one.
const WRONG_TOKEN: &str = "is not the verify token of this source";

/// Reads an envelope. Also of relays that pass it on.
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
        // 360dialog's events for partners, and what its older interface sends, have no envelope.
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

/// What was read of a body so far.
struct Reader<'a> {
    source: &'a Source,
    now: Moment,
    parsed: Parsed,
    /// How many elements were met. Those beyond the limit of a body are left out.
    count: usize,
}

impl Reader<'_> {
    /// Counts one more element; returns whether it is stored.
    fn has_room(&mut self) -> bool {
        self.count += 1;
        self.parsed.intake.len() < ELEMENTS_MAX
    }

    fn event(&mut self, kind: &str, part: &Value) {
        self.parsed.intake.events.push(element::event(self.source, kind, None, part, self.now));
    }

    /// What may be told again in the same words: that of another number, or at another time, is another one.
    fn occurrence(&mut self, line: &Line<'_>, kind: &str, part: &Value) {
        let occurred = format!("{}:{}", line.number, line.time);
        let event = element::occurrence_event(self.source, kind, None, &occurred, part, self.now);
        self.parsed.intake.events.push(event);
    }

    fn unreadable(&mut self, why: &str, part: &Value) {
        self.parsed.intake.events.push(element::unreadable(self.source, why, part, self.now));
    }

    /// A message that does not belong into the inbox, since the business sent it, or long ago.
    fn event_with_message(&mut self, kind: &str, message: Option<NewMessage>, part: &Value) {
        match message {
            Some(message) => {
                let event = element::event_with_message(self.source, kind, message, part, self.now);
                self.parsed.intake.events.push(event);
            }
            None => self.unreadable("a message without an id", part),
        }
    }
}

/// A number of the business, and those who wrote to it.
struct Line<'a> {
    source: &'a Source,
    metadata: &'a Value,
    contacts: &'a [Value],
    number: String,
    /// When Meta sent the entry; empty where it does not say.
    time: String,
    now: Moment,
}

impl<'a> Line<'a> {
    /// Meta always names the number; where a relay leaves it out, the business account has to do, so that its messages land all
    /// the same.
    fn new(source: &'a Source, entry: &Value, value: &'a Value, now: Moment) -> Self {
        let metadata = &value["metadata"];
        let number = scalar(metadata, "phone_number_id").or_else(|| scalar(entry, "id"));
        let contacts = list(if value["standby"].is_object() { &value["standby"] } else { value }, "contacts");
        let number = number.unwrap_or_else(|| source.account().to_owned());
        let time = scalar(entry, "time").unwrap_or_default();
        Self { source, metadata, contacts, number, time, now }
    }

    /// The business's number as it is displayed; where that is no number, the id of it.
    fn address(&self) -> Address {
        let displayed = text(self.metadata, "display_phone_number").and_then(Address::international);
        let tag = if scalar(self.metadata, "phone_number_id").is_some() { "phone_number_id" } else { "account" };
        displayed.or_else(|| self.source.options.to.clone()).unwrap_or_else(|| Address::tagged(tag, &self.number))
    }

    /// A message of a customer.
    fn received(&self, part: &Value) -> Option<NewMessage> {
        self.message(part, sender(part), self.address(), &[])
    }

    /// A message between these two; `told` is what stands beside it.
    fn message(&self, part: &Value, from: Address, to: Address, told: &[(&str, Value)]) -> Option<NewMessage> {
        let id = scalar(part, "id")?;
        let provider_kind = text(part, "type").unwrap_or("unknown");
        let mut details = element::details(self.source, &self.number, &id, content::kind(provider_kind), provider_kind);
        let said = content::read(part, provider_kind, &mut details);
        details.person = owned(part, "from_user_id");
        details.group = owned(part, "group_id");
        let profile = self.contact(part).map_or(&Value::Null, |contact| &contact["profile"]);
        details.profile_name = owned(profile, "name").or_else(|| owned(profile, "username"));
        if let (Some(_), Some(username)) = (text(profile, "name"), text(profile, "username")) {
            details.extra.insert("username".to_owned(), username.into());
        }
        details.extra.extend(told.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let content = Content { key_id: &id, from, to, time: part.get("timestamp"), text: said };
        Some(element::message(details, content, self.now))
    }

    /// The contacts stand beside the messages, in any order: whose they are is told by their ids.
    fn contact(&self, part: &Value) -> Option<&'a Value> {
        let same = |contact: &Value, name: &str, own: &str| {
            text(contact, name).is_some_and(|id| text(part, own).is_some_and(|from| from == id))
        };
        self.contacts.iter().find(|contact| same(contact, "user_id", "from_user_id") || same(contact, "wa_id", "from"))
    }
}

/// The phone number where there is one, else the id that is scoped to the business (BSUID). A system message about a changed
/// number may have neither.
fn sender(part: &Value) -> Address {
    let ids = [text(part, "from_user_id"), text(&part["system"], "user_id"), text(&part["system"], "previous_user_id")];
    person(text(part, "from"), ids.into_iter().flatten().next()).unwrap_or_else(|| Address::tagged("unknown", ""))
}

/// Somebody at WhatsApp, by number or else by id.
fn person(number: Option<&str>, id: Option<&str>) -> Option<Address> {
    let phone = number.and_then(Address::international);
    phone.or_else(|| id.or(number).map(|id| Address::tagged("bsuid", id)))
}

fn holds_messages(value: &Value) -> bool {
    ["messages", "statuses"].into_iter().any(|name| value.get(name).is_some_and(Value::is_array))
}

/// One change: messages and statuses of a number, or something about the account.
fn read_change(reader: &mut Reader<'_>, entry: &Value, change: &Value) {
    let value = &change["value"];
    let field = text(change, "field").unwrap_or(if holds_messages(value) { "messages" } else { "unknown" });
    let before = reader.count;
    let line = Line::new(reader.source, entry, value, reader.now);
    match field {
        "messages" => read_messages(reader, &line, value),
        // Another app answers, and this one listens: what customers write there is said to the business all the same.
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
        // Account events have no number and no id of their own: the whole change says which it is.
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
