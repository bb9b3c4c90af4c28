//! `postroom bench`: cost and speed of the service on this machine, compared with a server that stores nothing. Load,
//! data and floor are all in this program; BENCHMARKS.md explains the figures.

mod context;
mod data;
mod figure;
mod floor;
mod load;
mod place;
mod plan;
mod progress;
mod report;
mod sections;

use std::cell::Cell;
use std::process::ExitCode;
use std::sync::Arc;

use context::Bench;
use data::Inbox;
use domain::Secret;
use load::Writer;
use place::{Machine, SECRET, Tidy, Workplace};
use plan::{Options, Plan, Section};
use progress::Progress;
use report::Report;
use sections::startup::Filled;
use sections::{ingest, latency, memory, overload, reads, shared, startup};
use server::config::{Inputs, SigningKey, webhook_secret};

/// Measures this program on this machine, in a temporary folder.
///
/// Starts the service and the floor: a server that verifies, parses and responds, and stores nothing. Prints tables
/// (JSON with --json) on stdout and progress on stderr. --database-url measures replicas on PostgreSQL
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    options: Options,
}

/// Commands that only the benchmark itself starts.
#[derive(Debug, clap::Subcommand)]
enum Part {
    /// The floor. It stores nothing, listens on the loopback address, and ends with its standard input
    #[command(hide = true)]
    Floor,
}

/// Measures and prints.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(Part::Floor) = arguments.part {
        floor::run(webhook_secret(&Inputs::of_environment()?)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let options = &arguments.options;
    let plan = Plan::of(options);
    let workplace = Workplace::open(options.folder.as_deref(), options.server.as_deref())?;
    let _tidy = Tidy(Arc::clone(&workplace));
    let key = SigningKey::new(&Secret::new(SECRET).expect("not empty"));
    let writer = Writer { inbox: Arc::new(Inbox::new(plan.rows)), key };
    let bench = Bench { workplace, writer, plan, progress: Progress::new(), next_fresh: Cell::new(0) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // A folder is only for SQLite.
    let url = match &options.database_url {
        None if options.folder.is_none() => Inputs::of_environment()?.environment_url("POSTROOM_BENCH_DATABASE_URL")?,
        given => given.clone(),
    };
    let report = runtime.block_on(measure(&bench, url.as_deref(), |table| {
        if !options.json {
            bench.progress.print(&table);
        }
    }))?;
    if options.json {
        bench.progress.print(&format!("{}\n", serde_json::to_string_pretty(&report)?));
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures one section after the other, and prints each as a table as soon as it is done.
async fn measure(bench: &Bench, url: Option<&str>, done: impl Fn(String)) -> anyhow::Result<Report> {
    let machine = Machine::look(bench.workplace.scratch())?;
    if machine.is_forgetful() {
        bench
            .progress
            .warn("the working folder is in memory, so nothing is durable: name a folder on a disk with --folder");
    }
    done(report::machine(&machine, &bench.plan));
    let plan = bench.plan.clone();
    let mut report = Report::new(machine, plan);
    if let Some(url) = url {
        let shared = shared::run(bench, url).await?;
        done(report::shared(&shared));
        report.shared = Some(shared);
        return Ok(report);
    }
    let mut filled = None;
    if bench.plan.needs_dataset() {
        let (started, startup) = startup::run(bench, bench.plan.has(Section::Startup)).await?;
        filled = Some(started);
        startup.iter().for_each(|startup| done(report::startup(startup)));
        report.startup = startup;
    }
    let has = |section| filled.as_ref().filter(|_| bench.plan.has(section)).map(|filled: &Filled| &filled.server);
    if bench.plan.has(Section::Ingest) || bench.plan.has(Section::IngestEmpty) {
        let rows = ingest::run(bench, has(Section::Ingest)).await?;
        done(report::ingest(&rows));
        report.ingest = Some(rows);
    }
    if let Some(server) = has(Section::Latency) {
        let rows = latency::run(bench, server).await?;
        done(report::latency(&rows));
        report.latency = Some(rows);
    }
    if let Some(server) = has(Section::Reads) {
        let reads = reads::run(bench, server).await?;
        done(report::reads(&reads));
        report.reads = Some(reads);
    }
    if let Some(filled) = filled.filter(|_| bench.plan.has(Section::Memory)) {
        let memory = memory::run(bench, filled).await?;
        done(report::memory(&memory));
        report.memory = Some(memory);
    }
    if bench.plan.has(Section::Overload) {
        let overload = overload::run(bench).await?;
        done(report::overload(&overload));
        report.overload = Some(overload);
    }
    Ok(report)
}
