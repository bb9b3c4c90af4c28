//! `postroom reindex`: everything that is derived from the messages, built anew.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use super::ServeArguments;
use crate::config::{Config, Database, Inputs};
use crate::store::sqlite::schema::rebuild;

/// How often progress is told where there is no terminal.
const TELL_INTERVAL: Duration = Duration::from_secs(5);

/// Builds the key's index anew, in one transaction, and has whoever serves the file derive the rest anew. A running service
/// goes on reading and is answered 503 for writes that wait too long meanwhile.
pub fn run(flags: BTreeMap<&'static str, String>, arguments: ServeArguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&Inputs::gather(flags, arguments.config)?)?;
    let Database::Sqlite { path } = &config.store.database;
    let style = ProgressStyle::with_template("{spinner} building indices, {elapsed}").expect("a valid template");
    let bar = ProgressBar::new_spinner().with_style(style);
    let (shown, started, mut told) = (bar.clone(), Instant::now(), Instant::now());
    let on_terminal = std::io::stderr().is_terminal();
    let tell = move || {
        shown.tick();
        if !on_terminal && told.elapsed() >= TELL_INTERVAL {
            told = Instant::now();
            eprintln!("building indices, {} s", started.elapsed().as_secs());
        }
    };
    let messages = rebuild(path, &config.store, tell).with_context(|| format!("database {}", path.display()))?;
    bar.finish_and_clear();
    println!("built anew for {messages} messages in {:.3} s", started.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}
