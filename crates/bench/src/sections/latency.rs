//! The latency of a message at a steady rate. The load is an open loop: requests are due at fixed times, whatever the
//! service does, and the wait counts from then. So a stall counts for all requests that were due in it.

use std::sync::Arc;

use serde::Serialize;

use super::ingest::CONNECTIONS_OF_GOALS;
use crate::context::Bench;
use crate::load::{Answers, Load, Pace};
use crate::place::Server;

/// Seconds before the measurement begins.
const WARM_UP_SECONDS: f64 = 0.5;

/// A rate on a database.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Whether the database contained the dataset.
    pub filled: bool,
    /// Messages per second that were due.
    pub rate: u32,
    /// Responses other than 200.
    pub unexpected: u64,
    /// Their latency.
    #[serde(flatten)]
    pub answers: Answers,
}

/// Measures every rate on an empty database, then on the dataset.
pub async fn run(bench: &Bench, filled: &Server) -> anyhow::Result<Vec<Row>> {
    let empty = bench.workplace.start_server(&bench.workplace.database_in("empty")?).await?;
    let mut rows = Vec::new();
    for (server, is_filled) in [(&empty, false), (filled, true)] {
        for &rate in &bench.plan.rates {
            let kind = if is_filled { "filled" } else { "empty" };
            bench.progress.step(&format!("latency at {rate} a second, {kind} database"));
            let answers = hold(bench, server, rate).await?;
            rows.push(Row { filled: is_filled, rate, unexpected: answers.other_than(200), answers });
        }
    }
    Ok(rows)
}

async fn hold(bench: &Bench, server: &Server, rate: u32) -> anyhow::Result<Answers> {
    server.wait_until_caught_up().await?;
    let rate = f64::from(rate);
    let (warm_up, count) = ((rate * WARM_UP_SECONDS) as usize, (rate * bench.plan.seconds as f64) as usize);
    let mut load = Load::open(server.address(), CONNECTIONS_OF_GOALS).await?;
    let requests = Arc::new(bench.endless());
    let pace = || Pace { per_second: Some(rate), ..Pace::default() };
    load.send(&requests, 0..warm_up, pace()).await?;
    load.send(&requests, warm_up..warm_up + count, pace()).await
}
