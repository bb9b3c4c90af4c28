//! Every kind of read, one request after another with different parameters, while messages arrive.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::context::Bench;
use crate::data::texts::{ABSENT, COMMON, MEDIUM, MEDIUM_CJK, RARE, RARE_CJK};
use crate::data::{Inbox, Random, busiest_sender, moment};
use crate::load::{Answers, Background, Connection};
use crate::place::Server;
use server::telemetry::histogram::Spread;

/// Messages per second that arrive during the reads, and their connections.
const ARRIVALS: f64 = 1_000.0;
const ARRIVALS_CONNECTIONS: usize = 16;
/// Requests of a kind before the measurement begins.
const WARM_UP: u64 = 3;
/// One in this many messages is from the busiest sender; a little more, so that the last offset is always valid.
const BUSIEST_ONE_IN: u64 = 21;

/// The stream of random numbers for parameters.
pub const PARAMETERS: u64 = 3;

/// A kind of read.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// The query.
    pub name: &'static str,
    /// The goal for the p99 at ten million messages, in milliseconds.
    pub goal_ms: f64,
    /// Path and query of the next request.
    pub path: fn(&Inbox, &mut Random) -> String,
}

const fn kind(name: &'static str, goal_ms: f64, path: fn(&Inbox, &mut Random) -> String) -> Kind {
    Kind { name, goal_ms, path }
}

/// Reads without text search.
const LISTINGS: &[Kind] = &[
    kind("first page", 5.0, |_, _| "/messages".to_owned()),
    kind("first page, since", 5.0, |_, random| format!("/messages?since={}", any_moment(random))),
    kind("first page, from", 5.0, |inbox, random| format!("/messages?from={}", any_sender(inbox, random))),
    kind("first page, from and since", 5.0, |inbox, random| {
        format!("/messages?from={}&since={}", any_sender(inbox, random), any_moment(random))
    }),
    kind("first page, from the busiest and since", 5.0, |_, random| {
        format!("/messages?from={}&since={}", busiest(), any_moment(random))
    }),
    kind("any offset", 10.0, |inbox, random| format!("/messages?offset={}", random.below(inbox.rows()))),
    kind("last offset", 10.0, |inbox, _| format!("/messages?offset={}", inbox.rows() - 1)),
    kind("since, any offset in it", 10.0, |inbox, random| {
        let (skipped, within) = (random.fraction(), random.fraction());
        let offset = (inbox.rows() as f64 * (1.0 - skipped) * within) as u64;
        format!("/messages?since={}&offset={offset}", moment(skipped))
    }),
    kind("from the busiest, any offset", 20.0, |inbox, random| {
        let offset = random.below((inbox.rows() / BUSIEST_ONE_IN).max(1));
        format!("/messages?from={}&offset={offset}", busiest())
    }),
    kind("statistics", 2.0, |_, _| "/stats".to_owned()),
];

/// Reads with text search.
pub const SEARCHES: &[Kind] = &[
    kind("q in no message", 10.0, |_, random| search(ABSENT.word, random)),
    kind("q in ten messages", 10.0, |_, random| search(RARE.word, random)),
    kind("q in one of 500", 100.0, |_, random| search(MEDIUM.word, random)),
    kind("q, two CJK characters, in ten", 10.0, |_, random| search(RARE_CJK.word, random)),
    kind("q, two CJK characters, in one of 500", 100.0, |_, random| search(MEDIUM_CJK.word, random)),
    kind("q in a third, total bounded", 50.0, |_, random| search(COMMON.word, random) + "&total=bounded"),
    kind("q, two Latin letters, total bounded", 50.0, |_, random| {
        search(random.pick(&["an", "th", "er", "ok"]), random) + "&total=bounded"
    }),
    kind("q, one Latin letter, total bounded", 50.0, |_, random| {
        search(random.pick(&["e", "a", "t", "z"]), random) + "&total=bounded"
    }),
    kind("q in one of 500, and from", 100.0, |inbox, random| {
        format!("{}&from={}", search(MEDIUM.word, random), any_sender(inbox, random))
    }),
    kind("q in one of 500, from the busiest, since", 100.0, |_, random| {
        format!("{}&from={}&since={}", search(MEDIUM.word, random), busiest(), any_moment(random))
    }),
    kind("q in ten messages, and since", 10.0, |_, random| {
        format!("{}&since={}", search(RARE.word, random), any_moment(random))
    }),
];

