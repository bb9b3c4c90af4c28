//! Who may post, and what a post says: one row of `SCHEMES` per provider protocol, as plain functions over plain values.
//!
//! Verification comes first and works on the raw bytes. Only this module can build a `VerifiedBody`, and only a
//! `VerifiedBody` can be parsed, so bytes that nobody vouched for are never looked into.

pub mod algorithm;
pub mod element;
pub mod encoding;
pub mod fields;
pub mod header;
pub mod json;
pub mod jwt;
pub mod key;
pub mod rule;
pub mod signature;

mod bird;
mod evolution;
pub mod fuzz;
pub mod generic;
mod jid;
mod line;
mod messagebird;
#[cfg(test)]
mod newer_shapes;
pub mod original;
mod plivo;
mod presets;
mod redact;
pub mod sealed;
mod slack;
mod standard;
mod telegram;
mod telnyx;
mod twilio;
mod vonage;
mod waha;
mod whatsapp;

use std::borrow::Cow;

use bytes::Bytes;
use hyper::HeaderMap;
use serde_json::Value;

use crate::domain::payload::{PayloadRow, StoredPayload};
use crate::domain::{Address, Event, FieldError, Intake, MessageId, Moment, Payload};
pub use key::{Key, Role, SecretForm};
pub use rule::Rule;
pub use signature::{BadHandshake, BadSignature, SigningKey};

/// A provider protocol: how a request proves where it comes from, and how its body is read.
#[derive(Debug)]
pub struct Scheme {
    /// Its name in configuration, metrics and logs.
    pub kind: &'static str,
    /// What it is called by people.
    pub title: &'static str,
    /// The environment variable that opens a door of this kind by its own; none for kinds that need a file.
    pub variable: Option<&'static str>,
    /// How its secrets are written.
    pub secret: SecretForm,
    /// How a stored request is answered.
    pub answer: AnswerStyle,
    /// The status of the answer to a request that is not believed.
    pub refusal_status: u16,
    /// The signature scheme, where it is nothing but a rule.
    pub rule: Option<Rule>,
    /// What proves a request, in words, where it is more than a rule.
    pub expects: Option<&'static str>,
    /// Whether the URL is part of what is signed.
    pub needs_url: bool,
    /// What the operator has to know before relying on this protocol, if it is weaker than a signature of the body.
    pub caution: Option<&'static str>,
    /// Whether the proof is a token in `Authorization`.
    pub by_bearer: bool,
    /// Whether the provider appends something of its own to the path.
    pub takes_suffix: bool,
    /// Headers that the reading of a body depends on.
    pub kept_headers: &'static [&'static str],
    /// Proves the body by the headers, or says why not; answers which key did.
    verify: Verify,
    /// Reads the messages out of a body.
    parse: Parse,
    /// Answers a GET by which the provider makes sure that the door is ours.
    handshake: Option<Handshake>,
    /// Signs a request as the provider would, for trying out.
    sign: Option<Sign>,
    /// Names of the members of a body, in lower case, whose values are secrets and are never kept.
    secret_members: &'static [&'static str],
}

