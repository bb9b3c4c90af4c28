//! Elements from a body: unique keys in the inbox, times, and events for all other records.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::encoding::encode_hex;
use super::json::{as_scalar, read};
use super::{Parsed, Source, VerifiedBody};
use domain::address::TAGS;
use domain::event::UNREADABLE;
use domain::message::MESSAGE_ID_BYTES_MAX;
use domain::{Address, Details, Event, Intake, Kind, MessageId, Moment, NewMessage, Timestamp};

/// Maximum elements of one body that are stored one by one. Meta has the largest batches, of at most 1,000.
/// Beyond this limit only the raw body is kept, so that a body of tiny parts does not fill the memory.
pub const ELEMENTS_MAX: usize = 10_000;

/// The key of a provider's message: `<kind>:<account>:<id>`. The account is the provider's own, so messages
/// of two bots never collide, and a renamed source causes no duplicates. A digest replaces a too long id.
pub fn message_key(kind: &str, account: &str, id: &str) -> MessageId {
    let key = format!("{kind}:{account}:{id}").replace('\0', "\u{fffd}");
    let key = if key.len() > MESSAGE_ID_BYTES_MAX { format!("{kind}:sha256:{}", digest(key.as_bytes())) } else { key };
    MessageId::parse(&key).expect("not empty, not too long, no NUL")
}

fn digest(bytes: &[u8]) -> String {
    encode_hex(&Sha256::digest(bytes))
}

/// Details with only the members that every message has.
pub fn details(source: &Source, account: &str, provider_id: &str, kind: Kind, provider_kind: &str) -> Details {
    Details {
        source: source.name.clone(),
        provider: source.scheme.kind,
        account: account.to_owned(),
        provider_id: provider_id.to_owned(),
        kind,
        provider_kind: provider_kind.to_owned(),
        provider_ts: None,
        reply_to: None,
        profile_name: None,
        person: None,
        group: None,
        media: Vec::new(),
        extra: Map::new(),
    }
}

/// The other parts of a message.
pub struct Content<'a> {
    /// The id in the key: the provider's id, possibly with a suffix.
    pub key_id: &'a str,
    /// The sender.
    pub from: Address,
    /// The recipient.
    pub to: Address,
    /// The provider's time, if it sends one.
    pub time: Option<&'a Value>,
    /// The text.
    pub text: Option<String>,
}

/// A message from its parts. Without a usable time it gets the time of receipt.
pub fn message(mut details: Details, content: Content<'_>, now: Moment) -> NewMessage {
    let ts = content.time.and_then(timestamp);
    match (&ts, content.time.filter(|time| !time.is_null())) {
        (Some(_), given) => details.provider_ts = given.and_then(as_scalar),
        // The time is unusable for comparison, but it is kept in the details.
        (None, Some(given)) => drop(details.extra.insert("unusable_ts".to_owned(), as_given(given))),
        (None, None) => {}
    }
    NewMessage {
        id: message_key(details.provider, &details.account, content.key_id),
        from: content.from,
        to: content.to,
        ts: ts.unwrap_or_else(|| now.to_timestamp()),
        text: content.text.map(|text| text.replace('\0', "\u{fffd}")),
        accepted_at: now,
        details: Some(Box::new(details)),
        former_id: None,
    }
}

/// A time that cannot be used, as text if it is a single value.
fn as_given(value: &Value) -> Value {
    as_scalar(value).map_or_else(|| value.clone(), Value::String)
}

/// An address of a channel without phone numbers: the channel is the tag. The name of an unknown channel is a prefix of
/// the id instead, because tags are a closed set.
pub fn address_of_channel(channel: &str, id: &str) -> Address {
    match TAGS.contains(&channel) {
        true => Address::tagged(channel, id),
        false => Address::tagged("channel", &format!("{channel}:{id}")),
    }
}

/// The kind of file for a media type.
pub fn kind_of_media(mime_type: &str) -> Kind {
    match mime_type.split('/').next().unwrap_or_default() {
        "image" => Kind::Image,
        "video" => Kind::Video,
        "audio" => Kind::Audio,
        _ if mime_type.contains("vcard") => Kind::Contacts,
        _ => Kind::Document,
    }
}

/// A provider's time: seconds or milliseconds since 1970 as number or text, or a date and time (RFC 3339).
pub fn timestamp(value: &Value) -> Option<Timestamp> {
    let number = match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)),
        Value::String(text) => text.parse().ok().or_else(|| text.parse::<f64>().ok().map(|number| number as i64)),
        _ => None,
    };
    match (number, value) {
        // Seconds will have this many digits in the year 5138, milliseconds had them in 1973.
        (Some(number), _) if number.unsigned_abs() >= 100_000_000_000 => {
            Timestamp::from_unix_seconds(number.div_euclid(1000))
        }
        (Some(number), _) => Timestamp::from_unix_seconds(number),
        (None, Value::String(text)) => Moment::parse(text).map(Moment::to_timestamp),
        _ => None,
    }
}

/// A record that is neither a message nor a status. Copies are identified by `id` if the provider sends one,
/// else by their content.
pub fn event(source: &Source, kind: &str, id: Option<&str>, body: &Value, now: Moment) -> Event {
    let text = body.to_string();
    let id = id.map_or_else(|| digest(text.as_bytes()), str::to_owned);
    Event {
        key: message_key(source.scheme.kind, source.account(), &format!("{kind}:{id}")).as_str().to_owned(),
        source: source.name.clone(),
        provider: source.scheme.kind,
        kind: kind.chars().take(64).map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect(),
        body: Some(text),
        message: None,
        accepted_at: now,
    }
}

