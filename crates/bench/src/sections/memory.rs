//! Memory when idle, at full ingest, and with many searches during ingest; on the dataset.

use std::time::Duration;

use serde::Serialize;

use super::ingest::CONNECTIONS_OF_GOALS;
use super::startup::Filled;
use crate::context::Bench;
use crate::data::Random;
use crate::load::{Background, Requests, get};
use crate::sections::reads::{PARAMETERS, SEARCHES};

/// Concurrent searches.
const SEARCHERS: usize = 32;
/// Number of different searches, which are repeated.
const SEARCHES_DIFFERENT: u64 = 500;
/// Reads of each kind before idle memory is measured.
const READS_BEFORE: usize = 3;
/// Maximum time for memory to settle.
const REST: Duration = Duration::from_secs(1);

/// The figures, in MiB of RAM.
#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    /// After a start and a few reads.
    pub idle_mib: f64,
    /// The maximum at full ingest.
    pub ingest_peak_mib: f64,
    /// The maximum at full ingest with 32 concurrent searches.
    pub searches_peak_mib: f64,
    /// After the load.
    pub after_mib: f64,
    /// Messages per second during the searches.
    pub ingest_per_second: f64,
    /// Searches per second during the ingest.
    pub searches_per_second: f64,
    /// Messages with a response other than 200.
    pub ingest_unexpected: u64,
    /// Searches with a response other than 200.
    pub searches_unexpected: u64,
}

/// Measures a service that was just started on the dataset.
pub async fn run(bench: &Bench, filled: Filled) -> anyhow::Result<Memory> {
    bench.progress.step("memory at rest");
    filled.server.stop()?;
    let server = bench.workplace.start_server(&filled.database).await?;
    let mut random = Random::at(PARAMETERS, 0);
    let mut connection = server.connect().await?;
    for search in SEARCHES.iter().cycle().take(READS_BEFORE * SEARCHES.len()) {
        connection.get(&(search.path)(&bench.writer.inbox, &mut random)).await?;
    }
    tokio::time::sleep(REST).await;
    let idle_mib = server.usage()?.resident_mib;

    bench.progress.step("memory at full ingest");
    let time = Duration::from_secs(bench.plan.seconds);
    let ingest = Background::begin(server.address(), CONNECTIONS_OF_GOALS, bench.endless(), None)?;
    tokio::time::sleep(time).await;
    let ingest_peak_mib = server.usage()?.resident_peak_mib;

    bench.progress.step("memory at full ingest with 32 searches at a time");
    let searches =
        (0..SEARCHES_DIFFERENT).map(|_| get(&(random.pick(SEARCHES).path)(&bench.writer.inbox, &mut random)));
    let searches = Requests::Repeated(searches.collect());
    let searches = Background::begin(server.address(), SEARCHERS, searches, None)?;
    tokio::time::sleep(time).await;
    let (searches, ingest) = (searches.finish()?, ingest.finish()?);
    let searches_peak_mib = server.usage()?.resident_peak_mib;
    server.wait_until_caught_up().await?;
    tokio::time::sleep(REST).await;
    Ok(Memory {
        idle_mib,
        ingest_peak_mib,
        searches_peak_mib,
        after_mib: server.usage()?.resident_mib,
        ingest_per_second: ingest.per_second,
        searches_per_second: searches.per_second,
        ingest_unexpected: ingest.other_than(200),
        searches_unexpected: searches.other_than(200),
    })
}
