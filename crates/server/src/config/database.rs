//! The settings of the store: the location of the messages, and the limits.

use std::path::PathBuf;
use std::time::Duration;

use super::given::Given;
use super::{ConfigError, Inputs, postgres};
use store::{Database, StoreConfig};

/// The store at `url`, with the limits of the inputs. `flag` is the origin of the URL.
pub fn store_of(inputs: &Inputs, url: &str, flag: &str) -> Result<StoreConfig, ConfigError> {
    load(inputs, Given { value: url.to_owned(), origin: flag.to_owned() })
}

/// Reads these settings.
pub(super) fn load(inputs: &Inputs, url: Given) -> Result<StoreConfig, ConfigError> {
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

/// `sqlite:///` and a path, taken literally (no URL decoding), or the URL of a PostgreSQL server.
fn database(given: Given, inputs: &Inputs) -> Result<Database, ConfigError> {
    if ["postgres://", "postgresql://"].iter().any(|scheme| given.value.starts_with(scheme)) {
        return postgres::load(&given.value, &given.origin, inputs).map(|config| Database::Postgres(config.into()));
    }
    // A URL may contain a password, so errors show only its scheme.
    let problem = match given.value.strip_prefix("sqlite:///") {
        Some("") => "names no file after sqlite:///".to_owned(),
        Some(":memory:") => "names a database in memory, which would lose every message at the next stop".to_owned(),
        Some(path) if path.contains('\0') => "contains a NUL character".to_owned(),
        Some(path) => match said_beside(path).filter(|_| std::fs::symlink_metadata(path).is_err()) {
            None => return Ok(Database::Sqlite { path: PathBuf::from(path) }),
            Some(what) => format!(
                "has {what}: everything after sqlite:/// is the path of the file, and there is no file '{path}'; remove {what}, or create \
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
    Err(ConfigError::Setting { origin: given.origin, problem })
}

/// A part of a path that is probably a mistake. The original service accepts it as part of the path, so such
/// files may exist.
fn said_beside(path: &str) -> Option<&'static str> {
    let has_query = path.rsplit_once('?').is_some_and(|(_, query)| query.is_empty() || query.contains('='));
    match path {
        _ if has_query => Some("a query string"),
        _ if path.trim() != path => Some("white space at an end"),
        _ if path.starts_with(['\'', '"']) || path.ends_with(['\'', '"']) => Some("quotes"),
        _ => None,
    }
}
