//! The operator's settings, converted to valid types once, before the start. Secrets never print their value.

mod access;
mod database;
mod error;
mod given;
pub mod host;
mod inputs;
mod log_level;
mod network;
mod postgres;
mod rules;
mod server;
pub mod settings;
pub mod sources;

use std::path::PathBuf;

pub use access::{AccessConfig, Scope, Tokens};
pub use database::store_of;
use domain::Secret;
pub use error::ConfigError;
use error::{complaint, complaint_about};
pub use inputs::Inputs;
pub use network::Network;
use providers::Source;
pub use providers::signature::SigningKey;
pub use runtime::log::LogLevel;
pub use server::ServerConfig;
use store::StoreConfig;

/// The whole configuration of `serve`.
#[derive(Debug)]
pub struct Config {
    /// Minimum level that is logged.
    pub log_level: LogLevel,
    /// The sources, each with at least one secret.
    pub sources: Vec<Source>,
    /// The address and the limits of the server.
    pub server: ServerConfig,
    /// The tokens for reading.
    pub access: AccessConfig,
    /// The store and its limits.
    pub store: StoreConfig,
    /// The quarantine; off by default.
    pub quarantine: Option<QuarantineConfig>,
    /// Settings that are valid, but probably a mistake: a line for each, which names the setting.
    pub cautions: Vec<String>,
}

/// The quarantine of refused requests.
#[derive(Debug, Clone)]
pub struct QuarantineConfig {
    /// The folder for their files.
    pub folder: PathBuf,
    /// Maximum number; then the oldest is overwritten.
    pub requests_max: u32,
}

impl Config {
    /// Validates all settings. It reads secret files and changes nothing.
    pub fn load(inputs: &Inputs) -> Result<Self, ConfigError> {
        let server = server::load(inputs)?;
        let base_url_known = server.public_base_url.is_some() || !server.trusted_proxies.is_empty();
        let sources = sources::load(inputs, base_url_known)?;
        let store = database::load(inputs, inputs.value("DATABASE_URL")?)?;
        Ok(Self {
            sources,
            log_level: log_level::load(inputs.value("LOG_LEVEL")?)?,
            server,
            access: access::load(inputs)?,
            store,
            quarantine: quarantine(inputs)?,
            cautions: inputs.cautions(),
        })
    }
}

/// Returns only the secret of the original source, for commands that need nothing else.
pub fn webhook_secret(inputs: &Inputs) -> Result<Secret, ConfigError> {
    inputs.secret("WEBHOOK_SECRET")?.ok_or(ConfigError::NoSecret)
}

/// The same, prepared for signing.
pub fn signing_key(inputs: &Inputs) -> Result<SigningKey, ConfigError> {
    Ok(SigningKey::new(&webhook_secret(inputs)?))
}

