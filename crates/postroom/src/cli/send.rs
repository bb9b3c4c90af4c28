//! `postroom send`: posts a file of messages, signed, one request per line. For tests, migration and load.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::arguments::local_url;
use super::client::{Client, Reply, Target};
use super::sample::{self, Wanted};
use super::unpack;
use providers::original::SIGNATURE_HEADER;
use runtime::signals::StopSignals;
use server::config::{Inputs, SigningKey, signing_key};
use server::http::routes::WEBHOOK;
use server::telemetry::histogram::Spread;

/// Lines read ahead of the connections that send them.
const LINES_AHEAD: usize = 1024;
/// The first wait before a retry, if the service names none; it doubles with every try.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Maximum wait before a retry.
const RETRY_LONGEST: Duration = Duration::from_secs(10);
/// Minimum requests per second: one in a quarter of an hour.
const RATE_LEAST: f64 = 0.001;
/// How many refusals are shown in full.
const REFUSALS_SHOWN: usize = 5;
/// Interval of progress lines without a terminal.
const TELL_INTERVAL: Duration = Duration::from_secs(5);

/// Signs and posts each line of an NDJSON file as one request over keep-alive connections.
///
/// Lines are signed with WEBHOOK_SECRET and sent unchanged; empty lines are skipped. 429, 502 to 504, 507 and lost
/// connections are retried after the time of Retry-After: if the message was stored after all, the retry is a
/// duplicate, which is 200 too. Exits 1 if anything was refused or could not be delivered, and 130 or 143 if a
/// signal stopped it, also with a summary: messages without a response may be stored or not; send them again.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The file, one JSON message per line (.gz, .zst too); - is standard input. With --as: one body, or the name of a
    /// sample
    #[arg(required_unless_present = "source")]
    file: Option<PathBuf>,
    /// Where to post; by default http://127.0.0.1, the PORT of the settings, and the source's path
    #[arg(long)]
    url: Option<String>,
    /// Post one body with this provider's signature, to its source: whatsapp, twilio, … (or a source's name)
    #[arg(long = "as", value_name = "SOURCE")]
    source: Option<String>,
    /// With --as: sign with the Ed25519 private key in this file (base64), for sources with a public key only
    #[arg(long, value_name = "FILE", requires = "source")]
    private_key: Option<PathBuf>,
    /// A TOML file with settings, for --as (also POSTROOM_CONFIG)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Number of connections, and so of concurrent requests
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    concurrency: u16,
    /// Maximum requests per second, evenly spaced; latency then counts from the due time of a request
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// Tries per message before it counts as failed
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    tries: u32,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// A line of the file, and when it is due.
struct Due {
    number: u64,
    body: Bytes,
    at: Option<Instant>,
}

/// The results of all lines so far.
#[derive(Default)]
struct Tally {
    statuses: BTreeMap<u16, u64>,
    failed: u64,
    retries: u64,
    refusals_shown: usize,
    slowest: Duration,
}

/// The shared state of all connections.
struct Courier {
    key: SigningKey,
    tries: u32,
    lines: Mutex<mpsc::Receiver<Due>>,
    tally: std::sync::Mutex<Tally>,
    latency: Spread,
    progress: Progress,
}