type Verify = fn(&Source, &Request<'_>, Moment) -> Result<usize, BadSignature>;
/// How a body is read.
#[derive(Debug)]
enum Parse {
    /// From its bytes and headers.
    Bytes(fn(&Source, &VerifiedBody, Moment) -> Result<Parsed, InvalidBody>),
    /// As JSON. What is not JSON becomes an event.
    Json(fn(&Source, &Value, Moment) -> Parsed),
}

type Handshake = fn(&Source, &str) -> Result<Challenge, BadHandshake>;
type Sign = fn(&Source, &Request<'_>, &str, Moment) -> Option<HeaderMap>;

impl Scheme {
    /// What most rows have in common; each says only in what it differs.
    const BASE: Self = Self {
        kind: "",
        title: "",
        variable: None,
        secret: SecretForm::Text,
        answer: AnswerStyle::Json,
        refusal_status: 401,
        rule: None,
        expects: None,
        needs_url: false,
        caution: None,
        by_bearer: false,
        takes_suffix: false,
        kept_headers: &[],
        verify: Source::verify_by_rule,
        parse: Parse::Json(|_, _, _| Parsed::default()),
        handshake: None,
        sign: Some(Source::sign_by_rule),
        secret_members: &[],
    };

    /// The protocol of that name.
    pub fn find(kind: &str) -> Option<&'static Scheme> {
        SCHEMES.iter().find(|scheme| scheme.kind == kind)
    }

    /// Whether the configuration says how its requests are signed and read.
    pub fn is_generic(&self) -> bool {
        self.kind == generic::SCHEME.kind
    }

    /// Whether the provider asks by GET before it posts.
    pub fn has_handshake(&self) -> bool {
        self.handshake.is_some()
    }
}

/// Every protocol that Postroom speaks.
pub static SCHEMES: &[Scheme] = &[
    original::SCHEME,
    whatsapp::SCHEME,
    twilio::SCHEME,
    standard::SCHEME,
    telegram::SCHEME,
    waha::SCHEME,
    evolution::SCHEME,
    generic::SCHEME,
    presets::DIALOG360,
    vonage::SCHEME,
    messagebird::SCHEME,
    bird::SCHEME,
    line::SCHEME,
    slack::SCHEME,
    telnyx::SCHEME,
    plivo::SCHEME,
    presets::GITHUB,
    presets::STRIPE,
];

/// What a provider wants to hear when its messages are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerStyle {
    /// `{"status":"ok"}`
    Json,
    /// An empty document of XML (Twilio's TwiML, Plivo's XML). Anything else would be sent to the user as a message, or be an
    /// error at the provider.
    EmptyTwiml,
    /// Nothing: a body could be taken for a command.
    Empty,
}

/// A text that the provider wants to hear back, exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge(pub String);

/// A configured door: a protocol and the keys that open it.
#[derive(Debug)]
pub struct Source {
    /// The door's name in metrics and logs.
    pub name: String,
    /// The protocol spoken there.
    pub scheme: &'static Scheme,
    /// Any of these may have signed; at least one.
    pub keys: Vec<Key>,
    /// What else was said of the door.
    pub options: Options,
}

/// What can be said of a door beyond its protocol and secrets.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The name of the account, where the provider does not send one.
    pub account: Option<String>,
    /// The recipient, where the provider does not send one.
    pub to: Option<Address>,
    /// Any of these may be the token of the handshake.
    pub verify_tokens: Vec<Key>,
    /// Scheme, host and port under which the provider reaches us; goes before what holds for all doors.
    pub base_url: Option<String>,
    /// Most bytes of a body, where it is not what holds for all doors.
    pub body_bytes_max: Option<usize>,
    /// The header that holds a static secret, where the operator chooses it.
    pub header: Option<String>,
    /// Whether requests are signed with keys that are numbered, rather than with the account's token (Twilio).
    pub shared_keys: bool,
    /// The signature scheme, for the generic provider and for those that vary.
    pub rule: Option<Rule>,
    /// Where the fields of a message are, for the generic provider.
    pub mapping: Option<generic::Mapping>,
}

/// A request, as far as it can prove anything.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body's bytes.
    pub body: &'a [u8],
    /// Scheme, host and port under which it was sent, if that is known from somebody we trust.
    pub base_url: Option<&'a str>,
    /// Path and query, as received.
    pub target: &'a str,
}

impl Request<'_> {
    /// The URL that the provider was given, with the query as received.
    pub fn url(&self) -> Option<String> {
        self.base_url.map(|base| format!("{}{}", base.trim_end_matches('/'), self.target))
    }
}

impl Source {
    /// A door with nothing special to it.
    pub fn new(name: &str, scheme: &'static Scheme, keys: Vec<Key>) -> Self {
        Self { name: name.to_owned(), scheme, keys, options: Options::default() }
    }

    /// Checks the signature over the raw body.
    pub fn verify(&self, request: &Request<'_>, body: Bytes, now: Moment) -> Result<VerifiedBody, BadSignature> {
        let request = Request { base_url: self.options.base_url.as_deref().or(request.base_url), ..*request };
        let key = (self.scheme.verify)(self, &request, now)?;
        if let Some(key) = self.keys.get(key) {
            key.used(now);
        }
        let own = self.options.rule.as_ref().and_then(|rule| rule.id_header.as_deref());
        let kept = self.scheme.kept_headers.iter().copied().chain(own).filter_map(|name| {
            let value = request.headers.get(name)?.to_str().ok()?;
            Some((name.to_owned(), value.to_owned()))
        });
        Ok(VerifiedBody { bytes: body, headers: kept.collect() })
    }