fn quarantine(inputs: &Inputs) -> Result<Option<QuarantineConfig>, ConfigError> {
    let folder = inputs.value("POSTROOM_QUARANTINE_FOLDER")?.value;
    let requests_max = inputs.number("POSTROOM_QUARANTINE_REQUESTS_MAX", 1, 99_999)? as u32;
    Ok((!folder.is_empty()).then(|| QuarantineConfig { folder: PathBuf::from(folder), requests_max }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;
    use store::Database;

    fn load(environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        load_with(&[], environment, None)
    }

    fn load_with(
        flags: &[(&'static str, &str)],
        environment: &[(&str, &str)],
        file: Option<&str>,
    ) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("postroom.toml");
        std::fs::write(&path, file.unwrap_or_default()).unwrap();
        let flags = flags.iter().map(|(name, value)| (*name, value.to_string())).collect();
        let environment: BTreeMap<_, _> =
            environment.iter().map(|(name, value)| (name.to_string(), value.into())).collect();
        Config::load(&Inputs::new(flags, environment, file.map(|_| path))?)
    }

    fn complaint_of(environment: &[(&str, &str)]) -> String {
        let mut all = vec![("WEBHOOK_SECRET", "s")];
        all.extend(environment);
        load(&all).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let config = load(&[("WEBHOOK_SECRET", " s ")]).unwrap();
        assert_eq!(config.store.database, Database::Sqlite { path: "/data/app.db".into() });
        assert_eq!((config.server.host.as_str(), config.server.port), ("0.0.0.0", 8000));
        assert_eq!((config.log_level, config.server.body_bytes_max), (LogLevel::Info, 1 << 20));
        assert!(config.access.tokens.leave_reading_open() && config.access.metrics_public);
        let expected = SigningKey::new(&Secret::new(" s ").unwrap()).sign(b"x");
        assert_eq!(config.sources[0].keys[0].signing().sign(b"x"), expected, "the secret is not trimmed");
        assert!(!format!("{config:?}").contains(" s "));
    }

    #[test]
    fn flag_before_environment_before_file_before_default() {
        let file = Some("[server]\nport = 1\nhost = \"::1\"\nidle_seconds = 5\n");
        let environment = [("WEBHOOK_SECRET", "s"), ("PORT", "2"), ("HOST", "127.0.0.1"), ("LOG_LEVEL", "")];
        let config = load_with(&[("PORT", "3")], &environment, file).unwrap();
        assert_eq!((config.server.port, config.server.host.as_str()), (3, "127.0.0.1"));
        assert_eq!(config.server.idle_timeout, Duration::from_secs(5));
        assert_eq!(config.log_level, LogLevel::Info, "an empty variable is an unset one");
    }

    #[test]
    fn a_secret_must_be_given_and_not_empty() {
        assert!(load(&[]).unwrap_err().to_string().contains("WEBHOOK_SECRET"));
        assert_eq!(load(&[("WEBHOOK_SECRET", "")]).unwrap_err().to_string(), "WEBHOOK_SECRET must not be empty");
        assert!(complaint_of(&[("WEBHOOK_SECRET_FILE", "/x")]).contains("keep one"));
        assert!(complaint_of(&[("API_TOKEN", "a,,b")]).contains("API_TOKEN"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "from file\n").unwrap();
        let config = load(&[("WEBHOOK_SECRET_FILE", path.to_str().unwrap())]).unwrap();
        let expected = SigningKey::new(&Secret::new("from file").unwrap()).sign(b"x");
        assert_eq!(config.sources[0].keys[0].signing().sign(b"x"), expected);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        assert!(complaint_of(&[("PORT", "99999")]).starts_with("PORT must be a whole number from 0 to 65535"));
        assert!(complaint_of(&[("PORT", "-1")]).starts_with("PORT must"));
        assert!(complaint_of(&[("LOG_LEVEL", "loud")]).starts_with("LOG_LEVEL must be DEBUG"));
        assert!(complaint_of(&[("POSTROOM_METRICS_PUBLIC", "1")]).contains("true or false"));
        let misspelt = complaint_of(&[("POSTROOM_SERVER_IDLE_SECOND", "1")]);
        assert!(misspelt.ends_with("did you mean POSTROOM_SERVER_IDLE_SECONDS?"), "{misspelt}");
        let injected = [
            ("POSTROOM_METRICS_SERVICE_HOST", "a"),
            ("POSTROOM_STORE_PORT_80_TCP", "b"),
            ("POSTROOM_SERVER_PORT", "c"),
        ];
        assert!(load(&[[("WEBHOOK_SECRET", "s")].as_slice(), &injected].concat()).is_ok());
        let in_file = load_with(&[], &[("WEBHOOK_SECRET", "s")], Some("[sever]\nport = 1")).unwrap_err().to_string();
        assert!(in_file.ends_with("sever.port is not a setting of postroom; did you mean server.port?"), "{in_file}");
    }

    #[test]
    fn database_urls() {
        let path = |url: &str| match load(&[("WEBHOOK_SECRET", "s"), ("DATABASE_URL", url)]) {
            Ok(config) => config.store.database.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(path("sqlite:////abs/a%20b.db"), "/abs/a%20b.db");
        assert_eq!(path("sqlite:///rel/a b?.db"), "rel/a b?.db");
        assert_eq!(path("postgres://user:hunter2@db/x"), "PostgreSQL db:5432/x");
        let refused = path("mysql://user:hunter2@db/x");
        assert!(refused.starts_with("DATABASE_URL has the scheme 'mysql'") && !refused.contains("hunter2"));
        for (more, what) in [
            ("no.db?check_same_thread=False", "a query string"),
            ("no.db?a=1&b", "a query string"),
            ("no.db?", "a query string"),
            ("no.db ", "white space"),
            (" no.db", "white space"),
            ("no.db\n", "white space"),
            ("'no.db'", "quotes"),
            ("no.db\"", "quotes"),
        ] {
            let url = format!("sqlite:///{more}");
            let refused = path(&url);
            assert!(refused.starts_with(&format!("DATABASE_URL has {what}")), "{more}: {refused}");
        }
        for bad in ["sqlite:///", "sqlite://x", "sqlite:x", "nonsense", "sqlite:///:memory:"] {
            assert!(path(bad).starts_with("DATABASE_URL"), "{bad}");
        }
    }
}
