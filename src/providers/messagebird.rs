//! MessageBird (the older of Bird's two): a JSON Web Token whose claims hold digests of the URL and the body.

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::encoding::encode_hex;
use super::generic::{Mapping, NOTHING_MAPPED, parse_mapped};
use super::header::single;
use super::signature::BadSignature;
use super::{Parse, Request, Scheme, Source, jwt, text};
use crate::domain::Moment;

const MAPPING: Mapping = Mapping {
    when: Some(text("/message/direction")),
    equals: Some(text("received")),
    id: Some(text("/message/id")),
    from: Some(text("/message/from")),
    to: Some(text("/message/to")),
    time: Some(text("/message/createdDatetime")),
    text: Some(text("/message/content/text")),
    kind: Some(text("/message/type")),
    account: Some(text("/message/channelId")),
    profile_name: Some(text("/contact/displayName")),
    ..NOTHING_MAPPED
};

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: "messagebird",
    title: "MessageBird Conversations",
    expects: Some("messagebird-signature-jwt: <JWT of HS256, HS384 or HS512 with url_hash and payload_hash>"),
    needs_url: true,
    verify,
    parse: Parse::Bytes(|source, body, now| Ok(parse_mapped(source, &MAPPING, body, now))),
    sign: Some(sign),
    ..Scheme::BASE
};

const TOKEN_HEADER: &str = "messagebird-signature-jwt";

fn verify(source: &Source, request: &Request<'_>, now: Moment) -> Result<usize, BadSignature> {
    let token = single(request.headers, TOKEN_HEADER)?;
    let url = request.url().ok_or(BadSignature::UnknownUrl)?;
    let token = jwt::verify(token, &["HS256", "HS384", "HS512"], &source.keys, now)?;
    let claim = |name: &str| token.claims.get(name).and_then(Value::as_str);
    let right = claim("iss") == Some("MessageBird")
        && token.claims.contains_key("exp")
        && token.digests("url_hash", url.as_bytes())
        // The claim may be absent only where there is no body.
        && match claim("payload_hash") {
            Some(_) => token.digests("payload_hash", request.body),
            None => request.body.is_empty(),
        };
    if right { Ok(token.key) } else { Err(BadSignature::BodyMismatch) }
}

fn sign(source: &Source, request: &Request<'_>, id: &str, now: Moment) -> Option<HeaderMap> {
    let now = now.unix_seconds();
    let claims = json!({
        "iss": "MessageBird", "nbf": now - 1, "exp": now + 60, "jti": id,
        "url_hash": encode_hex(&Sha256::digest(request.url()?)),
        "payload_hash": encode_hex(&Sha256::digest(request.body)),
    });
    let mut headers = request.headers.clone();
    let token = jwt::sign(&claims, source.keys.first()?);
    headers.insert(HeaderName::from_static(TOKEN_HEADER), HeaderValue::try_from(token).ok()?);
    Some(headers)
}
