//! `postroom check`: would it start, and is what it keeps in order?

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Context;

use super::ServeArguments;
use crate::config::sources::VERIFY_TOKEN_VARIABLE;
use crate::config::{Config, Database, Inputs, PostgresConfig};
use crate::providers::{Source, original};
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
    for source in &config.sources {
        tell_door(source, config.server.public_base_url.as_deref());
    }
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
    if !audit.leftovers.is_empty() {
        println!("left over      {}; `postroom reindex` removes them", audit.leftovers);
    }
    if arguments.data && audit.findings.is_empty() {
        println!("data           integrity ok");
    }
    Ok(if audit.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What Citus on a server means. It was not tried, so nothing is said of what might work.
const CITUS: &str =
    "connect to the coordinator, and do not distribute the tables; arrival is made of its transactions' numbers";

/// What is missing on a server, and what acknowledged messages survive there.
fn check_postgres(server: &PostgresConfig, thorough: bool) -> anyhow::Result<ExitCode> {
    let audit = postgres::audit(server, thorough).with_context(|| format!("database {}", server.place()))?;
    let messages = audit.messages.map_or("no tables yet; the first start makes them".to_owned(), |count| {
        format!("schema {}, {count} messages", audit.schema_version)
    });
    println!("database       {}, {messages}", server.place());
    println!("server         {}", audit.server);
    if let Some(version) = &audit.citus {
        println!("citus          version {version}: {CITUS}");
    }
    println!("durability     {}", audit.durability);
    println!("extensions     none needed: search brings its own index");
    for finding in &audit.findings {
        println!("problem        {finding}");
    }
    if !audit.leftovers.is_empty() {
        println!("left over      {}; `postroom reindex` removes them", audit.leftovers);
    }
    if thorough && audit.findings.is_empty() {
        println!("data           counters and search index agree with a recount");
    }
    Ok(if audit.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What has to stand in the provider's dashboard, and what a request has to bring. Never a secret itself.
fn tell_door(source: &Source, base_url: Option<&str>) {
    let path = match source.name == original::SCHEME.kind {
        true => "/webhook".to_owned(),
        false => format!("/webhook/{}", source.name),
    };
    let base_url = source.options.base_url.as_deref().or(base_url).unwrap_or("https://YOUR-HOST");
    println!("door           {path} ({})", source.scheme.title);
    println!("  callback     {base_url}{path}");
    println!("  expects      {}", source.expects());
    let labels: Vec<&str> = source.keys.iter().map(|key| key.label.as_str()).collect();
    println!("  secrets      {} (any of them)", labels.join(", "));
    if source.scheme.has_handshake() {
        let tokens: Vec<&str> = source.options.verify_tokens.iter().map(|token| token.label.as_str()).collect();
        match tokens.is_empty() {
            false => println!("  verify token what stands in {} (any of them)", tokens.join(", ")),
            true => println!(
                "problem        no verify token is set ({VERIFY_TOKEN_VARIABLE}, or verify_token_env): the handshake is refused"
            ),
        }
    }
    if let Some(caution) = source.caution() {
        println!("  caution      {caution}");
    }
}
