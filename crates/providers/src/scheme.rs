//! A protocol as data, and a source that uses it. They refer to each other: its functions take the source.

use http::HeaderMap;
use serde_json::Value;

use super::key::{Key, Role, SecretForm};
use super::mapping::Mapping;
use super::parsed::{Challenge, InvalidBody, Parsed};
use super::request::Request;
use super::rule::Rule;
use super::signature::{BadHandshake, BadSignature};
use super::verified::VerifiedBody;
use domain::{Address, Moment};

/// A provider protocol: how a request proves its origin, and how its body is parsed.
#[derive(Debug)]
pub struct Scheme {
    /// Its name in configuration, metrics and logs.
    pub kind: &'static str,
    /// Its display name.
    pub title: &'static str,
    /// The environment variable that enables a source of this kind by itself; none for kinds that need a file.
    pub variable: Option<&'static str>,
    /// The encoding of its secrets.
    pub secret: SecretForm,
    /// The response body after storing a request.
    pub answer: AnswerStyle,
    /// The status of the response to a request that fails verification.
    pub refusal_status: u16,
    /// The signature scheme, if it is only a rule.
    pub rule: Option<Rule>,
    /// The proof of a request in words, if it is more than a rule.
    pub expects: Option<&'static str>,
    /// Whether the signature covers the URL.
    pub needs_url: bool,
    /// A warning for the operator, if the protocol is weaker than a signature of the body.
    pub caution: Option<&'static str>,
    /// Whether the proof is a token in `Authorization`.
    pub by_bearer: bool,
    /// Whether the provider appends a part to the path.
    pub takes_suffix: bool,
    /// Headers that the parser needs.
    pub kept_headers: &'static [&'static str],
    /// Verifies the body by the headers. Returns the key that matched, or the reason of a failure.
    pub(super) verify: Verify,
    /// Parses the messages of a body.
    pub(super) parse: Parse,
    /// Handles a GET with which the provider checks the ownership of the source.
    pub(super) handshake: Option<Handshake>,
    /// Signs a request as the provider would, for tests.
    pub(super) sign: Option<Sign>,
    /// Names of the members of a body, in lower case, whose values are secrets and are never kept.
    pub(super) secret_members: &'static [&'static str],
}

/// Verifies a request; returns the index of the matching key.
pub(super) type Verify = fn(&Source, &Request<'_>, Moment) -> Result<usize, BadSignature>;

/// How a body is parsed.
#[derive(Debug)]
pub(super) enum Parse {
    /// From its bytes and headers.
    Bytes(fn(&Source, &VerifiedBody, Moment) -> Result<Parsed, InvalidBody>),
    /// As JSON. A body that is not JSON becomes an event.
    Json(fn(&Source, &Value, Moment) -> Parsed),
}

/// Handles the query of a GET.
pub(super) type Handshake = fn(&Source, &str) -> Result<Challenge, BadHandshake>;
/// Signs a request as the provider would.
pub(super) type Sign = fn(&Source, &Request<'_>, &str, Moment) -> Option<HeaderMap>;

impl Scheme {
    /// The common values of most rows; each row sets only its differences.
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

    /// Whether the provider sends a GET before it posts.
    pub fn has_handshake(&self) -> bool {
        self.handshake.is_some()
    }
}

/// The response that a provider expects after its messages are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerStyle {
    /// `{"status":"ok"}`
    Json,
    /// An empty XML document (Twilio's TwiML, Plivo's XML). Anything else would be sent to the user, or be an
    /// error at the provider.
    EmptyTwiml,
    /// No body: the provider could execute it as a command.
    Empty,
}

/// A configured source: a protocol and its keys.
#[derive(Debug)]
pub struct Source {
    /// The source's name in metrics and logs.
    pub name: String,
    /// Its protocol.
    pub scheme: &'static Scheme,
    /// The keys: a signature by any of them is valid. There is at least one.
    pub keys: Vec<Key>,
    /// The other settings of the source.
    pub options: Options,
}

/// The settings of a source beyond its protocol and secrets.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The name of the account, if the provider does not send one.
    pub account: Option<String>,
    /// The recipient, if the provider does not send one.
    pub to: Option<Address>,
    /// Each of these is a valid token of the handshake.
    pub verify_tokens: Vec<Key>,
    /// Scheme, host and port under which the provider reaches us; overrides the value for all sources.
    pub base_url: Option<String>,
    /// Maximum bytes of a body, if it differs from the value for all sources.
    pub body_bytes_max: Option<usize>,
    /// The header with a static secret, if the operator chooses it.
    pub header: Option<String>,
    /// Whether requests are signed with numbered keys instead of the account's token (Twilio).
    pub shared_keys: bool,
    /// The signature scheme, for the generic provider and for variants.
    pub rule: Option<Rule>,
    /// The fields of a message, for the generic provider.
    pub mapping: Option<Mapping>,
}

impl Source {
    /// A source with default options.
    pub fn new(name: &str, scheme: &'static Scheme, keys: Vec<Key>) -> Self {
        Self { name: name.to_owned(), scheme, keys, options: Options::default() }
    }

    /// The signature scheme: from the configuration, or else from the protocol.
    pub fn rule(&self) -> Option<&Rule> {
        self.options.rule.as_ref().or(self.scheme.rule.as_ref())
    }

    /// The proof of a request in words that also appear in dashboards.
    pub fn expects(&self) -> String {
        match (&self.options.header, self.rule(), self.scheme.expects) {
            (Some(header), ..) => format!("{header}: <the secret itself>"),
            (None, Some(rule), _) => rule.describe(),
            (None, None, words) => words.unwrap_or("its own proof").to_owned(),
        }
    }

    /// A warning for the operator, if the proof of this source is weaker than a signature of the body.
    pub fn caution(&self) -> Option<&'static str> {
        const NOT_SIGNED: &str =
            "the body is not signed: anyone who sees one request can send others. Use HTTPS up to the last hop";
        let covers = self.rule().is_none_or(Rule::covers_body);
        self.scheme.caution.or((!covers).then_some(NOT_SIGNED))
    }

    /// Whether verification needs the URL.
    pub fn needs_url(&self) -> bool {
        self.scheme.needs_url || self.rule().is_some_and(Rule::needs_url)
    }

    /// The account of this source's messages, if the provider does not name one.
    pub fn account(&self) -> &str {
        self.options.account.as_deref().unwrap_or(&self.name)
    }

    pub(super) fn verify_by_rule(&self, request: &Request<'_>, now: Moment) -> Result<usize, BadSignature> {
        self.rule().ok_or(BadSignature::WrongSecret)?.verify(request, &self.keys, now)
    }

    pub(super) fn sign_by_rule(&self, request: &Request<'_>, id: &str, now: Moment) -> Option<HeaderMap> {
        self.rule()?.sign(request, self.signing_key()?, id, now)
    }

    /// The key that signs test requests; none if only public keys are known.
    pub(super) fn signing_key(&self) -> Option<&Key> {
        self.keys.iter().find(|key| key.role != Role::Public)
    }
}
