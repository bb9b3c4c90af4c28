//! The original source: one JSON message per request, signed by `X-Signature`, 422 if it violates the contract.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::element::message_key;
use super::hex_header::verify_hex_header;
use super::signature::BadSignature;
use super::{InvalidBody, Parse, Parsed, Request, Rule, Scheme, Source, VerifiedBody};
use crate::algorithm::Algorithm;
use crate::encoding;
use crate::encoding::Encoding;
use domain::invalid::Place;
use domain::message::check_text;
use domain::{Address, FieldError, Intake, Invalid, MessageId, Moment, NewMessage, ORIGINAL_SOURCE, Timestamp};

/// The header with the signature.
pub const SIGNATURE_HEADER: &str = "x-signature";

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: ORIGINAL_SOURCE,
    title: "Postroom's own format",
    rule: Some(Rule::of_body(SIGNATURE_HEADER, "", Algorithm::HmacSha256, Encoding::Hex)),
    verify,
    parse: Parse::Bytes(parse),
    ..Scheme::BASE
};

fn verify(source: &Source, request: &Request<'_>, _: Moment) -> Result<usize, BadSignature> {
    verify_hex_header(request.headers, SIGNATURE_HEADER, request.body, &source.keys)
}

fn parse(source: &Source, body: &VerifiedBody, now: Moment) -> Result<Parsed, InvalidBody> {
    let mut message = parse_message(body.as_bytes(), now)?;
    // Only the original source stores ids as they were sent; other sources make them unique by account.
    if source.name != SCHEME.kind {
        message.id = message_key(SCHEME.kind, source.account(), message.id.as_str());
    }
    Ok(Intake { messages: vec![message], ..Intake::default() }.into())
}

/// Parses one message. All invalid fields are reported at once, in field order.
fn parse_message(body: &[u8], now: Moment) -> Result<NewMessage, InvalidBody> {
    let refuse =
        |place, invalid, input| InvalidBody { errors: vec![FieldError { place, invalid, input }], message_id: None };
    if body.is_empty() {
        return Err(refuse(Place::Body, Invalid::Missing, Value::Null));
    }
    let fields = match serde_json::from_slice(body) {
        Ok(Shape::Object(fields)) => fields,
        Ok(Shape::Other) => return Err(refuse(Place::Body, Invalid::NotAnObject, as_value(body))),
        Err(error) => {
            let why = encoding::with_byte_order_mark(body, error.to_string());
            return Err(refuse(Place::Body, Invalid::NotJson(why), Value::Object(Default::default())));
        }
    };
    let id = fields.message_id.required().and_then(MessageId::parse);
    let from = fields.from.required().and_then(Address::phone);
    let to = fields.to.required().and_then(Address::phone);
    let ts = fields.ts.required().and_then(Timestamp::parse);
    let text = fields.text.optional().and_then(|text| text.map(check_text).transpose());
    match (id, from, to, ts, text) {
        (Ok(id), Ok(from), Ok(to), Ok(ts), Ok(_)) => {
            let text = fields.text.into_text();
            Ok(NewMessage { id, from, to, ts, text, accepted_at: now, details: None, former_id: None })
        }
        (id, from, to, ts, text) => {
            // Only a refusal needs a second parse, which keeps the refused values for the response.
            let whole = as_value(body);
            let known_id = id.as_ref().ok().cloned();
            let errors = [
                ("message_id", id.err()),
                ("from", from.err()),
                ("to", to.err()),
                ("ts", ts.err()),
                ("text", text.err()),
            ];
            let errors = errors.into_iter().filter_map(|(name, error)| {
                let input = || whole.get(name).unwrap_or(&whole).clone();
                error.map(|invalid| FieldError { place: Place::BodyField(name), invalid, input: input() })
            });
            Err(InvalidBody { errors: errors.collect(), message_id: known_id })
        }
    }
}

fn as_value(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or(Value::Null)
}

/// A JSON body: an object, of which five fields matter, or something else.
enum Shape<'a> {
    Object(Fields<'a>),
    Other,
}

