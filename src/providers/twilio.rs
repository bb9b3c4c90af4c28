//! Twilio's SMS and WhatsApp: forms signed together with the URL that Twilio was given, answered by TwiML.

use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::algorithm::Algorithm;
use super::element::{self, Content, message_key};
use super::encoding::{Encoding, encode_hex};
use super::fields::Fields;
use super::header::{form, single, sorted_form};
use super::json::read;
use super::rule::first_fitting;
use super::signature::BadSignature;
use super::{AnswerStyle, InvalidBody, Parse, Parsed, Request, Scheme, Source, VerifiedBody};
use crate::domain::{Address, Details, Kind, Media, Moment, NewMessage, State, StatusUpdate};

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

/// The header that holds the signature.
pub const SIGNATURE_HEADER: &str = "x-twilio-signature";
const SETTINGS_HEADER: &str = "x-twilio-webhooks-signature-settings";
/// Files of one message that are looked for. Twilio sends ten at most.
const MEDIA_MAX: usize = 100;

/// The scheme with the account's token (HMAC-SHA1), or, at doors that were made so, the one with shared keys (HMAC-SHA256). The
/// request never chooses: its settings header is not signed.
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
        // Of a body that is no form only the URL is signed, and a digest of the body within it.
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

/// The digest that the URL vouches for.
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

fn parse(source: &Source, body: &VerifiedBody, now: Moment) -> Result<Parsed, InvalidBody> {
    let mut parsed = Parsed::default();
    if body.header("content-type").is_some_and(|media_type| media_type.to_ascii_lowercase().contains("json")) {
        parsed.events.push(match read(body.as_bytes()) {
            Ok(value) => element::event(source, "json", None, &value, now),
            Err(why) => element::unreadable_body(source, body.as_bytes(), &why, now),
        });
        return Ok(parsed);
    }
    let Some(fields) = Fields::read(body.as_bytes()) else {
        parsed.events.push(element::unreadable_body(source, body.as_bytes(), "a parameter came twice", now));
        return Ok(parsed);
    };
    let is_status = fields.get("MessageStatus").is_some() && fields.get("SmsStatus") != Some("received");
    match (is_status, fields.get("MessageSid").or_else(|| fields.get("SmsSid"))) {
        (true, Some(id)) => match status(source, &fields, id, now) {
            Some(status) => parsed.statuses.push(status),
            None => parsed.events.push(element::event(source, "status", None, &fields.to_value(), now)),
        },
        (false, Some(id)) if is_message(&fields) => parsed.messages.extend(message(source, &fields, id, now)),
        _ => parsed.events.push(element::event(source, "other", None, &fields.to_value(), now)),
    }
    Ok(parsed)
}

fn media_count(fields: &Fields) -> usize {
    fields.get("NumMedia").and_then(|count| count.parse().ok()).unwrap_or(0).min(MEDIA_MAX)
}

/// Sender, recipient, account, and something said.
fn is_message(fields: &Fields) -> bool {
    let complete = ["From", "To", "AccountSid"].iter().all(|name| fields.get(name).is_some());
    complete && (fields.given("Body").is_some() || media_count(fields) > 0 || fields.get("MessageType").is_some())
}

fn message(source: &Source, fields: &Fields, id: &str, now: Moment) -> Option<NewMessage> {
    let media: Vec<Media> = (0..media_count(fields))
        .map(|at| Media {
            url: fields.owned(&format!("MediaUrl{at}")),
            mime_type: fields.owned(&format!("MediaContentType{at}")),
            ..Media::default()
        })
        .collect();
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
    keep_extras(fields, &mut details);
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

/// The sort of file that a media type tells.
pub fn kind_of_media(mime_type: &str) -> Kind {
    match mime_type.split('/').next().unwrap_or_default() {
        "image" => Kind::Image,
        "video" => Kind::Video,
        "audio" => Kind::Audio,
        _ if mime_type.contains("vcard") => Kind::Contacts,
        _ => Kind::Document,
    }
}

/// What is particular to a kind, under Twilio's own names.
fn keep_extras(fields: &Fields, details: &mut Details) {
    const NAMES: [&str; 14] = [
        "ButtonText",
        "ButtonPayload",
        "ListId",
        "ListTitle",
        "Latitude",
        "Longitude",
        "Address",
        "Label",
        "OptOutType",
        "Forwarded",
        "FrequentlyForwarded",
        "MessagingServiceSid",
        "OriginalRepliedMessageSender",
        "NumSegments",
    ];
    let kept = fields.iter().filter(|(name, _)| NAMES.contains(name) || name.starts_with("Referral"));
    details.extra.extend(kept.map(|(name, value)| (name.to_owned(), Value::from(value))));
}

/// `+E164`, `whatsapp:+E164`, `whatsapp:<BSUID>`, a short code, the name of a company, or an id of another channel.
fn address(raw: &str) -> Address {
    let (channel, own) = raw.split_once(':').unwrap_or(("", raw));
    let digits = own.bytes().all(|byte| byte.is_ascii_digit());
    match (own.starts_with('+').then(|| Address::number(own)).flatten(), channel) {
        (Some(phone), _) => phone,
        (None, "whatsapp") if digits => Address::international(own).unwrap_or_else(|| Address::tagged("whatsapp", own)),
        (None, "whatsapp") => Address::tagged("bsuid", own),
        (None, "") if digits => Address::tagged("short", own),
        (None, "") => Address::tagged("alpha", own),
        (None, channel) => Address::tagged(&channel.chars().take(16).collect::<String>(), own),
    }
}

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
        extra: Map::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_channel() {
        let cases = [
            ("+14155550100", "+14155550100"),
            ("whatsapp:+14155550100", "+14155550100"),
            ("whatsapp:US.ABC123", "bsuid:US.ABC123"),
            ("12345", "short:12345"),
            ("AcmeCorp", "alpha:AcmeCorp"),
            ("messenger:1234567890", "messenger:1234567890"),
            ("+1abc", "alpha:+1abc"),
        ];
        for (raw, expected) in cases {
            assert_eq!(address(raw).as_str(), expected, "{raw}");
        }
    }

    #[test]
    fn urls_are_tried_with_and_without_their_port() {
        let urls = |url| with_and_without_port(url);
        assert_eq!(urls("https://a.example/x?y=1")[1], "https://a.example:443/x?y=1");
        assert_eq!(urls("http://a.example/x")[1], "http://a.example:80/x");
        assert_eq!(urls("https://a.example:8443/x:1")[1], "https://a.example/x:1");
        assert_eq!(urls("https://a.example?x")[1], "https://a.example:443?x");
    }
}
