//! `postroom check`: would it start, and is what it keeps in order?

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, ensure};

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
    say!("configuration  ok")?;
    for source in &config.sources {
        tell_door(source, config.server.public_base_url.as_deref())?;
    }
    let path = match &config.store.database {
        Database::Sqlite { path } => path,
        Database::Postgres(server) => return check_postgres(server, arguments.data),
    };
    if !path.exists() {
        say!("database       {} does not exist yet; the first start makes it", path.display())?;
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(!path.is_dir(), "database {} is a folder", path.display());
    let audit = audit(path, arguments.data).with_context(|| format!("database {}", path.display()))?;
    let messages = audit.messages.map_or("no table yet".to_owned(), |count| format!("{count} messages"));
    say!("database       {}, schema {}, {messages}", path.display(), audit.schema_version)?;
    match audit.index {
        IndexAudit::Absent => {
            say!("index          not on disk, or of another version; the service builds it in memory first")?
        }
        IndexAudit::Covers(count) => say!("index          covers {count} messages")?,
    }
    for finding in &audit.findings {
        say!("problem        {finding}")?;
    }
    if !audit.leftovers.is_empty() {
        say!("left over      {}; `postroom reindex` removes them", audit.leftovers)?;
    }
    if arguments.data && audit.findings.is_empty() {
        say!("data           integrity ok")?;
    }
    Ok(if audit.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What Citus on a server means.
const CITUS: &str =
    "connect to the coordinator, and do not distribute the tables; arrival is made of its transactions' numbers";

/// What is missing on a server, and what acknowledged messages survive there.
fn check_postgres(server: &PostgresConfig, thorough: bool) -> anyhow::Result<ExitCode> {
    let audit = postgres::audit(server, thorough).with_context(|| format!("database {}", server.place()))?;
    let messages = audit.messages.map_or("no tables yet; the first start makes them".to_owned(), |count| {
        format!("schema {}, {count} messages", audit.schema_version)
    });
    say!("database       {}, {messages}", server.place())?;
    say!("server         {}", audit.server)?;
    if let Some(version) = &audit.citus {
        say!("citus          version {version}: {CITUS}")?;
    }
    say!("durability     {}", audit.durability)?;
    say!("extensions     none needed: search brings its own index")?;
    for finding in &audit.findings {
        say!("problem        {finding}")?;
    }
    if !audit.leftovers.is_empty() {
        say!("left over      {}; `postroom reindex` removes them", audit.leftovers)?;
    }
    if thorough && audit.findings.is_empty() {
        say!("data           counters and search index agree with a recount")?;
    }
    Ok(if audit.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What has to stand in the provider's dashboard, and what a request has to bring. Never a secret itself.
fn tell_door(source: &Source, base_url: Option<&str>) -> anyhow::Result<()> {
    let path = match source.name == original::SCHEME.kind {
        true => "/webhook".to_owned(),
        false => format!("/webhook/{}", source.name),
    };
    let base_url = source.options.base_url.as_deref().or(base_url).unwrap_or("https://YOUR-HOST");
    say!("door           {path} ({})", source.scheme.title)?;
    say!("  callback     {base_url}{path}")?;
    say!("  expects      {}", source.expects())?;
    let labels: Vec<&str> = source.keys.iter().map(|key| key.label.as_str()).collect();
    say!("  secrets      {} (any of them)", labels.join(", "))?;
    if source.scheme.has_handshake() {
        let tokens: Vec<&str> = source.options.verify_tokens.iter().map(|token| token.label.as_str()).collect();
        match tokens.is_empty() {
            false => say!("  verify token what stands in {} (any of them)", tokens.join(", "))?,
            true => say!(
                "problem        no verify token is set ({VERIFY_TOKEN_VARIABLE}, or verify_token_env): the handshake is refused"
            )?,
        }
    }
    if let Some(caution) = source.caution() {
        say!("  caution      {caution}")?;
    }
    Ok(())
}