    /// Reads the messages out of a verified body. `now` is when the request was accepted. Only a door of the original kind
    /// refuses content; at the others, what cannot be understood becomes an event, and the raw bytes stay.
    pub fn parse(&self, body: &VerifiedBody, now: Moment) -> Result<Parsed, InvalidBody> {
        let mut parsed = match self.scheme.parse {
            Parse::Bytes(parse) => parse(self, body, now)?,
            Parse::Json(parse) => match element::read_json(self, body, now) {
                Ok(value) => parse(self, &value, now),
                Err(unreadable) => *unreadable,
            },
        };
        if self.keeps_payload() {
            if parsed.is_cut {
                let why = "more than 10000 elements in one body";
                parsed.intake.events.push(element::unreadable_body(self, body.as_bytes(), why, now));
            }
            if parsed.intake.is_empty() && parsed.challenge.is_none() {
                let why = "nothing in it is known";
                parsed.intake.events.push(element::unreadable_body(self, body.as_bytes(), why, now));
            }
            parsed.intake.payload = Some(self.payload(body));
            self.redact_events(&mut parsed.intake.events);
        }
        Ok(parsed)
    }

    /// The raw body as it is kept.
    fn payload(&self, body: &VerifiedBody) -> Payload {
        let redacted = self.redact(&body.bytes);
        Payload {
            source: self.name.clone(),
            provider: self.scheme.kind,
            redacted: redacted.is_some(),
            bytes: redacted.map_or_else(|| body.bytes.clone(), Bytes::from),
            headers: body.headers.clone(),
        }
    }

    /// The bytes of a body without the secrets that this provider writes into it; none if it holds none. Whatever keeps a body,
    /// or a part of one, keeps it like this.
    pub fn redact(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        redact::redact(bytes, self.scheme.secret_members)
    }

    fn redact_events(&self, events: &mut [Event]) {
        for body in events.iter_mut().filter_map(|event| event.body.as_mut()) {
            if let Some(redacted) = self.redact(body.as_bytes()) {
                *body = String::from_utf8(redacted).expect("whole members of a text were replaced");
            }
        }
    }

    /// Whether raw bodies of this door are kept. The original one's hold nothing that the table does not.
    pub fn keeps_payload(&self) -> bool {
        self.scheme.kind != original::SCHEME.kind
    }

    /// What a body becomes whose parser failed altogether: one event, for another try after an upgrade.
    pub fn unreadable(&self, body: &VerifiedBody, why: &str, now: Moment) -> Parsed {
        let events = vec![element::unreadable_body(self, &body.bytes, why, now)];
        Intake { events, payload: Some(self.payload(body)), ..Intake::default() }.into()
    }

    /// A body that was verified when it came, and was stored since.
    pub fn reopen(&self, stored: StoredPayload) -> VerifiedBody {
        let PayloadRow { bytes, headers, .. } = stored.into_row();
        VerifiedBody { bytes: bytes.into(), headers }
    }

    /// Answers a GET by which the provider makes sure that the door is ours; none where it never asks.
    pub fn handshake(&self, query: &str) -> Option<Result<Challenge, BadHandshake>> {
        self.scheme.handshake.map(|handshake| handshake(self, query))
    }

    /// The headers by which the provider would prove this request. None where only the provider can.
    pub fn sign(&self, request: &Request<'_>, id: &str, now: Moment) -> Option<HeaderMap> {
        let request = Request { base_url: self.options.base_url.as_deref().or(request.base_url), ..*request };
        self.scheme.sign?(self, &request, id, now)
    }

    /// The signature scheme: what the configuration says, or else the protocol.
    pub fn rule(&self) -> Option<&Rule> {
        self.options.rule.as_ref().or(self.scheme.rule.as_ref())
    }

    /// What proves a request here, in words that people find again in dashboards.
    pub fn expects(&self) -> String {
        match (&self.options.header, self.rule(), self.scheme.expects) {
            (Some(header), ..) => format!("{header}: <the secret itself>"),
            (None, Some(rule), _) => rule.describe(),
            (None, None, words) => words.unwrap_or("a proof of its own").to_owned(),
        }
    }

