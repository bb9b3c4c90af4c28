//! Looking a database over without changing it, and building anew what is derived from the messages.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::batch::exact;
use super::derive::{self, Round};
use super::failure::Failure;
use super::runs::{Stretch, arrivals_of};
use super::session::{Connector, Server, Session};
use super::{OpenError, durability, leftover, schema, sql};
use crate::config::PostgresConfig;
use crate::store::Leftovers;

/// Rows that a rebuild takes at once.
const STRETCH: i64 = 10_000;

/// What was found in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// What the server calls itself.
    pub server: String,
    /// The version of Citus, where the database has it.
    pub citus: Option<String>,
    /// The version of our schema; 0 where the next start would make it.
    pub schema_version: i32,
    /// Rows in `messages`.
    pub messages: Option<u64>,
    /// What an acknowledged message survives.
    pub durability: String,
    /// What deleted messages left behind; only looked for thoroughly.
    pub leftovers: Leftovers,
    /// What is wrong, one sentence each.
    pub findings: Vec<String>,
}

/// Each says what it compares, and answers the number of differences. The last is of schema 2.
const RECOUNTS: [(&str, &str); 5] = [
    (
        "the number of messages",
        "SELECT abs((SELECT messages FROM postroom_state)
              - (SELECT count(*) FROM messages WHERE arrival <= (SELECT counted FROM postroom_state)))",
    ),
    (
        "the messages of each sender",
        "SELECT count(*) FROM (SELECT from_msisdn, count(*) AS n FROM messages
             WHERE arrival <= (SELECT counted FROM postroom_state) GROUP BY 1) r
         FULL JOIN postroom_senders s USING (from_msisdn) WHERE r.n IS DISTINCT FROM s.messages",
    ),
    (
        "the messages of each day of each sender",
        "SELECT count(*) FROM (SELECT from_msisdn, left(ts, 10) AS bucket, count(*) AS n FROM messages
             WHERE arrival <= (SELECT counted FROM postroom_state) GROUP BY 1, 2) r
         FULL JOIN postroom_sender_days s USING (from_msisdn, bucket) WHERE r.n IS DISTINCT FROM s.messages",
    ),
    (
        "the messages of each day, hour and minute",
        "SELECT count(*) FROM (SELECT level, left(ts, level) AS bucket, count(*) AS n
             FROM messages, unnest(ARRAY[10, 13, 16]) AS level
             WHERE arrival <= (SELECT counted FROM postroom_state) GROUP BY 1, 2) r
         FULL JOIN postroom_buckets s USING (level, bucket) WHERE r.n IS DISTINCT FROM s.messages",
    ),
    (
        "the messages in each state",
        "SELECT count(*) FROM (SELECT state, count(*) AS n FROM postroom_states GROUP BY 1) r
         FULL JOIN (SELECT state, sum(messages) AS messages FROM (
                 SELECT state, messages FROM postroom_state_counts
                 UNION ALL SELECT state, messages FROM postroom_state_changes
             ) c GROUP BY 1 HAVING sum(messages) <> 0) s USING (state) WHERE r.n IS DISTINCT FROM s.messages",
    ),
];

/// Connects and looks at the tables; with `thorough`, compares every counter with a recount and every indexed text with its
/// message. Blocks, and starts a runtime of its own.
pub fn audit(config: &PostgresConfig, thorough: bool) -> Result<Audit, OpenError> {
    block_on(async {
        let connector = Connector::new(Arc::new(config.clone())).map_err(OpenError)?;
        let session = connector.connect().await.map_err(in_words)?;
        let audit = look_over(&session, config, thorough).await;
        audit.map_err(in_words)
    })
}

/// Removes what deleted messages left behind, throws the counters and the search index away and builds them from the messages,
/// beside running replicas. Answers are exact all the time, and slower until it is done. `tell` hears how many rows were
/// taken. Answers how many messages there are, and what was removed. Blocks.
pub fn rebuild(config: &PostgresConfig, mut tell: impl FnMut(u64)) -> Result<(u64, Leftovers), OpenError> {
    block_on(async {
        let connector = Connector::new(Arc::new(config.clone())).map_err(OpenError)?;
        let session = schema::prepare(&connector).await.map_err(OpenError)?;
        let client = &session.client;
        let leftovers = leftover::remove(client).await.map_err(in_words)?;
        client.batch_execute(schema::FORGET_COUNTS).await.map_err(|error| in_words(error.into()))?;
        let forget = format!("BEGIN; {}; COMMIT", sql::FORGET_INDEX);
        client.batch_execute(&forget).await.map_err(|error| in_words(error.into()))?;
        let mut rows = 0;
        while derive::count(client, STRETCH).await.map_err(in_words)? == Round::More {
            rows += STRETCH as u64;
            tell(rows);
        }
        while derive::index(client, 1, STRETCH).await.map_err(in_words)? == Round::More {
            rows += STRETCH as u64;
            tell(rows);
        }
        let messages = client.query_typed_one("SELECT count(*) FROM messages", &[]).await;
        let messages = messages.map_err(|error| in_words(error.into()))?.get::<_, i64>(0) as u64;
        Ok((messages, leftovers))
    })
}

