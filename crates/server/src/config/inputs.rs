//! Sources of settings: flag, then environment, then file, then default. The first one that has a value counts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, complaint_about};
use super::given::Given;
use super::host;
use super::settings::{SETTINGS, Setting, find, nearest};
use domain::Secret;
use runtime::secret_file;

/// All given settings, not yet validated.
#[derive(Debug, Default)]
pub struct Inputs {
    flags: BTreeMap<&'static str, String>,
    environment: BTreeMap<String, OsString>,
    file: BTreeMap<&'static str, String>,
    file_name: String,
    /// The file's `[source.NAME]` tables.
    sources: BTreeMap<String, toml::Table>,
    /// Suspicious values found while reading, in the order of reading; each once.
    cautions: RefCell<Vec<String>>,
}

impl Inputs {
    /// The process's environment and the file that `POSTROOM_CONFIG` names, for commands that take no setting as a
    /// flag.
    pub fn of_environment() -> Result<Self, ConfigError> {
        Self::gather(BTreeMap::new(), None)
    }

    /// Gathers the process's environment, the given flags (by environment name), and the file that `config_file` or
    /// `POSTROOM_CONFIG` names.
    pub fn gather(flags: BTreeMap<&'static str, String>, config_file: Option<PathBuf>) -> Result<Self, ConfigError> {
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
        Self::new(flags, environment, config_file)
    }

    /// The port that `serve` would bind with these inputs.
    pub fn new(
        flags: BTreeMap<&'static str, String>,
        environment: BTreeMap<String, OsString>,
        config_file: Option<PathBuf>,
    ) -> Result<Self, ConfigError> {
        check_environment_names(&environment)?;
        let named = environment.get("POSTROOM_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
        let mut inputs = Self { flags, environment, ..Self::default() };
        if let Some(path) = config_file.or(named) {
            inputs.file_name = path.display().to_string();
            (inputs.file, inputs.sources) = read_file(&path)?;
        }
        Ok(inputs)
    }

    /// The value of a setting that is not secret. An empty value in the environment counts as unset.
    pub(super) fn value(&self, name: &str) -> Result<Given, ConfigError> {
        let setting = find(name).expect("only settings of the table are read");
        if let Some(value) = self.flags.get(name) {
            return Ok(Given { value: value.clone(), origin: format!("--{}", setting.flag()) });
        }
        if let Some(bytes) = self.environment_or_its_file(name)?.filter(|bytes| !bytes.is_empty()) {
            let value = String::from_utf8(bytes)
                .map_err(|_| ConfigError::Setting { origin: name.to_owned(), problem: "is not UTF-8".to_owned() })?;
            return Ok(Given { value, origin: name.to_owned() });
        }
        if let Some(value) = self.file.get(name) {
            return Ok(Given { value: value.clone(), origin: self.setting_place(setting) });
        }
        Ok(Given { value: setting.default.to_owned(), origin: name.to_owned() })
    }

    /// The port that `serve` would bind with the same inputs.
    pub fn port(&self) -> Result<u16, ConfigError> {
        Ok(self.number("PORT", 0, 65_535)? as u16)
    }

    /// The address that `serve` would bind with these inputs.
    pub fn host(&self) -> Result<String, ConfigError> {
        self.host_to_bind("HOST")
    }

    /// An address or a name to listen on.
    pub(super) fn host_to_bind(&self, name: &str) -> Result<String, ConfigError> {
        let given = self.value(name)?;
        let problem = |why| ConfigError::Setting { problem: format!("'{}' {why}", given.value), origin: given.origin };
        host::to_bind(&given.value).map_err(problem)
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, name: &str, least: u64, most: u64) -> Result<u64, ConfigError> {
        let given = self.value(name)?;
        let number = given.value.trim().parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| ConfigError::Setting {
            origin: given.origin,
            problem: format!("must be a whole number from {least} to {most}, not '{}'", given.value),
        })
    }

    /// Records that a setting is valid, but probably a mistake.
    pub(super) fn caution(&self, origin: &str, words: &str) {
        let caution = format!("{origin} {words}");
        let mut cautions = self.cautions.borrow_mut();
        if !cautions.contains(&caution) {
            cautions.push(caution);
        }
    }

    /// All cautions so far.
    pub(super) fn cautions(&self) -> Vec<String> {
        self.cautions.borrow().clone()
    }

