//! Behaviour under overload: messages arrive twice as fast as they can be stored; the rate of stored ones, their wait,
//! and the refusals are measured. An open loop: messages are due at fixed times, whatever the service does.

use std::sync::Arc;

use serde::Serialize;

use crate::context::Bench;
use crate::load::{Answers, Load, Pace};
use runtime::process;

/// Connections of the closed loop that measures the maximum rate: one commit's messages wait during another.
const CONNECTIONS_OF_CAPACITY: usize = 2_048;
/// More than a commit and the queue accept together (1,024 each), fewer than are accepted (4,096).
const CONNECTIONS: usize = 3_584;
/// Files that this program needs besides its connections.
const FILES_RESERVED: u64 = 64;

/// The figures.
#[derive(Debug, Clone, Serialize)]
pub struct Overload {
    /// Messages per second that were stored in the closed loop.
    pub capacity_per_second: f64,
    /// Messages per second that were due afterwards.
    pub offered_per_second: f64,
    /// The number of connections.
    pub connections: usize,
    /// Messages per second of these that were stored.
    pub stored_per_second: f64,
    /// Messages that got 503.
    pub refused: u64,
    /// Messages with another response.
    pub unexpected: u64,
    /// The results of all responses.
    #[serde(flatten)]
    pub answers: Answers,
}

/// Measures on an empty database.
pub async fn run(bench: &Bench) -> anyhow::Result<Overload> {
    bench.progress.step("overload: maximum storing rate");
    let server = bench.workplace.start_server(&bench.workplace.database_in("empty")?).await?;
    let seconds = bench.plan.seconds as f64;
    let at_most = Pace { seconds_max: Some(seconds), ..Pace::default() };
    let files = process::raise_open_file_limit().unwrap_or(u64::MAX).saturating_sub(FILES_RESERVED);
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let mut load = Load::open_used(server.address(), CONNECTIONS_OF_CAPACITY.min(files)).await?;
    let capacity = stored_per_second(&load.send(&Arc::new(bench.endless()), 0..usize::MAX, at_most).await?);
    drop(load);
    server.wait_until_caught_up().await?;

    bench.progress.step("overload: twice that rate");
    let connections = CONNECTIONS.min(files);
    let offered = 2.0 * capacity;
    let mut load = Load::open_used(server.address(), connections).await?;
    let twice = Pace { per_second: Some(offered), ..Pace::default() };
    let answers = load.send(&Arc::new(bench.endless()), 0..(offered * seconds) as usize, twice).await?;
    let (stored, refused) = (answers.those_with(200), answers.those_with(503));
    Ok(Overload {
        capacity_per_second: capacity,
        offered_per_second: offered,
        connections,
        stored_per_second: stored_per_second(&answers),
        refused,
        unexpected: answers.answered - stored - refused,
        answers,
    })
}

/// Refusals are cheap and fast: they are not part of the storing rate.
fn stored_per_second(answers: &Answers) -> f64 {
    answers.per_second * answers.those_with(200) as f64 / answers.answered.max(1) as f64
}
