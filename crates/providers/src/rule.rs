//! Signature schemes as data. Most providers sign in the same way and differ in header, prefix, encoding and the text
//! around the body; a `Rule` describes that. The generic provider reads a rule from the configuration.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::algorithm::{Algorithm, same_secret};
use super::encoding::{Encoding, encode_hex};
use super::header::{TOLERANCE_SECONDS, TimeUnit, check_time, single, sorted_form};
use super::jwt;
use super::key::{Key, first_fitting};
use super::request::Request;
use super::signature::BadSignature;
use domain::Moment;

/// A text from the program or the configuration.
pub type Text = Cow<'static, str>;

/// A static text, for rows of data.
pub(super) const fn text(text: &'static str) -> Text {
    Cow::Borrowed(text)
}

/// Maximum signatures that are checked in one header.
pub const SIGNATURES_MAX: usize = 16;

/// A signature scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The header with the signature.
    pub header: Text,
    /// Text before the signature.
    pub prefix: Text,
    /// Whether the prefix may be absent.
    pub prefix_optional: bool,
    /// How several signatures share the header; none if there is one.
    pub list: Option<List>,
    /// The proof of the sender.
    pub proof: Proof,
    /// The signed time, for schemes that have one.
    pub time: Option<Time>,
    /// The header with the delivery's id, for templates that contain it.
    pub id_header: Option<Text>,
}

/// The proof to which a header's value is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The secret itself. It does not cover the body, so anyone who has seen a request can send other requests.
    Secret,
    /// A JSON Web Token by HS256.
    Token {
        /// The claim with the body's SHA-256, in hexadecimal. A token without it does not cover the body either.
        body_claim: Option<Text>,
    },
    /// A signature of the template.
    Signature {
        /// Its algorithm.
        algorithm: Algorithm,
        /// Its encoding.
        encoding: Encoding,
        /// The signed text.
        template: Cow<'static, [Part]>,
    },
}

/// A header with several signatures, such as `v1,abc v1,def` or `t=1,v1=abc,v1=def`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// The separator of two items.
    pub separator: char,
    /// The separator of an item's label and value, and the label that counts. Other items are ignored.
    pub label: Option<(char, Text)>,
    /// Further labels that count.
    pub more_labels: Vec<Text>,
}

impl List {
    fn counts(&self, label: &[u8]) -> bool {
        let Some((_, first)) = &self.label else { return true };
        std::iter::once(first).chain(&self.more_labels).any(|known| known.as_bytes() == label)
    }
}

/// The place of the signed time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Time {
    /// In a header of its own, or in the signature's header under a label.
    pub place: TimePlace,
    /// Its unit.
    pub unit: TimeUnit,
    /// Maximum difference from our clock.
    pub tolerance_seconds: u32,
}

/// The place of a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimePlace {
    /// In a header of this name.
    Header(Text),
    /// In the signature's header, as the one item of this label.
    Label(Text),
}

/// A part of the signed text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// These characters.
    Text(Text),
    /// The body's bytes.
    Body,
    /// The time, as it was received.
    Timestamp,
    /// The delivery's id, as it was received.
    Id,
    /// The URL that was configured at the provider, with the query as received.
    Url,
    /// The body's form parameters, sorted.
    SortedForm,
    /// The raw SHA-256 of the body.
    BodySha256,
    /// The value of another header.
    Header(Text),
}

impl Part {
    fn describe(&self) -> String {
        match self {
            Self::Text(text) => text.escape_debug().to_string(),
            Self::Body => "{body}".to_owned(),
            Self::Timestamp => "{timestamp}".to_owned(),
            Self::Id => "{id}".to_owned(),
            Self::Url => "{url}".to_owned(),
            Self::SortedForm => "{sorted_form}".to_owned(),
            Self::BodySha256 => "{sha256_body_raw}".to_owned(),
            Self::Header(name) => format!("{{header:{name}}}"),
        }
    }
}

impl Rule {
    /// An HMAC of the body in one header: the most common scheme.
    pub const fn of_body(header: &'static str, prefix: &'static str, algorithm: Algorithm, encoding: Encoding) -> Self {
        Self {
            header: Cow::Borrowed(header),
            prefix: Cow::Borrowed(prefix),
            prefix_optional: false,
            list: None,
            proof: Proof::Signature { algorithm, encoding, template: Cow::Borrowed(&[Part::Body]) },
            time: None,
            id_header: None,
        }
    }

    /// A signature of a template in one header, and its time in another.
    pub const fn with_time(
        (header, prefix): (&'static str, &'static str),
        algorithm: Algorithm,
        encoding: Encoding,
        template: &'static [Part],
        time_header: &'static str,
    ) -> Self {
        Self {
            header: Cow::Borrowed(header),
            prefix: Cow::Borrowed(prefix),
            prefix_optional: false,
            list: None,
            proof: Proof::Signature { algorithm, encoding, template: Cow::Borrowed(template) },
            time: Some(Time {
                place: TimePlace::Header(Cow::Borrowed(time_header)),
                unit: TimeUnit::Seconds,
                tolerance_seconds: TOLERANCE_SECONDS,
            }),
            id_header: None,
        }
    }

