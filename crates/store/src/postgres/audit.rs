//! Checking a database without changing it, and rebuilding the data derived from the messages.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::batch::exact;
use super::counting::{Counting, FORGET_COUNTS, RECOUNT_STATES};
use super::engine::{READ_ONLY, Server};
use super::failure::Failure;
use super::guard::admit;
use super::indexing::{self, FORGET_FORMER_INDEX, FORGET_INDEX};
use super::limits::Limits;
use super::open_error::OpenError;
use super::parameters::Parameters;
use super::round::Round;
use super::segments::unpack;
use super::session::{Connector, Session};
use super::{grams, orphans, schema, tables};
use crate::Orphans;
use crate::postgres::config::PostgresConfig;

/// Rows that a rebuild processes at once.
const STRETCH: i64 = 10_000;
/// For statements without parameters.
const NO_PARAMETERS: [(&str, Type); 0] = [];

/// The findings about a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The server's own name.
    pub server: String,
    /// The version of Citus, if the database has it.
    pub citus: Option<String>,
    /// The version of our schema; 0 if the next start would create it.
    pub schema_version: i32,
    /// Rows in `messages`.
    pub messages: Option<u64>,
    /// The durability of an acknowledged message.
    pub durability: String,
    /// Orphans of deleted messages; only with `thorough`.
    pub orphans: Orphans,
    /// The problems, one sentence each.
    pub findings: Vec<String>,
}

/// Each entry has a description of the comparison, and a query that counts the differences.
/// `{counted}` stands for the rows that are in the counters. The last entry requires schema 2.
const RECOUNTS: [(&str, &str); 5] = [
    ("the number of messages", "SELECT abs((SELECT messages FROM postroom_state) - (SELECT count(*) FROM {counted}))"),
    (
        "the messages of each sender",
        "SELECT count(*) FROM (SELECT from_msisdn, count(*) AS n FROM {counted} GROUP BY 1) r
         FULL JOIN postroom_senders s USING (from_msisdn) WHERE r.n IS DISTINCT FROM s.messages",
    ),
    (
        "the messages of each day of each sender",
        "SELECT count(*) FROM (
             SELECT from_msisdn, left(ts, 10) AS bucket, count(*) AS n FROM {counted} GROUP BY 1, 2
         ) r FULL JOIN postroom_sender_days s USING (from_msisdn, bucket) WHERE r.n IS DISTINCT FROM s.messages",
    ),
    (
        "the messages of each day, hour and minute",
        "SELECT count(*) FROM (SELECT level, left(ts, level) AS bucket, count(*) AS n
             FROM {counted}, unnest(ARRAY[10, 13, 16]) AS level GROUP BY 1, 2) r
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
/// The schema version since which deleted rows are recorded.
const NOTES_GONE: i32 = 7;

/// The rows that are in the counters.
fn counted(version: i32) -> String {
    let state = "(SELECT counted FROM postroom_state)";
    let gone = format!("UNION ALL SELECT from_msisdn, ts FROM postroom_gone WHERE arrival <= {state}");
    let gone = if version < NOTES_GONE { "" } else { &gone };
    format!("(SELECT from_msisdn, ts FROM messages WHERE arrival <= {state} {gone}) c")
}

/// Connects and checks the tables. With `thorough`, compares every counter with a recount
/// and every indexed text with its message. Blocks, and starts a runtime of its own.
pub fn audit(config: &PostgresConfig, thorough: bool) -> Result<Audit, OpenError> {
    block_on(async {
        let connector = Connector::new(Arc::new(config.clone()))?;
        let session = connector.connect().await?;
        Ok(look_over(&session, config, thorough).await?)
    })
}

/// Removes orphans of deleted messages and of earlier builds, then rebuilds the counters and the search index
/// from the messages, while replicas run. Results stay exact; they are slower during the rebuild. `tell`
/// receives the number of processed rows. Returns the number of messages, and of removed orphans. Blocks.
pub fn rebuild(config: &PostgresConfig, mut tell: impl FnMut(u64)) -> Result<(u64, Orphans), OpenError> {
    let limits = Limits::PRODUCTION;
    block_on(async {
        let connector = Connector::new(Arc::new(config.clone()))?;
        let session = schema::prepare(&connector).await?;
        let client = &session.client;
        let orphans = throw_away(&session, &limits).await?;
        let (mut rows, counting) = (0, Counting::new(&limits));
        loop {
            let (counted, round) = counting.round(client).await?;
            rows += counted.unsigned_abs();
            tell(rows);
            if round == Round::Done {
                break;
            }
        }
        loop {
            let (indexed, round) = indexing::index(client, &limits, 1, STRETCH).await?;
            rows += indexed.unsigned_abs();
            tell(rows);
            if round == Round::Done {
                break;
            }
            indexing::merge(client, &limits).await?;
        }
        Ok((count_messages(client).await?, orphans))
    })
}

