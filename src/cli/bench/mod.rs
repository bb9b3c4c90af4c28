//! `postroom bench`: what the service costs and how quick it is, on this machine, beside a server that stores nothing. The load, the
//! data and the floor are all in this program; BENCHMARKS.md says what each figure means.

mod connection;
mod dataset;
mod figure;
mod floor;
mod inbox;
mod ingest;
mod load;
mod plan;
mod progress;
mod random;
mod report;
mod requests;
mod texts;
mod usage;
mod workplace;

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;

use super::inputs_of_environment;
use crate::config::{SigningKey, signing_key};
use crate::domain::Secret;
use dataset::Dataset;
use inbox::Inbox;
use ingest::Ingest;
use plan::{Options, Plan, Section};
use progress::Progress;
use workplace::{SECRET, Server, Tidy, Workplace};

/// Measures this program on this machine, in a temporary folder.
///
/// Starts the service and, beside it, the floor: a server that verifies, parses and answers, and stores nothing. Prints tables
/// (JSON with --json) on stdout. BENCHMARKS.md says what each figure means.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    options: Options,
}

/// What only the benchmark itself starts.
#[derive(Debug, clap::Subcommand)]
enum Part {
    /// The floor. It stores nothing, and ends with its standard input
    #[command(hide = true)]
    Floor,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
struct Report {
    plan: Plan,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ingest: Vec<ingest::Row>,
}

/// Measures and prints.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(Part::Floor) = arguments.part {
        floor::run(signing_key(&inputs_of_environment()?)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let options = &arguments.options;
    let workplace = Workplace::open(options.folder.as_deref(), options.server.as_deref())?;
    let _tidy = Tidy(Arc::clone(&workplace));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(options, &workplace))?;
    Ok(ExitCode::SUCCESS)
}

async fn measure(options: &Options, workplace: &Arc<Workplace>) -> anyhow::Result<()> {
    let (progress, plan) = (Progress::new(), Plan::of(options));
    let key = SigningKey::new(&Secret::new(SECRET).expect("not empty"));
    let inbox = Inbox::new(plan.rows);
    let filled = match plan.needs_dataset() {
        true => Some(start_filled(workplace, &inbox, &progress).await?),
        false => None,
    };
    let mut report = Report { plan: plan.clone(), ingest: Vec::new() };
    if plan.has(Section::Ingest) || plan.has(Section::IngestEmpty) {
        let filled = filled.as_ref().filter(|_| plan.has(Section::Ingest));
        let mut ingest =
            Ingest { workplace, inbox: &inbox, key: &key, plan: &plan, progress: &progress, filled, next_fresh: 0 };
        report.ingest = ingest.run().await?;
        if !options.json {
            progress.print(&report::ingest(&report.ingest));
        }
    }
    if options.json {
        progress.print(&format!("{}\n", serde_json::to_string_pretty(&report)?));
    }
    Ok(())
}

/// Starts the service on a copy of the dataset, and waits until its upgrade is through.
async fn start_filled(workplace: &Arc<Workplace>, inbox: &Inbox, progress: &Progress) -> anyhow::Result<Server> {
    let dataset = Dataset::prepare(workplace.datasets(), inbox, progress)?;
    progress.step("first start on the dataset");
    let folder = workplace.scratch().join("filled");
    fs::create_dir(&folder)?;
    let database = folder.join("app.db");
    fs::copy(&dataset.path, &database)?;
    let server = workplace.start_server(&database).await?;
    server.wait_until_caught_up().await?;
    Ok(server)
}
