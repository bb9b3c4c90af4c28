//! Identifies the engine that speaks the PostgreSQL protocol. Each connection asks the
//! server; there is no setting. If an engine lacks something that the store depends on,
//! the operator gets one line about it, before any statement that the engine would refuse.

use tokio_postgres::Client;

use super::failure::Failure;
use super::parameters::Parameters;
use crate::postgres::config::{PostgresConfig, SynchronousCommit};

/// An operator's setting that prevents every replica from writing.
pub(super) const READ_ONLY: &str = "default_transaction_read_only is on, so writes are impossible";

/// Oldest server with transaction numbers of 64 bits, on which the order of arrival depends.
const VERSION_LEAST: i32 = 130_000;

/// Engines that speak the protocol and identify themselves: the
/// text in their `version()`, their name, and the obstacle.
const OTHERS: [(&str, &str, &str); 3] = [
    ("CockroachDB", "CockroachDB", NO_NUMBERS),
    ("-YB-", "YugabyteDB", NO_NUMBERS),
    ("Redshift", "Amazon Redshift", "it does not enforce unique keys, so messages would be stored twice"),
];
const NO_NUMBERS: &str =
    "it does not number transactions as PostgreSQL does, and the order of arrival uses these numbers";

/// The properties that a server reported when we connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// Its name: `PostgreSQL 15.18 (Debian …) on x86_64-pc-linux-gnu`.
    pub name: String,
    /// As a number: 150018.
    pub version: i32,
    pub encoding: String,
    pub is_standby: bool,
    /// Whether transactions are read-only by default; an operator can set this for a role or a database.
    pub is_read_only: bool,
    pub synchronous_commit: String,
    pub synchronous_standby_names: String,
    /// The version of Citus, if this database has it.
    pub citus: Option<String>,
}

impl Server {
    /// The `synchronous_commit` in effect: the operator's choice, or the server's value and at least `on`.
    pub fn effective_commit(&self, config: &PostgresConfig) -> SynchronousCommit {
        let said = SynchronousCommit::named(&self.synchronous_commit).unwrap_or(SynchronousCommit::On);
        config.synchronous_commit.unwrap_or(said.max(SynchronousCommit::On))
    }

    /// Whether a commit waits for the server's own disk.
    pub fn survives_crash(&self, config: &PostgresConfig) -> bool {
        self.effective_commit(config) >= SynchronousCommit::Local
    }

    /// Whether a commit waits for a standby's disk, so that a promotion loses no acknowledged message.
    pub fn survives_promotion(&self, config: &PostgresConfig) -> bool {
        !self.synchronous_standby_names.is_empty() && self.effective_commit(config) >= SynchronousCommit::On
    }
    /// The durability of an acknowledged message, in words for the operator.
    pub fn durability(&self, config: &PostgresConfig) -> String {
        let survives = if self.survives_promotion(config) {
            "a 200 survives the loss of the primary"
        } else if self.survives_crash(config) {
            "a 200 survives a crash of the server, not a promotion: no synchronous standby"
        } else {
            "a 200 does not survive a crash of the server"
        };
        format!("synchronous_commit={}: {survives}", self.effective_commit(config).name())
    }
}

/// Settings of a server; functions that our statements need and it lacks; the version of Citus, if any.
const SERVER: &str = "\
    SELECT current_setting('server_version_num') AS version, current_setting('server_encoding') AS encoding,
           pg_is_in_recovery() AS is_standby, current_setting('synchronous_commit') AS synchronous_commit,
           current_setting('synchronous_standby_names') AS synchronous_standby_names,
           ARRAY(SELECT name FROM unnest(ARRAY['pg_current_xact_id', 'pg_current_snapshot', 'pg_snapshot_xmin',
                                               'pg_snapshot_xmax', 'pg_logical_emit_message']) AS name
                 WHERE name NOT IN (SELECT proname::text FROM pg_proc)) AS missing,
           (SELECT extversion FROM pg_extension WHERE extname = 'citus') AS citus,
           current_setting('default_transaction_read_only') AS read_only";

/// Identifies a server, and refuses unsuitable ones.
pub(super) async fn ask(client: &Client) -> Result<Server, Failure> {
    // This query comes first and alone: every engine answers it.
    let version: String = Parameters::new().value(client, "SELECT version()").await?;
    // The rest describes the compiler.
    let name = version.split(", ").next().unwrap_or_default().to_owned();
    if let Some((_, engine, why)) = OTHERS.iter().find(|(mark, ..)| version.contains(mark)) {
        return Err(Failure::Broken(format!("the server is {engine} ({name}): {why}; PostgreSQL is needed")));
    }
    let row = client.query_typed_one(SERVER, &[]).await.map_err(Failure::from).map_err(|failure| match failure {
        Failure::Broken(why) => Failure::Broken(format!("the server ({name}) does not respond like PostgreSQL: {why}")),
        other => other,
    })?;
    let number: i32 = row.get::<_, &str>("version").parse().unwrap_or(0);
    let missing: Vec<String> = row.get("missing");
    if number < VERSION_LEAST {
        return Err(Failure::Broken(format!("the server is PostgreSQL {}; 13 or later is needed", number / 10_000)));
    }
    if !missing.is_empty() {
        return Err(Failure::Broken(format!(
            "the server ({name}) lacks {}, which PostgreSQL has from version 13 on",
            missing.join(", ")
        )));
    }
    Ok(Server {
        name,
        version: number,
        encoding: row.get("encoding"),
        is_standby: row.get("is_standby"),
        synchronous_commit: row.get("synchronous_commit"),
        synchronous_standby_names: row.get("synchronous_standby_names"),
        citus: row.get("citus"),
        is_read_only: row.get::<_, &str>("read_only") == "on",
    })
}
