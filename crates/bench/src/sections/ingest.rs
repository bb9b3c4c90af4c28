//! The cost of a durable message, compared with a request that stores nothing: floor and service alternate in one
//! run, because machines drift.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::ensure;
use serde::Serialize;

use crate::context::Bench;
use crate::figure::Figure;
use crate::load::{Answers, Load, Pace, Requests};
use crate::place::Server;

/// The number of connections of the goals; also for cases with one number only.
pub const CONNECTIONS_OF_GOALS: usize = 64;
/// Part of the requests that is sent before the measurement begins.
const WARM_UP_PART: u64 = 10;
/// One connection waits for the disk with every message, so fewer messages are enough.
const ALONE_PART: u64 = 8;
/// Maximum time of one measurement.
const SECONDS_MAX: f64 = 20.0;

/// The kind of requests, and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Case {
    /// The floor, new messages.
    Floor,
    /// The service on an empty database, new messages.
    Empty,
    /// The service on a database with the whole dataset, new messages.
    Filled,
    /// The service, duplicates.
    Duplicates,
    /// The service, wrong signatures.
    BadSignatures,
    /// The floor, wrong signatures.
    FloorBadSignatures,
}

/// A case at a number of connections, all rounds together.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The case.
    pub case: Case,
    /// Keep-alive connections.
    pub connections: usize,
    /// Requests that were measured, in all rounds.
    pub requests: u64,
    /// Requests with an unexpected response.
    pub unexpected: u64,
    /// CPU of the server per request, until the last response.
    pub cpu_us: Figure,
    /// The same, until all derived data have caught up too.
    pub cpu_us_caught_up: Figure,
    /// `cpu_us` over that of the floor in the same round.
    pub ratio: Option<Figure>,
    /// `cpu_us_caught_up` over the floor's.
    pub ratio_caught_up: Option<Figure>,
    /// `cpu_us` over that on an empty database in the same round.
    pub ratio_to_empty: Option<Figure>,
    /// Responses per second.
    pub per_second: Figure,
    /// Latency.
    pub p50_ms: Figure,
    /// Latency.
    pub p99_ms: Figure,
    /// Latency.
    pub p999_ms: Figure,
    /// Latency.
    pub max_ms: Figure,
    /// Bytes written to disk per message, caught up.
    pub written_bytes: Figure,
    /// Bytes of all files of the database per message, after a clean stop; only if it was empty before.
    pub file_bytes: Option<Figure>,
}

/// One measurement.
#[derive(Debug, Clone)]
struct Sample {
    cpu_us: f64,
    cpu_us_caught_up: f64,
    written_bytes: f64,
    file_bytes: Option<f64>,
    unexpected: u64,
    /// Requests with the expected response, including the warm-up.
    acknowledged: u64,
    answers: Answers,
}

/// Measures all cases; returns a row per case and number of connections. `filled` has the whole dataset.
pub async fn run(bench: &Bench, filled: Option<&Server>) -> anyhow::Result<Vec<Row>> {
    let floor = bench.workplace.start_floor()?;
    let mut rows = Vec::new();
    for &connections in &bench.plan.connections {
        let mut samples: Vec<(Case, Vec<Sample>)> = Vec::new();
        for round in 1..=bench.plan.rounds {
            bench.progress.step(&format!("ingest, {connections} connections, round {round} of {}", bench.plan.rounds));
            for (case, sample) in run_round(bench, &floor, filled, connections).await? {
                match samples.iter_mut().find(|(known, _)| *known == case) {
                    Some((_, samples)) => samples.push(sample),
                    None => samples.push((case, vec![sample])),
                }
            }
        }
        rows.extend(samples.iter().map(|(case, own)| summarize(*case, connections, own, &samples)));
    }
    Ok(rows)
}

/// One round: each case once, with the same requests.
async fn run_round(
    bench: &Bench,
    floor: &Server,
    filled: Option<&Server>,
    connections: usize,
) -> anyhow::Result<Vec<(Case, Sample)>> {
    let messages = bench.plan.messages;
    let measured = if connections == 1 { messages.div_ceil(ALONE_PART) } else { messages };
    let warm_up = measured.div_ceil(WARM_UP_PART);
    let count = (warm_up + measured) as usize;
    let prepared = bench.prepare(warm_up + measured);
    let bad = Arc::new(Requests::Prepared(prepared.signed_badly()));
    let requests = Arc::new(Requests::Prepared(prepared));
    let warm_up = warm_up as usize;
    let once = [0..warm_up, warm_up..count];

    let mut samples = vec![(Case::Floor, measure(floor, connections, &requests, &once, 200).await?)];
    let database = bench.workplace.database_in("empty")?;
    let server = bench.workplace.start_server(&database).await?;
    let mut empty = measure(&server, connections, &requests, &once, 200).await?;
    expect_stored(&server, empty.acknowledged).await?;
    let mut refused = Vec::new();
    if connections == CONNECTIONS_OF_GOALS {
        // Only requests that were sent before: a slow disk may have cut the measurement short.
        let again = [0..0, warm_up..warm_up + empty.answers.answered as usize];
        refused.push((Case::Duplicates, measure(&server, connections, &requests, &again, 200).await?));
        refused.push((Case::BadSignatures, measure(&server, connections, &bad, &again, 401).await?));
        refused.push((Case::FloorBadSignatures, measure(floor, connections, &bad, &again, 401).await?));
    }
    expect_stored(&server, empty.acknowledged).await?;
    server.stop()?;
    empty.file_bytes =
        Some(folder_bytes(database.parent().expect("it is in a folder"))? as f64 / empty.acknowledged as f64);
    samples.push((Case::Empty, empty));
    if let Some(filled) = filled.filter(|_| connections == CONNECTIONS_OF_GOALS) {
        samples.push((Case::Filled, measure(filled, connections, &requests, &once, 200).await?));
    }
    samples.append(&mut refused);
    Ok(samples)
}

