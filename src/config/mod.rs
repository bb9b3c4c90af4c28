//! What the operator said, made into valid types once, before anything else starts. Secrets redact themselves.

mod access;
mod error;
mod given;
pub mod host;
mod inputs;
mod network;
mod postgres;
mod rules;
pub mod settings;
pub mod sources;

use std::path::PathBuf;
use std::time::Duration;

use crate::domain::Secret;
use crate::providers::Source;
pub use crate::providers::signature::SigningKey;
pub use crate::runtime::log::LogLevel;
use crate::store::{Database, StoreConfig};
pub use access::{AccessConfig, Token};
pub use error::ConfigError;
use error::{complaint, complaint_about};
use given::Given;
pub use inputs::Inputs;
pub use network::Network;

/// Everything `serve` needs to know.
#[derive(Debug)]
pub struct Config {
    /// Least level logged.
    pub log_level: LogLevel,
    /// The doors, each with at least one secret.
    pub sources: Vec<Source>,
    /// Where and how to listen.
    pub server: ServerConfig,
    /// Who may read.
    pub access: AccessConfig,
    /// Where and how messages are kept.
    pub store: StoreConfig,
    /// Where refused requests are kept; nowhere by default.
    pub quarantine: Option<QuarantineConfig>,
    /// Settings that can be used, and are probably not what was meant: a line for each, which names the setting.
    pub cautions: Vec<String>,
}

/// The last refused requests.
#[derive(Debug, Clone)]
pub struct QuarantineConfig {
    /// The folder for their files.
    pub folder: PathBuf,
    /// How many at most; then the oldest is overwritten.
    pub requests_max: u32,
}

/// The edge to the network: every limit has a name and a defined answer.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Address or host name to bind.
    pub host: String,
    /// Port to bind; 0 takes a free one.
    pub port: u16,
    /// Where reading is served instead, so that only the doors face the network.
    pub read_address: Option<(String, u16)>,
    /// Most bytes of a request body.
    pub body_bytes_max: usize,
    /// Most bytes of all bodies under way, beyond the first 16 KiB of each.
    pub bodies_bytes_max: usize,
    /// Most bytes of a request head.
    pub header_bytes_max: usize,
    /// Most header fields of a request.
    pub headers_max: usize,
    /// Longest wait for a whole request head.
    pub header_timeout: Duration,
    /// Longest wait for a whole request body.
    pub body_timeout: Duration,
    /// Longest rest of a connection between requests.
    pub idle_timeout: Duration,
    /// Longest time from head to answer.
    pub request_timeout: Duration,
    /// Most connections at once.
    pub connections_max: usize,
    /// How long the service goes on after SIGTERM, not ready, before it stops.
    pub drain: Duration,
    /// How long a stop waits for requests under way.
    pub grace: Duration,
    /// Most bytes of a body at the doors of providers.
    pub door_body_bytes_max: usize,
    /// Scheme and host, and perhaps a path, under which providers reach us.
    pub public_base_url: Option<String>,
    /// Proxies whose word is taken for scheme and host, where no base URL is set.
    pub trusted_proxies: Vec<Network>,
}

impl Config {
    /// Checks everything that was said. Reads secret files; touches nothing else.
    pub fn load(inputs: &Inputs) -> Result<Self, ConfigError> {
        let server = server(inputs)?;
        let base_url_known = server.public_base_url.is_some() || !server.trusted_proxies.is_empty();
        let sources = sources::load(inputs, base_url_known)?;
        let store = store(inputs, inputs.value("DATABASE_URL")?)?;
        Ok(Self {
            sources,
            log_level: log_level(inputs.value("LOG_LEVEL")?)?,
            server,
            access: access::load(inputs)?,
            store,
            quarantine: quarantine(inputs)?,
            cautions: inputs.cautions(),
        })
    }
}

/// Only the secret of the original door, for commands that need nothing else.
pub fn webhook_secret(inputs: &Inputs) -> Result<Secret, ConfigError> {
    inputs.secret("WEBHOOK_SECRET")?.ok_or(ConfigError::NoSecret)
}

/// The same, made ready for signing.
pub fn signing_key(inputs: &Inputs) -> Result<SigningKey, ConfigError> {
    Ok(SigningKey::new(&webhook_secret(inputs)?))
}