    /// What the operator has to know before relying on this door, if its proof is weaker than a signature of the body.
    pub fn caution(&self) -> Option<&'static str> {
        const NOT_SIGNED: &str =
            "the body is not signed: whoever sees one request can send others. Use HTTPS to the last hop";
        let covers = self.rule().is_none_or(Rule::covers_body);
        self.scheme.caution.or((!covers).then_some(NOT_SIGNED))
    }

    /// Whether requests can only be verified with the URL known.
    pub fn needs_url(&self) -> bool {
        self.scheme.needs_url || self.rule().is_some_and(Rule::needs_url)
    }

    /// The account under which this door's messages are stored, where the provider does not name one.
    pub fn account(&self) -> &str {
        self.options.account.as_deref().unwrap_or(&self.name)
    }

    fn verify_by_rule(&self, request: &Request<'_>, now: Moment) -> Result<usize, BadSignature> {
        self.rule().ok_or(BadSignature::WrongSecret)?.verify(request, &self.keys, now)
    }

    fn sign_by_rule(&self, request: &Request<'_>, id: &str, now: Moment) -> Option<HeaderMap> {
        self.rule()?.sign(request, self.signing_key()?, id, now)
    }

    /// The key that requests are signed with for trying out; none where only public ones are known.
    fn signing_key(&self) -> Option<&Key> {
        self.keys.iter().find(|key| key.role != Role::Public)
    }
}

/// Raw bytes that a holder of the source's secret signed. Only these are parsed:
///
/// ```
/// use postroom::domain::Moment;
/// use postroom::providers::{Source, VerifiedBody};
///
/// fn parse(source: &Source, body: &VerifiedBody) -> bool {
///     source.parse(body, Moment::now()).is_ok()
/// }
/// ```
///
/// ```compile_fail,E0308
/// use postroom::domain::Moment;
/// use postroom::providers::Source;
///
/// fn parse(source: &Source, body: &[u8]) -> bool {
///     source.parse(body, Moment::now()).is_ok()
/// }
/// ```
///
/// One is made by `Source::verify`, or by `Source::reopen` of a body that the store has; nobody else makes one:
///
/// ```
/// use postroom::domain::payload::StoredPayload;
/// use postroom::providers::{Source, VerifiedBody};
///
/// fn reopen(source: &Source, stored: StoredPayload) -> VerifiedBody {
///     source.reopen(stored)
/// }
/// ```
///
/// ```compile_fail,E0308
/// use postroom::domain::payload::PayloadRow;
/// use postroom::providers::{Source, VerifiedBody};
///
/// fn forge(source: &Source, row: PayloadRow) -> VerifiedBody {
///     source.reopen(row)
/// }
/// ```
///
/// ```compile_fail,E0451
/// fn forge() -> postroom::providers::VerifiedBody {
///     postroom::providers::VerifiedBody { bytes: Default::default(), headers: Vec::new() }
/// }
/// ```
///
/// ```compile_fail,E0599
/// fn forge() -> postroom::providers::VerifiedBody {
///     postroom::providers::VerifiedBody::default()
/// }
/// ```
#[derive(Debug, Clone)]
pub struct VerifiedBody {
    bytes: Bytes,
    headers: Vec<(String, String)>,
}

impl VerifiedBody {
    /// The bytes as they came.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A header that the reading depends on.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What a body says: what goes into the inbox, and what the provider wants to hear.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed {
    /// What is to be stored.
    pub intake: Intake,
    /// What the provider wants to hear instead of the usual answer.
    pub challenge: Option<Challenge>,
    /// Whether the body has more parts than are stored one by one.
    pub is_cut: bool,
}

impl From<Intake> for Parsed {
    fn from(intake: Intake) -> Self {
        Self { intake, ..Self::default() }
    }
}

/// A verified body that the door refuses, with everything that is wrong with it. Only the original door refuses content.
#[derive(Debug, Clone, PartialEq)]
pub struct InvalidBody {
    /// All refused fields, in field order; never empty.
    pub errors: Vec<FieldError>,
    /// The message's id, if that much could be read (for the log).
    pub message_id: Option<MessageId>,
}

/// A text that stands in the program, for rows of data.
const fn text(text: &'static str) -> Cow<'static, str> {
    Cow::Borrowed(text)
}
