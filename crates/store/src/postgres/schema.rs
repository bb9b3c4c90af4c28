//! Creates and upgrades our tables, safely for any number of replicas
//! that start at once, and refuses databases that cannot be served.

use std::time::Duration;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::failure::Failure;
use super::indexing::{FORGET_FORMER_INDEX, FORGET_INDEX};
use super::open_error::OpenError;
use super::parameters::Parameters;
use super::session::{Connector, Session};
use super::{arrival, tables};
use domain::fold::UNICODE_VERSION;
use runtime::log;

/// The migrations, in order: the schema's version is the number of those applied.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_inbox.sql"),
    include_str!("migrations/0002_details.sql"),
    include_str!("migrations/0003_runs.sql"),
    include_str!("migrations/0004_places.sql"),
    include_str!("migrations/0005_file.sql"),
    include_str!("migrations/0006_bring.sql"),
    NOTES,
    include_str!("migrations/0008_content.sql"),
    CLUSTERS,
];
/// The triggers that record deletions and changes of other programs, and their tables. Idempotent.
pub(super) const NOTES: &str = include_str!("migrations/0007_gone.sql");
/// Numbers of arrival that survive restores and promotions, and all triggers. Also idempotent.
pub(super) const CLUSTERS: &str = include_str!("migrations/0009_clusters.sql");
/// The version that introduced `CLUSTERS`.
pub(super) const KNOWS_CLUSTERS: i32 = 9;
/// Whether the earlier triggers fire.
const NOTING: &str = "SELECT count(*) = 4 FROM pg_trigger WHERE tgrelid = to_regclass('messages') \
     AND tgenabled IN ('O', 'A') AND tgname IN \
     ('postroom_note_deleted', 'postroom_note_updated', 'postroom_arrive_anew', 'postroom_note_emptied')";
/// How long an upgrading replica may block the others without renewing its lease.
const LEASE_SECONDS: f64 = 60.0;
/// Interval of checks by a waiting replica.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Attempts to create the first table: replicas that create it at the same instant collide.
const TRIES_MAX: u32 = 20;

// Creating the tables does not wait for a standby: if one were absent, the start would hang silently.
// Nothing is acknowledged by it, and a standby that has a later message has the tables too.
const LEASE_TABLE: &str = "SET LOCAL synchronous_commit = local; \
     CREATE TABLE IF NOT EXISTS postroom_schema (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL, \
     upgraded_by TEXT, upgraded_until TIMESTAMPTZ); \
     INSERT INTO postroom_schema (id, version) VALUES (1, 0) ON CONFLICT DO NOTHING";
const LEASE: &str = "UPDATE postroom_schema SET upgraded_by = $1, upgraded_until = now() + make_interval(secs => $2) \
     WHERE id = 1 AND (upgraded_until IS NULL OR upgraded_until < now()) AND version = $3 \
     AND set_config('synchronous_commit', 'local', true) <> '' RETURNING version";
const RELEASE: &str = "UPDATE postroom_schema SET version = $1, upgraded_by = NULL, upgraded_until = NULL WHERE id = 1";

/// The version of the schema that this program creates.
pub(super) fn newest() -> i32 {
    MIGRATIONS.len() as i32
}

/// Opens a first connection, and creates or upgrades the tables.
pub(super) async fn prepare(connector: &Connector) -> Result<Session, OpenError> {
    let session = connector.connect().await.map_err(OpenError::of_start)?;
    let server = &session.server;
    if server.encoding != "UTF8" {
        return Err(OpenError::Encoding(server.encoding.clone()));
    }
    if server.is_standby {
        return Err(OpenError::Standby);
    }
    if server.is_read_only {
        return Err(OpenError::ReadOnly);
    }
    match prepare_tables(&session).await.map_err(OpenError::of_start)? {
        Prepared::Usable(warning) => warning.into_iter().for_each(|why| log::warning(why).emit()),
        Prepared::Obstructed(why) => return Err(OpenError::Tables(why)),
    }
    match collated_column(&session).await.map_err(OpenError::of_start)? {
        None => Ok(session),
        Some(column) => Err(OpenError::Collation(column)),
    }
}

