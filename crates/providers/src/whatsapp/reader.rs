//! Common code for the parts of Meta's envelope: the body during parsing, the number that a part is about,
//! and people.

use serde_json::Value;

use super::content;
use crate::element;
use crate::element::{Content, ELEMENTS_MAX};
use crate::json::{list, owned, scalar, text};
use crate::{Parsed, Source};
use domain::Moment;
use domain::{Address, NewMessage};

/// The part of a body that was parsed so far.
pub(super) struct Reader<'a> {
    pub source: &'a Source,
    pub now: Moment,
    pub parsed: Parsed,
    /// Number of elements. Those beyond the limit of a body are left out.
    pub count: usize,
}

impl Reader<'_> {
    /// Counts one more element; returns whether it is stored.
    pub fn has_room(&mut self) -> bool {
        self.count += 1;
        self.parsed.intake.len() < ELEMENTS_MAX
    }

    pub fn event(&mut self, kind: &str, part: &Value) {
        self.parsed.intake.events.push(element::event(self.source, kind, None, part, self.now));
    }

    /// A record that may repeat with the same content. Another number or another time makes it a new record.
    pub fn occurrence(&mut self, line: &Line<'_>, kind: &str, part: &Value) {
        let occurred = format!("{}:{}", line.number, line.time);
        let event = element::occurrence_event(self.source, kind, None, &occurred, part, self.now);
        self.parsed.intake.events.push(event);
    }

    pub fn unreadable(&mut self, why: &str, part: &Value) {
        self.parsed.intake.events.push(element::unreadable(self.source, why, part, self.now));
    }

    /// A message that does not belong in the inbox, because the business sent it, or because it is history.
    pub fn event_with_message(&mut self, kind: &str, message: Option<NewMessage>, part: &Value) {
        match message {
            Some(message) => {
                let event = element::event_with_message(self.source, kind, message, part, self.now);
                self.parsed.intake.events.push(event);
            }
            None => self.unreadable("a message without an id", part),
        }
    }
}

/// A number of the business, and its contacts.
pub(super) struct Line<'a> {
    pub source: &'a Source,
    pub metadata: &'a Value,
    pub contacts: &'a [Value],
    pub number: String,
    /// When Meta sent the entry; empty if it is absent.
    pub time: String,
    pub now: Moment,
}

impl<'a> Line<'a> {
    /// Meta always names the number; if a relay leaves it out, the business account replaces it, so that its messages
    /// are stored.
    pub fn new(source: &'a Source, entry: &Value, value: &'a Value, now: Moment) -> Self {
        let metadata = &value["metadata"];
        let number = scalar(metadata, "phone_number_id").or_else(|| scalar(entry, "id"));
        let contacts = list(if value["standby"].is_object() { &value["standby"] } else { value }, "contacts");
        let number = number.unwrap_or_else(|| source.account().to_owned());
        let time = scalar(entry, "time").unwrap_or_default();
        Self { source, metadata, contacts, number, time, now }
    }

    /// The business's displayed number; if that is not a number, its id.
    pub fn address(&self) -> Address {
        let displayed = text(self.metadata, "display_phone_number").and_then(Address::international);
        let tag = if scalar(self.metadata, "phone_number_id").is_some() { "phone_number_id" } else { "account" };
        displayed.or_else(|| self.source.options.to.clone()).unwrap_or_else(|| Address::tagged(tag, &self.number))
    }

    /// A message of a customer.
    pub fn received(&self, part: &Value) -> Option<NewMessage> {
        self.message(part, sender(part), self.address(), &[])
    }

    /// A message between these two addresses; `told` has the context.
    pub fn message(&self, part: &Value, from: Address, to: Address, told: &[(&str, Value)]) -> Option<NewMessage> {
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

    /// The contacts are separate from the messages, in any order. Ids connect them.
    pub fn contact(&self, part: &Value) -> Option<&'a Value> {
        let same = |contact: &Value, name: &str, own: &str| {
            text(contact, name).is_some_and(|id| text(part, own).is_some_and(|from| from == id))
        };
        self.contacts.iter().find(|contact| same(contact, "user_id", "from_user_id") || same(contact, "wa_id", "from"))
    }
}

/// The phone number, else the id that is scoped to the business (BSUID). A system message about a changed
/// number may have neither.
pub(super) fn sender(part: &Value) -> Address {
    let ids = [text(part, "from_user_id"), text(&part["system"], "user_id"), text(&part["system"], "previous_user_id")];
    person(text(part, "from"), ids.into_iter().flatten().next()).unwrap_or_else(|| Address::tagged("unknown", ""))
}

/// A person at WhatsApp, by number or else by id.
pub(super) fn person(number: Option<&str>, id: Option<&str>) -> Option<Address> {
    let phone = number.and_then(Address::international);
    phone.or_else(|| id.or(number).map(|id| Address::tagged("bsuid", id)))
}