fn block_on<T>(work: impl Future<Output = Result<T, OpenError>>) -> Result<T, OpenError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| OpenError(format!("cannot start: {error}")))?.block_on(work)
}

fn in_words(failure: Failure) -> OpenError {
    OpenError(failure.to_string())
}

async fn look_over(session: &Session, config: &PostgresConfig, thorough: bool) -> Result<Audit, Failure> {
    let (client, server) = (&session.client, &session.server);
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let mut audit = Audit {
        server: server.name.clone(),
        citus: server.citus.clone(),
        schema_version: schema::version(session).await?,
        messages: None,
        durability: durability(server, config),
        leftovers: Leftovers::default(),
        findings: complaints(server, config),
    };
    if audit.schema_version > schema::newest() {
        audit.findings.push(format!("schema {} is newer than this program knows", audit.schema_version));
    } else if audit.schema_version > 0 {
        let count = client.query_typed_one("SELECT count(*) FROM messages", &[]).await?;
        audit.messages = u64::try_from(count.get::<_, i64>(0)).ok();
        if thorough {
            recount(client, audit.schema_version, &mut audit.findings).await?;
            if audit.schema_version >= 2 {
                audit.leftovers = leftover::count(client).await?;
            }
        }
    }
    client.batch_execute("COMMIT").await?;
    Ok(audit)
}

fn complaints(server: &Server, config: &PostgresConfig) -> Vec<String> {
    let mut findings = Vec::new();
    if server.encoding != "UTF8" {
        findings.push(format!("the database's encoding is {}; UTF8 is needed", server.encoding));
    }
    if server.is_standby {
        findings.push("the server is a standby, which takes no writes".to_owned());
    }
    if config.require_sync_standby && !server.survives_promotion(config) {
        findings.push("there is no synchronous standby, and POSTROOM_REQUIRE_SYNC_STANDBY asks for one".to_owned());
    }
    findings
}

async fn recount(client: &Client, version: i32, findings: &mut Vec<String>) -> Result<(), Failure> {
    for (what, sql) in RECOUNTS.iter().take(if version < 2 { 4 } else { RECOUNTS.len() }) {
        let differences: i64 = client.query_typed_one(sql, &[]).await?.get(0);
        if differences > 0 {
            findings.push(format!("{what} differ from a recount; `postroom reindex` counts anew"));
        }
    }
    let senders = "SELECT (SELECT senders FROM postroom_state) = (SELECT count(*) FROM postroom_senders)";
    if !client.query_typed_one(senders, &[]).await?.get::<_, bool>(0) {
        findings.push("the number of senders differs from a recount; `postroom reindex` counts anew".to_owned());
    }
    if version >= 3 && !index_agrees(client).await? {
        findings.push("the search index differs from the messages; `postroom reindex` builds it anew".to_owned());
    }
    Ok(())
}

/// Whether every stretch of the search index is what its messages make.
async fn index_agrees(client: &Client) -> Result<bool, Failure> {
    let mut from = i64::MIN;
    for row in client.query_typed("SELECT last FROM postroom_stretches ORDER BY last", &[]).await? {
        let to: i64 = row.get(0);
        let stretch = [(&from as _, Type::INT8), (&to as _, Type::INT8)];
        let texts = "SELECT arrival, text, text_exact FROM messages
                     WHERE arrival > $1 AND arrival <= $2 AND text IS NOT NULL ORDER BY arrival";
        let texts = client.query_typed(texts, &stretch).await?;
        let texts: Vec<_> = texts.iter().filter_map(|row| Some((row.get(0), exact(row.get(1), row.get(2))?))).collect();
        let folded =
            "SELECT arrival, folded FROM postroom_folded WHERE arrival > $1 AND arrival <= $2 ORDER BY arrival";
        let folded = client.query_typed(folded, &stretch).await?;
        let stretch = [(&to as _, Type::INT8)];
        let arrivals = client.query_typed_one(sql::STRETCHES, &[(&vec![to], Type::INT8_ARRAY)]).await?;
        let runs = "SELECT run, messages, places FROM postroom_runs WHERE last = $1 ORDER BY run";
        let runs = client.query_typed(runs, &stretch).await?;
        let stored = Stretch {
            arrivals: arrivals_of(&arrivals)?,
            folded: folded.iter().map(|row| row.get(1)).collect(),
            runs: runs.iter().map(|row| row.get(0)).collect(),
            messages: runs.iter().map(|row| row.get(1)).collect(),
            places: runs.iter().map(|row| row.get(2)).collect(),
        };
        if stored != Stretch::of(&texts) {
            return Ok(false);
        }
        from = to;
    }
    let behind = "SELECT (SELECT indexed FROM postroom_search) <= $1";
    Ok(client.query_typed_one(behind, &[(&from.max(0), Type::INT8)]).await?.get(0))
}