/// Searches whose exact total is a large number. They have no goal for the total, but must end.
const GREAT_SEARCHES: &[Kind] = &[
    kind("q in a third, total exact", f64::INFINITY, |_, random| search(COMMON.word, random)),
    kind("q, two Latin letters, total exact", f64::INFINITY, |_, random| {
        search(random.pick(&["an", "th", "er", "ok"]), random)
    }),
];

fn any_moment(random: &mut Random) -> String {
    moment(random.fraction())
}

fn any_sender(inbox: &Inbox, random: &mut Random) -> String {
    as_parameter(&inbox.any_sender(random))
}

fn busiest() -> String {
    as_parameter(&busiest_sender())
}

/// The word with some capitals, so that two searches need not have the same text.
fn search(word: &str, random: &mut Random) -> String {
    let mixed: String = word
        .chars()
        .map(|character| if random.below(2) == 0 { character.to_ascii_uppercase() } else { character })
        .collect();
    format!("/messages?q={}", as_parameter(&mixed))
}

fn as_parameter(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// A kind, measured.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The query.
    pub name: &'static str,
    /// Its goal at ten million messages, if it has one.
    pub goal_p99_ms: Option<f64>,
    /// The number of requests.
    pub requests: u64,
    /// The number of responses other than 200.
    pub unexpected: u64,
    /// Latency.
    pub p50_ms: f64,
    /// Latency.
    pub p99_ms: f64,
    /// Latency.
    pub max_ms: f64,
    /// One of the requests.
    pub example: String,
}

/// All kinds.
#[derive(Debug, Clone, Serialize)]
pub struct Reads {
    /// Messages in the dataset.
    pub rows: u64,
    /// A row per kind.
    pub kinds: Vec<Row>,
    /// The results of the messages that arrived during the reads.
    pub arrivals: Answers,
}

/// Measures every kind on a service with the dataset.
pub async fn run(bench: &Bench, server: &Server) -> anyhow::Result<Reads> {
    server.wait_until_caught_up().await?;
    let arrivals = Background::begin(server.address(), ARRIVALS_CONNECTIONS, bench.endless(), Some(ARRIVALS))?;
    let mut connection = server.connect().await?;
    let mut kinds = Vec::new();
    for (number, kind) in [LISTINGS, SEARCHES, GREAT_SEARCHES].concat().iter().enumerate() {
        bench.progress.step(&format!("reads: {}", kind.name));
        let random = Random::at(PARAMETERS, number as u64);
        kinds.push(ask(bench, &mut connection, kind, random).await?);
    }
    Ok(Reads { rows: bench.plan.rows, kinds, arrivals: arrivals.finish()? })
}

async fn ask(bench: &Bench, connection: &mut Connection, kind: &Kind, mut random: Random) -> anyhow::Result<Row> {
    let (inbox, spread) = (&bench.writer.inbox, Spread::new());
    let (mut requests, mut unexpected, mut slowest_us, mut example) = (0, 0, 0, String::new());
    let mut began = Instant::now();
    for number in 0..WARM_UP + bench.plan.requests {
        example = (kind.path)(inbox, &mut random);
        if number == WARM_UP {
            began = Instant::now();
        }
        let asked = Instant::now();
        let status = connection.get(&example).await?;
        if number >= WARM_UP {
            slowest_us = slowest_us.max(spread.observe(asked.elapsed()));
            requests += 1;
            unexpected += u64::from(status != 200);
        }
        // A measurement that this limit cuts short shows it in its number of requests.
        if requests > 0 && began.elapsed() > Duration::from_secs(bench.plan.seconds) {
            break;
        }
    }
    let [p50_ms, p99_ms] = spread.quantiles([0.5, 0.99]).unwrap_or_default().map(|microseconds| microseconds / 1e3);
    let goal_p99_ms = Some(kind.goal_ms).filter(|goal| goal.is_finite());
    let max_ms = slowest_us as f64 / 1e3;
    Ok(Row { name: kind.name, goal_p99_ms, requests, unexpected, p50_ms, p99_ms, max_ms, example })
}
