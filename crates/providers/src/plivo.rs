//! Plivo SMS, MMS and WhatsApp: forms signed with the URL and a nonce (signature version 3); the response is XML.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::algorithm::Algorithm;
use super::element::{self, Content, kind_of_media, message_key};
use super::encoding::Encoding;
use super::fields::Fields;
use super::header::{form, single, sorted_form};
use super::key::first_fitting;
use super::rule::SIGNATURES_MAX;
use super::signature::BadSignature;
use super::{AnswerStyle, InvalidBody, Parse, Parsed, Request, Scheme, Source, VerifiedBody};
use domain::{Address, Kind, Media, Moment, NewMessage, State, StatusUpdate};

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: "plivo",
    title: "Plivo Messaging",
    // Plivo also parses the response as XML and would execute it.
    answer: AnswerStyle::EmptyTwiml,
    expects: Some("x-plivo-signature-ma-v3 (or -v3): <HMAC-SHA256 of {url}{sorted_form}.{nonce}, in base64>"),
    needs_url: true,
    caution: Some("a request has no signed time: a recorded one verifies again (and is then a duplicate)"),
    verify,
    parse: Parse::Bytes(parse),
    sign: Some(sign),
    ..Scheme::BASE
};

/// The first header has the main account's signature, the second that of the account that owns the number.
/// Every request has both. On some incoming messages only the first one verifies.
const SIGNATURE_HEADERS: [&str; 2] = ["x-plivo-signature-ma-v3", "x-plivo-signature-v3"];
const NONCE_HEADER: &str = "x-plivo-signature-v3-nonce";
/// Maximum files of one message. Plivo sends at most ten, and counts from 0 or from 1.
const MEDIA_MAX: usize = 11;

/// Version 2 (`x-plivo-signature-v2`) is not accepted: it does not cover the body.
fn verify(source: &Source, request: &Request<'_>, _: Moment) -> Result<usize, BadSignature> {
    let mut items: Vec<&[u8]> = Vec::new();
    for name in SIGNATURE_HEADERS {
        match single(request.headers, name) {
            Ok(value) => items.extend(value.split(|byte| *byte == b',')),
            Err(BadSignature::MissingHeader) => {}
            Err(why) => return Err(why),
        }
    }
    if items.is_empty() {
        return Err(BadSignature::MissingHeader);
    }
    let nonce = single(request.headers, NONCE_HEADER)?;
    let signed = signed_text(request).ok_or(BadSignature::UnknownUrl)?;
    let decode = |item: &&[u8]| Encoding::Base64.decode(item.trim_ascii(), 32);
    let signatures: Vec<_> = items.iter().take(SIGNATURES_MAX).filter_map(decode).collect();
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

/// The URL with its query sorted, followed by the form's concatenated names and values.
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
    headers.insert(HeaderName::from_static(SIGNATURE_HEADERS[0]), value);
    headers.insert(HeaderName::from_static(NONCE_HEADER), HeaderValue::try_from(id).ok()?);
    Some(headers)
}

/// The parameters that identify the message, its parties or its content.
const DECISIVE: [&str; 8] = ["Body", "ContentType", "From", "MessageUUID", "Status", "Text", "To", "Type"];

fn parse(source: &Source, body: &VerifiedBody, now: Moment) -> Result<Parsed, InvalidBody> {
    let mut parsed = Parsed::default();
    let fields = Fields::read(body.as_bytes());
    if let Some(name) = fields.contradictory(&DECISIVE) {
        let why = format!("the parameter {name} is repeated with different values");
        parsed.intake.events.push(element::unreadable(source, &why, &fields.to_value(), now));
        return Ok(parsed);
    }
    if let Some(status) = status(source, &fields, now) {
        parsed.intake.statuses.push(status);
    } else if let Some(message) = message(source, &fields, now) {
        parsed.intake.messages.push(message);
    } else {
        let kind = if fields.get("Status").is_some() { "status" } else { "other" };
        parsed.intake.events.push(element::event(source, kind, None, &fields.to_value(), now));
    }
    Ok(parsed)
}

/// A number without its `+`, a short code, or the name of a company; on WhatsApp a number, or a user's id.
fn address(fields: &Fields, raw: &str) -> Address {
    match fields.get("Type") {
        Some("whatsapp") => Address::international(raw).unwrap_or_else(|| Address::tagged("bsuid", raw)),
        _ => Address::read(raw),
    }
}

/// Parameters that have fields in the message or its details; all others are kept under Plivo's own names.
const STANDS_ELSEWHERE: [&str; 7] = ["Body", "From", "MessageUUID", "MimeType", "Text", "To", "Type"];

fn is_of_file(name: &str) -> bool {
    name.strip_prefix("Media").is_some_and(|number| number.parse().is_ok_and(|number: usize| number <= MEDIA_MAX))
}

fn message(source: &Source, fields: &Fields, now: Moment) -> Option<NewMessage> {
    let (id, from, to) = (fields.get("MessageUUID")?, fields.get("From")?, fields.get("To")?);
    if fields.get("Status").is_some() {
        return None;
    }
    // SMS have the text in `Text`, MMS and WhatsApp in `Body`.
    let said = ["Text", "Body"].iter().find_map(|name| fields.given(name));
    let urls = (0..=MEDIA_MAX).flat_map(|at| fields.all(&format!("Media{at}"))).filter(|url| !url.is_empty());
    let file = |url: &String| Media { url: Some(url.clone()), mime_type: fields.owned("MimeType"), ..Media::default() };
    let media: Vec<Media> = urls.map(file).collect();
    let kind = match (media.first().map(|first| first.mime_type.as_deref()), fields.get("ContentType")) {
        (Some(Some(mime_type)), _) => kind_of_media(mime_type),
        // An MMS does not report the type of its file.
        (Some(None), _) => Kind::Document,
        (None, Some("button")) => Kind::Button,
        (None, Some("interactive" | "list")) => Kind::Interactive,
        (None, Some("location")) => Kind::Location,
        (None, Some("unknown")) => Kind::Unsupported,
        (None, _) => Kind::Text,
    };
    let provider_kind = fields.get("Type").unwrap_or_default();
    let mut details = element::details(source, source.account(), id, kind, provider_kind);
    details.media = media;
    details.extra.extend(fields.to_extra(|name| !STANDS_ELSEWHERE.contains(&name) && !is_of_file(name)));
    let content = Content {
        key_id: id,
        from: address(fields, from),
        to: address(fields, to),
        // Plivo sends no time.
        time: None,
        text: said.filter(|said| !said.is_empty() || kind == Kind::Text).map(str::to_owned),
    };
    Some(element::message(details, content, now))
}

/// Parameters of a delivery report that have fields in the record.
const OF_ANY_STATUS: [&str; 3] = ["MessageUUID", "Status", "To"];

fn status(source: &Source, fields: &Fields, now: Moment) -> Option<StatusUpdate> {
    let state = match fields.get("Status")? {
        "queued" => State::Queued,
        "sent" => State::Sent,
        "delivered" => State::Delivered,
        "read" => State::Read,
        "failed" | "undelivered" | "rejected" => State::Failed,
        _ => return None,
    };
    let id = fields.get("MessageUUID")?;
    Some(StatusUpdate {
        message: message_key(SCHEME.kind, source.account(), id),
        provider_id: id.to_owned(),
        source: source.name.clone(),
        recipient: fields.get("To").map(|to| address(fields, to)),
        state,
        at: now.to_timestamp(),
        error: fields.owned("ErrorCode").filter(|_| state == State::Failed),
        extra: fields.to_extra(|name| !OF_ANY_STATUS.contains(&name)).collect(),
    })
}
