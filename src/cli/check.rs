//! `postroom check`: would it start, and is what it keeps in order?

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Context;

use super::ServeArguments;
use crate::config::{Config, Database, Inputs, PostgresConfig};
use crate::store::postgres;
use crate::store::sqlite::{IndexAudit, audit};

/// Checks every setting and opens the database for reading. Exits 0 if all is well, 2 if a setting is not, 1 for the rest.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    serve: ServeArguments,
    /// Also check the file's integrity, and the index against the messages (reads everything)
    #[arg(long)]
    data: bool,
}

/// Prints a line per finding.
pub fn run(flags: BTreeMap<&'static str, String>, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&Inputs::gather(flags, arguments.serve.config)?)?;
    println!("configuration  ok");
    let path = match &config.store.database {
        Database::Sqlite { path } => path,
        Database::Postgres(server) => return check_postgres(server, arguments.data),
    };
    if !path.exists() {
        println!("database       {} does not exist yet; the first start makes it", path.display());
        return Ok(ExitCode::SUCCESS);
    }
    let audit = audit(path, arguments.data).with_context(|| format!("database {}", path.display()))?;
    let messages = audit.messages.map_or("no table yet".to_owned(), |count| format!("{count} messages"));
    println!("database       {}, schema {}, {messages}", path.display(), audit.schema_version);
    match audit.index {
        IndexAudit::Absent => println!("index          none that fits; the next start builds it"),
        IndexAudit::Covers(count) => println!("index          covers {count} messages"),
    }
    for finding in &audit.findings {
        println!("problem        {finding}");
    }
    if arguments.data && audit.findings.is_empty() {
        println!("data           integrity ok");
    }
    Ok(if audit.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is missing on a server, and what acknowledged messages survive there.
fn check_postgres(server: &PostgresConfig, thorough: bool) -> anyhow::Result<ExitCode> {
    let audit = postgres::audit(server, thorough).with_context(|| format!("database {}", server.place()))?;
    let messages = audit.messages.map_or("no tables yet; the first start makes them".to_owned(), |count| {
        format!("schema {}, {count} messages", audit.schema_version)
    });
    println!("database       {} (version {}), {messages}", server.place(), audit.server);
    println!("durability     {}", audit.durability);
    println!("extensions     none needed: search brings its own index");
    for finding in &audit.findings {
        println!("problem        {finding}");
    }
    if thorough && audit.findings.is_empty() {
        println!("data           counters and search index agree with a recount");
    }
    Ok(if audit.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
