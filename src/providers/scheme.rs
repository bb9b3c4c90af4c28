//! A protocol as data, and a source that speaks it. Each names the other: a protocol's functions take the source.

use hyper::HeaderMap;
use serde_json::Value;

use super::key::{Key, Role, SecretForm};
use super::mapping::Mapping;
use super::parsed::{Challenge, InvalidBody, Parsed};
use super::request::Request;
use super::rule::Rule;
use super::signature::{BadHandshake, BadSignature};
use super::verified::VerifiedBody;
use crate::domain::{Address, Moment};

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
    pub(super) verify: Verify,
    /// Reads the messages out of a body.
    pub(super) parse: Parse,
    /// Answers a GET by which the provider makes sure that the door is ours.
    pub(super) handshake: Option<Handshake>,
    /// Signs a request as the provider would, for trying out.
    pub(super) sign: Option<Sign>,
    /// Names of the members of a body, in lower case, whose values are secrets and are never kept.
    pub(super) secret_members: &'static [&'static str],
}

/// Proves a request, and returns which key did.
pub(super) type Verify = fn(&Source, &Request<'_>, Moment) -> Result<usize, BadSignature>;

/// How a body is read.
#[derive(Debug)]
pub(super) enum Parse {
    /// From its bytes and headers.
    Bytes(fn(&Source, &VerifiedBody, Moment) -> Result<Parsed, InvalidBody>),
    /// As JSON. What is not JSON becomes an event.
    Json(fn(&Source, &Value, Moment) -> Parsed),
}

/// Reads the query of a GET.
pub(super) type Handshake = fn(&Source, &str) -> Result<Challenge, BadHandshake>;
/// Signs a request as the provider would.
pub(super) type Sign = fn(&Source, &Request<'_>, &str, Moment) -> Option<HeaderMap>;

impl Scheme {
    /// What most rows have in common; each says only in what it differs.
    pub(super) const BASE: Self = Self {
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

    /// Whether the provider asks by GET before it posts.
    pub fn has_handshake(&self) -> bool {
        self.handshake.is_some()
    }
}

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
    pub mapping: Option<Mapping>,
}

impl Source {
    /// A door with nothing special to it.
    pub fn new(name: &str, scheme: &'static Scheme, keys: Vec<Key>) -> Self {
        Self { name: name.to_owned(), scheme, keys, options: Options::default() }
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

    pub(super) fn verify_by_rule(&self, request: &Request<'_>, now: Moment) -> Result<usize, BadSignature> {
        self.rule().ok_or(BadSignature::WrongSecret)?.verify(request, &self.keys, now)
    }

    pub(super) fn sign_by_rule(&self, request: &Request<'_>, id: &str, now: Moment) -> Option<HeaderMap> {
        self.rule()?.sign(request, self.signing_key()?, id, now)
    }

    /// The key that requests are signed with for trying out; none where only public ones are known.
    pub(super) fn signing_key(&self) -> Option<&Key> {
        self.keys.iter().find(|key| key.role != Role::Public)
    }
}