    /// The secret with these bytes; none if there are none. Suspicious bytes are recorded.
    fn secret_of(&self, bytes: Vec<u8>, origin: &str) -> Option<Secret> {
        let secret = Secret::new(bytes)?;
        if let Some(doubt) = secret.doubt() {
            self.caution(origin, doubt);
        }
        Some(secret)
    }

    /// A list of secrets, separated by commas; none if it was not given at all. An empty
    /// element is an error.
    pub(super) fn secrets(&self, name: &str) -> Result<Vec<Secret>, ConfigError> {
        let Some((bytes, origin)) = self.secret_bytes(name)? else { return Ok(Vec::new()) };
        let secrets = bytes.split(|byte| *byte == b',').map(|one| self.secret_of(one.trim_ascii().to_vec(), &origin));
        let problem =
            || ConfigError::Setting { origin: origin.clone(), problem: "must not contain an empty token".to_owned() };
        secrets.collect::<Option<_>>().ok_or_else(problem)
    }

    /// `None` if the secret is absent. An empty secret is an error: everybody knows it.
    pub(super) fn secret(&self, name: &str) -> Result<Option<Secret>, ConfigError> {
        let Some((bytes, origin)) = self.secret_bytes(name)? else { return Ok(None) };
        match self.secret_of(bytes, &origin) {
            Some(secret) => Ok(Some(secret)),
            None => Err(ConfigError::Setting { origin, problem: "must not be empty".to_owned() }),
        }
    }

    /// The bytes of a secret, and its variable or key of the file.
    fn secret_bytes(&self, name: &str) -> Result<Option<(Vec<u8>, String)>, ConfigError> {
        let setting = find(name).expect("only settings of the table are read");
        Ok(match (self.environment_or_its_file(name)?, self.file.get(name)) {
            (Some(bytes), _) => Some((bytes, name.to_owned())),
            (None, Some(path)) => {
                let origin = self.setting_place(setting);
                Some((read_secret_file(path, &origin)?, origin))
            }
            (None, None) => None,
        })
    }

    /// The bytes of the variable `name`, or of the file that `<name>_FILE` names.
    fn environment_or_its_file(&self, name: &str) -> Result<Option<Vec<u8>>, ConfigError> {
        let file_variable = format!("{name}_FILE");
        let value = self.environment.get(name);
        let path = self.environment.get(&file_variable).filter(|path| !path.is_empty());
        match (value, path) {
            (Some(_), Some(_)) => Err(ConfigError::Setting {
                origin: file_variable,
                problem: format!("is set, and {name} too; keep one of them"),
            }),
            (Some(value), None) => Ok(Some(value.clone().into_vec())),
            (None, Some(path)) => Ok(Some(read_secret_file(&path.to_string_lossy(), &file_variable)?)),
            (None, None) => Ok(None),
        }
    }

    /// A secret outside the table of settings: the variable, or the file that `<NAME>_FILE` names.
    /// `None` if it is absent. A secret that is given but empty is an error.
    pub(super) fn environment_secret(&self, name: &str) -> Result<Option<Secret>, ConfigError> {
        let Some(bytes) = self.environment_or_its_file(name)? else { return Ok(None) };
        self.secret_of(bytes, name).map(Some).ok_or_else(|| complaint_about(name, "must not be empty"))
    }

    /// The file of a secret of the table, if it has one.
    pub(super) fn file_of_secret(&self, name: &str) -> Option<PathBuf> {
        if self.environment.contains_key(name) {
            return None;
        }
        self.file_of_value(name).or_else(|| self.file.get(name).map(PathBuf::from))
    }

    /// The file that `<name>_FILE` names in the environment.
    pub(super) fn file_of_value(&self, name: &str) -> Option<PathBuf> {
        let path = self.environment.get(&format!("{name}_FILE")).filter(|path| !path.is_empty())?;
        Some(PathBuf::from(path))
    }

    /// A URL of the environment outside the table of settings: the variable, or the file that `<NAME>_FILE` names.
    pub fn environment_url(&self, name: &str) -> Result<Option<String>, ConfigError> {
        let Some(bytes) = self.environment_or_its_file(name)?.filter(|bytes| !bytes.is_empty()) else {
            return Ok(None);
        };
        String::from_utf8(bytes).map(Some).map_err(|_| complaint_about(name, "is not UTF-8"))
    }

