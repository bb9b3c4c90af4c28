//! Input of fuzz targets and tests for each protocol: a body for its parser, and for its verifier a correctly signed
//! request that was changed, or one with an invented signature.

use ed25519_dalek::{Signer, SigningKey};
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use super::algorithm::Algorithm;
use super::encoding::{Encoding, encode_hex};
use super::header::{TimeUnit, sorted_form};
use super::mapping::{Mapping, NOTHING_MAPPED};
use super::rule::{List, Part, Proof, Time, TimePlace};
use super::schemes::SCHEMES;
use super::{Key, Request, Rule, Scheme, SecretForm, Source, VerifiedBody, original, text};
use domain::address::ADDRESS_CHARACTERS_MAX;
use domain::message::MESSAGE_ID_BYTES_MAX;
use domain::payload::{PayloadRow, StoredPayload};
use domain::{Moment, Secret};

/// The time at which every fuzzed request is signed.
const NOW: i64 = 1_736_935_200;
const FORM: &str = "application/x-www-form-urlencoded";

/// A source of a protocol with a public test secret.
pub fn source(scheme: &'static Scheme) -> Source {
    let secret = Secret::new("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("not empty");
    let mut keys = vec![Key::new("fuzzing", secret.clone())];
    if scheme.kind == "telnyx" {
        keys.clear();
    }
    if matches!(scheme.kind, "telnyx" | "standard") {
        let public = Encoding::Base64.encode(signing_key().verifying_key().as_bytes());
        let public = Secret::new(public).expect("not empty");
        keys.push(SecretForm::PublicKey.read("fuzzing", &public).expect("a public key"));
    }
    let mut source = Source::new(scheme.kind, scheme, keys);
    source.options.base_url = Some("https://hooks.example.com".to_owned());
    source.options.verify_tokens = vec![Key::new("fuzzing", secret)];
    if scheme.is_generic() {
        source.options.rule = Some(generic_rule());
        source.options.mapping = Some(GENERIC_MAPPING);
    }
    source
}

fn signing_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// A rule that uses as many features as possible.
fn generic_rule() -> Rule {
    let template = vec![Part::Id, Part::Text(text(".")), Part::Timestamp, Part::Text(text(".")), Part::Body];
    Rule {
        list: Some(List { separator: ',', label: Some(('=', text("v1"))), more_labels: Vec::new() }),
        id_header: Some(text("x-own-id")),
        time: Some(Time { place: TimePlace::Label(text("t")), unit: TimeUnit::Milliseconds, tolerance_seconds: 300 }),
        proof: Proof::Signature {
            algorithm: Algorithm::HmacSha512,
            encoding: Encoding::Hex,
            template: template.into(),
        },
        ..Rule::of_body("x-own-signature", "", Algorithm::HmacSha512, Encoding::Hex)
    }
}

const GENERIC_MAPPING: Mapping = Mapping {
    messages: Some(text("/list")),
    id: Some(text("/id")),
    from: Some(text("/from")),
    to: Some(text("/to")),
    time: Some(text("/time")),
    text: Some(text("/text")),
    kind: Some(text("/kind")),
    account: Some(text("/account")),
    reply_to: Some(text("/reply_to")),
    profile_name: Some(text("/name")),
    group: Some(text("/group")),
    media_url: Some(text("/media")),
    media_type: Some(text("/media_type")),
    ..NOTHING_MAPPED
};

/// A body without a signature, in the form of a stored body.
/// Fuzz targets use it to pass content to the parsers that no provider would sign.
/// Only the parsers and their tests may call it.
pub(super) fn reopened(source: &Source, body: &[u8], headers: Vec<(String, String)>) -> VerifiedBody {
    source.reopen(StoredPayload::read_from_store(PayloadRow {
        number: 0,
        source: source.name.clone(),
        provider: source.scheme.kind.to_owned(),
        bytes: body.to_vec(),
        headers,
        received_at: String::new(),
    }))
}

/// The provider that the first byte selects, and the rest. None for no bytes.
pub fn pick(data: &[u8]) -> Option<(&'static Scheme, &[u8])> {
    let (first, rest) = data.split_first()?;
    Some((&SCHEMES[usize::from(*first) % SCHEMES.len()], rest))
}

/// Parsing never panics, whatever the body is, and its result satisfies the invariants of the types.
pub fn parse(kind: &str, body: &[u8]) {
    let source = source(Scheme::find(kind).expect("a provider of the table"));
    if kind == original::SCHEME.kind {
        original::fuzz_parse(body);
    }
    let kept = source.scheme.kept_headers.iter().map(|name| {
        let is_json = matches!(body.first(), Some(b'{' | b'['));
        let value = match *name == CONTENT_TYPE.as_str() {
            true if is_json => "application/json",
            true => FORM,
            false => "kept",
        };
        ((*name).to_owned(), value.to_owned())
    });
    let body = reopened(&source, body, kept.collect());
    let Ok(parsed) = source.parse(&body, Moment::from_microseconds(0)) else {
        assert!(!source.keeps_payload(), "only the original format refuses content");
        return;
    };
    assert!(!source.keeps_payload() || parsed.intake.payload.is_some(), "the raw body stays");
    assert!(!parsed.intake.is_empty() || parsed.challenge.is_some(), "nothing is dropped");
    let of_events = parsed.intake.events.iter().filter_map(|event| event.message.as_deref());
    for message in parsed.intake.messages.iter().chain(of_events) {
        assert!((1..=MESSAGE_ID_BYTES_MAX).contains(&message.id.as_str().len()));
        for address in [&message.from, &message.to] {
            assert!(address.as_str().chars().count() <= ADDRESS_CHARACTERS_MAX);
        }
        let clean = message.text.as_ref().is_none_or(|text| !text.contains('\0'));
        assert!(clean || !source.keeps_payload());
    }
}

/// The first byte selects a check. A correctly signed request, altered by the next four bytes, is refused. An
/// invented signature (the first line) is refused unless it is correct. The rest is the body.
pub fn verify(kind: &str, data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let source = source(Scheme::find(kind).expect("a provider of the table"));
    match (choice % 2, rest.split_at_checked(4)) {
        (0, Some((how, body))) => alter(&Signed::new(&source, *choice, body), how),
        (0, None) => {}
        _ => {
            let (value, body) = rest.split_at(rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()));
            make_up(&Signed::new(&source, *choice, body), value);
        }
    }
}