/// Sends the requests of the first range as a warm-up, and measures those of the second.
async fn measure(
    server: &Server,
    connections: usize,
    requests: &Arc<Requests>,
    [warm_up, measured]: &[Range<usize>; 2],
    expected: u16,
) -> anyhow::Result<Sample> {
    let mut load = Load::open(server.address(), connections).await?;
    let pace = || Pace { seconds_max: Some(SECONDS_MAX), ..Pace::default() };
    let before_the_clock = load.send(requests, warm_up.clone(), pace()).await?;
    server.wait_until_caught_up().await?;
    let before = server.usage()?;
    let answers = load.send(requests, measured.clone(), pace()).await?;
    let after = server.usage()?;
    server.wait_until_caught_up().await?;
    let caught_up = server.usage()?;
    ensure!(answers.answered > 0, "the server sent no response in {SECONDS_MAX} s");
    let count = answers.answered as f64;
    Ok(Sample {
        cpu_us: (after.cpu_us - before.cpu_us) / count,
        cpu_us_caught_up: (caught_up.cpu_us - before.cpu_us) / count,
        written_bytes: (caught_up.written_bytes - before.written_bytes) as f64 / count,
        file_bytes: None,
        unexpected: answers.other_than(expected),
        acknowledged: before_the_clock.those_with(expected) + answers.those_with(expected),
        answers,
    })
}

/// Refuses to measure a service that loses or duplicates messages.
pub async fn expect_stored(server: &Server, messages: u64) -> anyhow::Result<()> {
    let mut connection = server.connect().await?;
    ensure!(connection.get("/stats").await? == 200, "/stats got no response");
    let stats: serde_json::Value = serde_json::from_slice(connection.body())?;
    let stored = &stats["total_messages"];
    ensure!(*stored == messages, "{messages} messages got 200, and {stored} are stored");
    Ok(())
}

fn summarize(case: Case, connections: usize, own: &[Sample], all: &[(Case, Vec<Sample>)]) -> Row {
    let figure = |value: fn(&Sample) -> f64| Figure::of(own.iter().map(value));
    let over = |base: Case, value: fn(&Sample) -> f64| {
        let (_, base) = all.iter().find(|(known, _)| *known == base)?;
        Some(Figure::of(own.iter().zip(base).map(|(own, base)| value(own) / base.cpu_us)))
    };
    let floor = match case {
        Case::Floor | Case::FloorBadSignatures => None,
        Case::BadSignatures => Some(Case::FloorBadSignatures),
        Case::Empty | Case::Filled | Case::Duplicates => Some(Case::Floor),
    };
    let file_bytes: Option<Vec<f64>> = own.iter().map(|sample| sample.file_bytes).collect();
    Row {
        case,
        connections,
        requests: own.iter().map(|sample| sample.answers.answered).sum(),
        unexpected: own.iter().map(|sample| sample.unexpected).sum(),
        cpu_us: figure(|sample| sample.cpu_us),
        cpu_us_caught_up: figure(|sample| sample.cpu_us_caught_up),
        ratio: floor.and_then(|floor| over(floor, |sample| sample.cpu_us)),
        ratio_caught_up: floor.and_then(|floor| over(floor, |sample| sample.cpu_us_caught_up)),
        ratio_to_empty: (case == Case::Filled).then(|| over(Case::Empty, |sample| sample.cpu_us)).flatten(),
        per_second: figure(|sample| sample.answers.per_second),
        p50_ms: figure(|sample| sample.answers.p50_ms),
        p99_ms: figure(|sample| sample.answers.p99_ms),
        p999_ms: figure(|sample| sample.answers.p999_ms),
        max_ms: figure(|sample| sample.answers.max_ms),
        written_bytes: figure(|sample| sample.written_bytes),
        file_bytes: file_bytes.map(Figure::of),
    }
}

/// The size of all files in a folder and its subfolders.
pub fn folder_bytes(folder: &Path) -> anyhow::Result<u64> {
    let bytes = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        if entry.file_type()?.is_dir() { folder_bytes(&entry.path()) } else { Ok(entry.metadata()?.len()) }
    };
    fs::read_dir(folder)?.map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_below_count() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("index/deep")).unwrap();
        for (path, bytes) in [("app.db", 100), ("index/a", 20), ("index/deep/b", 3)] {
            fs::write(folder.path().join(path), vec![0; bytes]).unwrap();
        }
        assert_eq!(folder_bytes(folder.path()).unwrap(), 123);
    }
}
