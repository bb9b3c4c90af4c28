//! `postroom reindex`: rebuilds all data derived from the messages.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use super::arguments::ServeArguments;
use server::config::{Config, Inputs};
use store::Database;
use store::postgres;
use store::postgres::config::PostgresConfig;
use store::sqlite::{Rebuilding, keep_damaged_log, rebuild, remove_orphans};

/// Interval of progress lines without a terminal.
const TELL_INTERVAL: Duration = Duration::from_secs(5);

/// Removes orphans of deleted messages and rebuilds the key's index, in one transaction each, then the index next to
/// the file. A running service still reads, returns 503 for writes that wait too long, and rebuilds the index
/// next to the file itself. On PostgreSQL counters and search index are rebuilt in pieces: running replicas continue,
/// with slower reads. It removes the search data of replicas of an earlier build, so upgrade all of them first.
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
                Rebuilding::Key => tell!("rebuilding the primary key, {} s", started.elapsed().as_secs()),
                Rebuilding::Index(indexed, messages) => tell!("{indexed} of {messages} messages indexed"),
            }
        }
    };
    if let Some(finding) = keep_damaged_log(path).with_context(|| format!("database {}", path.display()))? {
        tell!("{finding}");
    }
    let orphans = remove_orphans(path, &config.store).with_context(|| format!("database {}", path.display()))?;
    let (messages, built) =
        rebuild(path, &config.store, tell).with_context(|| format!("database {}", path.display()))?;
    bar.finish_and_clear();
    say!("rebuilt for {messages} messages in {:.3} s", started.elapsed().as_secs_f64())?;
    if !orphans.is_empty() {
        say!("removed {orphans}")?;
    }
    if !built {
        say!("the running service rebuilds the index next to the database now")?;
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
    let (messages, orphans) =
        postgres::rebuild(server, tell).with_context(|| format!("database {}", server.place()))?;
    bar.finish_and_clear();
    say!("rebuilt for {messages} messages in {:.3} s", started.elapsed().as_secs_f64())?;
    if !orphans.is_empty() {
        say!("removed {orphans}")?;
    }
    Ok(ExitCode::SUCCESS)
}
