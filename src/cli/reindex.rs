//! `postroom reindex`: everything that is derived from the messages, built anew.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use super::arguments::ServeArguments;
use crate::config::{Config, Inputs};
use crate::store::Database;
use crate::store::postgres;
use crate::store::postgres::config::PostgresConfig;
use crate::store::sqlite::{Rebuilding, keep_damaged_log, rebuild, remove_leftovers};

/// How often progress is told where there is no terminal.
const TELL_INTERVAL: Duration = Duration::from_secs(5);

/// Removes what deleted messages left behind, builds the key's index anew, in one transaction each, and then the index beside
/// the file. A running service goes on reading, is answered 503 for writes that wait too long meanwhile, and builds the index
/// beside the file itself. On PostgreSQL counters and search index are built piece by piece: running replicas go on, and read
/// more slowly meanwhile. What replicas of an earlier build search by is removed there, so all must be new.
pub fn run(flags: BTreeMap<&'static str, String>, arguments: ServeArguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&Inputs::gather(flags, arguments.config)?)?;
    let path = match &config.store.database {
        Database::Sqlite { path } => path,
        Database::Postgres(server) => return rebuild_postgres(server),
    };
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed} (left: {eta})");
    let bar = ProgressBar::new(0).with_style(style.expect("a valid template"));
    let (shown, started, mut told) = (bar.clone(), Instant::now(), Instant::now());
    let on_terminal = std::io::stderr().is_terminal();
    let tell = move |stage| {
        match stage {
            Rebuilding::Key => shown.set_message("primary key"),
            Rebuilding::Index(indexed, messages) => {
                shown.set_message("messages");
                shown.set_length(messages);
                shown.set_position(indexed);
            }
        }
        shown.tick();
        if !on_terminal && told.elapsed() >= TELL_INTERVAL {
            told = Instant::now();
            match stage {
                Rebuilding::Key => tell!("building the primary key, {} s", started.elapsed().as_secs()),
                Rebuilding::Index(indexed, messages) => tell!("{indexed} of {messages} messages indexed"),
            }
        }
    };
    if let Some(finding) = keep_damaged_log(path).with_context(|| format!("database {}", path.display()))? {
        tell!("{finding}");
    }
    let leftovers = remove_leftovers(path, &config.store).with_context(|| format!("database {}", path.display()))?;
    let (messages, built) =
        rebuild(path, &config.store, tell).with_context(|| format!("database {}", path.display()))?;
    bar.finish_and_clear();
    say!("built anew for {messages} messages in {:.3} s", started.elapsed().as_secs_f64())?;
    if !leftovers.is_empty() {
        say!("removed {leftovers}")?;
    }
    if !built {
        say!("the service that runs on this database builds the index beside it now")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The same on a server.
fn rebuild_postgres(server: &PostgresConfig) -> anyhow::Result<ExitCode> {
    let style = ProgressStyle::with_template("{spinner} counting and indexing, {human_pos} rows, {elapsed}");
    let bar = ProgressBar::new_spinner().with_style(style.expect("a valid template"));
    let (started, mut told) = (Instant::now(), Instant::now());
    let on_terminal = std::io::stderr().is_terminal();
    let tell = |rows| {
        bar.set_position(rows);
        if !on_terminal && told.elapsed() >= TELL_INTERVAL {
            told = Instant::now();
            tell!("counting and indexing: {rows} rows, {} s", started.elapsed().as_secs());
        }
    };
    let (messages, leftovers) =
        postgres::rebuild(server, tell).with_context(|| format!("database {}", server.place()))?;
    bar.finish_and_clear();
    say!("built anew for {messages} messages in {:.3} s", started.elapsed().as_secs_f64())?;
    if !leftovers.is_empty() {
        say!("removed {leftovers}")?;
    }
    Ok(ExitCode::SUCCESS)
}