    /// Whether the body is authenticated.
    pub fn covers_body(&self) -> bool {
        !matches!(self.proof, Proof::Secret | Proof::Token { body_claim: None })
    }

    /// Whether the signature covers the URL.
    pub fn needs_url(&self) -> bool {
        matches!(&self.proof, Proof::Signature { template, .. } if template.contains(&Part::Url))
    }

    /// The rule in words, in the form of dashboards.
    pub fn describe(&self) -> String {
        let value = match &self.proof {
            Proof::Secret => "the secret itself".to_owned(),
            Proof::Token { body_claim: Some(claim) } => format!("JWT of HS256 with the body's SHA-256 in {claim}"),
            Proof::Token { body_claim: None } => "JWT of HS256".to_owned(),
            Proof::Signature { algorithm, encoding, template } => {
                let template: String = template.iter().map(Part::describe).collect();
                format!("{} of {template}, in {}", algorithm.name(), encoding.name())
            }
        };
        let list = self.list.as_ref();
        let label = list.and_then(|list| list.label.as_ref());
        let (equals, label) =
            label.map_or((' ', String::new()), |(equals, label)| (*equals, format!("{label}{equals}")));
        let time = match self.time.as_ref().map(|time| (&time.place, time.unit)) {
            Some((TimePlace::Label(own), unit)) => {
                format!("{own}{equals}<{}>{}", unit.name(), list.map_or(',', |list| list.separator))
            }
            _ => String::new(),
        };
        let others = match self.time.as_ref().map(|time| (&time.place, time.unit)) {
            Some((TimePlace::Header(name), unit)) => format!("; {name}: <{}>", unit.name()),
            _ => String::new(),
        };
        let id = self.id_header.as_ref().map(|name| format!("; {name}: <id>")).unwrap_or_default();
        format!("{}: {time}{label}{}<{value}>{others}{id}", self.header, self.prefix)
    }

    /// Verifies a request; returns which of `keys` matches. All keys are tried, so the time does not reveal it.
    pub fn verify(&self, request: &Request<'_>, keys: &[Key], now: Moment) -> Result<usize, BadSignature> {
        let value = single(request.headers, &self.header)?;
        let bare = || value.strip_prefix(self.prefix.as_bytes()).ok_or(BadSignature::Malformed);
        let (algorithm, encoding, template) = match &self.proof {
            Proof::Secret => {
                let shown = bare()?;
                return first_fitting(keys, |key| same_secret(key.secret.expose(), shown));
            }
            Proof::Token { body_claim } => {
                let token = jwt::verify(bare()?, &["HS256"], keys, now)?;
                return match body_claim.as_deref().is_none_or(|claim| token.digests(claim, request.body)) {
                    true => Ok(token.key),
                    false => Err(BadSignature::BodyMismatch),
                };
            }
            Proof::Signature { algorithm, encoding, template } => (algorithm, encoding, template),
        };
        let time = self.signed_time(request.headers, value)?;
        let signatures = self.signatures(value, *algorithm, *encoding)?;
        let id = self.id_header.as_deref().map(|name| single(request.headers, name)).transpose()?;
        let parts = assemble(template, request, time, id)?;
        let parts: Vec<&[u8]> = parts.iter().map(AsRef::as_ref).collect();
        let fits = |key: &Key| {
            let secret = key.secret.expose();
            signatures.iter().fold(false, |fits, signature| algorithm.verifies(secret, &parts, signature) | fits)
        };
        let key = first_fitting(keys, fits)?;
        // The time window is checked last, so that a wrong signature is reported as such even if its time is wrong.
        if let (Some(Time { unit, tolerance_seconds, .. }), Some(time)) = (&self.time, time) {
            check_time(time, *unit, *tolerance_seconds, now)?;
        }
        Ok(key)
    }

    /// The time as it was received.
    fn signed_time<'a>(&self, headers: &'a HeaderMap, value: &'a [u8]) -> Result<Option<&'a [u8]>, BadSignature> {
        let Some(time) = &self.time else { return Ok(None) };
        let received = match &time.place {
            TimePlace::Header(name) => single(headers, name)?,
            TimePlace::Label(label) => {
                let list = self.list.as_ref().ok_or(BadSignature::Malformed)?;
                let mut found = items(list, value).filter(|(own, _)| *own == label.as_bytes()).map(|(_, value)| value);
                let first = found.next().ok_or(BadSignature::MalformedTimestamp)?;
                // With two times, one could be signed and the other one checked.
                if found.next().is_some() {
                    return Err(BadSignature::MalformedTimestamp);
                }
                first
            }
        };
        // The form of the time is checked before the signature, the window after it.
        match check_time(received, time.unit, u32::MAX, Moment::from_microseconds(0)) {
            Err(BadSignature::MalformedTimestamp) => Err(BadSignature::MalformedTimestamp),
            _ => Ok(Some(received)),
        }
    }