/// Whether the tables can be used.
enum Prepared {
    /// They can be used; the warning is one sentence for the operator.
    Usable(Option<&'static str>),
    /// They cannot be used, for this reason, in one sentence.
    Obstructed(String),
}

async fn prepare_tables(session: &Session) -> Result<Prepared, Failure> {
    upgrade(session).await?;
    if let Some(why) = tables::obstacle(session).await? {
        return Ok(Prepared::Obstructed(why));
    }
    continue_arrivals(session).await?;
    Ok(Prepared::Usable(unnoted(session, newest()).await?))
}

/// The schema version of the database; 0 if it has none.
pub(super) async fn version(session: &Session) -> Result<i32, Failure> {
    let there = "SELECT to_regclass('postroom_schema') IS NOT NULL";
    if !Parameters::new().value::<bool>(&session.client, there).await? {
        return Ok(0);
    }
    let row = session.client.query_typed_opt("SELECT version FROM postroom_schema WHERE id = 1", &[]).await?;
    Ok(row.map_or(0, |row| row.get("version")))
}

/// Upgrades tables of an earlier build. Creates none if there are none.
pub(super) async fn upgrade_former(session: &Session) -> Result<(), Failure> {
    if (1..newest()).contains(&version(session).await?) { upgrade(session).await } else { Ok(()) }
}

async fn upgrade(session: &Session) -> Result<(), Failure> {
    let newest = newest();
    if version(session).await? == 0 {
        refuse_foreign_rows(session).await?;
        make_lease_table(session).await.map_err(of_making)?;
    }
    if let Some(why) = tables::managed(session).await? {
        return Err(Failure::Broken(why));
    }
    let me = format!("process {} at {}", std::process::id(), domain::Moment::now().to_iso_micros());
    let mut waits = false;
    loop {
        let version = version(session).await?;
        if version > newest {
            return Err(Failure::Broken(format!(
                "the database has schema {version} of a later Postroom; this one knows {newest}"
            )));
        }
        if version == newest {
            return Ok(());
        }
        let parameters = [(&me as _, Type::TEXT), (&LEASE_SECONDS as _, Type::FLOAT8), (&version as _, Type::INT4)];
        if session.client.query_typed_opt(LEASE, &parameters).await?.is_some() {
            migrate(session, version as usize).await.map_err(of_making)?;
            continue;
        }
        if !std::mem::replace(&mut waits, true) {
            log::info("another replica is upgrading the database; waiting for it").emit();
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// A failure to create a table, with advice for the operator.
fn of_making(error: Error) -> Failure {
    let hint = match error.code() {
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => tables::NO_CREATE,
        Some(code) if *code == SqlState::INVALID_SCHEMA_NAME => tables::NO_SCHEMA,
        _ => return error.into(),
    };
    Failure::Broken(format!("{}: {hint}", Failure::from(error)))
}

/// Refuses a table of that name with rows of another program, because they have no order of arrival.
async fn refuse_foreign_rows(session: &Session) -> Result<(), Failure> {
    let (there, filled) = ("SELECT to_regclass('messages') IS NOT NULL", "SELECT EXISTS (SELECT 1 FROM messages)");
    let is_there = async |sql| Parameters::new().value::<bool>(&session.client, sql).await;
    if is_there(there).await? && is_there(filled).await? {
        let why = "the database has a table 'messages' that Postroom did not create, with rows in it; use another \
                   database or schema";
        return Err(Failure::Broken(why.to_owned()));
    }
    Ok(())
}

async fn make_lease_table(session: &Session) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        match session.client.batch_execute(LEASE_TABLE).await {
            Err(error) if tries < TRIES_MAX && is_made_by_another(&error) => tokio::time::sleep(LOOK_INTERVAL).await,
            result => return result,
        }
    }
}

/// Whether another transaction is creating the same table.
fn is_made_by_another(error: &Error) -> bool {
    // `IF NOT EXISTS` does not see a table that another transaction is about to commit.
    // It also misses a table, or its row type, that was committed during the check.
    let made_meanwhile = [SqlState::DUPLICATE_TABLE, SqlState::DUPLICATE_OBJECT];
    let is_made_meanwhile = error.code().is_some_and(|code| made_meanwhile.contains(code));
    is_made_meanwhile || matches!(Failure::from(error), Failure::Refused(_) | Failure::Retry(_))
}

/// Applies missing migrations, all or none. A replica whose lease has expired does no harm: each
/// statement creates only missing objects.
async fn migrate(session: &Session, from: usize) -> Result<(), Error> {
    let client = &session.client;
    // Without a time limit: the operator's limits are meant for requests.
    client.batch_execute("BEGIN; SET LOCAL synchronous_commit = local; SET LOCAL statement_timeout = 0").await?;
    let made = async {
        for migration in &MIGRATIONS[from..] {
            client.batch_execute(migration).await?;
        }
        if from == 0 {
            // No earlier build has ever searched here.
            client.batch_execute(FORGET_FORMER_INDEX).await?;
        }
        let unicode = unicode();
        let insert = "INSERT INTO postroom_search (id, unicode) VALUES (1, $1) ON CONFLICT DO NOTHING";
        client.execute_typed(insert, &[(&unicode, Type::TEXT)]).await?;
        client.execute_typed(RELEASE, &[(&newest(), Type::INT4)]).await?;
        client.batch_execute("COMMIT").await
    };
    let result = made.await;
    if result.is_err() {
        let _ = client.batch_execute("ROLLBACK").await;
    }
    result
}

/// A warning, in one sentence, if changes of other programs are not recorded.
pub(super) async fn unnoted(session: &Session, version: i32) -> Result<Option<&'static str>, Failure> {
    let watched = if version < KNOWS_CLUSTERS { NOTING } else { "SELECT postroom_watched()" };
    let is_watched: bool = Parameters::new().value(&session.client, watched).await?;
    let why = "a trigger of postroom on messages is missing or disabled, or was, so not all changes of other programs \
               are recorded; a running replica, or `postroom reindex`, recreates it and counts again";
    Ok((!is_watched).then_some(why))
}

/// The Unicode version of this program's case folding.
pub(super) fn unicode() -> String {
    format!("{}.{}.{}", UNICODE_VERSION.0, UNICODE_VERSION.1, UNICODE_VERSION.2)
}

/// Data that was restored into another cluster has arrival numbers that this cluster's transactions have not
/// reached. Then all new numbers are raised above them. Texts that were folded by another Unicode version are
/// indexed again.
async fn continue_arrivals(session: &Session) -> Result<(), Failure> {
    let base = "SELECT arrival_base FROM postroom_state";
    let before: i64 = Parameters::new().value(&session.client, base).await?;
    // The commit waits for a standby: promoted without it, it would assign numbers below counted ones.
    let settled: i64 = Parameters::new().number(0).value(&session.client, arrival::SETTLE).await?;
    if settled != before {
        tell_of_another_cluster();
    }
    let unicode = unicode();
    let stored = session.client.query_typed_opt("SELECT unicode FROM postroom_search", &[]).await?;
    if stored.is_some_and(|row| row.get::<_, &str>("unicode") != unicode) {
        // The version has only digits and dots, so it is safe in the SQL text.
        let anew = format!(
            "BEGIN; SET LOCAL synchronous_commit = local; UPDATE postroom_search SET unicode = '{unicode}'; {}; COMMIT",
            FORGET_INDEX
        );
        session.client.batch_execute(&anew).await?;
        log::info("searches use another version of Unicode; texts are indexed again").emit();
    }
    Ok(())
}

/// Logs that numbers of arrival were raised.
pub(super) fn tell_of_another_cluster() {
    log::warning(
        "the data comes from another cluster, a backup or a promoted standby; new arrival numbers are above those \
         in it",
    )
    .emit();
}

/// A column that does not sort by bytes. The contract requires bytewise order, which columns define.
async fn collated_column(session: &Session) -> Result<Option<String>, Failure> {
    let sql = "SELECT a.attname::text AS name FROM pg_attribute a JOIN pg_collation c ON c.oid = a.attcollation
               WHERE a.attrelid = to_regclass('messages') AND a.attname IN ('message_id', 'from_msisdn', 'ts')
                   AND c.collname NOT IN ('C', 'POSIX') LIMIT 1";
    let row = session.client.query_typed_opt(sql, &[]).await?;
    Ok(row.map(|row| row.get("name")))
}