/// Drops the data derived from the messages, and the rows of deleted messages. Returns the number of
/// those rows.
async fn throw_away(session: &Session, limits: &Limits) -> Result<Orphans, Failure> {
    let client = &session.client;
    if schema::unnoted(session, schema::newest()).await?.is_some() {
        client.batch_execute(&format!("BEGIN; {}; {}; COMMIT", schema::NOTES, schema::CLUSTERS)).await?;
    }
    while admit(client, limits.admitted_max).await? == Round::More {}
    let orphans = orphans::remove(client).await?;
    client.batch_execute(&format!("BEGIN; {FORGET_COUNTS}; COMMIT; {RECOUNT_STATES}")).await?;
    client.batch_execute(&format!("BEGIN; {FORGET_INDEX}; COMMIT")).await?;
    client.batch_execute(FORGET_FORMER_INDEX).await?;
    Ok(orphans)
}

async fn count_messages(client: &Client) -> Result<u64, Failure> {
    let messages: i64 = Parameters::new().value(client, "SELECT count(*) FROM messages").await?;
    Ok(messages.unsigned_abs())
}

fn block_on<T>(work: impl Future<Output = Result<T, OpenError>>) -> Result<T, OpenError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(OpenError::Start)?.block_on(work)
}

pub(super) async fn look_over(session: &Session, config: &PostgresConfig, thorough: bool) -> Result<Audit, Failure> {
    let (client, server) = (&session.client, &session.server);
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let mut audit = Audit {
        server: server.name.clone(),
        citus: server.citus.clone(),
        schema_version: schema::version(session).await?,
        messages: None,
        durability: server.durability(config),
        orphans: Orphans::default(),
        findings: complaints(server, config),
    };
    if audit.schema_version > schema::newest() {
        audit.findings.push(format!("schema {} is newer than this program knows", audit.schema_version));
    } else if audit.schema_version == 0 {
        audit.findings.extend(tables::hindrance(session).await?.map(str::to_owned));
    } else {
        audit.findings.extend(tables::obstacle(session).await?);
        if audit.schema_version >= NOTES_GONE {
            audit.findings.extend(schema::unnoted(session, audit.schema_version).await?.map(str::to_owned));
        }
        audit.messages = Some(count_messages(client).await?);
        if thorough {
            recount(client, audit.schema_version, &mut audit.findings).await?;
            if audit.schema_version >= 2 {
                audit.orphans = orphans::count(client).await?;
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
        findings.push("the server is a standby, which is read-only".to_owned());
    }
    if server.is_read_only && !server.is_standby {
        findings.push(READ_ONLY.to_owned());
    }
    if config.require_sync_standby && !server.survives_promotion(config) {
        findings.push("there is no synchronous standby, and POSTROOM_REQUIRE_SYNC_STANDBY requires one".to_owned());
    }
    findings
}

async fn recount(client: &Client, version: i32, findings: &mut Vec<String>) -> Result<(), Failure> {
    for (what, sql) in RECOUNTS.iter().take(if version < 2 { 4 } else { RECOUNTS.len() }) {
        let sql = sql.replace("{counted}", &counted(version));
        let differences: i64 = Parameters::new().value(client, &sql).await?;
        if differences > 0 {
            findings.push(format!("{what} differ from a recount; `postroom reindex` counts again"));
        }
    }
    let shared = "SELECT count(*) FROM (SELECT 1 FROM messages GROUP BY arrival HAVING count(*) > 1) s";
    if Parameters::new().value::<i64>(client, shared).await? > 0 {
        let why = "rows share a number of arrival; `UPDATE messages SET ts = ts` gives them others, half a million at \
                   once, and then `postroom reindex`";
        findings.push(why.to_owned());
    }
    let senders = "SELECT (SELECT senders FROM postroom_state) = (SELECT count(*) FROM postroom_senders)";
    if !Parameters::new().value::<bool>(client, senders).await? {
        findings.push("the number of senders differs from a recount; `postroom reindex` counts again".to_owned());
    }
    if version >= 3 && !index_agrees(client, version).await? {
        findings.push("the search index differs from the messages; `postroom reindex` rebuilds it".to_owned());
    }
    Ok(())
}

/// Whether the search index matches the messages: each text is folded and in its place,
/// and each gram has the same texts. The numbers of a gram are compared by a sum, so that
/// memory grows with the number of grams and not of texts. Texts of deleted rows may exist
/// until they are removed; after the removal their numbers stay in the posting lists.
async fn index_agrees(client: &Client, version: i32) -> Result<bool, Failure> {
    let sql = IndexSql::of(version);
    let indexed = client.query_typed_one(&sql.indexed, &[]).await?;
    let texts = usize::try_from(indexed.get::<_, i64>("texts")).unwrap_or(0);
    let Some(Expected { sums, known, is_there }) = expected_index(client, &sql.texts, texts).await? else {
        return Ok(false);
    };
    let (mut stored, mut counts) = (Sums::new(), HashMap::<i64, i64>::new());
    let mut listed = Vec::new();
    let runs = "SELECT run, texts, numbers FROM postroom_runs";
    let mut rows = pin!(client.query_typed_raw(runs, NO_PARAMETERS).await?);
    while let Some(row) = rows.try_next().await? {
        let run: i64 = row.get("run");
        listed.clear();
        unpack(row.get("numbers"), &mut listed)?;
        if listed.len() as i64 != i64::from(row.get::<_, i32>("texts")) {
            return Ok(false);
        }
        *counts.entry(run).or_default() += listed.len() as i64;
        listed.retain(|number| is_there.get(place(*number)) == Some(&true));
        if !listed.is_empty() {
            add(&mut stored, run, &listed);
        }
    }
    for row in client.query_typed(sql.losses, &[]).await? {
        *counts.entry(row.get("run")).or_default() -= row.get::<_, i64>("texts");
    }
    let is_counted = |(run, count): (&i64, &i64)| *count == sums.get(run).map_or(0, |(count, _)| *count as i64);
    Ok(stored == sums && counts.iter().all(is_counted) && indexed.get::<_, i64>("known") == known)
}

/// Statements about the search index of one version of the schema.
struct IndexSql {
    /// Counts the numbered texts, and how many of them still exist.
    indexed: String,
    /// The messages that are indexed, next to their texts in the index.
    texts: String,
    /// The number of removed texts per gram.
    losses: &'static str,
}

impl IndexSql {
    fn of(version: i32) -> Self {
        let (is_gone, removed, losses) = if version < NOTES_GONE {
            ("false", "0::bigint", "SELECT 0::bigint AS run, 0::bigint AS texts WHERE false")
        } else {
            let is_gone = "EXISTS (SELECT 1 FROM postroom_gone_texts g WHERE g.arrival = f.arrival)";
            (is_gone, "removed", "SELECT run, texts FROM postroom_run_losses")
        };
        let texts = format!(
            "SELECT m.text, m.text_exact, f.number, f.folded,
                    m.from_msisdn = f.from_msisdn AND m.ts = f.ts AS is_same, m.arrival IS NULL AND {is_gone} AS is_gone
             FROM (SELECT * FROM messages
                   WHERE arrival <= (SELECT packed FROM postroom_search) AND text IS NOT NULL) m
             FULL JOIN postroom_folded f USING (arrival)"
        );
        let indexed = format!("SELECT texts, texts - {removed} AS known FROM postroom_search");
        Self { indexed, texts, losses }
    }
}

/// The index that the messages should have.
struct Expected {
    sums: Sums,
    /// How many texts exist, and their messages by number.
    known: i64,
    is_there: Vec<bool>,
}

/// Builds the index of the messages, for `texts` numbers. None if an indexed text differs from its message.
async fn expected_index(client: &Client, sql: &str, texts: usize) -> Result<Option<Expected>, Failure> {
    let mut expected = Expected { sums: Sums::new(), known: 0, is_there: vec![false; texts] };
    let mut rows = pin!(client.query_typed_raw(sql, NO_PARAMETERS).await?);
    while let Some(row) = rows.try_next().await? {
        let number = row.get::<_, Option<i64>>("number");
        let seen = number.and_then(|number| Some((number, expected.is_there.get_mut(place(number))?)));
        let Some((number, seen)) = seen else { return Ok(None) };
        *seen = true;
        let runs = match exact(row.get("text"), row.get("text_exact")) {
            Some(text) => {
                let (folded, runs) = grams::of_text(&text);
                let is_same = row.get::<_, Option<bool>>("is_same") == Some(true);
                if row.get::<_, &[u8]>("folded") != folded.as_bytes() || !is_same {
                    return Ok(None);
                }
                runs
            }
            None if row.get::<_, Option<bool>>("is_gone") == Some(true) => {
                grams::of_folded(&String::from_utf8_lossy(row.get("folded")))
            }
            None => return Ok(None),
        };
        runs.into_iter().for_each(|run| add(&mut expected.sums, run, &[number]));
        expected.known += 1;
    }
    Ok(Some(expected))
}

fn place(number: i64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// For each gram, the number of its texts, and the sum of their hashed numbers.
type Sums = HashMap<i64, (u64, u64)>;

fn add(sums: &mut Sums, run: i64, numbers: &[i64]) {
    let (count, sum) = sums.entry(run).or_default();
    *count += numbers.len() as u64;
    *sum = numbers.iter().fold(*sum, |sum, number| sum.wrapping_add(scatter(number.cast_unsigned())));
}

/// The last step of SplitMix64: similar numbers get very different results.
fn scatter(number: u64) -> u64 {
    let mixed = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
