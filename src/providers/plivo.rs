//! Plivo SMS and MMS: forms signed together with the URL and a nonce (signature version 3).

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use super::algorithm::Algorithm;
use super::encoding::Encoding;
use super::generic::{Mapping, NOTHING_MAPPED, parse_mapped};
use super::header::{form, single, sorted_form};
use super::rule::{SIGNATURES_MAX, first_fitting};
use super::signature::BadSignature;
use super::{Parse, Request, Scheme, Source, text};
use crate::domain::Moment;

const MAPPING: Mapping = Mapping {
    is_form: true,
    id: Some(text("/MessageUUID")),
    from: Some(text("/From")),
    to: Some(text("/To")),
    text: Some(text("/Text")),
    kind: Some(text("/Type")),
    media_url: Some(text("/Media0")),
    ..NOTHING_MAPPED
};

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: "plivo",
    title: "Plivo Messaging",
    expects: Some("x-plivo-signature-v3: <HMAC-SHA256 of {url}{sorted_form}.{nonce}, in base64>"),
    needs_url: true,
    caution: Some(
        "nothing in a request is dated: an old one that was seen once is believed again (and is a duplicate then)",
    ),
    verify,
    parse: Parse::Bytes(|source, body, now| Ok(parse_mapped(source, &MAPPING, body, now))),
    sign: Some(sign),
    ..Scheme::BASE
};

const SIGNATURE_HEADER: &str = "x-plivo-signature-v3";
const NONCE_HEADER: &str = "x-plivo-signature-v3-nonce";

fn verify(source: &Source, request: &Request<'_>, _: Moment) -> Result<usize, BadSignature> {
    let value = single(request.headers, SIGNATURE_HEADER)?;
    let nonce = single(request.headers, NONCE_HEADER)?;
    let signed = signed_text(request).ok_or(BadSignature::UnknownUrl)?;
    let items = value.split(|byte| *byte == b',').take(SIGNATURES_MAX).map(<[u8]>::trim_ascii);
    let signatures: Vec<_> = items.filter_map(|item| Encoding::Base64.decode(item, 32)).collect();
    if signatures.is_empty() {
        return Err(BadSignature::Malformed);
    }
    first_fitting(&source.keys, |key| {
        let fits = |signature: &Vec<u8>| {
            let parts = [signed.as_bytes(), b".", nonce];
            Algorithm::HmacSha256.verifies(key.secret.expose(), &parts, signature)
        };
        signatures.iter().fold(false, |right, signature| fits(signature) | right)
    })
}

/// The URL with its query sorted, and the form's names and values run together behind it.
fn signed_text(request: &Request<'_>) -> Option<String> {
    let url = request.url()?;
    let (path, query) = url.split_once('?').unwrap_or((&url, ""));
    let mut parameters = form(query.as_bytes());
    parameters.sort();
    let query: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let (query, form) = (query.join("&"), sorted_form(request.body));
    let mark = if query.is_empty() && form.is_empty() { "" } else { "?" };
    let dot = if query.is_empty() || form.is_empty() { "" } else { "." };
    Some(format!("{path}{mark}{query}{dot}{form}"))
}

fn sign(source: &Source, request: &Request<'_>, id: &str, _: Moment) -> Option<HeaderMap> {
    let mut headers = request.headers.clone();
    let parts = [signed_text(request)?.into_bytes(), b".".to_vec(), id.as_bytes().to_vec()].concat();
    let signature = Algorithm::HmacSha256.sign(source.keys.first()?.secret.expose(), &[&parts])?;
    let value = HeaderValue::try_from(Encoding::Base64.encode(&signature)).ok()?;
    headers.insert(HeaderName::from_static(SIGNATURE_HEADER), value);
    headers.insert(HeaderName::from_static(NONCE_HEADER), HeaderValue::try_from(id).ok()?);
    Some(headers)
}
