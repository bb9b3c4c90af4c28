//! Removal of secrets that providers write into their bodies, before any part of a body is stored.

use memchr::memchr;

/// Replacement for a secret.
const REDACTED: &[u8] = b"\"[redacted]\"";

/// The bytes with the values of the members in `names` replaced, at any depth and in any escaping; none
/// if nothing was replaced. A value may have any JSON type; `null` stays. Invalid JSON is processed as far as
/// possible: a stored body that cannot be parsed must not contain a secret either.
pub fn redact(bytes: &[u8], names: &[&str]) -> Option<Vec<u8>> {
    if names.is_empty() {
        return None;
    }
    let (mut out, mut copied, mut at) = (Vec::new(), 0, 0);
    while let Some(start) = memchr(b'"', &bytes[at..]).map(|found| at + found) {
        at = string_end(bytes, start);
        let colon = skip_white(bytes, at);
        if bytes.get(colon) != Some(&b':') || !is_one_of(&bytes[start..at], names) {
            continue;
        }
        let value = skip_white(bytes, colon + 1);
        let end = value_end(bytes, value);
        if end > value && &bytes[value..end] != b"null" {
            out.extend_from_slice(&bytes[copied..value]);
            out.extend_from_slice(REDACTED);
            copied = end;
        }
        at = end;
    }
    if copied == 0 {
        return None;
    }
    out.extend_from_slice(&bytes[copied..]);
    Some(out)
}

/// Whether the string literal, with quotes, is one of the names. Undecodable literals are compared unchanged.
fn is_one_of(literal: &[u8], names: &[&str]) -> bool {
    match serde_json::from_slice::<String>(literal) {
        Ok(name) => names.iter().any(|known| name.eq_ignore_ascii_case(known)),
        Err(_) => names.iter().any(|known| literal.to_ascii_lowercase() == format!("\"{known}\"").into_bytes()),
    }
}

/// The position after the string that begins at `start`, or the end of the bytes if it never ends.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
        at += found;
        match bytes[at] {
            b'"' => return at + 1,
            _ => at += 2,
        }
    }
    bytes.len()
}

/// The position after the value that begins at `start`: a string, a whole object or list, or a scalar.
fn value_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' | b',' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            byte if byte.is_ascii_whitespace() && depth == 0 => return at,
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

fn skip_white(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(body: &str) -> Option<String> {
        redact(body.as_bytes(), &["apikey"]).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn the_value_of_the_name_is_replaced_however_it_is_written() {
        let cases = [
            (r#"{"apikey":"s3cret","a":1}"#, r#"{"apikey":"[redacted]","a":1}"#),
            (r#"{"apikey" : "s\"3\\","b":{"apikey":"x"}}"#, r#"{"apikey" : "[redacted]","b":{"apikey":"[redacted]"}}"#),
            (r#"{"api\u006bey":"x"}"#, r#"{"api\u006bey":"[redacted]"}"#),
            (r#"{"\u0061\u0070\u0069key":"x"}"#, r#"{"\u0061\u0070\u0069key":"[redacted]"}"#),
            (r#"{"ApiKey":"x"}"#, r#"{"ApiKey":"[redacted]"}"#),
            (r#"{"apikey":12345,"a":1}"#, r#"{"apikey":"[redacted]","a":1}"#),
            (r#"{"apikey":{"a":"x","b":["}"]},"c":1}"#, r#"{"apikey":"[redacted]","c":1}"#),
            (r#"{"apikey":["x"]}"#, r#"{"apikey":"[redacted]"}"#),
            (r#"{"apikey":"never ends"#, r#"{"apikey":"[redacted]""#),
            (r#"{"apikey":["x","#, r#"{"apikey":"[redacted]""#),
            ("\u{feff}{\"apikey\":\n\t\"x\"\n}", "\u{feff}{\"apikey\":\n\t\"[redacted]\"\n}"),
            (r#"{"a":"apikey","apikey":"x" oops"#, r#"{"a":"apikey","apikey":"[redacted]" oops"#),
        ];
        for (body, expected) in cases {
            assert_eq!(redacted(body).as_deref(), Some(expected), "{body}");
        }
        for same in [
            r#"{"apikey":null}"#,
            r#"{"a":1}"#,
            r#"{"a":"apikey"}"#,
            r#"{"text":"\"apikey\":\"x\""}"#,
            "",
            "\"",
            "\"\\",
        ] {
            assert_eq!(redacted(same), None, "{same}");
        }
        assert_eq!(redact(br#"{"apikey":"x"}"#, &[]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_it_and_what_it_leaves_holds_no_secret(body in "[\\[\\]{}\",:\\\\ apikeyu06b1n]{0,60}") {
            let mut last = body.clone();
            for _ in 0..2 {
                if let Some(next) = redacted(&last) {
                    last = next;
                }
            }
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&last) {
                proptest::prop_assert!(holds_none(&value), "{}", last);
            }
        }
    }

    fn holds_none(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Object(fields) => fields.iter().all(|(name, value)| {
                !name.eq_ignore_ascii_case("apikey") && holds_none(value) || value == "[redacted]" || value.is_null()
            }),
            serde_json::Value::Array(parts) => parts.iter().all(holds_none),
            _ => true,
        }
    }
}
