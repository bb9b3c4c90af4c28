//! The sources: the original one, those of environment variables, and those of the configuration file.

use toml::Value;

use super::host;
use super::inputs::Inputs;
use super::rules;
use super::settings::nearest;
use super::{ConfigError, complaint_about};
use domain::{Address, Secret};
use providers::{Key, SCHEMES, Scheme, SecretForm, Source, original};

/// The variable with the token of Meta's handshake, for the source of `WHATSAPP_APP_SECRET`.
pub const VERIFY_TOKEN_VARIABLE: &str = "WHATSAPP_VERIFY_TOKEN";
/// The suffix of the variable of the previous secret, which stays valid until it is removed.
pub const PREVIOUS: &str = "_PREVIOUS";
/// Maximum characters of a source's name.
const NAME_CHARACTERS_MAX: usize = 64;

/// The keys of a source in the configuration file. The signature scheme has keys of its own; see `rules`.
const KEYS: &[&str] = &[
    "provider",
    "secret_env",
    "secret_file",
    "secret_encoding",
    "key_ids",
    "verify_token_env",
    "verify_token_file",
    "account",
    "to",
    "base_url",
    "body_bytes_max",
    "header",
];

/// Every source, the original one first if it has a secret. At least one.
pub fn load(inputs: &Inputs, base_url_known: bool) -> Result<Vec<Source>, ConfigError> {
    let mut sources = Vec::new();
    if let Some(secret) = inputs.secret("WEBHOOK_SECRET")? {
        let mut keys = vec![Key::new("WEBHOOK_SECRET", secret)];
        if let Some(previous) = inputs.secret("WEBHOOK_SECRET_PREVIOUS")? {
            keys.push(Key::new("WEBHOOK_SECRET_PREVIOUS", previous));
        }
        sources.push(Source::new(original::SCHEME.kind, &SCHEMES[0], keys));
    } else if inputs.secret("WEBHOOK_SECRET_PREVIOUS")?.is_some() {
        return Err(complaint_about("WEBHOOK_SECRET_PREVIOUS", "is set, but WEBHOOK_SECRET is not"));
    }
    for scheme in SCHEMES {
        sources.extend(shortcut(inputs, scheme)?);
    }
    for (name, table) in inputs.sources() {
        let source = FileSource { inputs, name, table }.read()?;
        if sources.iter().any(|other| other.name == source.name) {
            let place = inputs.file_place(&format!("source.{name}"));
            return Err(complaint_about(&place, "has the name of a source that the environment defines already"));
        }
        sources.push(source);
    }
    if sources.is_empty() {
        return Err(ConfigError::NoSecret);
    }
    let homeless = |source: &&Source| source.needs_url() && source.options.base_url.is_none() && !base_url_known;
    if let Some(source) = sources.iter().find(homeless) {
        let problem = format!(
            "is not set, but the provider of the source '{}' ({}) signs the URL: set it to the scheme and host that it calls, \
             such as https://hooks.example.com",
            source.name, source.scheme.title
        );
        return Err(complaint_about("PUBLIC_BASE_URL", &problem));
    }
    Ok(sources)
}

/// The source of a kind whose variable is set, with the kind's name.
fn shortcut(inputs: &Inputs, scheme: &'static Scheme) -> Result<Option<Source>, ConfigError> {
    let Some(variable) = scheme.variable else { return Ok(None) };
    let previous = format!("{variable}{PREVIOUS}");
    let Some(secret) = inputs.environment_secret(variable)? else {
        return match inputs.environment_secret(&previous)? {
            Some(_) => Err(complaint_about(&previous, &format!("is set, but {variable} is not"))),
            None => Ok(None),
        };
    };
    let mut keys = vec![key(scheme.secret, variable, &secret)?];
    if let Some(secret) = inputs.environment_secret(&previous)? {
        keys.push(key(scheme.secret, &previous, &secret)?);
    }
    let mut source = Source::new(scheme.kind, scheme, keys);
    if scheme.has_handshake() {
        let token = inputs.environment_secret(VERIFY_TOKEN_VARIABLE)?;
        source.options.verify_tokens.extend(token.map(|token| Key::new(VERIFY_TOKEN_VARIABLE, token)));
    }
    Ok(Some(source))
}

fn key(form: SecretForm, label: &str, secret: &Secret) -> Result<Key, ConfigError> {
    form.read(label, secret).map_err(|problem| complaint_about(label, problem))
}

/// One `[source.NAME]` of the file.
struct FileSource<'a> {
    inputs: &'a Inputs,
    name: &'a str,
    table: &'a toml::Table,
}

