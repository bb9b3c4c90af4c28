//! Common parts of several commands: the origin of their settings, database, source and URL.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::Args;

use providers::Source;
use server::config::{Config, Inputs, host};
use server::telemetry::Metrics;
use store::{Database, Store, StoreConfig};

/// The exit code of an invalid configuration or command line.
pub const EXIT_CONFIGURATION: u8 = 2;

/// Where a command reads the settings of the service. A flag for each setting is added from the table of settings.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// A TOML file with settings (also POSTROOM_CONFIG)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// A service on this machine, if no other is named.
pub fn local_url(host: &str, port: u16) -> String {
    format!("http://{}:{port}", host::to_reach(host))
}

/// A URL, and where it was given.
pub enum Given {
    Flag(String),
    Environment(String),
}

/// The URL of a flag, or of an environment variable, or of the file that the variable names.
pub fn url(inputs: &Inputs, flag: Option<&str>, name: &str, variable: &str) -> anyhow::Result<Given> {
    let given = match flag {
        Some(url) => Some(Given::Flag(url.to_owned())),
        None => inputs.environment_url(variable)?.map(Given::Environment),
    };
    given.with_context(|| format!("{name} is missing; set it, or {variable}, or {variable}_FILE"))
}

/// An existing database of a service: with a mistyped URL nothing is created.
pub fn open_existing(store: &StoreConfig) -> anyhow::Result<Store> {
    if let Database::Sqlite { path } = &store.database {
        ensure!(path.exists(), "there is no database {}", path.display());
    }
    Ok(Store::open(store, Arc::new(Metrics::new(Vec::new(), store.queue_max, 1)))?)
}

/// A source by its name, and the settings that define it.
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
            anyhow::bail!("there is no source '{name}'; sources with a secret: {}", known.join(", "))
        }
    }
}