    /// The decoded signatures of the header. Malformed ones cannot match. It is an error if all are malformed.
    fn signatures(&self, value: &[u8], algorithm: Algorithm, encoding: Encoding) -> Result<Vec<Vec<u8>>, BadSignature> {
        let decode = |text: &[u8]| {
            let bare = match text.strip_prefix(self.prefix.as_bytes()) {
                Some(bare) => bare,
                None if self.prefix_optional => text,
                None => return None,
            };
            encoding.decode(bare, algorithm.signature_bytes())
        };
        let found: Vec<_> = match &self.list {
            None => decode(value).into_iter().collect(),
            Some(list) => items(list, value)
                .filter(|(own, _)| list.counts(own))
                .take(SIGNATURES_MAX)
                .filter_map(|(_, value)| decode(value))
                .collect(),
        };
        if found.is_empty() { Err(BadSignature::Malformed) } else { Ok(found) }
    }

    /// The headers of a request signed with `key`, for tests. None if only the provider can sign.
    pub fn sign(&self, request: &Request<'_>, key: &Key, id: &str, now: Moment) -> Option<HeaderMap> {
        let mut headers = request.headers.clone();
        let mut insert = |name: &str, value: &str| {
            headers.insert(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
            Some(())
        };
        let (algorithm, encoding, template) = match &self.proof {
            Proof::Secret => {
                insert(&self.header, &format!("{}{}", self.prefix, String::from_utf8_lossy(key.secret.expose())))?;
                return Some(headers);
            }
            Proof::Token { body_claim } => {
                let mut claims = json!({ "iat": now.unix_seconds(), "jti": id });
                if let Some(claim) = body_claim {
                    claims[claim.as_ref()] = encode_hex(&Sha256::digest(request.body)).into();
                }
                insert(&self.header, &format!("{}{}", self.prefix, jwt::sign(&claims, key)))?;
                return Some(headers);
            }
            Proof::Signature { algorithm, encoding, template } => (algorithm, encoding, template),
        };
        let time = self.time.as_ref().map(|time| match time.unit {
            TimeUnit::Seconds => now.unix_seconds().to_string(),
            TimeUnit::Milliseconds => now.unix_millis().to_string(),
        });
        if let (Some(Time { place: TimePlace::Header(name), .. }), Some(time)) = (&self.time, &time) {
            insert(name, time)?;
        }
        if let Some(name) = &self.id_header {
            insert(name, id)?;
        }
        let request = Request { headers: &headers, ..*request };
        let parts = assemble(template, &request, time.as_deref().map(str::as_bytes), Some(id.as_bytes())).ok()?;
        let parts: Vec<&[u8]> = parts.iter().map(AsRef::as_ref).collect();
        let signature = encoding.encode(&algorithm.sign(key.secret.expose(), &parts)?);
        let mut value = format!("{}{signature}", self.prefix);
        if let Some(List { separator, label: Some((equals, label)), .. }) = &self.list {
            value = format!("{label}{equals}{value}");
            if let (Some(Time { place: TimePlace::Label(label), .. }), Some(time)) = (&self.time, &time) {
                value = format!("{label}{equals}{time}{separator}{value}");
            }
        }
        headers.insert(HeaderName::try_from(self.header.as_ref()).ok()?, HeaderValue::try_from(value).ok()?);
        Some(headers)
    }
}

/// The items of a list with their labels; an item without one has an empty label.
fn items<'a>(list: &List, value: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
    let separator = list.separator as u8;
    let equals = list.label.as_ref().map(|(equals, _)| *equals as u8);
    value.split(move |byte| *byte == separator).map(move |item| {
        match item.iter().position(|byte| Some(*byte) == equals) {
            Some(at) => (&item[..at], &item[at + 1..]),
            None => (&[][..], item),
        }
    })
}

/// The parts of the signed text, in order.
fn assemble<'a>(
    template: &'a [Part],
    request: &'a Request<'_>,
    time: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
) -> Result<Vec<Cow<'a, [u8]>>, BadSignature> {
    let piece = |part: &'a Part| {
        Ok(match part {
            Part::Text(text) => text.as_bytes().into(),
            Part::Body => request.body.into(),
            Part::Timestamp => time.ok_or(BadSignature::MissingHeader)?.into(),
            Part::Id => id.ok_or(BadSignature::MissingHeader)?.into(),
            Part::Url => request.url().ok_or(BadSignature::UnknownUrl)?.into_bytes().into(),
            Part::SortedForm => sorted_form(request.body).into_bytes().into(),
            Part::BodySha256 => Sha256::digest(request.body).to_vec().into(),
            Part::Header(name) => single(request.headers, name)?.into(),
        })
    };
    template.iter().map(piece).collect()
}
