//! `postroom reparse`: parses stored bodies again, after an upgrade that supports more of them.

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::arguments::{ServeArguments, open_existing};
use domain::{Moment, Outcome};
use providers::{Scheme, Source};
use server::config::{Config, Inputs};
use store::Store;

/// Bodies that are read at once.
const BODIES_AT_ONCE: u32 = 50;

/// Parses bodies again that could not be parsed completely before. New elements are stored under their own
/// ids, so nothing is doubled; it may run while the service runs.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    serve: ServeArguments,
    /// All stored bodies, not only those with unreadable parts
    #[arg(long)]
    all: bool,
}

/// Prints the results.
pub fn run(flags: BTreeMap<&'static str, String>, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&Inputs::gather(flags, arguments.serve.config)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = open_existing(&config.store)?;
        let found = reparse(&store, &config.sources, arguments.all).await;
        tokio::task::spawn_blocking(move || store.close()).await?;
        let Found { bodies, created, statuses, events, unknown } = found?;
        say!("bodies     {bodies} parsed again")?;
        say!("messages   {created} new")?;
        say!("statuses   {statuses} new")?;
        say!("events     {events} new")?;
        if unknown > 0 {
            say!("skipped    {unknown}: unknown provider")?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The results of all bodies.
#[derive(Default)]
struct Found {
    bodies: u64,
    created: usize,
    statuses: usize,
    events: usize,
    unknown: u64,
}

async fn reparse(store: &Store, sources: &[Source], all: bool) -> anyhow::Result<Found> {
    let (mut found, mut after) = (Found::default(), 0);
    loop {
        let payloads = store.unreadable_payloads(after, all, BODIES_AT_ONCE).await?;
        let Some(last) = payloads.last() else { return Ok(found) };
        after = last.number;
        for payload in payloads {
            found.bodies += 1;
            // Bodies of a removed source can still be parsed, by its protocol and under its old name.
            let own =
                sources.iter().find(|source| source.name == payload.source && source.scheme.kind == payload.provider);
            let stand_in =
                Scheme::find(&payload.provider).map(|scheme| Source::new(&payload.source, scheme, Vec::new()));
            let Some(source) = own.or(stand_in.as_ref()) else {
                found.unknown += 1;
                continue;
            };
            let received_at = Moment::parse(&payload.received_at).unwrap_or_else(Moment::now);
            let body = source.reopen(payload);
            let Ok(parsed) = source.parse(&body, received_at) else { continue };
            let receipt = store.append(parsed.intake).await?;
            found.created += Outcome::count_created(receipt.outcomes());
            found.statuses += Outcome::count_created(receipt.statuses());
            found.events += Outcome::count_created(receipt.events());
        }
    }
}