/// Posts everything and prints a summary.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(source) = &arguments.source {
        return sample::send(Wanted {
            source,
            body: arguments.file.clone(),
            url: arguments.url.as_deref(),
            private_key: arguments.private_key.as_deref(),
            config: arguments.config.clone(),
        });
    }
    let file = arguments.file.as_deref().context("name a file, or - for standard input")?;
    let inputs = Inputs::of_environment()?;
    let key = signing_key(&inputs)?;
    let url = match &arguments.url {
        Some(url) => url.clone(),
        None => local_url(&inputs.host()?, inputs.port()?),
    };
    let target = Target::parse(&url, WEBHOOK)?;
    let fits = |rate: f64| rate >= RATE_LEAST && rate.is_finite();
    ensure!(arguments.rate.is_none_or(fits), "--rate must be at least {RATE_LEAST}");
    let input = unpack::open(file)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sender, lines) = mpsc::channel(LINES_AHEAD);
    let rate = arguments.rate;
    let reader = std::thread::spawn(move || read_lines(input, rate, &sender));
    let courier = Arc::new(Courier {
        key,
        tries: arguments.tries,
        lines: Mutex::new(lines),
        tally: Default::default(),
        latency: Spread::new(),
        progress: Progress::new(),
    });
    let started = Instant::now();
    let stopped_by = runtime.block_on(async {
        let mut signals = StopSignals::install()?;
        let mut connections: JoinSet<_> =
            (0..arguments.concurrency).map(|_| Arc::clone(&courier).carry(Client::new(target.clone()))).collect();
        loop {
            tokio::select! {
                signal = signals.next() => return anyhow::Ok(Some(signal)),
                ended = connections.join_next() => match ended {
                    Some(ended) => ended?,
                    None => return Ok(None),
                },
            }
        }
    })?;
    let elapsed = started.elapsed();
    courier.progress.bar.finish_and_clear();
    let all_stored = courier.summarize(elapsed, arguments.json)?;
    if let Some(signal) = stopped_by {
        // The reading thread is not joined: it may wait for its input forever.
        tell!("stopped by {}; the summary covers the responses so far", signal.name());
        return Ok(ExitCode::from(signal.exit_code()));
    }
    let read = reader.join().expect("the reading thread does not panic");
    read.with_context(|| format!("reading {} stopped early", file.display()))?;
    Ok(if all_stored { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Hands out the lines, each when it is due.
fn read_lines(
    mut input: Box<dyn BufRead + Send>,
    rate: Option<f64>,
    sender: &mpsc::Sender<Due>,
) -> std::io::Result<()> {
    let started = Instant::now();
    let (mut number, mut sent) = (0, 0u32);
    loop {
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        number += 1;
        while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            line.pop();
        }
        if line.is_empty() {
            continue;
        }
        let at = rate.map(|rate| started + Duration::from_secs_f64(f64::from(sent) / rate));
        if let Some(at) = at {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
        }
        sent += 1;
        if sender.blocking_send(Due { number, body: line.into(), at }).is_err() {
            return Ok(());
        }
    }
}

impl Courier {
    /// One connection: takes line after line until there are none.
    async fn carry(self: Arc<Self>, mut client: Client) {
        loop {
            let next = self.lines.lock().await.recv().await;
            let Some(due) = next else { return };
            let started = due.at.unwrap_or_else(Instant::now);
            let result = self.deliver(&mut client, &due.body).await;
            let latency = started.elapsed();
            self.latency.observe(latency);
            self.note(due.number, result, latency);
        }
    }

    /// Posts a body until there is a final response, or the tries are used up.
    async fn deliver(&self, client: &mut Client, body: &Bytes) -> anyhow::Result<Reply> {
        let signature = HeaderValue::from_str(&self.key.sign(body))?;
        let mut pause = RETRY_FIRST;
        for last in (1..=self.tries).map(|tried| tried == self.tries) {
            let mut headers = HeaderMap::with_capacity(4);
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(SIGNATURE_HEADER, signature.clone());
            let result = client.request("POST", headers, body.clone()).await;
            let wait = match &result {
                Ok(reply) if !is_passing(reply.status) => return result,
                Ok(reply) => reply.retry_after_seconds.map_or(pause, Duration::from_secs),
                Err(_) => pause,
            };
            if last {
                return result;
            }
            self.tally().retries += 1;
            tokio::time::sleep(wait.min(RETRY_LONGEST)).await;
            pause = (pause * 2).min(RETRY_LONGEST);
        }
        unreachable!("there is at least one try")
    }

    fn note(&self, line: u64, result: anyhow::Result<Reply>, latency: Duration) {
        let mut tally = self.tally();
        tally.slowest = tally.slowest.max(latency);
        let refusal = match &result {
            Ok(reply) => {
                *tally.statuses.entry(reply.status.as_u16()).or_default() += 1;
                let text = || format!("{} {}", reply.status.as_u16(), String::from_utf8_lossy(&reply.body));
                (reply.status != StatusCode::OK).then(text)
            }
            Err(error) => {
                tally.failed += 1;
                Some(format!("{error:#}"))
            }
        };
        if let Some(refusal) = refusal.filter(|_| tally.refusals_shown < REFUSALS_SHOWN) {
            tally.refusals_shown += 1;
            self.progress.bar.suspend(|| tell!("line {line}: {refusal}"));
        }
        drop(tally);
        self.progress.step();
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Prints the results; returns whether all responses were 200.
    fn summarize(&self, elapsed: Duration, as_json: bool) -> anyhow::Result<bool> {
        let tally = self.tally();
        let answered: u64 = tally.statuses.values().sum();
        let sent = answered + tally.failed;
        let seconds = elapsed.as_secs_f64();
        let rate = if seconds > 0.0 { sent as f64 / seconds } else { 0.0 };
        let quantiles = self.latency.quantiles([0.5, 0.9, 0.99]).unwrap_or_default().map(|value| value / 1e3);
        let slowest_ms = tally.slowest.as_secs_f64() * 1e3;
        let [p50, p90, p99] = quantiles;
        if as_json {
            let summary = serde_json::json!({
                "sent": sent,
                "statuses": &tally.statuses,
                "failed": tally.failed,
                "retries": tally.retries,
                "seconds": seconds,
                "rate": rate,
                "latency_ms": { "p50": p50, "p90": p90, "p99": p99, "max": slowest_ms },
            });
            say!("{summary}")?;
        } else {
            say!("sent        {sent} messages in {seconds:.3} s ({rate:.0} per second)")?;
            for (status, count) in &tally.statuses {
                say!("answer {status}  {count}")?;
            }
            say!("failed      {}", tally.failed)?;
            say!("retries     {}", tally.retries)?;
            say!("latency ms  p50 {p50:.3}  p90 {p90:.3}  p99 {p99:.3}  max {slowest_ms:.3}")?;
        }
        Ok(tally.failed == 0 && tally.statuses.keys().all(|status| *status == 200))
    }
}

/// Responses that should be retried, including those of a proxy.
fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
            | StatusCode::INSUFFICIENT_STORAGE
    )
}

/// A bar on a terminal, plain lines elsewhere; both on stderr.
struct Progress {
    bar: ProgressBar,
    told: std::sync::Mutex<Instant>,
    on_terminal: bool,
}

impl Progress {
    fn new() -> Self {
        let style =
            ProgressStyle::with_template("{spinner} {human_pos} sent, {per_sec}, {elapsed}").expect("a valid template");
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
        Self { bar, told: std::sync::Mutex::new(Instant::now()), on_terminal: std::io::stderr().is_terminal() }
    }

    fn step(&self) {
        self.bar.inc(1);
        if !self.on_terminal {
            let mut told = self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if told.elapsed() >= TELL_INTERVAL {
                *told = Instant::now();
                tell!("{} sent, {:.0} a second", self.bar.position(), self.bar.per_sec());
            }
        }
    }
}
