//! All metrics, in one struct with a verb for each event. Label values come from closed
//! sets, so the size of an exposition does not depend on clients.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::exposition::Exposition;
use super::gauges::encode_gauges;
use super::histogram::{Histogram, Window};
pub use super::labels::{Refusal, WebhookResult};
pub use super::request_counts::PathLabel;
use super::request_counts::RequestCounts;
use super::secret_use::{SecretUse, encode_secrets};
use super::source_counts::SourceCounts;
use domain::{Moment, Outcome};
use runtime::{log, process};
use store::{DamageKind, Gauges, Observer};

const COMMIT_SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
const BATCH_MESSAGES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// All counters, gauges and distributions.
#[derive(Debug)]
pub struct Metrics {
    started: Moment,
    requests: RequestCounts,
    latency: Window,
    webhook_results: [AtomicU64; WebhookResult::ALL.len()],
    refusals: [AtomicU64; Refusal::ALL.len()],
    sources: SourceCounts,
    queue_limit: u64,
    batch_messages: Histogram,
    commit_seconds: Histogram,
    sync_seconds: Histogram,
    checkpoint_seconds: Histogram,
    last_commit_seconds: AtomicI64,
    damage: [AtomicU64; DamageKind::ALL.len()],
    connections: AtomicU64,
    connections_limit: u64,
}

impl Metrics {
    /// All zero. `sources` are the names of the sources.
    pub fn new(sources: Vec<String>, queue_limit: usize, connections_limit: usize) -> Self {
        Self {
            started: Moment::now(),
            requests: RequestCounts::new(std::iter::empty()),
            latency: Window::new(),
            webhook_results: Default::default(),
            refusals: Default::default(),
            sources: SourceCounts::new(sources),
            queue_limit: queue_limit as u64,
            batch_messages: Histogram::new(BATCH_MESSAGES),
            commit_seconds: Histogram::new(COMMIT_SECONDS),
            sync_seconds: Histogram::new(COMMIT_SECONDS),
            checkpoint_seconds: Histogram::new(COMMIT_SECONDS),
            last_commit_seconds: AtomicI64::new(0),
            damage: Default::default(),
            connections: AtomicU64::new(0),
            connections_limit: connections_limit as u64,
        }
    }

    /// Counts requests by path too: one label per row of the route table, in its order. Rows may share a label.
    pub fn with_paths(mut self, labels: impl Iterator<Item = &'static str>) -> Self {
        self.requests = RequestCounts::new(labels);
        self
    }

    /// A request got its response.
    pub fn request_answered(&self, path: PathLabel, method: &str, status: u16, latency: Duration, now: Instant) {
        self.requests.count(path, status);
        self.requests.time(path, method, status, latency);
        self.latency.observe(latency, now);
    }

    /// An unparsable request got its response; its duration is unknown.
    pub fn unparsable_answered(&self, status: u16) {
        self.requests.count(PathLabel::Unknown, status);
    }

    /// A request at the original source ended.
    pub fn webhook_result(&self, result: WebhookResult) {
        self.webhook_results[result as usize].fetch_add(1, Relaxed);
    }

    /// A request was refused.
    pub fn refused(&self, refusal: Refusal) {
        self.refusals[refusal as usize].fetch_add(1, Relaxed);
    }

    /// Sources were enabled, perhaps new ones.
    pub fn sources_opened(&self, names: Vec<String>) {
        self.sources.add(names);
    }

    /// A message of the source `source` has an outcome.
    pub fn message_filed(&self, source: &str, outcome: Outcome) {
        self.sources.message(source, outcome);
    }

    /// New statuses and events of the source `source` were stored.
    pub fn extras_filed(&self, source: &str, statuses: usize, events: usize) {
        self.sources.extras(source, statuses, events);
    }

