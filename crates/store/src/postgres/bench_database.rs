//! Temporary databases of a benchmark: created empty, and dropped afterwards. Also the statements of pgbench,
//! for comparison.

use std::sync::Arc;

use super::open_error::OpenError;
use super::parameters::Parameters;
use super::session::{Connector, Session};
use crate::postgres::config::PostgresConfig;

/// A table with the six columns and a key, without derived data.
const BARE_TABLE: &str = "CREATE TABLE single (message_id TEXT COLLATE \"C\" PRIMARY KEY, from_msisdn TEXT NOT NULL, \
     to_msisdn TEXT NOT NULL, ts TEXT NOT NULL, text TEXT, created_at TEXT NOT NULL)";
/// The same with the columns and indices of the service's own.
const WHOLE_TABLE: &str = "CREATE TABLE single (LIKE messages INCLUDING ALL)";

/// The pgbench statement: it inserts a message with a random id, in its own transaction.
pub fn script(bare: bool) -> String {
    // Values of our own columns: no exact bytes, some batch number, the next arrival.
    let own = if bare { "" } else { ", NULL, :n, nextval('postroom_foreign_rows')" };
    format!(
        "\\set n random(1, 1000000000000000)\n\\set sender :n % 50000\n\\set second 10 + :n % 50\n\
         INSERT INTO single VALUES ('wamid.' || lpad(:n::text, 32, '0'), '+9198765' || :sender::text, '+14155550100', \
         '2025-01-15T10:00:' || :second::text || 'Z', 'Your order number ' || :n::text || ' is on its way to you', \
         '2025-01-15T10:00:00.123456Z'{own}) ON CONFLICT DO NOTHING;\n"
    )
}

/// A server to measure on.
pub struct BenchDatabase {
    session: Session,
    /// Created and not yet dropped.
    databases: Vec<String>,
    made: usize,
}

impl std::fmt::Debug for BenchDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ground").field("databases", &self.databases).finish_non_exhaustive()
    }
}

impl BenchDatabase {
    /// Connects to the server.
    pub async fn open(config: &PostgresConfig) -> Result<Self, OpenError> {
        let connector = Connector::new(Arc::new(config.clone()))?;
        Ok(Self { session: connector.connect().await?, databases: Vec::new(), made: 0 })
    }

    /// The server's version, as a number: 150004.
    pub fn version(&self) -> i32 {
        self.session.server.version
    }

    /// Creates an empty database, and returns its name.
    pub async fn make(&mut self) -> Result<String, OpenError> {
        self.made += 1;
        let name = format!("postroom_bench_{}_{}", std::process::id(), self.made);
        self.session.client.batch_execute(&format!("CREATE DATABASE {name}")).await?;
        self.databases.push(name.clone());
        Ok(name)
    }

    /// Creates a table for pgbench in a database: a bare one, or one like the service's, which must exist.
    pub async fn make_table(config: &PostgresConfig, bare: bool) -> Result<(), OpenError> {
        let bench_database = Self::open(config).await?;
        Ok(bench_database.session.client.batch_execute(if bare { BARE_TABLE } else { WHOLE_TABLE }).await?)
    }

    /// Writes dirty data of earlier measurements, so that the next one does not pay for it.
    pub async fn settle(&self) -> Result<(), OpenError> {
        // CHECKPOINT needs a privilege that some roles lack; without it the server does this later.
        let _ = self.session.client.batch_execute("CHECKPOINT").await;
        Ok(())
    }

    /// The server process of this connection, and its database.
    pub async fn process(&self) -> Result<(u32, String), OpenError> {
        let sql = "SELECT pg_backend_pid() AS process, current_database()::text AS database";
        let row = self.session.client.query_typed_one(sql, &[]).await?;
        Ok((row.get::<_, i32>("process").cast_unsigned(), row.get("database")))
    }

    /// Bytes of a database.
    pub async fn bytes(&self, database: &str) -> Result<i64, OpenError> {
        let sql = "SELECT pg_database_size($1)";
        Ok(Parameters::new().text(database).value(&self.session.client, sql).await?)
    }

    /// Drops a database and ends its connections.
    pub async fn drop(&mut self, database: &str) -> Result<(), OpenError> {
        self.databases.retain(|known| known != database);
        Ok(self.session.client.batch_execute(&format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)")).await?)
    }

    /// Drops all remaining ones.
    pub async fn clear(mut self) {
        while let Some(database) = self.databases.last().cloned() {
            let _ = self.drop(&database).await;
        }
    }
}
