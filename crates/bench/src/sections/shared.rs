//! Replicas on one PostgreSQL server: messages per second over HTTP, compared with single-row inserts of pgbench and
//! with one service on a file, all in the same rounds; then reads on a filled database.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use super::ingest::expect_stored;
use super::reads::{self, Reads};
use crate::context::Bench;
use crate::data::Dataset;
use crate::figure::Figure;
use crate::load::{Answers, Load, Pace, Requests};
use crate::place::{Server, usage};
use crate::plan::Section;
use server::config::{Inputs, store_of};
use store::copy::copy;
use store::postgres::bench_database;
use store::postgres::bench_database::BenchDatabase;
use store::postgres::config::PostgresConfig;
use store::{Database, StoreConfig};

/// Part of the requests that is sent before the measurement begins.
const WARM_UP_PART: u64 = 10;
/// Maximum time of one measurement.
const SECONDS_MAX: f64 = 60.0;
/// Threads of pgbench.
const PGBENCH_THREADS: usize = 2;

/// The inserting program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Case {
    /// pgbench, into a table with only a key.
    PgbenchBare,
    /// pgbench, into a table with all indices of the service.
    PgbenchWhole,
    /// The service on an SQLite file.
    Sqlite,
    /// This many replicas.
    Replicas(usize),
}

/// A case, all rounds together.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The case.
    pub case: Case,
    /// Connections to all replicas together, or of pgbench.
    pub connections: usize,
    /// Messages per second, until the last response.
    pub per_second: Figure,
    /// The same, until everything is counted and indexed too.
    pub per_second_caught_up: Option<Figure>,
    /// `per_second` over that of the bare pgbench in the same round.
    pub times_bare: Option<Figure>,
    /// `per_second` over that of pgbench with all indices in the same round.
    pub times_whole: Option<Figure>,
    /// CPU of all replicas per message, until the last response.
    pub replica_cpu_us: Option<Figure>,
    /// CPU of the database server per message, until the last response; only if it runs on this machine.
    pub server_cpu_us: Option<Figure>,
    /// The same, until everything is counted and indexed.
    pub server_cpu_us_caught_up: Option<Figure>,
    /// Latency.
    pub p50_ms: Option<Figure>,
    /// Latency.
    pub p99_ms: Option<Figure>,
}

/// All results on that server.
#[derive(Debug, Clone, Serialize)]
pub struct Shared {
    /// The version of the server.
    pub version: i32,
    /// Whether pgbench was found.
    pub has_pgbench: bool,
    /// A row per case and number of connections.
    pub ingest: Vec<Row>,
    /// Bytes of the filled database per message, including all derived data.
    pub bytes_per_message: Option<f64>,
    /// Reads of the filled database.
    pub reads: Option<Reads>,
}

/// One measurement.
#[derive(Debug, Clone, Default)]
struct Sample {
    per_second: f64,
    per_second_caught_up: Option<f64>,
    replica_cpu_us: Option<f64>,
    server_cpu_us: Option<f64>,
    server_cpu_us_caught_up: Option<f64>,
    latency_ms: Option<[f64; 2]>,
}

/// The server, and its connection.
struct Place<'a> {
    bench: &'a Bench,
    url: &'a str,
    bench_database: BenchDatabase,
}

/// Measures all cases.
pub async fn run(bench: &Bench, url: &str) -> anyhow::Result<Shared> {
    ensure!(!url.contains("dbname="), "--database-url must name its database in the path, not with dbname");
    let Database::Postgres(config) = store(url)?.database else { bail!("--database-url must be a PostgreSQL URL") };
    let mut place = Place { bench, url, bench_database: BenchDatabase::open(&config).await? };
    let measured = place.measure().await;
    place.bench_database.clear().await;
    measured
}

fn store(url: &str) -> anyhow::Result<StoreConfig> {
    Ok(store_of(&Inputs::of_environment()?, url, "--database-url")?)
}