    /// A connection was accepted; it is counted until the guard is dropped.
    pub fn connection_opened(&self) -> ConnectionGuard<'_> {
        self.connections.fetch_add(1, Relaxed);
        ConnectionGuard(self)
    }

    /// The exposition in the text format 0.0.4.
    ///
    /// Source: Prometheus, "Exposition formats", text-based format.
    pub fn encode(&self, gauges: Gauges, secrets: &[SecretUse]) -> String {
        let mut out = Exposition::new();
        self.encode_contract(&mut out);
        self.encode_ingest(&mut out, gauges);
        encode_secrets(&mut out, secrets);
        self.encode_store(&mut out, gauges);
        self.encode_process(&mut out);
        out.into_text()
    }

    fn encode_contract(&self, out: &mut Exposition) {
        self.requests.encode_counts(out);
        out.family("webhook_requests_total", "counter", "Requests to POST /webhook, by result.");
        for result in WebhookResult::ALL {
            let count = self.webhook_results[*result as usize].load(Relaxed);
            out.sample("webhook_requests_total", &[("result", result.label())], count);
        }
        out.family(
            "request_latency_ms",
            "summary",
            "Response time; quantiles of the last 60 s, sum and count since start.",
        );
        let quantiles = self.latency.quantiles([0.5, 0.9, 0.99], Instant::now());
        for (at, quantile) in ["0.5", "0.9", "0.99"].into_iter().enumerate() {
            let value = quantiles.map_or("NaN".to_owned(), |values| (values[at] / 1e3).to_string());
            out.sample("request_latency_ms", &[("quantile", quantile)], value);
        }
        let (count, sum_ms) = self.latency.count_and_sum_ms();
        out.sample("request_latency_ms_sum", &[], sum_ms);
        out.sample("request_latency_ms_count", &[], count);
        self.requests.encode_times(out);
    }

    fn encode_ingest(&self, out: &mut Exposition, gauges: Gauges) {
        self.sources.encode(out);
        out.family("postroom_refused_total", "counter", "Requests refused, by reason.");
        for refusal in Refusal::ALL {
            let count = self.refusals[*refusal as usize].load(Relaxed);
            out.sample("postroom_refused_total", &[("reason", refusal.label())], count);
        }
        out.single("postroom_connections", "gauge", "Open connections.", self.connections.load(Relaxed));
        out.single("postroom_connections_limit", "gauge", "Maximum number of connections.", self.connections_limit);
        out.single("postroom_queue_messages", "gauge", "Messages waiting for the writer.", gauges.queued);
        out.single("postroom_queue_limit", "gauge", "Maximum number of waiting messages.", self.queue_limit);
    }

    fn encode_store(&self, out: &mut Exposition, gauges: Gauges) {
        let distributions = [
            ("postroom_batch_messages", "Messages per commit.", &self.batch_messages),
            ("postroom_commit_seconds", "One batch, from its first statement to durable.", &self.commit_seconds),
            ("postroom_sync_seconds", "The COMMIT of a batch: writing the log and its fsync.", &self.sync_seconds),
            (
                "postroom_checkpoint_seconds",
                "Moving the write-ahead log into the database file.",
                &self.checkpoint_seconds,
            ),
        ];
        for (name, help, histogram) in distributions {
            out.family(name, "histogram", help);
            out.histogram(name, &[], histogram);
        }
        let last_commit = self.last_commit_seconds.load(Relaxed);
        out.single(
            "postroom_last_commit_timestamp_seconds",
            "gauge",
            "Time of the last commit of a batch; 0: never.",
            last_commit,
        );
        out.family("postroom_damage_total", "counter", "Detections of damaged data, by kind.");
        for kind in DamageKind::ALL {
            let count = self.damage[*kind as usize].load(Relaxed);
            out.sample("postroom_damage_total", &[("kind", kind.label())], count);
        }
        encode_gauges(&gauges, out);
    }

    fn encode_process(&self, out: &mut Exposition) {
        out.single(
            "postroom_log_dropped_total",
            "counter",
            "Log lines dropped because stdout was too slow.",
            log::dropped_lines(),
        );
        out.family("postroom_build_info", "gauge", "Always 1; the labels identify the build.");
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("sqlite", store::sqlite_version())];
        out.sample("postroom_build_info", &labels, 1);
        let started = self.started.unix_seconds();
        out.single("postroom_process_start_time_seconds", "gauge", "Start time of the process.", started);
        if let Some(seconds) = process::cpu_seconds() {
            out.single("postroom_process_cpu_seconds_total", "counter", "User and system time.", seconds);
        }
        if let Some(bytes) = process::resident_bytes() {
            out.single("postroom_process_resident_memory_bytes", "gauge", "Memory in RAM.", bytes);
        }
        if let Some(fds) = process::open_fds() {
            out.single("postroom_process_open_fds", "gauge", "Open file descriptors.", fds);
        }
    }
}

impl Observer for Metrics {
    fn batch_committed(&self, messages: usize, whole: Duration, commit: Duration) {
        self.batch_messages.observe(messages as f64);
        self.commit_seconds.observe(whole.as_secs_f64());
        self.sync_seconds.observe(commit.as_secs_f64());
        self.last_commit_seconds.store(Moment::now().unix_seconds(), Relaxed);
    }

    fn checkpointed(&self, duration: Duration) {
        self.checkpoint_seconds.observe(duration.as_secs_f64());
    }

    fn damaged(&self, kind: DamageKind) {
        self.damage[kind as usize].fetch_add(1, Relaxed);
    }
}

/// Counts its connection until it is dropped.
#[derive(Debug)]
pub struct ConnectionGuard<'a>(&'a Metrics);

impl Drop for ConnectionGuard<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}