fn server(inputs: &Inputs) -> Result<ServerConfig, ConfigError> {
    let seconds = |name, least| inputs.number(name, least, 86_400).map(Duration::from_secs);
    let count = |name, least, most| inputs.number(name, least, most).map(|number| number as usize);
    Ok(ServerConfig {
        host: inputs.host()?,
        port: inputs.port()?,
        read_address: read_address(inputs)?,
        body_bytes_max: count("MAX_BODY_BYTES", 1, 1 << 30)?,
        bodies_bytes_max: count("POSTROOM_SERVER_BODIES_BYTES_MAX", 0, 1 << 40)?,
        // Below 8 KiB hyper has no room to read into.
        header_bytes_max: count("POSTROOM_SERVER_HEADER_BYTES_MAX", 8_192, 1 << 20)?,
        headers_max: count("POSTROOM_SERVER_HEADERS_MAX", 8, 1_000)?,
        header_timeout: seconds("POSTROOM_SERVER_HEADER_SECONDS", 1)?,
        body_timeout: seconds("POSTROOM_SERVER_BODY_SECONDS", 1)?,
        idle_timeout: seconds("POSTROOM_SERVER_IDLE_SECONDS", 1)?,
        request_timeout: seconds("POSTROOM_SERVER_REQUEST_SECONDS", 1)?,
        connections_max: count("POSTROOM_SERVER_CONNECTIONS_MAX", 1, 1 << 20)?,
        drain: seconds("POSTROOM_SERVER_DRAIN_SECONDS", 0)?,
        grace: seconds("POSTROOM_SERVER_GRACE_SECONDS", 0)?,
        door_body_bytes_max: count("POSTROOM_DOORS_BODY_BYTES_MAX", 1, 1 << 30)?,
        public_base_url: public_base_url(inputs.value("PUBLIC_BASE_URL")?)?,
        trusted_proxies: trusted_proxies(inputs)?,
    })
}

/// None unless a port for reading is set.
fn read_address(inputs: &Inputs) -> Result<Option<(String, u16)>, ConfigError> {
    if inputs.value("POSTROOM_SERVER_READ_PORT")?.value.is_empty() {
        return Ok(None);
    }
    let port = inputs.number("POSTROOM_SERVER_READ_PORT", 0, 65_535)? as u16;
    Ok(Some((inputs.host_to_bind("POSTROOM_SERVER_READ_HOST")?, port)))
}

fn public_base_url(given: Given) -> Result<Option<String>, ConfigError> {
    match (given.value.trim(), sources::base_url(given.value.trim())) {
        ("", _) => Ok(None),
        (_, Some(url)) => Ok(Some(url)),
        (_, None) => Err(complaint(given, |_| sources::BASE_URL_RULE.to_owned())),
    }
}

fn trusted_proxies(inputs: &Inputs) -> Result<Vec<Network>, ConfigError> {
    let given = inputs.value("POSTROOM_SERVER_TRUSTED_PROXIES")?;
    let parts = given.value.split(',').map(str::trim).filter(|part| !part.is_empty());
    match parts.map(Network::parse).collect::<Option<Vec<_>>>() {
        Some(networks) => {
            if networks.iter().any(Network::is_everyone) {
                inputs.caution(&given.said_by, TRUSTS_EVERYONE);
            }
            Ok(networks)
        }
        None => {
            Err(complaint(given, |value| format!("must be addresses such as 10.0.0.1 or 10.0.0.0/8, not '{value}'")))
        }
    }
}

const TRUSTS_EVERYONE: &str = "trusts every address: any client can then claim another address and another URL";

/// The store at `url`, with the limits that the inputs say. `flag` is where the URL was given.
pub fn store_of(inputs: &Inputs, url: &str, flag: &str) -> Result<StoreConfig, ConfigError> {
    store(inputs, Given { value: url.to_owned(), said_by: flag.to_owned() })
}

