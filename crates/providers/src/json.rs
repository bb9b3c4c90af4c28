//! Tolerant parsing of providers' JSON: invalid characters in texts are replaced, numbers may be
//! texts and texts numbers, and missing members are absent.

use std::borrow::Cow;

use memchr::memmem;
use serde_json::{Map, Value};

use super::encoding;

/// The bytes as a JSON value. NUL characters, lone surrogates and invalid UTF-8 become U+FFFD first. After
/// that, only bytes that are not JSON at all are an error.
pub fn read(bytes: &[u8]) -> Result<Value, String> {
    let text = match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(_) => mend_escapes(bytes),
        Cow::Owned(text) => Cow::Owned(mend_escapes(text.as_bytes()).into_owned()),
    };
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let text = &*quote_long_numbers(text);
    let error = match serde_json::from_slice(text) {
        Ok(value) => return Ok(value),
        Err(error) => error.to_string(),
    };
    // One part that is nested too deeply must not affect the other parts.
    let known = without_depths(text).and_then(|text| serde_json::from_slice(&text).ok());
    known.ok_or_else(|| encoding::with_byte_order_mark(bytes, error))
}

/// Digits that every whole number of 64 bits may have.
const DIGITS_SAFE: usize = 18;

/// Puts whole numbers of more than 64 bits into quotes, because a parser would lose digits: two ids that
/// differ in the last digit would be equal. Code that expects a text accepts numbers and texts alike.
fn quote_long_numbers(text: &[u8]) -> Cow<'_, [u8]> {
    let (mut out, mut copied) = (Vec::new(), 0);
    let (mut at, mut in_text) = (0, false);
    while at < text.len() {
        match text[at] {
            b'\\' if in_text => at += 1,
            b'"' => in_text = !in_text,
            b'-' | b'0'..=b'9' if !in_text => {
                let is_of_number = |byte: &&u8| matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E' | b'0'..=b'9');
                let number = &text[at..at + text[at..].iter().take_while(is_of_number).count()];
                let digits = number.strip_prefix(b"-").unwrap_or(number);
                // Anything that is not a valid JSON number stays unchanged, which is an error.
                let is_whole = digits.iter().all(u8::is_ascii_digit) && digits.first() != Some(&b'0');
                if is_whole && digits.len() > DIGITS_SAFE && !fits(number) {
                    out.extend_from_slice(&text[copied..at]);
                    out.extend([b"\"", number, b"\""].concat());
                    copied = at + number.len();
                }
                at += number.len() - 1;
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return text.into();
    }
    out.extend_from_slice(&text[copied..]);
    out.into()
}

/// Whether a whole number has at most 64 bits.
fn fits(number: &[u8]) -> bool {
    std::str::from_utf8(number).is_ok_and(|number| number.parse::<u64>().is_ok() || number.parse::<i64>().is_ok())
}

/// Maximum nesting that is read, below the parser's limit (128): stored parts are put into other objects later.
const DEPTH_MAX: usize = 100;

/// The same text with `null` for parts that are nested too deeply; none if there are no such parts.
fn without_depths(text: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut depth, mut cut) = (Vec::with_capacity(text.len()), 0usize, false);
    let (mut in_text, mut escaped) = (false, false);
    for byte in text {
        let skipped = depth > DEPTH_MAX;
        match byte {
            _ if in_text => {
                in_text = escaped || *byte != b'"';
                escaped = !escaped && *byte == b'\\';
            }
            b'"' => in_text = true,
            b'[' | b'{' => {
                depth += 1;
                if depth == DEPTH_MAX + 1 {
                    out.extend_from_slice(b"null");
                    cut = true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if !skipped && depth <= DEPTH_MAX {
            out.push(*byte);
        }
    }
    cut.then_some(out)
}

/// Replaces the escapes of NUL and of lone surrogates by the escape of U+FFFD, which has the same length.
fn mend_escapes(text: &[u8]) -> Cow<'_, [u8]> {
    let mut mended = Cow::Borrowed(text);
    let mut from = 0;
    while let Some(found) = memmem::find(&text[from..], b"\\u") {
        let at = from + found;
        // After an even number of backslashes this is an escape; otherwise the backslash itself is escaped.
        let backslashes = text[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        from = at + 2;
        if backslashes % 2 == 1 {
            continue;
        }
        let unit = code_unit(text, at);
        let pair_follows = || code_unit(text, at + 6).is_some_and(|low| (0xDC00..0xE000).contains(&low));
        match unit {
            Some(0xD800..0xDC00) if pair_follows() => from = at + 12,
            Some(0 | 0xD800..0xE000) => mended.to_mut()[at + 2..at + 6].copy_from_slice(b"fffd"),
            _ => {}
        }
    }
    mended
}

/// The code unit that the escape at this position encodes, if there is an escape.
fn code_unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// A member that is a non-empty text: several providers send empty texts for unknown values.
pub fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// The same, owned.
pub fn owned(value: &Value, name: &str) -> Option<String> {
    text(value, name).map(str::to_owned)
}

/// A member that is a text or a number, as text: ids may be either.
pub fn scalar(value: &Value, name: &str) -> Option<String> {
    as_scalar(value.get(name)?)
}

/// A value that is a text or a number, as text.
pub fn as_scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A value as text: a text unchanged, even if empty; a number with all its digits; `true` or `false`. None for null,
/// lists and objects.
pub fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(word) => Some(word.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The elements of a member that is a list; none if it is anything else.
pub fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The members of an object, without those that are null.
pub fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null())
}

/// The non-empty members of an object that are not among those that were read.
pub fn others(value: &Value, read: &[&str]) -> Map<String, Value> {
    members(value)
        .filter(|(name, value)| !read.contains(&name.as_str()) && !is_empty(value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Whether a value is empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_that_no_store_can_hold_are_mended() {
        let cases = [
            (r#""a\u0000b""#, "a\u{fffd}b"),
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""\ud83d x""#, "\u{fffd} x"),
            (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
            (r#""\uD83D\uDE00""#, "😀"),
            (r#""\\u0000""#, r"\u0000"),
            (r#""\\\u0000""#, "\\\u{fffd}"),
            (r#""\\\\u0000\u0000""#, "\\\\u0000\u{fffd}"),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text.as_bytes()), Ok(json!(expected)), "{text}");
        }
        assert_eq!(read(b"\"\xe9\""), Ok(json!("\u{fffd}")), "broken UTF-8");
        assert_eq!(read(b"\xef\xbb\xbf{}"), Ok(json!({})), "a byte order mark");
        assert!(read(b"\xff\xfe{\0}\0").unwrap_err().contains("byte order mark of UTF-16"));
        for bad in ["", "{", r#""\u00""#, r#""\u""#, "{} x"] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_nested_too_deeply_is_left_out_and_its_neighbours_stay() {
        let deep = |count: usize| format!("{}1{}", "[".repeat(count), "]".repeat(count));
        let wide = |inner: &str| read(format!(r#"{{"a":[{inner},"]}}\"[",{{"b":2}}],"c":3}}"#).as_bytes());
        let neighbours = json!(["]}\"[", {"b": 2}]);
        for count in [97, 98, 99, 130, 100_000] {
            let value = wide(&deep(count)).unwrap();
            assert_eq!(value["a"].as_array().unwrap()[1..], neighbours.as_array().unwrap()[..], "{count}");
            assert_eq!(value["c"], 3, "{count}");
        }
        let objects = format!("{}1{}", r#"{"x\\":"#.repeat(200), "}".repeat(200));
        assert_eq!(wide(&objects).unwrap()["c"], 3);
        assert_eq!(
            wide(&deep(98)),
            serde_json::from_str(&format!(r#"{{"a":[{},"]}}\"[",{{"b":2}}],"c":3}}"#, deep(98)))
                .map_err(|_| String::new())
        );
        assert!(read("[".repeat(1000).as_bytes()).unwrap_err().contains("recursion"), "it never ends");
    }

    #[test]
    fn no_digit_of_a_number_is_lost() {
        let long = "123456789012345678901234567890";
        let cases = [
            (format!("[{long},-99999999999999999999]"), json!([long, "-99999999999999999999"])),
            (r#"{"1":18446744073709551616}"#.to_owned(), json!({"1": "18446744073709551616"})),
            (format!("[{},-1,0,1.5,1e3]", u64::MAX), json!([u64::MAX, -1, 0, 1.5, 1000.0])),
            (format!("[{}]", i64::MIN), json!([i64::MIN])),
            (format!(r#""a\\\"{long}""#), json!(format!("a\\\"{long}"))),
            (format!(r#"["\\",{long}]"#), json!(["\\", long])),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text.as_bytes()), Ok(expected), "{text}");
        }
        for bad in ["01234567890123456789012", "[12345678901234567890-1]", "-", "12345678901234567890x"] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scalar_is_a_text_whatever_its_type() {
        let cases = [
            (json!("a"), Some("a")),
            (json!(""), Some("")),
            (json!(123_456), Some("123456")),
            (json!(-1.5), Some("-1.5")),
            (json!(true), Some("true")),
            (json!(null), None),
            (json!([1]), None),
            (json!({}), None),
        ];
        for (value, expected) in cases {
            assert_eq!(scalar_text(&value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn members_are_read_as_what_they_may_be() {
        let value = json!({"a": "x", "empty": "", "n": 9_007_199_254_740_993u64, "list": [1], "null": null});
        assert_eq!((text(&value, "a"), text(&value, "empty"), text(&value, "n")), (Some("x"), None, None));
        assert_eq!(scalar(&value, "n").as_deref(), Some("9007199254740993"), "no digit is lost");
        assert_eq!((list(&value, "list").len(), list(&value, "a").len(), list(&value, "none").len()), (1, 0, 0));
        assert_eq!(members(&value).count(), 4);
        assert_eq!(Value::Object(others(&value, &["a", "n", "list"])), json!({}));
        let value = json!({"zero": 0, "no": false, "list": [], "object": {}, "null": null, "text": "", "read": 1});
        assert_eq!(Value::Object(others(&value, &["read"])), json!({"zero": 0, "no": false}));
    }

    proptest::proptest! {
        #[test]
        fn what_serde_reads_by_itself_is_read_the_same(text in "[\\\\\"u0d8cefg ]{0,24}") {
            let quoted = format!("\"{text}\"");
            if let Ok(value) = serde_json::from_str::<Value>(&quoted)
                && !value.as_str().unwrap_or_default().contains('\0')
            {
                proptest::prop_assert_eq!(read(quoted.as_bytes()), Ok(value));
            }
            let _ = read(text.as_bytes());
        }
    }
}
