//! How much is measured: a profile, and the given options.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;

/// The options in full.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How much is measured: quick takes a minute or two, 1m about five, 10m about an hour
    #[arg(long, value_enum, default_value_t = Profile::Quick)]
    profile: Profile,
    /// Only these sections
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    only: Vec<Section>,
    /// Messages in the dataset [default: 100,000, 1,000,000 or 10,000,000, by the profile]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rows: Option<u64>,
    /// Repetitions of each ingest measurement, alternating floor and service
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Numbers of keep-alive connections for ingest
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,16,64,256",
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: Vec<u16>,
    /// Messages per second for latency
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1000,10000",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rates: Vec<u32>,
    /// Messages in a round of ingest [default: by the profile]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(10..=10_000_000))]
    messages: Option<u64>,
    /// Requests of each kind of read [default: by the profile]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    requests: Option<u64>,
    /// Seconds of load at each rate of latency and of memory, and at most for a kind of read [default: by the profile]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// Work in this folder, and keep the dataset there for the next run [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Another postroom program to measure [default: this one]
    #[arg(long, value_name = "PATH")]
    pub server: Option<PathBuf>,
    /// Measure replicas on this PostgreSQL server instead: ingest, with pgbench, and reads. Its role must be able
    /// to create databases, which are dropped afterwards. POSTROOM_BENCH_DATABASE_URL, or the file that
    /// POSTROOM_BENCH_DATABASE_URL_FILE names, does the same and keeps a password out of the list of processes
    #[arg(long, value_name = "URL", conflicts_with = "folder")]
    pub database_url: Option<String>,
    /// With --database-url: numbers of replicas
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,2,3",
        value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: Vec<u16>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A preset amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// 100,000 messages
    Quick,
    /// A million
    #[value(name = "1m")]
    #[serde(rename = "1m")]
    Million,
    /// Ten million
    #[value(name = "10m")]
    #[serde(rename = "10m")]
    TenMillion,
}

/// A section that can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Section {
    /// From start to ready, with and without the one-time upgrade
    Startup,
    /// CPU per message compared with the floor, on an empty database and on the dataset
    Ingest,
    /// The same on an empty database only: the fastest way to compare two builds
    IngestEmpty,
    /// Latency at fixed rates
    Latency,
    /// Every kind of read while messages arrive
    Reads,
    /// Memory when idle and under load
    Memory,
    /// Twice as many messages as can be stored: their waiting time, and the number of refusals. Only if it is named
    Overload,
}

/// How much is measured.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The profile of the amounts.
    pub profile: Profile,
    #[serde(skip)]
    sections: Vec<Section>,
    /// Messages in the dataset.
    pub rows: u64,
    /// Repetitions of ingest.
    pub rounds: usize,
    /// Numbers of connections of ingest.
    pub connections: Vec<usize>,
    /// Numbers of replicas, on PostgreSQL.
    pub replicas: Vec<usize>,
    /// Messages per second of latency.
    pub rates: Vec<u32>,
    /// Messages in a round of ingest.
    pub messages: u64,
    /// Requests of each kind of read.
    pub requests: u64,
    /// Seconds of load at a rate, and at most for a kind of read.
    pub seconds: u64,
}

impl Plan {
    /// The profile's amounts, with the given changes.
    pub fn of(options: &Options) -> Self {
        let (rows, messages, requests, seconds) = match options.profile {
            Profile::Quick => (100_000, 20_000, 200, 3),
            Profile::Million => (1_000_000, 50_000, 200, 10),
            Profile::TenMillion => (10_000_000, 100_000, 400, 60),
        };
        let all = [Section::Startup, Section::Ingest, Section::Latency, Section::Reads, Section::Memory];
        Self {
            profile: options.profile,
            sections: if options.only.is_empty() { all.to_vec() } else { options.only.clone() },
            rows: options.rows.unwrap_or(rows),
            rounds: options.rounds.into(),
            connections: options.connections.iter().copied().map(usize::from).collect(),
            replicas: options.replicas.iter().copied().map(usize::from).collect(),
            rates: options.rates.clone(),
            messages: options.messages.unwrap_or(messages),
            requests: options.requests.unwrap_or(requests),
            seconds: options.seconds.unwrap_or(seconds),
        }
    }

    /// Whether a section is to be measured.
    pub fn has(&self, section: Section) -> bool {
        self.sections.contains(&section)
    }

    /// Whether anything needs the dataset.
    pub fn needs_dataset(&self) -> bool {
        self.sections.iter().any(|section| !matches!(section, Section::IngestEmpty | Section::Overload))
    }
}