/// The five fields as received, borrowed from the body if they contain no escapes.
#[derive(Default)]
struct Fields<'a> {
    message_id: Field<'a>,
    from: Field<'a>,
    to: Field<'a>,
    ts: Field<'a>,
    text: Field<'a>,
}

#[derive(Default)]
enum Field<'a> {
    #[default]
    Absent,
    Null,
    Text(Cow<'a, str>),
    Other,
}

impl<'a> Field<'a> {
    fn required(&self) -> Result<&str, Invalid> {
        match self {
            Field::Absent => Err(Invalid::Missing),
            Field::Null | Field::Other => Err(Invalid::NotAString),
            Field::Text(text) => Ok(text),
        }
    }

    fn optional(&self) -> Result<Option<&str>, Invalid> {
        match self {
            Field::Absent | Field::Null => Ok(None),
            Field::Other => Err(Invalid::NotAString),
            Field::Text(text) => Ok(Some(text)),
        }
    }

    fn into_text(self) -> Option<String> {
        match self {
            Field::Text(text) => Some(text.into_owned()),
            _ => None,
        }
    }
}

/// Parses any JSON value through `deserialize_any`, which decodes every string and counts every level, so that a broken
/// escape or excessive nesting is an error in ignored places too (`IgnoredAny` alone would skip over both).
macro_rules! read_any_json {
    ($value:ty, other: $other:expr) => {
        type Value = $value;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("any JSON value")
        }

        fn visit_bool<E: Error>(self, _: bool) -> Result<$value, E> {
            Ok($other)
        }

        fn visit_i64<E: Error>(self, _: i64) -> Result<$value, E> {
            Ok($other)
        }

        fn visit_u64<E: Error>(self, _: u64) -> Result<$value, E> {
            Ok($other)
        }

        fn visit_f64<E: Error>(self, _: f64) -> Result<$value, E> {
            Ok($other)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<$value, A::Error> {
            while seq.next_element::<Field>()?.is_some() {}
            Ok($other)
        }
    };
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    read_any_json!(Shape<'de>, other: Shape::Other);

    fn visit_unit<E: Error>(self) -> Result<Shape<'de>, E> {
        Ok(Shape::Other)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Shape<'de>, E> {
        Ok(Shape::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape<'de>, A::Error> {
        let mut fields = Fields::default();
        while let Some(Key(key)) = map.next_key()? {
            let value: Field = map.next_value()?;
            match key.as_ref() {
                "message_id" => fields.message_id = value,
                "from" => fields.from = value,
                "to" => fields.to = value,
                "ts" => fields.ts = value,
                "text" => fields.text = value,
                _ => {}
            }
        }
        Ok(Shape::Object(fields))
    }
}

impl<'de> Deserialize<'de> for Shape<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    read_any_json!(Field<'de>, other: Field::Other);

    fn visit_unit<E: Error>(self) -> Result<Field<'de>, E> {
        Ok(Field::Null)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Field<'de>, E> {
        Ok(Field::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Field<'de>, E> {
        Ok(Field::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field<'de>, A::Error> {
        while map.next_entry::<Key, Field>()?.is_some() {}
        Ok(Field::Other)
    }
}

impl<'de> Deserialize<'de> for Field<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

/// A key of an object, borrowed if it contains no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E: Error>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// Passes any bytes to the parser, as a fuzz target does. It must neither panic nor accept invalid content.
pub fn fuzz_parse(body: &[u8]) {
    match parse_message(body, Moment::from_microseconds(0)) {
        Ok(message) => {
            let whole: Value = serde_json::from_slice(body).expect("what was accepted is JSON");
            assert_eq!(whole["message_id"], message.id.as_str());
            assert_eq!(whole["from"], message.from.as_str());
            assert_eq!(whole["to"], message.to.as_str());
            assert_eq!(whole["ts"], message.ts.as_str());
            assert_eq!(whole.get("text").and_then(Value::as_str), message.text.as_deref());
        }
        Err(refusal) => assert!(!refusal.errors.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const GOOD: &str =
        r#"{"message_id":"m1","from":"+919876543210","to":"+14155550100","ts":"2025-01-15T10:00:00Z","text":"Hello"}"#;

    fn read(body: &str) -> Result<NewMessage, InvalidBody> {
        parse_message(body.as_bytes(), Moment::from_microseconds(0))
    }

    fn errors(body: &str) -> Vec<FieldError> {
        read(body).unwrap_err().errors
    }

    fn with(name: &str, value: Value) -> String {
        let mut body: Value = serde_json::from_str(GOOD).unwrap();
        body[name] = value;
        body.to_string()
    }

    #[test]
    fn a_message_is_read_with_its_escapes_and_the_last_of_doubled_keys() {
        let message = read(GOOD).unwrap();
        assert_eq!((message.id.as_str(), message.text.as_deref()), ("m1", Some("Hello")));
        let body = GOOD.replace("Hello", r"a\u00e9\n\ud83d\ude00");
        assert_eq!(read(&body).unwrap().text.as_deref(), Some("aé\n😀"));
        let body = GOOD.replace("\"text\"", "\"text\":1,\"te\\u0078t\"");
        assert_eq!(read(&body).unwrap().text.as_deref(), Some("Hello"));
        assert_eq!(read(&with("text", Value::Null)).unwrap().text, None);
        assert_eq!(read(&with("text", json!(""))).unwrap().text.as_deref(), Some(""));
        assert_eq!(read(&with("text", json!("a\0b"))).unwrap().text.as_deref(), Some("a\0b"));
        assert!(read(&with("other", json!({"deep": [1, 2.5, -3, true, null, "x"]}))).is_ok());
    }

    #[test]
    fn all_wrong_fields_are_told_in_field_order() {
        let refusal = read(r#"{"text":5,"ts":"x","to":null,"From":"+1"}"#).unwrap_err();
        let told: Vec<_> = refusal.errors.iter().map(|error| (error.place, error.invalid.clone())).collect();
        assert_eq!(
            told,
            [
                (Place::BodyField("message_id"), Invalid::Missing),
                (Place::BodyField("from"), Invalid::Missing),
                (Place::BodyField("to"), Invalid::NotAString),
                (Place::BodyField("ts"), Invalid::Rule("timestamp must be ISO-8601 UTC with Z suffix")),
                (Place::BodyField("text"), Invalid::NotAString),
            ]
        );
        assert_eq!(refusal.errors[2].input, Value::Null);
        assert_eq!(refusal.errors[1].input["text"], 5);
        assert_eq!(read(&with("ts", json!(1))).unwrap_err().message_id.unwrap().as_str(), "m1");
    }

    #[test]
    fn what_is_not_an_object_is_told_apart_from_what_is_not_json() {
        for other in ["[]", "\"x\"", "1", "-1", "1.5", "true", "null", " [1, {}] "] {
            assert_eq!(errors(other)[0].invalid, Invalid::NotAnObject, "{other}");
        }
        assert_eq!(errors("")[0].invalid, Invalid::Missing);
        let lone = GOOD.replace("Hello", r"\ud83d");
        let ignored = GOOD.replace("\"text\"", r#""other":"\ud83d","text""#);
        for broken in ["{nope", "{", "\u{feff}{}", "{} x", "{\"a\":NaN}", " ", &lone, &ignored] {
            assert!(matches!(errors(broken)[0].invalid, Invalid::NotJson(_)), "{broken}");
        }
        let latin = parse_message(b"{\"text\":\"\xe9\"}", Moment::from_microseconds(0)).unwrap_err();
        assert!(matches!(latin.errors[0].invalid, Invalid::NotJson(_)));
    }

    #[test]
    fn nesting_has_a_floor_everywhere() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let inside = |levels| GOOD.replace("\"text\"", &format!("\"other\":{},\"text\"", nested(levels)));
        assert!(read(&inside(100)).is_ok());
        for broken in [nested(100_000), inside(100_000)] {
            match &errors(&broken)[0].invalid {
                Invalid::NotJson(why) => assert!(why.contains("recursion limit exceeded"), "{why}"),
                other => panic!("{other:?}"),
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            fuzz_parse(&body);
        }
    }
}
