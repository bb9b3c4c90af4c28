//! Standard Webhooks 1.0.0, and its origin Svix: `id.timestamp.body` signed with HMAC-SHA256 (`v1`) or Ed25519 (`v1a`).

use std::borrow::Cow;

use http::HeaderMap;
use serde_json::Value;

use super::algorithm::Algorithm;
use super::element::{self, Content};
use super::encoding::Encoding;
use super::header::{TOLERANCE_SECONDS, TimeUnit};
use super::json::{others, read, scalar, scalar_text, text};
use super::rule::{List, Part, Proof, Time, TimePlace};
use super::signature::BadSignature;
use super::{InvalidBody, Key, Parse, Parsed, Request, Role, Rule, Scheme, SecretForm, Source, VerifiedBody};
use domain::{Address, Kind, Moment, NewMessage};

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: "standard",
    title: "Standard Webhooks and Svix",
    variable: Some("STANDARD_WEBHOOKS_SECRET"),
    secret: SecretForm::Standard,
    rule: Some(rule("webhook-id", "webhook-timestamp", "webhook-signature", "v1", Algorithm::HmacSha256)),
    kept_headers: &["webhook-id", "svix-id"],
    verify,
    parse: Parse::Bytes(parse),
    sign: Some(sign),
    ..Scheme::BASE
};

const fn rule(
    id: &'static str,
    timestamp: &'static str,
    signature: &'static str,
    label: &'static str,
    algorithm: Algorithm,
) -> Rule {
    const TEMPLATE: &[Part] =
        &[Part::Id, Part::Text(super::text(".")), Part::Timestamp, Part::Text(super::text(".")), Part::Body];
    Rule {
        header: super::text(signature),
        prefix: super::text(""),
        prefix_optional: false,
        list: Some(List { separator: ' ', label: Some((',', super::text(label))), more_labels: Vec::new() }),
        proof: Proof::Signature { algorithm, encoding: Encoding::Base64, template: Cow::Borrowed(TEMPLATE) },
        time: Some(Time {
            place: TimePlace::Header(super::text(timestamp)),
            unit: TimeUnit::Seconds,
            tolerance_seconds: TOLERANCE_SECONDS,
        }),
        id_header: Some(super::text(id)),
    }
}

/// One complete family of headers: an id of one family with a signature of the other must not verify. The
/// algorithm follows from the kind of key, never from the request.
fn verify(source: &Source, request: &Request<'_>, now: Moment) -> Result<usize, BadSignature> {
    let families =
        [("webhook-id", "webhook-timestamp", "webhook-signature"), ("svix-id", "svix-timestamp", "svix-signature")];
    let chosen = match &source.options.rule {
        Some(rule) => vec![rule.clone(), with_public_key(rule)],
        None => {
            let present = |(_, _, signature): &&(_, _, &str)| request.headers.contains_key(*signature);
            let (id, timestamp, signature) = *families.iter().find(present).ok_or(BadSignature::MissingHeader)?;
            // The parser reads the delivery's id later, so there must be no second id that is not signed.
            let foreign = id == "svix-id" && request.headers.contains_key("webhook-id");
            if foreign && request.headers.contains_key(id) {
                return Err(BadSignature::DuplicateHeader);
            }
            vec![
                rule(id, timestamp, signature, "v1", Algorithm::HmacSha256),
                rule(id, timestamp, signature, "v1a", Algorithm::Ed25519),
            ]
        }
    };
    let [by_secret, by_public_key] = chosen.as_slice() else { return Err(BadSignature::MissingHeader) };
    let among = |rule: &Rule, is_public: bool| {
        let places: Vec<usize> =
            (0..source.keys.len()).filter(|at| (source.keys[*at].role == Role::Public) == is_public).collect();
        let keys: Vec<Key> = places.iter().map(|at| source.keys[*at].clone()).collect();
        match keys.is_empty() {
            true => Err(BadSignature::WrongSecret),
            false => rule.verify(request, &keys, now).map(|at| places[at]),
        }
    };
    match (among(by_secret, false), among(by_public_key, true)) {
        (Ok(key), _) | (_, Ok(key)) => Ok(key),
        // A source usually has keys of one kind: the error of that kind is the helpful one.
        (Err(BadSignature::WrongSecret), Err(why)) | (Err(why), Err(_)) => Err(why),
    }
}

/// With `v1` for a secret, with `v1a` for a private key.
fn sign(source: &Source, request: &Request<'_>, id: &str, now: Moment) -> Option<HeaderMap> {
    let (rule, key) = (source.rule()?, source.signing_key()?);
    match key.role {
        Role::Private => with_public_key(rule).sign(request, key, id, now),
        _ => rule.sign(request, key, id, now),
    }
}

/// The same scheme with `v1a` and a public key.
fn with_public_key(rule: &Rule) -> Rule {
    let mut rule = rule.clone();
    if let Some(List { label: Some((_, label)), .. }) = &mut rule.list {
        *label = super::text("v1a");
    }
    if let Proof::Signature { algorithm, .. } = &mut rule.proof {
        *algorithm = Algorithm::Ed25519;
    }
    rule
}

fn parse(source: &Source, body: &VerifiedBody, now: Moment) -> Result<Parsed, InvalidBody> {
    let mut parsed = Parsed::default();
    let named = source.rule().and_then(|rule| body.header(rule.id_header.as_deref()?));
    let delivery = named.or_else(|| body.header("svix-id"));
    match read(body.as_bytes()) {
        Err(why) => parsed.intake.events.push(element::unreadable_body(source, body.as_bytes(), &why, now)),
        Ok(value) => match message(source, &value, delivery, now) {
            Some(message) => parsed.intake.messages.push(message),
            None => {
                let kind = text(&value, "type").unwrap_or("event");
                parsed.intake.events.push(element::event(source, kind, delivery, &value, now));
            }
        },
    }
    Ok(parsed)
}

/// Members of a message that have their own fields. Other members are kept unchanged.
const READ: &[&str] = &["message_id", "from", "to", "text", "ts", "timestamp", "reply_to"];

/// A message, if `data` (or the whole body) has the fields of the original contract.
fn message(source: &Source, value: &Value, delivery: Option<&str>, now: Moment) -> Option<NewMessage> {
    let data = value.get("data").filter(|data| data.is_object()).unwrap_or(value);
    let from = Address::read(&scalar(data, "from")?);
    let to = scalar(data, "to").map(|to| Address::read(&to)).or_else(|| source.options.to.clone())?;
    let id = scalar(data, "message_id").or_else(|| delivery.map(str::to_owned))?;
    let provider_kind = text(value, "type").unwrap_or_default();
    let said = data.get("text").and_then(scalar_text);
    let kind = if said.is_some() { Kind::Text } else { Kind::Unknown };
    let mut details = element::details(source, source.account(), &id, kind, provider_kind);
    details.reply_to = scalar(data, "reply_to");
    details.extra = others(data, READ);
    if std::ptr::eq(data, value) {
        details.extra.remove("type");
    }
    // A structured value is kept whole where a single value was expected.
    for name in ["text", "reply_to"] {
        if let Some(value) = data.get(name).filter(|value| value.is_array() || value.is_object()) {
            details.extra.insert(name.to_owned(), value.clone());
        }
    }
    let time = data.get("ts").or_else(|| data.get("timestamp")).or_else(|| value.get("timestamp"));
    let content = Content { key_id: &id, from, to, time, text: said };
    Some(element::message(details, content, now))
}