/// A URL without secrets.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let bare = match rest.split_once('@') {
        Some((user, place)) => format!("{}@{place}", user.split(':').next().unwrap_or_default()),
        None => rest.to_owned(),
    };
    let Some((base, query)) = bare.split_once('?') else { return format!("{scheme}://{bare}") };
    let kept: Vec<_> = query.split('&').filter(|pair| !pair.starts_with("password=")).collect();
    format!("{scheme}://{base}?{}", kept.join("&"))
}

impl Place<'_> {
    async fn measure(&mut self) -> anyhow::Result<Shared> {
        let plan = &self.bench.plan;
        let has_pgbench = Command::new("pgbench").arg("--version").stdout(Stdio::null()).status().is_ok();
        let version = self.bench_database.version();
        let mut shared = Shared { version, has_pgbench, ingest: Vec::new(), bytes_per_message: None, reads: None };
        if plan.has(Section::Ingest) || plan.has(Section::IngestEmpty) {
            for &connections in &plan.connections {
                // This is tried once, because a server may not accept as many clients as replicas can.
                let tried = if has_pgbench { Some(self.pgbench(connections, true, 1).await) } else { None };
                if let Some(Err(error)) = &tried {
                    self.bench.progress.warn(&format!("without pgbench: {error:#}"));
                }
                shared.ingest.append(&mut self.ingest(connections, tried.is_some_and(|tried| tried.is_ok())).await?);
            }
        }
        if plan.has(Section::Reads) {
            let (bytes, reads) = self.reads().await?;
            (shared.bytes_per_message, shared.reads) = (Some(bytes), Some(reads));
        }
        Ok(shared)
    }

    /// The URL of one of our databases, and its parts.
    fn on(&self, database: &str) -> anyhow::Result<(String, PostgresConfig)> {
        let (base, query) = self.url.split_once('?').unwrap_or((self.url, ""));
        let (scheme, rest) = base.split_once("://").context("--database-url is not a URL")?;
        let server = rest.split('/').next().unwrap_or_default();
        let url = format!("{scheme}://{server}/{database}{}{query}", if query.is_empty() { "" } else { "?" });
        let Database::Postgres(config) = store(&url)?.database else {
            bail!("--database-url must be a PostgreSQL URL")
        };
        Ok((url, *config))
    }

    async fn ingest(&mut self, connections: usize, has_pgbench: bool) -> anyhow::Result<Vec<Row>> {
        let pgbench = [Case::PgbenchBare, Case::PgbenchWhole].into_iter().filter(|_| has_pgbench);
        let replicas = self.bench.plan.replicas.iter().map(|count| Case::Replicas(*count));
        let cases: Vec<_> = pgbench.chain([Case::Sqlite]).chain(replicas).collect();
        let (mut samples, seconds) = (vec![Vec::new(); cases.len()], self.bench.plan.seconds);
        for round in 1..=self.bench.plan.rounds {
            let step = format!("ingest, {connections} connections, round {round} of {}", self.bench.plan.rounds);
            self.bench.progress.step(&step);
            for (case, samples) in cases.iter().zip(&mut samples) {
                self.bench_database.settle().await?;
                samples.push(match *case {
                    Case::PgbenchBare => self.pgbench(connections, true, seconds).await?,
                    Case::PgbenchWhole => self.pgbench(connections, false, seconds).await?,
                    Case::Sqlite => self.sqlite(connections).await?,
                    Case::Replicas(count) => self.replicas(count, connections).await?,
                });
            }
        }
        let of = |case| cases.iter().position(|known| *known == case).map(|at| samples[at].as_slice());
        let (bare, whole) = (of(Case::PgbenchBare), of(Case::PgbenchWhole));
        Ok(cases.iter().zip(&samples).map(|(case, own)| summarize(*case, connections, own, bare, whole)).collect())
    }

    async fn pgbench(&mut self, connections: usize, bare: bool, seconds: u64) -> anyhow::Result<Sample> {
        let database = self.bench_database.make().await?;
        let (url, config) = self.on(&database)?;
        if !bare {
            // The service creates the tables.
            self.bench.workplace.start_server_on(&url).await?.stop()?;
        }
        BenchDatabase::make_table(&config, bare).await?;
        let script = self.bench.workplace.scratch().join("pgbench.sql");
        fs::write(&script, bench_database::script(bare))?;
        let before = self.server_cpu_us().await?;
        let threads = PGBENCH_THREADS.min(connections);
        let mut command = Command::new("pgbench");
        command.args(["-n", "-M", "prepared", "-c", &connections.to_string(), "-j", &threads.to_string(), "-T"]);
        command.arg(seconds.to_string()).arg("-f").arg(&script).arg(without_password(&url));
        if let Some(password) = config.connection.get_password() {
            command.env("PGPASSWORD", String::from_utf8_lossy(password).as_ref());
        }
        let output = command.stdin(Stdio::null()).output().context("cannot run pgbench")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split([' ', '/']).next()?.parse::<f64>().ok()
        };
        let complaint = || {
            let told = String::from_utf8_lossy(&output.stderr);
            told.lines().find(|line| line.contains("error")).unwrap_or("pgbench printed no figures").to_owned()
        };
        let per_second = number("tps = ").with_context(complaint)?;
        let rows = number("number of transactions actually processed: ").with_context(complaint)?;
        let server_cpu_us = self.server_cpu_us().await?.zip(before).map(|(after, before)| (after - before) / rows);
        self.bench_database.drop(&database).await?;
        Ok(Sample { per_second, server_cpu_us, ..Sample::default() })
    }

    async fn sqlite(&self, connections: usize) -> anyhow::Result<Sample> {
        let server = self.bench.workplace.start_server(&self.bench.workplace.database_in("empty")?).await?;
        let sample = self.send(&[server], connections).await?;
        Ok(Sample { server_cpu_us: None, server_cpu_us_caught_up: None, ..sample })
    }

    async fn replicas(&mut self, count: usize, connections: usize) -> anyhow::Result<Sample> {
        let database = self.bench_database.make().await?;
        let (url, _) = self.on(&database)?;
        let mut servers = Vec::new();
        for _ in 0..count {
            servers.push(self.bench.workplace.start_server_on(&url).await?);
        }
        let sample = self.send(&servers, connections).await?;
        servers.into_iter().try_for_each(Server::stop)?;
        self.bench_database.drop(&database).await?;
        Ok(sample)
    }

    /// Sends messages to all servers in turn.
    async fn send(&self, servers: &[Server], connections: usize) -> anyhow::Result<Sample> {
        let measured = self.bench.plan.messages;
        let warm_up = measured.div_ceil(WARM_UP_PART);
        let requests = Arc::new(Requests::Prepared(self.bench.prepare(warm_up + measured)));
        let (warm_up, all) = (warm_up as usize, (warm_up + measured) as usize);
        let addresses: Vec<_> = servers.iter().map(Server::address).collect();
        let mut load = Load::spread(&addresses, connections).await?;
        let pace = || Pace { seconds_max: Some(SECONDS_MAX), ..Pace::default() };
        let first = load.send(&requests, 0..warm_up, pace()).await?;
        servers[0].wait_until_caught_up().await?;
        let cpu_us =
            || -> anyhow::Result<f64> { servers.iter().try_fold(0.0, |sum, server| Ok(sum + server.usage()?.cpu_us)) };
        let (own, server, began) = (cpu_us()?, self.server_cpu_us().await?, std::time::Instant::now());
        let answers = load.send(&requests, warm_up..all, pace()).await?;
        let (own_after, server_after) = (cpu_us()?, self.server_cpu_us().await?);
        servers[0].wait_until_caught_up().await?;
        let (caught_up, seconds) = (self.server_cpu_us().await?, began.elapsed().as_secs_f64());
        let Answers { answered, per_second, p50_ms, p99_ms, .. } = answers;
        ensure!(answers.other_than(200) + first.other_than(200) == 0, "not every response was 200: {answers:?}");
        expect_stored(&servers[0], answered + first.answered).await?;
        let each = |after: Option<f64>| after.zip(server).map(|(after, before)| (after - before) / answered as f64);
        Ok(Sample {
            per_second,
            per_second_caught_up: Some(answered as f64 / seconds),
            replica_cpu_us: Some((own_after - own) / answered as f64),
            server_cpu_us: each(server_after),
            server_cpu_us_caught_up: each(caught_up),
            latency_ms: Some([p50_ms, p99_ms]),
        })
    }

    async fn server_cpu_us(&self) -> anyhow::Result<Option<f64>> {
        let (backend, database) = self.bench_database.process().await?;
        Ok(usage::of_postgres(backend, &database))
    }

    /// Fills a database with the dataset by `postroom copy`, and runs every kind of read.
    async fn reads(&mut self) -> anyhow::Result<(f64, Reads)> {
        let Bench { workplace, progress, plan, .. } = self.bench;
        let dataset = Dataset::prepare(workplace.datasets(), &self.bench.writer.inbox, progress)?;
        let database = self.bench_database.make().await?;
        let (url, _) = self.on(&database)?;
        progress.step_of("copying the dataset", plan.rows);
        let from = store(&file_url(&dataset.path))?;
        let copied = copy(&from, &store(&url)?, false, |_, done, _| progress.reached(done)).await?;
        ensure!(copied.tally.agrees(), "the dataset was not copied completely");
        progress.step("counting and indexing");
        let server = workplace.start_server_on(&url).await?;
        server.wait_until_caught_up().await?;
        let bytes = self.bench_database.bytes(&database).await? as f64 / plan.rows as f64;
        self.bench_database.settle().await?;
        let reads = reads::run(self.bench, &server).await?;
        server.stop()?;
        self.bench_database.drop(&database).await?;
        Ok((bytes, reads))
    }
}

