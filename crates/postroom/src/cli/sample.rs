//! `postroom send --as PROVIDER`: posts a realistic sample with the provider's signature.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use super::arguments::{local_url, source_named};
use super::client::{Client, Target};
use domain::{Moment, Secret};
use providers::{Key, Request, SecretForm};
use server::http::routes::path_of_source;

/// A sample: provider, name, bytes.
type Sample = (&'static str, &'static str, &'static [u8]);

macro_rules! samples {
    ($($provider:literal: $($name:literal),+;)+) => {
        &[$($(($provider, $name, include_bytes!(concat!("../../../../testdata/providers/", $provider, "/", $name)))),+),+]
    };
}

/// The first sample of each provider is the default.
const SAMPLES: &[Sample] = samples! {
    "whatsapp": "image.json", "text.json", "audio-voice.json", "location.json", "reaction.json", "interactive-button.json",
        "statuses.json", "batch-with-bad-parts.json", "account-update.json";
    "twilio": "whatsapp-image.form", "sms.form", "mms.form", "status-delivered.form";
    "standard": "message.json", "event.json";
    "telegram": "photo.json", "text.json", "text-in-group.json", "edited.json", "business.json", "reaction.json";
    "waha": "image.json", "text.json", "group.json", "ack.json";
    "evolution": "image.json", "text.json", "opaque-without-number.json";
    "360dialog": "image.json";
    "vonage": "image.json", "text.json", "status-delivered.json";
    "messagebird": "received.json";
    "bird": "whatsapp-inbound.json";
    "line": "text.json", "sticker.json";
    "slack": "message.json", "url-verification.json", "slash-command.form", "interactive.form";
    "telnyx": "mms.json", "received.json", "finalized.json";
    "plivo": "sms.form", "mms.form";
    "github": "issue-opened.json", "issue-opened.form";
    "stripe": "event.json";
};

/// The options of the command.
pub struct Wanted<'a> {
    /// The source's name; also the provider's, unless a file names another.
    pub source: &'a str,
    /// The sample's name, or a file.
    pub body: Option<PathBuf>,
    /// Where to post; the source's path is appended if the URL has none.
    pub url: Option<&'a str>,
    /// The file with the signing key, for sources with a public key only.
    pub private_key: Option<&'a Path>,
    /// The settings file.
    pub config: Option<PathBuf>,
}

/// Signs and posts the sample, and prints the response.
pub fn send(wanted: Wanted<'_>) -> anyhow::Result<ExitCode> {
    let (mut source, config) = source_named(BTreeMap::new(), wanted.config, wanted.source)?;
    let kind = source.scheme.kind;
    if let Some(path) = wanted.private_key {
        source.keys.insert(0, private_key(path)?);
    }
    let of_kind: Vec<&Sample> = SAMPLES.iter().filter(|(provider, ..)| *provider == kind).collect();
    let named = wanted.body.as_deref().and_then(|path| path.to_str());
    let sample = of_kind
        .iter()
        .find(|(_, name, _)| named.is_none_or(|wanted| *name == wanted || name.starts_with(&format!("{wanted}."))));
    let (name, body) = match (sample, wanted.body) {
        (Some((_, name, bytes)), _) => ((*name).to_owned(), Bytes::from_static(bytes)),
        (None, Some(path)) => {
            let known: Vec<&str> = of_kind.iter().map(|(_, name, _)| *name).collect();
            let bytes = std::fs::read(&path).with_context(|| {
                format!("{} is neither a file nor a sample of {kind} ({})", path.display(), known.join(", "))
            })?;
            (path.display().to_string(), bytes.into())
        }
        (None, None) => anyhow::bail!("there is no sample of {kind}; name a file"),
    };
    let path = path_of_source(&source.name);
    let url = wanted.url.map_or_else(|| local_url(&config.server.host, config.server.port), str::to_owned);
    let target = Target::parse(&url, &path)?;
    let mut own = HeaderMap::new();
    let media_type = if name.ends_with(".form") { "application/x-www-form-urlencoded" } else { "application/json" };
    own.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    let base_url = config.server.public_base_url;
    let request = Request { headers: &own, body: &body, base_url: base_url.as_deref(), target: target.path() };
    let now = Moment::now();
    let id = format!("postroom-{}", now.unix_millis());
    let headers = source.sign(&request, &id, now).with_context(|| match source.needs_url() && base_url.is_none() {
        true => "PUBLIC_BASE_URL is not set, and the URL is part of the signature".to_owned(),
        false => format!(
            "{} signs with a private key, and this source has only the public key: create a key pair and pass --private-key",
            source.scheme.title
        ),
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let reply = runtime.block_on(Client::new(target).request("POST", headers, body))?;
    say!("{name} to {path}: {} {}", reply.status.as_u16(), String::from_utf8_lossy(&reply.body))?;
    ensure!(reply.status == StatusCode::OK, "it was not accepted");
    Ok(ExitCode::SUCCESS)
}

fn private_key(path: &Path) -> anyhow::Result<Key> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let secret = Secret::new(text.trim_ascii()).with_context(|| format!("{} is empty", path.display()))?;
    let key = SecretForm::PrivateKey.read("--private-key", &secret);
    key.map_err(|problem| anyhow::anyhow!("{} {problem}", path.display()))
}
