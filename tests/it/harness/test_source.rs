//! A simulated provider: it signs its requests with the same settings that the program was started with.

use std::time::{SystemTime, UNIX_EPOCH};

use domain::{Moment, Secret};
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use providers::encoding::encode_hex;
use providers::{Request, SecretForm, Source};
use sha2::{Digest, Sha256};

use super::{Reply, Server, Setup};

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// A source, and the requests of its provider.
pub struct TestSource {
    pub source: Source,
    pub path: String,
    media_type: &'static str,
}

/// The current time, in the format of providers that sign a time.
pub fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Moment::from_microseconds(since.as_micros() as i64)
}

impl TestSource {
    /// The source of that name.
    pub fn of(setup: &Setup, name: &str) -> Self {
        let sources = setup.config().sources;
        let mut source = sources.into_iter().find(|source| source.name == name).expect("the source is there");
        if source.scheme.secret == SecretForm::PublicKey {
            let private = Secret::new(PRIVATE_KEY).expect("not empty");
            source.keys = vec![SecretForm::PrivateKey.read("private", &private).expect("a private key")];
        }
        let forms = ["twilio", "plivo"].contains(&source.scheme.kind);
        let media_type = if forms { FORM } else { JSON };
        Self { path: format!("/webhook/{name}"), source, media_type }
    }

    /// The headers that authenticate this body. A file extension in the id determines the content type.
    pub fn headers(&self, body: &[u8], id: &str, now: Moment) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let media_type = match id.rsplit_once('.') {
            Some((_, "form")) => FORM,
            Some((_, "json")) => JSON,
            _ => self.media_type,
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        let target = self.target(body, &headers);
        let request = Request { headers: &headers, body, base_url: Some(BASE_URL), target: &target };
        self.source.sign(&request, id, now).expect("the test can sign for this provider")
    }

    /// The path; for JSON of Twilio with the digest of the body, because only that authenticates it.
    fn target(&self, body: &[u8], headers: &HeaderMap) -> String {
        match self.source.scheme.kind == "twilio" && headers[CONTENT_TYPE] == JSON {
            true => format!("{}?bodySHA256={}", self.path, encode_hex(&Sha256::digest(body))),
            false => self.path.clone(),
        }
    }

    /// Posts a body with its authentication headers.
    pub fn post(&self, server: &Server, body: &[u8], id: &str) -> Reply {
        self.post_with(server, body, &self.headers(body, id, now()))
    }

    /// Posts a body with these headers.
    pub fn post_with(&self, server: &Server, body: &[u8], headers: &HeaderMap) -> Reply {
        let target = self.target(body, headers);
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII"))).collect();
        server.client().request("POST", &target, &headers, body).expect("an answer")
    }
}

/// The base URL of every test server.
pub const BASE_URL: &str = "https://hooks.example.com";

/// RFC 8032, §7.1, test 1: the keys of a provider that signs with Ed25519.
pub const PRIVATE_KEY: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const PUBLIC_KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

/// The settings that open a source of each kind: the common ones by their variables, the others by a file.
pub fn all_sources(mut setup: Setup) -> Setup {
    let others = ["360dialog", "vonage", "messagebird", "bird", "line", "slack", "plivo", "github", "stripe"];
    let sources = others.map(|kind| format!("[source.{kind}]\nprovider = \"{kind}\"\nsecret_env = \"OTHER_SECRET\"\n"));
    let generic =
        "[source.generic]\nprovider = \"generic\"\nsecret_env = \"OTHER_SECRET\"\nsignature_header = \"x-own\"\n";
    let telnyx = "[source.telnyx]\nprovider = \"telnyx\"\nsecret_env = \"TELNYX_PUBLIC_KEY\"\n";
    let path = setup.path().join("sources.toml");
    std::fs::write(&path, sources.concat() + generic + telnyx).expect("the file can be written");
    setup = setup.env("POSTROOM_CONFIG", path.display()).env("OTHER_SECRET", "other-secret");
    let secrets = [
        ("WHATSAPP_APP_SECRET", "app-secret"),
        ("WHATSAPP_VERIFY_TOKEN", "verify me"),
        ("TWILIO_AUTH_TOKEN", "12345"),
        ("STANDARD_WEBHOOKS_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("TELEGRAM_SECRET_TOKEN", "telegram-token"),
        ("WAHA_HMAC_KEY", "my-secret-key"),
        ("EVOLUTION_JWT_KEY", "jwt-key"),
        ("TELNYX_PUBLIC_KEY", PUBLIC_KEY),
        ("PUBLIC_BASE_URL", BASE_URL),
    ];
    for (name, value) in secrets {
        setup = setup.env(name, value);
    }
    setup
}