fn file_url(path: &Path) -> String {
    format!("sqlite:///{}", path.display())
}

fn summarize(case: Case, connections: usize, own: &[Sample], bare: Option<&[Sample]>, whole: Option<&[Sample]>) -> Row {
    let figure = |value: fn(&Sample) -> Option<f64>| -> Option<Figure> {
        own.iter().map(value).collect::<Option<Vec<_>>>().map(Figure::of)
    };
    let times = |base: Option<&[Sample]>| {
        let pairs = own.iter().zip(base?);
        Some(Figure::of(pairs.map(|(own, base)| own.per_second / base.per_second)))
    };
    Row {
        case,
        connections,
        per_second: Figure::of(own.iter().map(|sample| sample.per_second)),
        per_second_caught_up: figure(|sample| sample.per_second_caught_up),
        times_bare: times(bare),
        times_whole: times(whole),
        replica_cpu_us: figure(|sample| sample.replica_cpu_us),
        server_cpu_us: figure(|sample| sample.server_cpu_us),
        server_cpu_us_caught_up: figure(|sample| sample.server_cpu_us_caught_up),
        p50_ms: figure(|sample| sample.latency_ms.map(|[p50, _]| p50)),
        p99_ms: figure(|sample| sample.latency_ms.map(|[_, p99]| p99)),
    }
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn what_other_programs_are_given_has_no_password() {
        for (url, shown) in [
            ("postgres://ada:hunter2@db:1/x?host=/a", "postgres://ada@db:1/x?host=/a"),
            ("postgres://ada@db/x?password=hunter2&sslmode=require", "postgres://ada@db/x?sslmode=require"),
            ("postgres://db/x", "postgres://db/x"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
