//! What several commands have in common: where their settings, their database, their source and their URL come from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::Args;

use crate::config::{Config, Inputs, host};
use crate::providers::Source;
use crate::store::{Database, Store, StoreConfig};
use crate::telemetry::Metrics;

/// The exit code of a configuration that cannot be used, as of a wrong command line.
pub const EXIT_CONFIGURATION: u8 = 2;

/// Where a command finds the settings of the service. A flag for each setting is added from the table of settings.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// A TOML file with settings (also POSTROOM_CONFIG)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// A service on this machine, where nothing else is named.
pub fn local_url(host: &str, port: u16) -> String {
    format!("http://{}:{port}", host::to_reach(host))
}

/// A URL, by where it was given.
pub enum Given {
    Flag(String),
    Environment(String),
}

/// The URL of a flag, or of a variable of the environment or the file that it names.
pub fn url(inputs: &Inputs, flag: Option<&str>, name: &str, variable: &str) -> anyhow::Result<Given> {
    let given = match flag {
        Some(url) => Some(Given::Flag(url.to_owned())),
        None => inputs.environment_url(variable)?.map(Given::Environment),
    };
    given.with_context(|| format!("{name} is missing; give it, or {variable}, or {variable}_FILE"))
}

/// The database that a service has written before: where the URL is mistyped, nothing is made, and nothing goes astray.
pub fn open_existing(store: &StoreConfig) -> anyhow::Result<Store> {
    if let Database::Sqlite { path } = &store.database {
        ensure!(path.exists(), "there is no database {}", path.display());
    }
    Ok(Store::open(store, Arc::new(Metrics::new(Vec::new(), store.queue_max, 1)))?)
}

/// A door by its name, and the settings that it stands in.
pub fn source_named(
    flags: BTreeMap<&'static str, String>,
    config_file: Option<PathBuf>,
    name: &str,
) -> anyhow::Result<(Source, Config)> {
    let mut config = Config::load(&Inputs::gather(flags, config_file)?)?;
    match config.sources.iter().position(|source| source.name == name) {
        Some(at) => Ok((config.sources.swap_remove(at), config)),
        None => {
            let known: Vec<&str> = config.sources.iter().map(|source| source.name.as_str()).collect();
            anyhow::bail!("there is no door '{name}'; those with a secret are: {}", known.join(", "))
        }
    }
}
