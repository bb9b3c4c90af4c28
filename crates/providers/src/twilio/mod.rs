//! Twilio's SMS and WhatsApp: forms signed together with the URL that Twilio has; the response is TwiML.

mod address;
mod streams;

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use super::algorithm::Algorithm;
use super::element::{self, Content, kind_of_media, message_key};
use super::encoding::{Encoding, encode_hex};
use super::fields::Fields;
use super::header::{form, single, sorted_form};
use super::key::first_fitting;
use super::signature::BadSignature;
use super::{AnswerStyle, InvalidBody, Parse, Parsed, Request, Scheme, Source, VerifiedBody};
use address::address;
use domain::{Kind, Media, Moment, NewMessage, State, StatusUpdate};

/// The row of `SCHEMES`.
pub const SCHEME: Scheme = Scheme {
    kind: "twilio",
    title: "Twilio Programmable Messaging (SMS, MMS, WhatsApp)",
    variable: Some("TWILIO_AUTH_TOKEN"),
    answer: AnswerStyle::EmptyTwiml,
    refusal_status: 403,
    expects: Some("x-twilio-signature: <HMAC-SHA1 (SHA256 with key_ids) of {url}{sorted_form}, in base64>"),
    needs_url: true,
    kept_headers: &["content-type"],
    verify,
    parse: Parse::Bytes(parse),
    sign: Some(sign),
    ..Scheme::BASE
};

/// The header with the signature.
pub const SIGNATURE_HEADER: &str = "x-twilio-signature";
const SETTINGS_HEADER: &str = "x-twilio-webhooks-signature-settings";
/// Maximum files of one message. Twilio sends at most ten.
const MEDIA_MAX: usize = 100;

/// The scheme with the account's token (HMAC-SHA1) or, at sources with shared keys, the one with HMAC-SHA256. The
/// request never selects it: its settings header is not signed.
fn verify(source: &Source, request: &Request<'_>, _: Moment) -> Result<usize, BadSignature> {
    let value = single(request.headers, SIGNATURE_HEADER)?;
    let (algorithm, key_id) = match (single(request.headers, SETTINGS_HEADER), source.options.shared_keys) {
        (Err(BadSignature::MissingHeader), false) => (Algorithm::HmacSha1, None),
        (Ok(settings), true) => (Algorithm::HmacSha256, Some(shared_key_id(settings)?)),
        (Err(BadSignature::DuplicateHeader), _) => return Err(BadSignature::DuplicateHeader),
        _ => return Err(BadSignature::WrongAlgorithm),
    };
    let signature = Encoding::Base64.decode(value, algorithm.signature_bytes()).ok_or(BadSignature::Malformed)?;
    let url = request.url().ok_or(BadSignature::UnknownUrl)?;
    let form = match is_form(request.headers) {
        true => sorted_form(request.body),
        // If the body is not a form, only the URL is signed. The URL contains a digest of the body.
        false => String::new(),
    };
    let urls = with_and_without_port(&url);
    let fits = |key: &super::Key| {
        let secret = key.secret.expose();
        let right = urls.iter().fold(false, |right, url| {
            algorithm.verifies(secret, &[url.as_bytes(), form.as_bytes()], &signature) | right
        });
        right && (key_id.is_none() || key.id.as_deref() == key_id)
    };
    let key = first_fitting(&source.keys, fits)?;
    if !is_form(request.headers) && body_digest(request.target) != Some(encode_hex(&Sha256::digest(request.body))) {
        return Err(BadSignature::BodyMismatch);
    }
    Ok(key)
}

/// `key=<id>,algorithm=HMAC_SHA256`, in this form only.
fn shared_key_id(settings: &[u8]) -> Result<&str, BadSignature> {
    let settings = std::str::from_utf8(settings).map_err(|_| BadSignature::Malformed)?;
    let (key, algorithm) = settings.split_once(',').ok_or(BadSignature::Malformed)?;
    if algorithm != "algorithm=HMAC_SHA256" {
        return Err(BadSignature::WrongAlgorithm);
    }
    key.strip_prefix("key=").filter(|id| !id.is_empty()).ok_or(BadSignature::Malformed)
}

