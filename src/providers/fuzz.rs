//! What fuzz targets and tests feed to every protocol at once.

use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::{BadSignature, Key, Request, SCHEMES, Scheme, Source};
use crate::domain::address::ADDRESS_CHARACTERS_MAX;
use crate::domain::message::MESSAGE_ID_BYTES_MAX;
use crate::domain::{Moment, Secret};

/// A door of a protocol with a secret that everybody may know.
pub fn door(scheme: &'static Scheme) -> Source {
    let secret = Secret::new("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("not empty");
    let mut source = Source::new(scheme.kind, scheme, vec![Key::new("fuzzing", secret.clone())]);
    source.options.base_url = Some("https://hooks.example.com".to_owned());
    source.options.verify_token = Some(secret);
    source
}

/// The first byte chooses a protocol, the rest is a body: whatever it is, reading it ends without a panic, and what comes out
/// keeps the promises of the types.
pub fn fuzz_parse(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    let source = door(&SCHEMES[usize::from(*choice) % SCHEMES.len()]);
    let body = source.reopen(body.to_vec(), vec![("webhook-id".to_owned(), "msg_1".to_owned())]);
    let Ok(parsed) = source.parse(&body, Moment::from_microseconds(0)) else {
        assert!(!source.keeps_payload(), "only the original format refuses content");
        return;
    };
    assert!(!source.keeps_payload() || parsed.payload.is_some(), "the raw body stays");
    assert!(!parsed.is_empty() || parsed.challenge.is_some(), "nothing is dropped");
    for message in &parsed.messages {
        assert!((1..=MESSAGE_ID_BYTES_MAX).contains(&message.id.as_str().len()));
        for address in [&message.from, &message.to] {
            assert!(address.as_str().chars().count() <= ADDRESS_CHARACTERS_MAX);
        }
        let clean = message.text.as_ref().is_none_or(|text| !text.contains('\0'));
        assert!(clean || !source.keeps_payload());
    }
}

/// The first byte chooses a protocol, the first line is a signature, the rest a body: only what the provider itself would have
/// sent is believed.
pub fn fuzz_verify(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let source = door(&SCHEMES[usize::from(*choice) % SCHEMES.len()]);
    let Some(rule) = source.rule() else { return };
    let (value, body) = rest.split_at(rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()));
    let now = Moment::from_microseconds(1_736_935_200_000_000);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let request = Request { headers: &headers, body, base_url: None, target: "/webhook/x" };
    let Some(mut signed) = source.sign(&request, "msg_1", now) else { return };
    let right = signed.get(rule.header.as_ref()).cloned();
    let Ok(value) = HeaderValue::from_bytes(value) else { return };
    signed.insert(hyper::header::HeaderName::try_from(rule.header.as_ref()).expect("a name"), value.clone());
    let request = Request { headers: &signed, ..request };
    let verdict = source.verify(&request, body.to_vec().into(), now);
    if verdict.is_ok() {
        let right = right.expect("it was signed");
        let (right, value) = (right.as_bytes(), value.as_bytes());
        // A list may hold other signatures beside the right one, and their order does not matter.
        assert!(right == value || rule.list.is_some() || rule.prefix_optional, "{:?}", source.scheme.kind);
    } else {
        assert!(!matches!(verdict, Err(BadSignature::MissingHeader | BadSignature::DuplicateHeader)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::element::ELEMENTS_MAX;
    use crate::providers::generic::{Mapping, NOTHING_MAPPED};

    #[test]
    fn a_body_of_tiny_parts_does_not_fill_the_memory_and_says_so() {
        let parts = "{},".repeat(ELEMENTS_MAX + 50);
        let parts = parts.trim_end_matches(',');
        let change =
            format!(r#"{{"field":"messages","value":{{"metadata":{{"phone_number_id":"1"}},"messages":[{parts}]}}}}"#);
        let bodies = [
            ("whatsapp", format!(r#"{{"entry":[{{"changes":[{change},{change}]}}]}}"#)),
            ("whatsapp", format!(r#"{{"entry":[{{"changes":[{parts}]}}]}}"#)),
            ("line", format!(r#"{{"events":[{parts}]}}"#)),
            ("evolution", format!(r#"{{"event":"messages.upsert","data":[{parts}]}}"#)),
            ("generic", format!(r#"{{"list":[{parts}]}}"#)),
        ];
        for (kind, body) in bodies {
            let mut source = door(Scheme::find(kind).unwrap());
            source.options.mapping = Some(Mapping { messages: Some("/list".into()), ..NOTHING_MAPPED });
            let parsed = source.parse(&source.reopen(body.into(), Vec::new()), Moment::from_microseconds(0)).unwrap();
            assert_eq!(parsed.len(), ELEMENTS_MAX + 1, "{kind}");
            let told = parsed.events.iter().filter(|event| event.body.as_ref().unwrap().contains("more than 10000"));
            assert_eq!(told.count(), 1, "{kind}");
        }
    }
}
