//! From start to ready: on an empty database, on the dataset in the original service's form, and once more.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;

use super::ingest::folder_bytes;
use crate::context::Bench;
use crate::data::Dataset;
use crate::figure::Figure;
use crate::place::Server;

/// Repetitions of a fast start.
const STARTS: usize = 5;

/// The figures.
#[derive(Debug, Clone, Serialize)]
pub struct Startup {
    /// Messages in the dataset.
    pub rows: u64,
    /// The rate of creating the dataset; none if it existed.
    pub dataset_rows_per_second: Option<f64>,
    /// Bytes of the original's file per message.
    pub original_bytes: f64,
    /// Bytes of all files per message, with all derived data, after a stop.
    pub upgraded_bytes: f64,
    /// On an empty database.
    pub empty_ready_ms: Figure,
    /// On the dataset, for the first time.
    pub first_ready_ms: f64,
    /// The same, until all derived data have caught up.
    pub first_caught_up_ms: f64,
    /// CPU time of the first start.
    pub first_cpu_seconds: f64,
    /// On the dataset, after the first start.
    pub again_ready_ms: Figure,
}

/// A service on the dataset, upgraded and caught up.
pub struct Filled {
    /// The running service.
    pub server: Server,
    /// Its database.
    pub database: PathBuf,
}

/// Starts the service on a copy of the dataset, and measures the start if `measured`.
pub async fn run(bench: &Bench, measured: bool) -> anyhow::Result<(Filled, Option<Startup>)> {
    let Bench { workplace, progress, .. } = bench;
    let dataset = Dataset::prepare(workplace.datasets(), &bench.writer.inbox, progress)?;
    progress.step("first start on the dataset, with its upgrade");
    let database = workplace.database_in("filled")?;
    fs::copy(&dataset.path, &database)?;
    let mut server = workplace.start_server(&database).await?;
    let first_ready_ms = server.ready_ms();
    server.wait_until_caught_up().await?;
    if !measured {
        return Ok((Filled { server, database }, None));
    }
    let (first_caught_up_ms, first_cpu_seconds) = (server.running_seconds() * 1e3, server.usage()?.cpu_us / 1e6);
    progress.step("further starts");
    let (mut empty, mut again, mut upgraded_bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..STARTS {
        let started = workplace.start_server(&workplace.database_in("empty")?).await?;
        empty.push(started.ready_ms());
        started.stop()?;
        server.stop()?;
        upgraded_bytes = folder_bytes(database.parent().expect("it is in a folder"))?;
        server = workplace.start_server(&database).await?;
        again.push(server.ready_ms());
    }
    let rows = bench.plan.rows;
    let startup = Startup {
        rows,
        dataset_rows_per_second: dataset.seconds.map(|seconds| rows as f64 / seconds),
        original_bytes: dataset.bytes as f64 / rows as f64,
        upgraded_bytes: upgraded_bytes as f64 / rows as f64,
        empty_ready_ms: Figure::of(empty),
        first_ready_ms,
        first_caught_up_ms,
        first_cpu_seconds,
        again_ready_ms: Figure::of(again),
    };
    Ok((Filled { server, database }, Some(startup)))
}
