//! A captured request, and the explanation of its verification.

use hyper::HeaderMap;

use domain::Moment;
use providers::{BadSignature, Request, Source};

/// A captured request.
pub struct Case<'a> {
    pub source: &'a Source,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub base_url: Option<String>,
    pub target: String,
    pub now: Moment,
}

impl Case<'_> {
    /// The label of the secret that matched.
    pub fn verdict(&self) -> Result<String, BadSignature> {
        self.ask(self.source, &self.body, &self.target, self.now)
    }

    fn ask(&self, source: &Source, body: &[u8], target: &str, now: Moment) -> Result<String, BadSignature> {
        let request = Request { headers: &self.headers, body, base_url: self.base_url.as_deref(), target };
        let before: Vec<u64> = source.keys.iter().map(|key| key.uses().0).collect();
        source.verify(&request, body.to_vec().into(), now)?;
        let used = source.keys.iter().zip(before).find(|(key, before)| key.uses().0 > *before);
        Ok(used.map(|(key, _)| key.label.clone()).unwrap_or_default())
    }

    /// The reason, and the findings of further attempts.
    pub fn hints(&self, reason: BadSignature) -> Vec<String> {
        let mut hints = vec![meaning(reason).to_owned()];
        if reason != BadSignature::WrongSecret {
            return hints;
        }
        hints.extend(self.body_hint());
        hints.extend(self.secret_hint());
        if self.source.needs_url() {
            let base = self.source.options.base_url.as_deref().or(self.base_url.as_deref()).unwrap_or("(unknown)");
            hints.push(format!(
                "the URL that was verified is {base}{}: is it the one in the provider's dashboard?",
                self.target
            ));
            hints.extend(self.url_hint());
        }
        if hints.len() == 1 {
            hints.push("no other form of the body or the secret matches: another secret was used".to_owned());
        }
        hints
    }

    /// Whether the bytes were changed, as loggers and frameworks do.
    fn body_hint(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        let value: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        let mut variants = vec![
            ("without the line end at its end", text.trim_end_matches(['\r', '\n']).to_owned()),
            ("with a line end at its end", format!("{text}\n")),
            ("with Windows line ends", text.replace('\n', "\r\n")),
            ("with Unix line ends", text.replace("\r\n", "\n")),
        ];
        if let Some(value) = value {
            let compact = value.to_string();
            let meta = escape_as_meta(&compact);
            variants.push(("written compactly: it was parsed and formatted again", compact));
            variants.push(("with Meta's escapes (\\u00e4, \\/): it was parsed and serialised again", meta));
        }
        let fits = |variant: &String| self.ask(self.source, variant.as_bytes(), &self.target, self.now).is_ok();
        let found = variants.iter().find(|(_, variant)| fits(variant))?;
        Some(format!("the signature matches the body {}. Sign and verify the bytes as received", found.0))
    }

    /// Whether the secret has another encoding.
    fn secret_hint(&self) -> Option<String> {
        use providers::SecretForm;
        for key in &self.source.keys {
            let trimmed = key.secret.expose().trim_ascii();
            let secret = domain::Secret::new(trimmed)?;
            let forms = [
                ("without the blanks around it", SecretForm::Text),
                ("decoded from base64 (secret_encoding = \"base64\")", SecretForm::Base64),
                ("decoded from hexadecimal (secret_encoding = \"hex\")", SecretForm::Hex),
                ("decoded after whsec_ (provider = \"standard\")", SecretForm::Standard),
            ];
            for (how, form) in forms {
                let Ok(mut other) = form.read(&key.label, &secret) else { continue };
                other.id = key.id.clone();
                let keys = vec![other];
                let source = Source {
                    name: self.source.name.clone(),
                    scheme: self.source.scheme,
                    keys,
                    options: self.source.options.clone(),
                };
                if self.ask(&source, &self.body, &self.target, self.now).is_ok() {
                    return Some(format!("the signature matches the secret of {} {how}", key.label));
                }
            }
        }
        None
    }

    /// Whether another form of the URL matches.
    fn url_hint(&self) -> Option<String> {
        let base = self.source.options.base_url.clone().or(self.base_url.clone())?;
        let other_scheme = match base.strip_prefix("https://") {
            Some(rest) => format!("http://{rest}"),
            None => base.replacen("http://", "https://", 1),
        };
        let path = self.target.split('?').next().unwrap_or_default().to_owned();
        let slash = if path.ends_with('/') { path.trim_end_matches('/').to_owned() } else { format!("{path}/") };
        let tries = [
            (other_scheme, self.target.clone(), "with http and https exchanged"),
            (base.clone(), path, "without its query"),
            (base, slash, "with, or without, a slash at its end"),
        ];
        for (base_url, target, how) in tries {
            let mut source = Source::new(&self.source.name, self.source.scheme, self.source.keys.clone());
            source.options = self.source.options.clone();
            source.options.base_url = Some(base_url);
            if self.ask(&source, &self.body, &target, self.now).is_ok() {
                return Some(format!("the signature matches the URL {how}"));
            }
        }
        None
    }
}

/// Meta writes non-ASCII characters and slashes as escapes.
fn escape_as_meta(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '/' => out.push_str("\\/"),
            character if character.is_ascii() => out.push(character),
            character => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out
}

fn meaning(reason: BadSignature) -> &'static str {
    match reason {
        BadSignature::MissingHeader => "the header with the proof is missing; proxies may drop unknown headers",
        BadSignature::DuplicateHeader => "a header is repeated; it would be ambiguous which one counts",
        BadSignature::Malformed => {
            "the header does not have the form of this provider's signatures (prefix, length, encoding)"
        }
        BadSignature::WrongSecret => "the signature is well formed, but matches no configured secret for this request",
        BadSignature::MalformedTimestamp => "the signed time is not a plain whole number, or is repeated",
        BadSignature::StaleTimestamp => {
            "signed too long ago: an old capture (try --at), or this machine's clock is ahead"
        }
        BadSignature::FutureTimestamp => {
            "signed in the future: this machine's clock is behind, or seconds and milliseconds are mixed up"
        }
        BadSignature::WrongAlgorithm => {
            "signed with an algorithm that this source does not accept; a request must not select it"
        }
        BadSignature::BodyMismatch => "the signature is valid, but its digest belongs to another body or URL",
        BadSignature::UnknownUrl => "the signature covers the URL: set PUBLIC_BASE_URL, or base_url of the source",
    }
}