fn store(inputs: &Inputs, url: Given) -> Result<StoreConfig, ConfigError> {
    let seconds = |name| inputs.number(name, 0, 3_600).map(Duration::from_secs);
    Ok(StoreConfig {
        database: database(url, inputs)?,
        queue_max: inputs.number("POSTROOM_STORE_QUEUE_MAX", 1, 1 << 20)? as usize,
        batch_max: inputs.number("POSTROOM_STORE_BATCH_MAX", 1, 1 << 16)? as usize,
        lock_timeout: seconds("POSTROOM_STORE_LOCK_SECONDS")?,
        query_timeout: seconds("POSTROOM_STORE_QUERY_SECONDS")?,
        readers: inputs.number("POSTROOM_STORE_READERS", 1, 64)? as usize,
        checkpoint_pages: inputs.number("POSTROOM_STORE_CHECKPOINT_PAGES", 16, 1 << 20)? as u32,
        log_pages_max: inputs.number("POSTROOM_STORE_LOG_PAGES_MAX", 16, 1 << 28)? as u32,
    })
}

fn quarantine(inputs: &Inputs) -> Result<Option<QuarantineConfig>, ConfigError> {
    let folder = inputs.value("POSTROOM_QUARANTINE_FOLDER")?.value;
    let requests_max = inputs.number("POSTROOM_QUARANTINE_REQUESTS_MAX", 1, 99_999)? as u32;
    Ok((!folder.is_empty()).then(|| QuarantineConfig { folder: PathBuf::from(folder), requests_max }))
}

fn log_level(given: Given) -> Result<LogLevel, ConfigError> {
    let levels = [LogLevel::Debug, LogLevel::Info, LogLevel::Warning, LogLevel::Error, LogLevel::Critical];
    // Other programs' words for two of them, in Python's logging and elsewhere.
    let name = match given.value.trim().to_ascii_uppercase() {
        name if name == "WARN" => "WARNING".to_owned(),
        name if name == "FATAL" => "CRITICAL".to_owned(),
        name => name,
    };
    let found = levels.into_iter().find(|level| level.name() == name);
    found.ok_or_else(|| {
        complaint(given, |value| format!("must be DEBUG, INFO, WARNING, ERROR or CRITICAL, not '{value}'"))
    })
}

/// `sqlite:///` and a path, taken as it stands (no URL decoding), or the URL of a PostgreSQL server.
fn database(given: Given, inputs: &Inputs) -> Result<Database, ConfigError> {
    if ["postgres://", "postgresql://"].iter().any(|scheme| given.value.starts_with(scheme)) {
        return postgres::load(&given.value, &given.said_by, inputs).map(|config| Database::Postgres(config.into()));
    }
    // A URL may hold a password, so complaints show no more of it than the scheme.
    let problem = match given.value.strip_prefix("sqlite:///") {
        Some("") => "names no file after sqlite:///".to_owned(),
        Some(":memory:") => "asks for a database in memory, which would lose every message at the next stop".to_owned(),
        Some(path) if path.contains('\0') => "holds a NUL character".to_owned(),
        Some(path) => match said_beside(path).filter(|_| std::fs::symlink_metadata(path).is_err()) {
            None => return Ok(Database::Sqlite { path: PathBuf::from(path) }),
            Some(what) => format!(
                "has {what}: all that follows sqlite:/// is the path of the file, and there is no file '{path}'; take {what} away, or make \
                 the file if that is its name"
            ),
        },
        None => match given.value.split_once(':') {
            Some((scheme, _)) if scheme != "sqlite" => format!(
                "has the scheme '{}', which is not supported; use sqlite:////absolute/path, sqlite:///relative/path or postgres://",
                scheme.chars().filter(|character| !character.is_control()).take(20).collect::<String>()
            ),
            _ => {
                "must be of the form sqlite:////absolute/path, sqlite:///relative/path or postgres://user@host/database"
                    .to_owned()
            }
        },
    };
    Err(ConfigError::Setting { said_by: given.said_by, problem })
}

/// What a path holds that is hardly meant as a part of it. The original service takes it as one, so there may be such files.
fn said_beside(path: &str) -> Option<&'static str> {
    let has_query = path.rsplit_once('?').is_some_and(|(_, query)| query.is_empty() || query.contains('='));
    match path {
        _ if has_query => Some("a query string"),
        _ if path.trim() != path => Some("white space at an end"),
        _ if path.starts_with(['\'', '"']) || path.ends_with(['\'', '"']) => Some("quotes"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

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
        assert!(config.access.tokens.is_empty() && config.access.metrics_public);
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
        assert!(in_file.ends_with("sever.port is no setting of postroom; did you mean server.port?"), "{in_file}");
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