    /// The secret in a file.
    pub(super) fn file_secret(&self, path: &str, origin: &str) -> Result<Secret, ConfigError> {
        let bytes = read_secret_file(path, origin)?;
        self.secret_of(bytes, origin).ok_or_else(|| complaint_about(origin, "names an empty file"))
    }

    /// The sources of the file, by name.
    pub(super) fn sources(&self) -> impl Iterator<Item = (&str, &toml::Table)> {
        self.sources.iter().map(|(name, table)| (name.as_str(), table))
    }

    fn setting_place(&self, setting: &Setting) -> String {
        self.file_place(&format!("{}.{}", setting.file_key.0, setting.file_key.1))
    }

    /// A key of the file, for error messages.
    pub(super) fn file_place(&self, key: &str) -> String {
        format!("{}: {key}", self.file_name)
    }
}

/// The bytes of a file that holds a secret.
fn read_secret_file(path: &str, origin: &str) -> Result<Vec<u8>, ConfigError> {
    secret_file::read_secret_file(path).map_err(|problem| complaint_about(origin, &problem))
}

/// Rejects misspelt variables, which must not be ignored silently. It ignores names outside our sections, and
/// names that Kubernetes injects for services of our name, such as `POSTROOM_METRICS_SERVICE_HOST`.
fn check_environment_names(environment: &BTreeMap<String, OsString>) -> Result<(), ConfigError> {
    for name in environment.keys() {
        let sections = [
            "POSTROOM_SERVER_",
            "POSTROOM_API_",
            "POSTROOM_SOURCES_",
            "POSTROOM_QUARANTINE_",
            "POSTROOM_STORE_",
            "POSTROOM_METRICS_",
            "POSTROOM_POSTGRES_",
            // The former name of the section of sources: an old variable must not be
            // ignored silently.
            "POSTROOM_DOORS_",
        ];
        let injected = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"].iter().any(|part| name.contains(part));
        let ours = sections.iter().any(|start| name.starts_with(start)) && !injected && !name.ends_with("_PORT");
        if ours && find(name).is_none() && find(name.trim_end_matches("_FILE")).is_none() {
            let known = nearest(name, SETTINGS.iter().map(|setting| setting.name));
            return Err(ConfigError::Unknown { place: name.clone(), suggestion: known.map(str::to_owned) });
        }
    }
    Ok(())
}

/// The values of a configuration file by environment name, and its sources by name.
type FileContent = (BTreeMap<&'static str, String>, BTreeMap<String, toml::Table>);

/// Reads a configuration file.
fn read_file(path: &Path) -> Result<FileContent, ConfigError> {
    let file_name = path.display().to_string();
    let complain = |problem: String| ConfigError::Setting { origin: file_name.clone(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| complain(format!("cannot be read: {error}")))?;
    let document: toml::Table =
        text.parse().map_err(|error: toml::de::Error| complain(format!("is not TOML: {}", error.message())))?;
    let (mut values, mut sources) = (BTreeMap::new(), BTreeMap::new());
    for (section, content) in document {
        let toml::Value::Table(content) = content else {
            return Err(unknown_key(&file_name, &section));
        };
        if section == "source" {
            for (name, table) in content {
                let toml::Value::Table(table) = table else {
                    return Err(complain(format!("source.{name} must be a table: [source.NAME] followed by its keys")));
                };
                sources.insert(name, table);
            }
            continue;
        }
        for (key, value) in content {
            let setting = SETTINGS
                .iter()
                .find(|setting| setting.file_key == (section.as_str(), key.as_str()))
                .ok_or_else(|| unknown_key(&file_name, &format!("{section}.{key}")))?;
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(truth) => truth.to_string(),
                _ => return Err(complain(format!("{section}.{key} must be a string, a number or true or false"))),
            };
            values.insert(setting.name, value);
        }
    }
    Ok((values, sources))
}

fn unknown_key(file_name: &str, typed: &str) -> ConfigError {
    let known: Vec<String> =
        SETTINGS.iter().map(|setting| format!("{}.{}", setting.file_key.0, setting.file_key.1)).collect();
    let suggestion = nearest(typed, known.iter().map(String::as_str)).map(str::to_owned);
    ConfigError::Unknown { place: format!("{file_name}: {typed}"), suggestion }
}