fn is_form(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let plain = media_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    plain.eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// The digest in the signed URL.
fn body_digest(target: &str) -> Option<String> {
    let query = target.split_once('?')?.1;
    let mut digests = form(query.as_bytes()).into_iter().filter(|(name, _)| name == "bodySHA256");
    digests.next().filter(|_| digests.next().is_none()).map(|(_, digest)| digest.into_owned())
}

/// Twilio signs the URL sometimes with the port and sometimes without.
fn with_and_without_port(url: &str) -> Vec<String> {
    let mut urls = vec![url.to_owned()];
    let Some((scheme, rest)) = url.split_once("://") else { return urls };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let port_at = authority.rfind(':').filter(|at| authority[at + 1..].bytes().all(|byte| byte.is_ascii_digit()));
    match port_at {
        Some(at) => urls.push(format!("{scheme}://{}{path}", &authority[..at])),
        None => {
            let port = if scheme == "http" { 80 } else { 443 };
            urls.push(format!("{scheme}://{authority}:{port}{path}"));
        }
    }
    urls
}

fn sign(source: &Source, request: &Request<'_>, _: &str, _: Moment) -> Option<HeaderMap> {
    let mut headers = request.headers.clone();
    let key = source.keys.first()?;
    let algorithm = if source.options.shared_keys { Algorithm::HmacSha256 } else { Algorithm::HmacSha1 };
    if source.options.shared_keys {
        let settings = format!("key={},algorithm=HMAC_SHA256", key.id.as_deref()?);
        headers.insert(HeaderName::from_static(SETTINGS_HEADER), HeaderValue::try_from(settings).ok()?);
    }
    let form = if is_form(&headers) { sorted_form(request.body) } else { String::new() };
    let signature = algorithm.sign(key.secret.expose(), &[request.url()?.as_bytes(), form.as_bytes()])?;
    let value = HeaderValue::try_from(Encoding::Base64.encode(&signature)).ok()?;
    headers.insert(HeaderName::from_static(SIGNATURE_HEADER), value);
    Some(headers)
}

/// The parameters that identify the message, its parties or its content.
const DECISIVE: [&str; 10] =
    ["AccountSid", "Body", "EventType", "From", "MessageSid", "MessageStatus", "NumMedia", "SmsSid", "SmsStatus", "To"];

fn parse(source: &Source, body: &VerifiedBody, now: Moment) -> Result<Parsed, InvalidBody> {
    if body.header("content-type").is_some_and(|media_type| media_type.to_ascii_lowercase().contains("json")) {
        return Ok(match element::read_json(source, body, now) {
            Ok(value) => streams::parse(source, &value, now),
            Err(unreadable) => *unreadable,
        });
    }
    let (mut parsed, fields) = (Parsed::default(), Fields::read(body.as_bytes()));
    if let Some(name) = fields.contradictory(&DECISIVE) {
        let why = format!("the parameter {name} is repeated with different values");
        parsed.intake.events.push(element::unreadable(source, &why, &fields.to_value(), now));
        return Ok(parsed);
    }
    if let Some(event) = streams::conversation_event(source, &fields, now) {
        parsed.intake.events.push(event);
        return Ok(parsed);
    }
    let is_status = fields.get("MessageStatus").is_some() && fields.get("SmsStatus") != Some("received");
    match (is_status, fields.get("MessageSid").or_else(|| fields.get("SmsSid"))) {
        (true, Some(id)) => match status(source, &fields, id, now) {
            Some(status) => parsed.intake.statuses.push(status),
            None => parsed.intake.events.push(element::event(source, "status", None, &fields.to_value(), now)),
        },
        (false, Some(id)) if is_message(&fields) => parsed.intake.messages.extend(message(source, &fields, id, now)),
        _ => parsed.intake.events.push(element::event(source, "other", None, &fields.to_value(), now)),
    }
    Ok(parsed)
}

fn media_count(fields: &Fields) -> usize {
    fields.get("NumMedia").and_then(|count| count.parse().ok()).unwrap_or(0).min(MEDIA_MAX)
}

/// Sender, recipient, account, and some content.
fn is_message(fields: &Fields) -> bool {
    let complete = ["From", "To", "AccountSid"].iter().all(|name| fields.get(name).is_some());
    complete && (fields.given("Body").is_some() || media_count(fields) > 0 || fields.get("MessageType").is_some())
}

fn message(source: &Source, fields: &Fields, id: &str, now: Moment) -> Option<NewMessage> {
    let media: Vec<Media> = (0..media_count(fields)).flat_map(|at| files(fields, at)).collect();
    let provider_kind = fields.get("MessageType").unwrap_or_default();
    let kind = match (provider_kind, media.first()) {
        ("", None) => Kind::Text,
        ("", Some(first)) => kind_of_media(first.mime_type.as_deref().unwrap_or_default()),
        (named, _) => Kind::named(named).unwrap_or(Kind::Unknown),
    };
    let mut details = element::details(source, fields.get("AccountSid")?, id, kind, provider_kind);
    details.media = media;
    details.reply_to = fields.owned("OriginalRepliedMessageSid");
    details.profile_name = fields.owned("ProfileName");
    details.person = fields.owned("ExternalUserId");
    details.extra.extend(fields.to_extra(|name| !STANDS_ELSEWHERE.contains(&name) && !is_of_file(name)));
    let body = fields.given("Body").map(str::to_owned);
    let silent = |body: &String| body.is_empty() && kind != Kind::Text;
    let content = Content {
        key_id: id,
        from: address(fields.get("From")?),
        to: address(fields.get("To")?),
        time: None,
        text: body.filter(|body| !silent(body)),
    };
    Some(element::message(details, content, now))
}

/// Parameters that have fields in the message or its details; all others are kept under Twilio's own names.
const STANDS_ELSEWHERE: [&str; 14] = [
    "AccountSid",
    "ApiVersion",
    "Body",
    "ExternalUserId",
    "From",
    "MessageSid",
    "MessageType",
    "NumMedia",
    "OriginalRepliedMessageSid",
    "ProfileName",
    "SmsMessageSid",
    "SmsSid",
    "SmsStatus",
    "To",
];

fn is_of_file(name: &str) -> bool {
    let number = name.strip_prefix("MediaUrl").or_else(|| name.strip_prefix("MediaContentType"));
    number.is_some_and(|number| number.parse().is_ok_and(|number: usize| number < MEDIA_MAX))
}

/// The file with this number, or several files if its parameter is repeated.
fn files(fields: &Fields, at: usize) -> Vec<Media> {
    let mime_type = fields.owned(&format!("MediaContentType{at}"));
    let file = |url: Option<&String>| Media {
        url: url.filter(|url| !url.is_empty()).cloned(),
        mime_type: mime_type.clone(),
        ..Media::default()
    };
    match fields.all(&format!("MediaUrl{at}")) {
        [] => vec![file(None)],
        urls => urls.iter().map(|url| file(Some(url))).collect(),
    }
}

/// Parameters of a status callback that have fields in the record.
const OF_ANY_STATUS: [&str; 9] = [
    "AccountSid",
    "ApiVersion",
    "ErrorCode",
    "ErrorMessage",
    "MessageSid",
    "MessageStatus",
    "SmsSid",
    "SmsStatus",
    "To",
];

fn status(source: &Source, fields: &Fields, id: &str, now: Moment) -> Option<StatusUpdate> {
    let state = match fields.get("MessageStatus")? {
        "accepted" | "scheduled" | "queued" | "sending" => State::Queued,
        "sent" => State::Sent,
        "delivered" => State::Delivered,
        "read" => State::Read,
        "failed" | "undelivered" | "canceled" => State::Failed,
        _ => return None,
    };
    Some(StatusUpdate {
        message: message_key(SCHEME.kind, fields.get("AccountSid").unwrap_or(source.account()), id),
        provider_id: id.to_owned(),
        source: source.name.clone(),
        recipient: fields.get("To").map(address),
        state,
        at: now.to_timestamp(),
        error: fields
            .get("ErrorCode")
            .map(|code| format!("{code} {}", fields.get("ErrorMessage").unwrap_or_default()).trim().to_owned()),
        extra: fields.to_extra(|name| !OF_ANY_STATUS.contains(&name)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_tried_with_and_without_their_port() {
        let urls = |url| with_and_without_port(url);
        assert_eq!(urls("https://a.example/x?y=1")[1], "https://a.example:443/x?y=1");
        assert_eq!(urls("http://a.example/x")[1], "http://a.example:80/x");
        assert_eq!(urls("https://a.example:8443/x:1")[1], "https://a.example/x:1");
        assert_eq!(urls("https://a.example?x")[1], "https://a.example:443?x");
    }
}
