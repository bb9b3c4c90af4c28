//! What a durable message costs, beside what a request costs that stores nothing: floor, service, floor, service, … in one run,
//! because machines drift.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::ensure;
use serde::Serialize;

use super::figure::Figure;
use super::inbox::Inbox;
use super::load::{Answers, Load, Pace};
use super::plan::Plan;
use super::progress::Progress;
use super::requests::Requests;
use super::workplace::{Server, Workplace};
use crate::config::SigningKey;

/// The number of connections that goals are set for; what is measured at one number only is measured at this.
pub const CONNECTIONS_OF_GOALS: usize = 64;
/// Part of the requests that is sent before the clock runs.
const WARM_UP_PART: u64 = 10;
/// One connection waits for the disk with every message: fewer will do.
const ALONE_PART: u64 = 8;
/// Longest time for one measurement.
const SECONDS_MAX: f64 = 20.0;

/// What is sent, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Case {
    /// The floor, new messages.
    Floor,
    /// The service on an empty database, new messages.
    Empty,
    /// The service on a database that holds the whole dataset, new messages.
    Filled,
    /// The service, messages that it has.
    Duplicates,
    /// The service, signatures that are wrong.
    BadSignatures,
    /// The floor, signatures that are wrong.
    FloorBadSignatures,
}

/// A case at a number of connections, all rounds together.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Which.
    pub case: Case,
    /// Keep-alive connections.
    pub connections: usize,
    /// Requests that were measured, in all rounds.
    pub requests: u64,
    /// Requests that were answered otherwise than they should be.
    pub unexpected: u64,
    /// CPU of the server per request, until the last answer.
    pub cpu_us: Figure,
    /// The same, until everything that is derived has caught up too.
    pub cpu_us_caught_up: Figure,
    /// `cpu_us` over that of the floor in the same round.
    pub ratio: Option<Figure>,
    /// `cpu_us_caught_up` over the floor's.
    pub ratio_caught_up: Option<Figure>,
    /// `cpu_us` over that on an empty database in the same round.
    pub ratio_to_empty: Option<Figure>,
    /// Answers a second.
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
    /// Bytes of all files of the database per message, after a clean stop; only where it was empty before.
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
    answers: Answers,
}

/// The bench of this section.
pub struct Ingest<'a> {
    /// Where it works.
    pub workplace: &'a Arc<Workplace>,
    /// What is sent.
    pub inbox: &'a Inbox,
    /// Who signs.
    pub key: &'a SigningKey,
    /// How much.
    pub plan: &'a Plan,
    /// Who is told.
    pub progress: &'a Progress,
    /// A running service on the whole dataset, if that is to be measured too.
    pub filled: Option<&'a Server>,
    /// The first fresh message that no server has seen.
    pub next_fresh: u64,
}

impl Ingest<'_> {
    /// Measures all; answers a row per case and number of connections.
    pub async fn run(&mut self) -> anyhow::Result<Vec<Row>> {
        let floor = self.workplace.start_floor()?;
        let mut rows = Vec::new();
        for connections in self.plan.connections.clone() {
            let mut samples: Vec<(Case, Vec<Sample>)> = Vec::new();
            for round in 1..=self.plan.rounds {
                self.progress
                    .step(&format!("ingest, {connections} connections, round {round} of {}", self.plan.rounds));
                for (case, sample) in self.round(&floor, connections).await? {
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
    async fn round(&mut self, floor: &Server, connections: usize) -> anyhow::Result<Vec<(Case, Sample)>> {
        let measured = if connections == 1 { self.plan.messages.div_ceil(ALONE_PART) } else { self.plan.messages };
        let warm_up = measured.div_ceil(WARM_UP_PART);
        let count = warm_up + measured;
        let requests = Arc::new(Requests::fresh(self.inbox, self.key, self.next_fresh, count));
        self.next_fresh += count;
        let (warm_up, all) = (0..warm_up as usize, 0..requests.len());
        let ranges = [warm_up.clone(), warm_up.end..requests.len()];
        let at_goal = connections == CONNECTIONS_OF_GOALS;
        let mut samples = vec![(Case::Floor, measure(floor, connections, &requests, &ranges, 200).await?)];

        let database = self.fresh_database()?;
        let server = self.workplace.start_server(&database).await?;
        let mut sample = measure(&server, connections, &requests, &ranges, 200).await?;
        let stored = ranges[0].len() as u64 + sample.answers.answered;
        if at_goal {
            let again = [0..0, all.clone()];
            samples.push((Case::Duplicates, measure(&server, connections, &requests, &again, 200).await?));
            let bad = Arc::new(requests.signed_badly());
            samples.push((Case::BadSignatures, measure(&server, connections, &bad, &again, 401).await?));
            samples.push((Case::FloorBadSignatures, measure(floor, connections, &bad, &again, 401).await?));
        }
        server.stop()?;
        sample.file_bytes = Some(folder_bytes(database.parent().expect("it lies in a folder"))? as f64 / stored as f64);
        samples.insert(1, (Case::Empty, sample));
        if let Some(filled) = self.filled.filter(|_| at_goal) {
            samples.insert(2, (Case::Filled, measure(filled, connections, &requests, &ranges, 200).await?));
        }
        Ok(samples)
    }

    /// A path in a folder of its own, where no database is.
    fn fresh_database(&self) -> anyhow::Result<PathBuf> {
        let folder = self.workplace.scratch().join("empty");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        Ok(folder.join("app.db"))
    }
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
    load.send(requests, warm_up.clone(), pace()).await?;
    server.wait_until_caught_up().await?;
    let before = server.usage()?;
    let answers = load.send(requests, measured.clone(), pace()).await?;
    let after = server.usage()?;
    server.wait_until_caught_up().await?;
    let caught_up = server.usage()?;
    ensure!(answers.answered > 0, "the server answered nothing in {SECONDS_MAX} s");
    let count = answers.answered as f64;
    Ok(Sample {
        cpu_us: (after.cpu_us - before.cpu_us) / count,
        cpu_us_caught_up: (caught_up.cpu_us - before.cpu_us) / count,
        written_bytes: (caught_up.written_bytes - before.written_bytes) as f64 / count,
        file_bytes: None,
        unexpected: answers.other_than(expected),
        answers,
    })
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

/// The size of all files in a folder.
pub fn folder_bytes(folder: &Path) -> anyhow::Result<u64> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}