/// A record that may repeat with the same content, such as an error: copies are identified by the provider's time
/// too.
pub fn occurrence_event(
    source: &Source,
    kind: &str,
    id: Option<&str>,
    occurred: &str,
    body: &Value,
    now: Moment,
) -> Event {
    let id = id.map_or_else(|| digest(body.to_string().as_bytes()), str::to_owned);
    event(source, kind, Some(&format!("{id}@{occurred}")), body, now)
}

/// A record about a message that does not belong in the inbox: sent by the account, edited, or deleted. It
/// has the members of a message. Copies have equal content for one message; two edits of one message differ.
pub fn event_with_message(source: &Source, kind: &str, message: NewMessage, body: &Value, now: Moment) -> Event {
    let said = serde_json::json!([message.text, message.compared_ts().map(|ts| ts.as_str().to_owned())]);
    let key = format!("{}#{kind}:{}", message.id.as_str(), &digest(said.to_string().as_bytes())[..16]);
    Event {
        key: key.replace('\0', "\u{fffd}"),
        message: Some(Box::new(message)),
        ..event(source, kind, None, body, now)
    }
}

/// A message that the account itself sent. Several kinds of events may report it; they count as one event.
pub fn own_message(source: &Source, kind: &str, message: NewMessage, body: &Value, now: Moment) -> Event {
    Event { kind: kind.to_owned(), ..event_with_message(source, "own", message, body, now) }
}

/// A part of a body that should be a message or a status but is not. The other parts are still stored.
pub fn unreadable(source: &Source, why: &str, part: &Value, now: Moment) -> Event {
    event(source, UNREADABLE, None, &serde_json::json!({ "why": why, "part": part }), now)
}

/// The body as JSON, or the result that the parser must return instead.
pub fn read_json(source: &Source, body: &VerifiedBody, now: Moment) -> Result<Value, Box<Parsed>> {
    read(body.as_bytes()).map_err(|why| {
        let events = vec![unreadable_body(source, body.as_bytes(), &why, now)];
        Box::new(Intake { events, ..Intake::default() }.into())
    })
}

/// A body that could not be parsed at all.
pub fn unreadable_body(source: &Source, bytes: &[u8], why: &str, now: Moment) -> Event {
    let id = digest(bytes);
    event(source, UNREADABLE, Some(&id), &serde_json::json!({ "why": why }), now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_unique_and_fit() {
        assert_eq!(message_key("waha", "default", "AB=/+").as_str(), "waha:default:AB=/+");
        let (one, other) = (message_key("x", "a", &"é".repeat(600)), message_key("x", "b", &"é".repeat(600)));
        assert!(one != other && one.as_str().starts_with("x:sha256:"), "{one:?}");
        assert_eq!(message_key("x", "", "a\0b").as_str(), "x::a\u{fffd}b");
    }

    #[test]
    fn a_copy_of_an_event_has_its_key_and_another_one_does_not() {
        let source = Source::new("s", &crate::generic::SCHEME, Vec::new());
        let now = Moment::from_microseconds(0);
        let message = |id: &str, text: &str, time: Option<i64>, now| {
            let (from, to, time) = (Address::read("+4915112345"), Address::read("+1"), time.map(Value::from));
            let content = Content { key_id: id, from, to, time: time.as_ref(), text: Some(text.to_owned()) };
            message(details(&source, "a", id, Kind::Edit, "edit"), content, now)
        };
        let key = |kind: &str, message, now| event_with_message(&source, kind, message, &json!({"at": 1}), now).key;
        let later = Moment::from_microseconds(9_000_000);
        let first = key("edit", message("1", "x", None, now), now);
        assert_eq!(first, key("edit", message("1", "x", None, later), later), "when it came does not count");
        let timed = |time| key("edit", message("1", "x", Some(time), now), now);
        assert_eq!(timed(1_736_935_200), timed(1_736_935_200));
        let others = [
            key("edit", message("1", "y", None, now), now),
            key("edit", message("2", "x", None, now), now),
            key("revoke", message("1", "x", None, now), now),
            timed(1_736_935_200),
            timed(1_736_935_201),
        ];
        for other in &others {
            assert_ne!(&first, other);
        }
        let error = |id, occurred| occurrence_event(&source, "errors", id, occurred, &json!({"code": 1}), now).key;
        assert_eq!(error(None, "1736935200"), error(None, "1736935200"));
        assert_ne!(error(None, "1736935200"), error(None, "1737021600"), "the same error tomorrow");
        assert_ne!(error(Some("1"), "1736935200"), error(Some("2"), "1736935200"));
    }

    #[test]
    fn times_come_in_several_forms() {
        let noon = "2025-01-15T12:00:00Z";
        let forms = [
            json!(1_736_942_400),
            json!("1736942400"),
            json!(1_736_942_400_000i64),
            json!("1736942400999"),
            json!(1_736_942_400.5),
            json!("1736942400.000200"),
            json!("2025-01-15T12:00:00.123Z"),
            json!("2025-01-15T13:00:00+01:00"),
        ];
        for form in forms {
            assert_eq!(timestamp(&form).map(|time| time.as_str().to_owned()).as_deref(), Some(noon), "{form}");
        }
        for bad in
            [json!("soon"), json!(null), json!([]), json!(""), json!(i64::MAX), json!("9".repeat(40)), json!(1e300)]
        {
            assert_eq!(timestamp(&bad), None, "{bad}");
        }
    }
}