impl FileSource<'_> {
    fn read(&self) -> Result<Source, ConfigError> {
        self.check_name()?;
        let kinds = SCHEMES.iter().map(|scheme| scheme.kind);
        let provider = self.text("provider")?.ok_or_else(|| self.problem("provider", "is not set"))?;
        let scheme = Scheme::find(provider).ok_or_else(|| {
            let meant = nearest(provider, kinds.clone()).map(|kind| format!("; did you mean {kind}?"));
            let problem = format!("is not a provider: '{provider}'{}", meant.unwrap_or_default());
            self.problem("provider", &problem)
        })?;
        self.check_keys(scheme)?;
        let mut source = Source::new(self.name, scheme, self.keys(scheme)?);
        let options = &mut source.options;
        options.account = self.text("account")?.map(str::to_owned);
        options.to = self.text("to")?.map(Address::read);
        options.base_url = self.text("base_url")?.map(|url| base_url(url).ok_or_else(|| self.bad_url())).transpose()?;
        options.header = self.text("header")?.map(str::to_ascii_lowercase);
        let tokens = self.secrets("verify_token")?;
        options.verify_tokens = tokens.into_iter().map(|(label, secret)| Key::new(&label, secret)).collect();
        options.shared_keys = self.table.contains_key("key_ids");
        options.body_bytes_max = match self.table.get("body_bytes_max") {
            None => None,
            Some(Value::Integer(bytes)) if (1..=1 << 30).contains(bytes) => Some(*bytes as usize),
            Some(_) => return Err(self.problem("body_bytes_max", "must be a whole number from 1 to 1073741824")),
        };
        let complain = |key: &str, problem: &str| self.problem(key, problem);
        options.rule = rules::rule(self.table, scheme, &complain)?;
        options.mapping = rules::mapping(self.table, scheme, &complain)?;
        Ok(source)
    }

    fn check_name(&self) -> Result<(), ConfigError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        let fits = (1..=NAME_CHARACTERS_MAX).contains(&self.name.len()) && self.name.bytes().all(plain);
        if !fits || self.name == original::SCHEME.kind {
            let problem = "must have a unique name of lower-case letters, digits, hyphens and underscores";
            return Err(complaint_about(&self.inputs.file_place(&format!("source.{}", self.name)), problem));
        }
        Ok(())
    }

    fn check_keys(&self, scheme: &Scheme) -> Result<(), ConfigError> {
        let known: Vec<&str> = KEYS.iter().copied().chain(rules::keys(scheme)).collect();
        match self.table.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(ConfigError::Unknown {
                place: self.inputs.file_place(&format!("source.{}.{key}", self.name)),
                suggestion: nearest(key, known.into_iter()).map(str::to_owned),
            }),
        }
    }

    fn keys(&self, scheme: &Scheme) -> Result<Vec<Key>, ConfigError> {
        let form = match self.text("secret_encoding")? {
            None => scheme.secret,
            Some("utf8") => SecretForm::Text,
            Some("base64") => SecretForm::Base64,
            Some("hex") => SecretForm::Hex,
            Some("public-key") => SecretForm::PublicKey,
            Some(_) => return Err(self.problem("secret_encoding", "must be utf8, base64, hex or public-key")),
        };
        let secrets = self.secrets("secret")?;
        let mut keys = secrets.iter().map(|(label, secret)| key(form, label, secret)).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(self.problem("secret_env", "or secret_file must name a secret: no message could be verified"));
        }
        let ids = self.texts("key_ids")?;
        if !ids.is_empty() && ids.len() != keys.len() {
            return Err(self.problem("key_ids", "must name as many keys as there are secrets, in the same order"));
        }
        for (key, id) in keys.iter_mut().zip(ids) {
            key.id = Some(id.to_owned());
        }
        Ok(keys)
    }

    /// The secrets that `<what>_env` and `<what>_file` name, each with a label of its place.
    fn secrets(&self, what: &str) -> Result<Vec<(String, Secret)>, ConfigError> {
        let mut secrets = Vec::new();
        let key = format!("{what}_env");
        for variable in self.texts(&key)? {
            let secret = self.inputs.environment_secret(variable)?;
            let absent = || self.problem(&key, &format!("names {variable}, which is not set"));
            secrets.push((variable.to_owned(), secret.ok_or_else(absent)?));
        }
        let key = format!("{what}_file");
        for path in self.texts(&key)? {
            let place = self.inputs.file_place(&format!("source.{}.{key}", self.name));
            secrets.push((path.to_owned(), self.inputs.file_secret(path, &place)?));
        }
        Ok(secrets)
    }

    fn text(&self, key: &str) -> Result<Option<&str>, ConfigError> {
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(_) => Err(self.problem(key, "must be a text that is not empty")),
        }
    }

    /// A text, or a list of texts.
    fn texts(&self, key: &str) -> Result<Vec<&str>, ConfigError> {
        let Some(Value::Array(list)) = self.table.get(key) else { return Ok(self.text(key)?.into_iter().collect()) };
        let texts = list.iter().map(|value| value.as_str().filter(|text| !text.is_empty()));
        texts.collect::<Option<_>>().ok_or_else(|| self.problem(key, "must be a text or a list of texts"))
    }

    fn problem(&self, key: &str, problem: &str) -> ConfigError {
        complaint_about(&self.inputs.file_place(&format!("source.{}.{key}", self.name)), problem)
    }

    fn bad_url(&self) -> ConfigError {
        self.problem("base_url", BASE_URL_RULE)
    }
}

/// The form of a base URL.
pub const BASE_URL_RULE: &str = "must be http:// or https:// and a host, optionally a port and a path, without a query";

/// Scheme, host and port, and an optional path that the proxy strips. It is kept in the signed form.
pub fn base_url(raw: &str) -> Option<String> {
    let rest = raw.strip_prefix("https://").or_else(|| raw.strip_prefix("http://"))?;
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'@' | b'\\');
    let (host, _) = rest.split_once('/').unwrap_or((rest, ""));
    (host::authority(host).is_ok() && rest.bytes().all(plain)).then(|| raw.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        assert_eq!(base_url("https://a.example/").as_deref(), Some("https://a.example"));
        assert_eq!(base_url("http://a:8000/hooks").as_deref(), Some("http://a:8000/hooks"));
        assert_eq!(base_url("http://[::1]:8000/").as_deref(), Some("http://[::1]:8000"));
        assert_eq!(base_url("https://Hooks.example:443/A").as_deref(), Some("https://Hooks.example:443/A"));
        for bad in [
            "a.example",
            "https://",
            "ftp://a",
            "https:///x",
            "https://a?x",
            "https://a#x",
            "https://u:p@a",
            "https://a b",
            "https://:8000",
            "https://a:port/x",
            "https://a:65536",
            "https://*.example",
            "https://::1",
        ] {
            assert_eq!(base_url(bad), None, "{bad}");
        }
    }
}
