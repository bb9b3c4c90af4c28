//! Any provider that signs by a rule and sends JSON or a form: the configuration names the fields of a message.

use serde_json::Value;

use super::element::{self, Content, ELEMENTS_MAX, kind_of_media};
use super::header::form;
use super::json::{as_scalar, scalar_text, text};
use super::mapping::{Mapping, NOTHING_MAPPED};
use super::rule::Text;
use super::{InvalidBody, Parse, Parsed, Scheme, Source, VerifiedBody};
use domain::{Address, Kind, Media, Moment, NewMessage};

/// The row of `SCHEMES`.
pub const SCHEME: Scheme =
    Scheme { kind: "generic", title: "Any provider, by configuration", parse: Parse::Bytes(parse), ..Scheme::BASE };

fn parse(source: &Source, body: &VerifiedBody, now: Moment) -> Result<Parsed, InvalidBody> {
    Ok(parse_mapped(source, source.options.mapping.as_ref().unwrap_or(&NOTHING_MAPPED), body, now))
}

/// Parses a body by a mapping. A body that is not a message becomes an event.
pub fn parse_mapped(source: &Source, mapping: &Mapping, body: &VerifiedBody, now: Moment) -> Parsed {
    let whole = match mapping.is_form {
        true => Ok(form_as_object(body.as_bytes())),
        false => element::read_json(source, body, now),
    };
    let whole = match whole {
        Ok(whole) => whole,
        Err(unreadable) => return *unreadable,
    };
    let mut parsed = Parsed::default();
    let parts = match &mapping.messages {
        None => std::slice::from_ref(&whole),
        Some(pointer) => whole.pointer(pointer).and_then(Value::as_array).map_or(&[][..], Vec::as_slice),
    };
    for part in parts.iter().take(ELEMENTS_MAX) {
        match read_part(source, mapping, &whole, part, now) {
            Some(message) => parsed.intake.messages.push(message),
            None => parsed.intake.events.push(element::event(source, event_kind(part), None, part, now)),
        }
    }
    parsed.is_cut = parts.len() > ELEMENTS_MAX;
    if parsed.intake.is_empty() {
        parsed.intake.events.push(element::event(source, event_kind(&whole), None, &whole, now));
    }
    parsed
}

/// A form's parameters as members of one object. The last value of a repeated parameter counts.
fn form_as_object(body: &[u8]) -> Value {
    form(body).into_iter().map(|(name, value)| (name.into_owned(), Value::from(value.into_owned()))).collect()
}

/// Most providers name the type of an event in one of these members.
fn event_kind(part: &Value) -> &str {
    ["type", "event", "event_type", "kind"].iter().find_map(|name| text(part, name)).unwrap_or("event")
}

fn read_part(source: &Source, mapping: &Mapping, whole: &Value, part: &Value, now: Moment) -> Option<NewMessage> {
    let at = |pointer: &Option<Text>| part.pointer(pointer.as_ref()?).filter(|value| !value.is_null());
    let scalar = |pointer: &Option<Text>| at(pointer).and_then(as_scalar);
    if mapping.when.is_some() && at(&mapping.when).and_then(scalar_text).as_deref() != mapping.equals.as_deref() {
        return None;
    }
    let (id, from) = (scalar(&mapping.id)?, scalar(&mapping.from)?);
    let account = mapping.account.as_ref().and_then(|pointer| whole.pointer(pointer)).and_then(as_scalar);
    let provider_kind = scalar(&mapping.kind).unwrap_or_default();
    let media: Vec<Media> = media(at(&mapping.media_url), at(&mapping.media_type));
    let said = at(&mapping.text).and_then(scalar_text);
    let kind = match (Kind::named(&provider_kind), media.first()) {
        (Some(kind), _) => kind,
        (None, Some(first)) => kind_of_media(first.mime_type.as_deref().unwrap_or_default()),
        (None, None) if said.is_some() => Kind::Text,
        (None, None) => Kind::Unknown,
    };
    let account = account.unwrap_or_else(|| source.account().to_owned());
    let mut details = element::details(source, &account, &id, kind, &provider_kind);
    details.media = media;
    details.reply_to = scalar(&mapping.reply_to);
    details.profile_name = scalar(&mapping.profile_name);
    details.group = scalar(&mapping.group);
    // A structured value is kept whole where a single value was expected.
    let places = [
        ("to", &mapping.to),
        ("text", &mapping.text),
        ("kind", &mapping.kind),
        ("reply_to", &mapping.reply_to),
        ("profile_name", &mapping.profile_name),
        ("group", &mapping.group),
    ];
    for (name, pointer) in places {
        if let Some(value) = at(pointer).filter(|value| value.is_array() || value.is_object()) {
            details.extra.insert(name.to_owned(), value.clone());
        }
    }
    let to = scalar(&mapping.to)
        .or_else(|| whole.pointer(mapping.to.as_ref()?).and_then(as_scalar))
        .map(|to| Address::read(&to))
        .or_else(|| source.options.to.clone())
        .unwrap_or_else(|| Address::tagged("account", &account));
    let content = Content { key_id: &id, from: Address::read(&from), to, time: at(&mapping.time), text: said };
    Some(element::message(details, content, now))
}

/// One file, or a list of them.
fn media(url: Option<&Value>, mime_type: Option<&Value>) -> Vec<Media> {
    let one = |url: &Value| Media {
        url: as_scalar(url).or_else(|| text(url, "url").map(str::to_owned)),
        mime_type: mime_type.and_then(as_scalar).or_else(|| text(url, "content_type").map(str::to_owned)),
        ..Media::default()
    };
    match url {
        None => Vec::new(),
        Some(Value::Array(urls)) => urls.iter().map(one).collect(),
        Some(url) => vec![one(url)],
    }
}