/// A request as the provider would send it.
struct Signed<'a> {
    source: &'a Source,
    headers: HeaderMap,
    /// The headers with its proof.
    proof: Vec<HeaderName>,
    target: String,
    body: &'a [u8],
}

impl<'a> Signed<'a> {
    /// `choice` selects the signature scheme if a provider has several.
    fn new(source: &'a Source, choice: u8, body: &'a [u8]) -> Self {
        let other = choice & 2 != 0;
        let mut target = format!("/webhook/{}?b=2&a=1", source.name);
        let mut media_type = "application/json";
        match source.scheme.kind {
            "twilio" if other => {
                target = format!("{target}&bodySHA256={}", encode_hex(&Sha256::digest(body)));
            }
            "twilio" | "plivo" => media_type = FORM,
            _ => {}
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        let request = Request { headers: &headers, body, base_url: None, target: &target };
        let signed = match source.scheme.kind {
            "telnyx" => by_ed25519(&request, "telnyx-signature-ed25519", ("telnyx-timestamp", ""), None),
            "standard" if other => {
                by_ed25519(&request, "webhook-signature", ("webhook-timestamp", "v1a,"), Some("webhook-id"))
            }
            _ => source.sign(&request, "msg_1", now(0)).expect("a secret can sign"),
        };
        let proof = signed.keys().filter(|name| **name != CONTENT_TYPE).cloned().collect();
        let signed = Self { source, headers: signed, proof, target, body };
        assert!(
            signed.is_believed_with(&signed.headers, body, &signed.target, 0),
            "what the provider sends is believed"
        );
        signed
    }

    fn is_believed_with(&self, headers: &HeaderMap, body: &[u8], target: &str, later_seconds: i64) -> bool {
        let request = Request { headers, body, base_url: None, target };
        self.source.verify(&request, body.to_vec().into(), now(later_seconds)).is_ok()
    }

    fn signs_bodies(&self) -> bool {
        !matches!(self.source.scheme.kind, "telegram" | "evolution")
    }

    fn signs_time(&self) -> bool {
        let by_token = matches!(self.source.scheme.kind, "standard" | "vonage" | "messagebird" | "evolution");
        by_token || self.source.rule().is_some_and(|rule| rule.time.is_some())
    }

    /// Whether `body` has the same parameters. A form is signed by its parameters, in any encoding and order.
    fn says_the_same(&self, body: &[u8]) -> bool {
        let is_form = self.headers[CONTENT_TYPE] == FORM;
        body == self.body || is_form && sorted_form(body) == sorted_form(self.body)
    }
}

fn now(later_seconds: i64) -> Moment {
    Moment::from_microseconds((NOW + later_seconds) * 1_000_000)
}

fn by_ed25519(
    request: &Request<'_>,
    name: &'static str,
    time: (&'static str, &str),
    id: Option<&'static str>,
) -> HeaderMap {
    let mut headers = request.headers.clone();
    let (time_header, label) = time;
    let content = match id {
        Some(id) => {
            headers.insert(id, HeaderValue::from_static("msg_1"));
            format!("msg_1.{NOW}.")
        }
        None => format!("{NOW}|"),
    };
    let signature = signing_key().sign(&[content.as_bytes(), request.body].concat());
    let value = format!("{label}{}", Encoding::Base64.encode(&signature.to_bytes()));
    headers.insert(name, HeaderValue::try_from(value).expect("base64"));
    headers.insert(time_header, NOW.into());
    headers
}

/// Changes one part of a signed request: a byte of the body, of a header or of the URL, or its time of receipt.
fn alter(signed: &Signed<'_>, how: &[u8]) {
    let [what, high, low, mask] = *how else { return };
    let at = usize::from(u16::from_be_bytes([high, low]));
    match what % 4 {
        0 => {
            let body = changed(signed.body, at, mask);
            let believed = signed.is_believed_with(&signed.headers, &body, &signed.target, 0);
            assert_eq!(believed, !signed.signs_bodies() || signed.says_the_same(&body), "another body");
        }
        1 => {
            let Some(name) = signed.proof.get(usize::from(high) % signed.proof.len()) else { return };
            let mut headers = signed.headers.clone();
            let value = signed.headers[name].clone();
            match mask {
                0 => drop(headers.remove(name)),
                255 => drop(headers.append(name, value.clone())),
                _ => {
                    let Ok(changed) = HeaderValue::from_bytes(&changed(value.as_bytes(), at, mask)) else { return };
                    // The scheme name in `Authorization` is case-insensitive and not signed.
                    if changed.as_bytes().eq_ignore_ascii_case(value.as_bytes()) && at % value.len() < 7 {
                        return;
                    }
                    headers.insert(name, changed);
                }
            }
            assert!(!signed.is_believed_with(&headers, signed.body, &signed.target, 0), "another {name}");
        }
        2 if signed.source.needs_url() => {
            let target = changed(signed.target.as_bytes(), at, mask);
            let Some(target) = String::from_utf8(target).ok().filter(|target| target.is_ascii()) else { return };
            assert!(!signed.is_believed_with(&signed.headers, signed.body, &target, 0), "another URL: {target}");
        }
        3 if signed.signs_time() => {
            let later = 1_000 + i64::from(at as u32);
            for later in [later, -later] {
                let believed = signed.is_believed_with(&signed.headers, signed.body, &signed.target, later);
                assert!(!believed, "{later} seconds later");
            }
        }
        _ => {}
    }
}

/// The bytes with flipped bits, or with an additional byte.
fn changed(bytes: &[u8], at: usize, mask: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let length = bytes.len();
    match bytes.get_mut(at % length.max(1)) {
        Some(byte) if mask != 0 => *byte ^= mask,
        _ => bytes.insert(at % (length + 1), b'x'),
    }
    bytes
}

/// Replaces each proof with any text.
fn make_up(signed: &Signed<'_>, value: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(value) else { return };
    for name in &signed.proof {
        let mut headers = signed.headers.clone();
        headers.insert(name, value.clone());
        if signed.is_believed_with(&headers, signed.body, &signed.target, 0) {
            let (right, value) = (signed.headers[name].as_bytes(), value.as_bytes());
            let kind = signed.source.scheme.kind;
            let holds_right = memchr::memmem::find(value, signature_in(right)).is_some();
            // A list may contain other signatures next to the correct one.
            let is_list =
                matches!(kind, "standard" | "plivo") || signed.source.rule().is_some_and(|rule| rule.list.is_some());
            let is_right =
                right == value || right.eq_ignore_ascii_case(value) && name == "authorization" || kind == "360dialog";
            assert!(holds_right && (is_list || is_right), "a made-up {name}");
        }
    }
}

/// The signature itself, without label and prefix.
fn signature_in(value: &[u8]) -> &[u8] {
    let labels: [&[u8]; 6] = [b"v1a,", b"v1,", b"v1=", b"v0=", b"sha256=", b"Bearer "];
    let found = labels.iter().find_map(|label| memchr::memmem::find(value, label).map(|at| at + label.len()));
    &value[found.unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::ELEMENTS_MAX;

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
            let mut source = source(Scheme::find(kind).unwrap());
            source.options.mapping = Some(Mapping { messages: Some("/list".into()), ..NOTHING_MAPPED });
            let parsed =
                source.parse(&reopened(&source, body.as_bytes(), Vec::new()), Moment::from_microseconds(0)).unwrap();
            assert_eq!(parsed.intake.len(), ELEMENTS_MAX + 1, "{kind}");
            let told =
                parsed.intake.events.iter().filter(|event| event.body.as_ref().unwrap().contains("more than 10000"));
            assert_eq!(told.count(), 1, "{kind}");
        }
    }
}
