//! Looking a database over without changing it, and building anew what is derived from the messages.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::batch::exact;
use super::derive::{self, Counting, Round};
use super::failure::Failure;
use super::grams;
use super::runs::unpack;
use super::session::{Connector, Server, Session};
use super::{OpenError, durability, leftover, schema, sql, tables};
use crate::config::PostgresConfig;
use crate::store::Leftovers;

/// Rows that a rebuild takes at once.
const STRETCH: i64 = 10_000;
/// For statements without any.
const NO_PARAMETERS: [(&str, Type); 0] = [];

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

/// Removes what deleted messages and an earlier build left behind, throws the counters and the search index away and builds
/// them from the messages, beside running replicas. Answers are exact all the time, and slower until it is done. `tell` hears
/// how many rows were taken. Answers how many messages there are, and what was removed. Blocks.
pub fn rebuild(config: &PostgresConfig, mut tell: impl FnMut(u64)) -> Result<(u64, Leftovers), OpenError> {
    block_on(async {
        let connector = Connector::new(Arc::new(config.clone())).map_err(OpenError)?;
        let session = schema::prepare(&connector).await.map_err(OpenError)?;
        let client = &session.client;
        let leftovers = leftover::remove(client).await.map_err(in_words)?;
        client.batch_execute(schema::FORGET_COUNTS).await.map_err(|error| in_words(error.into()))?;
        let forget = format!("BEGIN; {}; COMMIT", sql::FORGET_INDEX);
        client.batch_execute(&forget).await.map_err(|error| in_words(error.into()))?;
        client.batch_execute(sql::FORGET_FORMER_INDEX).await.map_err(|error| in_words(error.into()))?;
        let (mut rows, counting) = (0, Counting::default());
        loop {
            let (counted, round) = counting.round(client).await.map_err(in_words)?;
            rows += counted.unsigned_abs();
            tell(rows);
            if round == Round::Done {
                break;
            }
        }
        loop {
            let (indexed, round) = derive::index(client, 1, STRETCH).await.map_err(in_words)?;
            rows += indexed.unsigned_abs();
            tell(rows);
            if round == Round::Done {
                break;
            }
            derive::merge(client).await.map_err(in_words)?;
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
    } else if audit.schema_version == 0 {
        audit.findings.extend(tables::hindrance(session).await?.map(str::to_owned));
    } else {
        audit.findings.extend(tables::obstacle(session).await?);
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
    if server.is_read_only && !server.is_standby {
        findings.push(schema::READ_ONLY.to_owned());
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

/// Whether the search index is what its messages make: each text folded and in its place, each run in as many texts and in the
/// same ones. Of the numbers of a run a sum is compared, so that it takes a line for each run and not one for each text.
async fn index_agrees(client: &Client) -> Result<bool, Failure> {
    let texts = "SELECT m.text, m.text_exact, f.number, f.folded, m.from_msisdn = f.from_msisdn AND m.ts = f.ts
                 FROM (SELECT * FROM messages WHERE arrival <= (SELECT packed FROM postroom_search) AND text IS NOT NULL) m
                 FULL JOIN postroom_folded f USING (arrival)";
    let (mut expected, mut known) = (Sums::new(), 0);
    let mut rows = pin!(client.query_typed_raw(texts, NO_PARAMETERS).await?);
    while let Some(row) = rows.try_next().await? {
        let (Some(text), Some(number)) = (exact(row.get(0), row.get(1)), row.get::<_, Option<i64>>(2)) else {
            return Ok(false);
        };
        let (folded, runs) = grams::of_text(&text);
        if row.get::<_, &[u8]>(3) != folded.as_bytes() || row.get::<_, Option<bool>>(4) != Some(true) {
            return Ok(false);
        }
        runs.into_iter().for_each(|run| add(&mut expected, run, &[number]));
        known += 1;
    }
    let (mut stored, mut numbers) = (Sums::new(), Vec::new());
    let mut rows = pin!(client.query_typed_raw("SELECT run, texts, numbers FROM postroom_runs", NO_PARAMETERS).await?);
    while let Some(row) = rows.try_next().await? {
        numbers.clear();
        unpack(row.get(2), &mut numbers)?;
        if numbers.len() as i64 != i64::from(row.get::<_, i32>(1)) {
            return Ok(false);
        }
        add(&mut stored, row.get(0), &numbers);
    }
    let counted: i64 = client.query_typed_one("SELECT texts FROM postroom_search", &[]).await?.get(0);
    Ok(stored == expected && counted == known)
}

/// For each run, how many texts have it, and a sum over scattered numbers of them.
type Sums = HashMap<i64, (u64, u64)>;

fn add(sums: &mut Sums, run: i64, numbers: &[i64]) {
    let (count, sum) = sums.entry(run).or_default();
    *count += numbers.len() as u64;
    *sum = numbers.iter().fold(*sum, |sum, number| sum.wrapping_add(scatter(number.cast_unsigned())));
}

/// SplitMix64's last step: numbers that differ little become ones that differ much.
fn scatter(number: u64) -> u64 {
    let mixed = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
