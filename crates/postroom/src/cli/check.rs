//! `postroom check`: whether the service would start, and whether its data are in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::arguments::ServeArguments;
use providers::{Source, original};
use server::config::sources::VERIFY_TOKEN_VARIABLE;
use server::config::{Config, Inputs};
use server::http::routes::{WEBHOOK, path_of_source};
use store::Database;
use store::postgres;
use store::postgres::config::PostgresConfig;
use store::sqlite::{IndexAudit, audit};

/// Checks every setting and opens the database for reading. Exits 0 if all is well, 2 for a setting, 1 for the rest.
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
    for caution in &config.cautions {
        say!("caution        {caution}")?;
    }
    for source in &config.sources {
        tell_source(source, config.server.public_base_url.as_deref())?;
    }
    let path = match &config.store.database {
        Database::Sqlite { path } => path,
        Database::Postgres(server) => return check_postgres(server, arguments.data),
    };
    ensure!(!path.is_dir(), "database {} is a folder", path.display());
    let hindrances = hindrances(path);
    for hindrance in &hindrances {
        say!("problem        {hindrance}; the service would not start as this user")?;
    }
    if !path.exists() {
        if hindrances.is_empty() {
            say!("database       {} does not exist yet; the first start creates it", path.display())?;
        }
        return Ok(if hindrances.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
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
    if !audit.orphans.is_empty() {
        say!("orphans        {}; `postroom reindex` removes them", audit.orphans)?;
    }
    if arguments.data && audit.findings.is_empty() {
        say!("data           integrity ok")?;
    }
    let is_well = audit.findings.is_empty() && hindrances.is_empty();
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What prevents this user from reading and writing the database at `path`, or from creating it. Changes nothing.
fn hindrances(path: &Path) -> Vec<String> {
    let may = |path: &Path, access| accessat(CWD, path, access, AtFlags::EACCESS);
    let mut hindrances = Vec::new();
    let beside = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let own = ["", "-wal", "-shm"].map(beside);
    for file in own.iter().filter(|file| file.exists()) {
        if let Err(error) = may(file, Access::READ_OK | Access::WRITE_OK) {
            hindrances.push(format!("{} cannot be read and written: {error}", file.display()));
        }
    }
    // SQLite creates files next to the database. A missing folder is created in the nearest existing one.
    let folders = path.ancestors().skip(1).map(|folder| if folder == Path::new("") { Path::new(".") } else { folder });
    if let Some(folder) = folders.into_iter().find(|folder| folder.exists()) {
        let may_write = may(folder, Access::WRITE_OK | Access::EXEC_OK);
        let problem = match (folder.is_dir(), may_write) {
            (false, _) => Some("is not a folder".to_owned()),
            (true, Err(error)) => Some(format!("cannot be written to: {error}")),
            (true, Ok(())) => None,
        };
        hindrances.extend(problem.map(|problem| format!("{} {problem}", folder.display())));
    }
    hindrances
}

/// The consequences of Citus on a server.
const CITUS: &str =
    "connect to the coordinator, and do not distribute the tables; arrival uses its transaction numbers";

/// Problems of a server, and the durability of acknowledged messages there.
fn check_postgres(server: &PostgresConfig, thorough: bool) -> anyhow::Result<ExitCode> {
    let audit = postgres::audit(server, thorough).with_context(|| format!("database {}", server.place()))?;
    let messages = audit.messages.map_or("no tables yet; the first start creates them".to_owned(), |count| {
        format!("schema {}, {count} messages", audit.schema_version)
    });
    say!("database       {}, {messages}", server.place())?;
    say!("server         {}", audit.server)?;
    if let Some(version) = &audit.citus {
        say!("citus          version {version}: {CITUS}")?;
    }
    say!("durability     {}", audit.durability)?;
    say!("extensions     none needed: search has its own index")?;
    for finding in &audit.findings {
        say!("problem        {finding}")?;
    }
    if !audit.orphans.is_empty() {
        say!("orphans        {}; `postroom reindex` removes them", audit.orphans)?;
    }
    if thorough && audit.findings.is_empty() {
        say!("data           counters and search index agree with a recount")?;
    }
    Ok(if audit.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The values for the provider's dashboard, and the requirements on a request. Never a secret itself.
fn tell_source(source: &Source, base_url: Option<&str>) -> anyhow::Result<()> {
    let path = match source.name == original::SCHEME.kind {
        true => WEBHOOK.to_owned(),
        false => path_of_source(&source.name),
    };
    let base_url = source.options.base_url.as_deref().or(base_url).unwrap_or("https://YOUR-HOST");
    say!("source         {path} ({})", source.scheme.title)?;
    say!("  callback     {base_url}{path}")?;
    say!("  expects      {}", source.expects())?;
    let labels: Vec<&str> = source.keys.iter().map(|key| key.label.as_str()).collect();
    say!("  secrets      {} (any of them)", labels.join(", "))?;
    if source.scheme.has_handshake() {
        let tokens: Vec<&str> = source.options.verify_tokens.iter().map(|token| token.label.as_str()).collect();
        match tokens.is_empty() {
            false => say!("  verify token the value of {} (any of them)", tokens.join(", "))?,
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
