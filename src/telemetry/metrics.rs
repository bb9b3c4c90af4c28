//! Every number the service tells, in one struct with a verb for each thing that happens. Label values come from closed
//! sets, so the size of an exposition does not depend on what clients send.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::door_counts::DoorCounts;
use super::exposition::Exposition;
use super::gauges::encode_gauges;
use super::histogram::{Histogram, Window};
use super::secret_use::{SecretUse, encode_secrets};
use crate::domain::{Moment, Outcome};
use crate::runtime::{log, process};
use crate::store::{DamageKind, Gauges, Observer};

/// Labels of a closed set: an enum, its values, and their names in the exposition.
macro_rules! labels {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant),+ }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in the exposition and in log lines.
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }
        }
    };
}

labels! {
    /// The path label: one per route, and one for everything unknown.
    PathLabel {
        /// `/`
        Root = "/",
        /// `/webhook`
        Webhook = "/webhook",
        /// The doors of providers, whatever their names.
        Door = "/webhook/{source}",
        /// `/messages`
        Messages = "/messages",
        /// `/messages/` and an id
        Message = "/messages/{id}",
        /// `/messages/`, an id and `/statuses`
        Statuses = "/messages/{id}/statuses",
        /// `/events`
        Events = "/events",
        /// `/events/` and a number
        Event = "/events/{id}",
        /// `/stats`
        Stats = "/stats",
        /// `/health/live`
        Live = "/health/live",
        /// `/health/ready`
        Ready = "/health/ready",
        /// `/metrics`
        Metrics = "/metrics",
        /// `/openapi.json`
        OpenApi = "/openapi.json",
        /// `/docs` and the files of that page.
        Docs = "/docs",
        /// Any other path, and requests too broken to have one.
        Unknown = "unknown",
    }
}

labels! {
    /// What became of a request to the original door.
    WebhookResult {
        /// Stored.
        Created = "created",
        /// Stored before.
        Duplicate = "duplicate",
        /// Not signed by a secret of ours.
        InvalidSignature = "invalid_signature",
        /// Signed, but not a message.
        ValidationError = "validation_error",
    }
}

labels! {
    /// Why a request was refused, other than for its content.
    Refusal {
        /// 400: not HTTP as it should be.
        MalformedRequest = "malformed_request",
        /// 431
        HeadersTooLarge = "headers_too_large",
        /// Closed without an answer: the head did not come in time.
        HeadersTooSlow = "headers_too_slow",
        /// 408
        BodyTooSlow = "body_too_slow",
        /// 413
        BodyTooLarge = "body_too_large",
        /// 503, or closed before there was a request: it made no progress while another connection waited for its place.
        ConnectionGaveWay = "connection_gave_way",
        /// 503: all bodies under way together are too large.
        BodiesTooLarge = "bodies_too_large",
        /// 415
        ContentEncoding = "content_encoding",
        /// 401: no signature header.
        MissingHeader = "missing_header",
        /// 401: more than one signature header.
        DuplicateHeader = "duplicate_header",
        /// 401: not of the form of a signature.
        MalformedSignature = "malformed_signature",
        /// 401: a signature by another secret, or of other bytes.
        WrongSecret = "wrong_secret",
        /// 401: a signed time that is not of the form of times.
        MalformedTimestamp = "malformed_timestamp",
        /// 401: signed too long ago.
        StaleTimestamp = "stale_timestamp",
        /// 401: signed with a time too far ahead.
        FutureTimestamp = "future_timestamp",
        /// 401: signed by an algorithm that the door does not take.
        WrongAlgorithm = "wrong_algorithm",
        /// 401: the signed digest is that of another body or URL.
        BodyMismatch = "body_mismatch",
        /// 401: it is not known under which URL the request was sent.
        UnknownUrl = "unknown_url",
        /// 403: a handshake with another verify token, or without one.
        WrongVerifyToken = "wrong_verify_token",
        /// 403: a handshake whose mode or challenge is not as it should be.
        MalformedHandshake = "malformed_handshake",
        /// 401: reading wants a token.
        NotAuthenticated = "not_authenticated",
        /// 429: more often than the operator allows.
        TooMany = "too_many",
        /// 503: the writer's queue, or the readers', is full.
        QueueFull = "queue_full",
        /// 503: the service is stopping.
        ShuttingDown = "shutting_down",
        /// 503: the database does not answer as it should.
        DatabaseUnavailable = "database_unavailable",
        /// 503: what was to be read is not what was stored.
        DataDamaged = "data_damaged",
        /// 503: a read took too long.
        QueryDeadline = "query_deadline",
        /// 503: a request took too long.
        RequestDeadline = "request_deadline",
        /// No answer: the client went away before it, or a stop ran out of patience.
        Unanswered = "unanswered",
        /// 507
        DiskFull = "disk_full",
        /// 500
        Panic = "panic",
    }
}

/// The statuses that Postroom answers with.
const STATUSES: [u16; 18] = [200, 204, 400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 422, 429, 431, 500, 503, 507];
/// The method label: what routes know, and everything else.
const METHODS: [&str; 5] = ["GET", "POST", "HEAD", "OPTIONS", "other"];
const CLASSES: [&str; 3] = ["2xx", "4xx", "5xx"];

const REQUEST_SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const COMMIT_SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
const BATCH_MESSAGES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// All counters, gauges and distributions.
#[derive(Debug)]
pub struct Metrics {
    started: Moment,
    requests: Vec<AtomicU64>,
    request_seconds: Vec<Histogram>,
    latency: Window,
    webhook_results: [AtomicU64; WebhookResult::ALL.len()],
    refusals: [AtomicU64; Refusal::ALL.len()],
    doors: DoorCounts,
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
    /// All zero. `doors` are the names of the doors.
    pub fn new(doors: Vec<String>, queue_limit: usize, connections_limit: usize) -> Self {
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        let series = PathLabel::ALL.len() * METHODS.len() * CLASSES.len();
        Self {
            started: Moment::now(),
            requests: zeros(PathLabel::ALL.len() * STATUSES.len()),
            request_seconds: (0..series).map(|_| Histogram::new(REQUEST_SECONDS)).collect(),
            latency: Window::new(),
            webhook_results: Default::default(),
            refusals: Default::default(),
            doors: DoorCounts::new(doors),
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

    /// A request was answered.
    pub fn request_answered(&self, path: PathLabel, method: &str, status: u16, latency: Duration, now: Instant) {
        self.count_request(path, status);
        let method_at = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1);
        let class_at = match status {
            ..400 => 0,
            400..500 => 1,
            _ => 2,
        };
        let series = (path as usize * METHODS.len() + method_at) * CLASSES.len() + class_at;
        self.request_seconds[series].observe(latency.as_secs_f64());
        self.latency.observe(latency, now);
    }

    /// What could not be read as a request was answered; how long that took is not known.
    pub fn unparsable_answered(&self, status: u16) {
        self.count_request(PathLabel::Unknown, status);
    }

    fn count_request(&self, path: PathLabel, status: u16) {
        let other = STATUSES.len() - 3;
        let status_at = STATUSES.iter().position(|known| *known == status).unwrap_or(other);
        self.requests[path as usize * STATUSES.len() + status_at].fetch_add(1, Relaxed);
    }

    /// A request to the original door came to its end.
    pub fn webhook_result(&self, result: WebhookResult) {
        self.webhook_results[result as usize].fetch_add(1, Relaxed);
    }

    /// A request was refused.
    pub fn refused(&self, refusal: Refusal) {
        self.refusals[refusal as usize].fetch_add(1, Relaxed);
    }

    /// Doors that may be new were opened.
    pub fn doors_opened(&self, names: Vec<String>) {
        self.doors.add(names);
    }

    /// A message of the door `source` came to its end.
    pub fn message_filed(&self, source: &str, outcome: Outcome) {
        self.doors.message(source, outcome);
    }

    /// So many new statuses and events of the door `source` were stored.
    pub fn extras_filed(&self, source: &str, statuses: usize, events: usize) {
        self.doors.extras(source, statuses, events);
    }

    /// A connection was accepted; it is counted until the guard goes.
    pub fn connection_opened(&self) -> ConnectionGuard<'_> {
        self.connections.fetch_add(1, Relaxed);
        ConnectionGuard(self)
    }

    /// The exposition in the text format 0.0.4.
    ///
    /// Source: Prometheus, "Exposition formats", text-based format.
    pub fn encode(&self, gauges: Gauges, secrets: &[SecretUse]) -> String {
        let mut out = Exposition(String::with_capacity(16 << 10));
        self.encode_contract(&mut out);
        self.encode_ingest(&mut out, gauges);
        encode_secrets(&mut out, secrets);
        self.encode_store(&mut out, gauges);
        self.encode_process(&mut out);
        out.0
    }

    fn encode_contract(&self, out: &mut Exposition) {
        out.family("http_requests_total", "counter", "Requests answered, by path and status.");
        for path in PathLabel::ALL {
            for (status_at, status) in STATUSES.iter().enumerate() {
                let count = self.requests[*path as usize * STATUSES.len() + status_at].load(Relaxed);
                // A series begins at zero before its first event, so that rates see the first one too.
                if count > 0 || *status == 200 {
                    out.sample(
                        "http_requests_total",
                        &[("path", path.label()), ("status", &status.to_string())],
                        count,
                    );
                }
            }
        }
        out.family("webhook_requests_total", "counter", "Requests to POST /webhook, by result.");
        for result in WebhookResult::ALL {
            let count = self.webhook_results[*result as usize].load(Relaxed);
            out.sample("webhook_requests_total", &[("result", result.label())], count);
        }
        out.family(
            "request_latency_ms",
            "summary",
            "Time to answer; quantiles of the last 60 s, sum and count since start.",
        );
        let quantiles = self.latency.quantiles([0.5, 0.9, 0.99], Instant::now());
        for (at, quantile) in ["0.5", "0.9", "0.99"].into_iter().enumerate() {
            let value = quantiles.map_or("NaN".to_owned(), |values| (values[at] / 1e3).to_string());
            out.sample("request_latency_ms", &[("quantile", quantile)], value);
        }
        let (count, sum_ms) = self.latency.count_and_sum_ms();
        out.sample("request_latency_ms_sum", &[], sum_ms);
        out.sample("request_latency_ms_count", &[], count);
        out.family(
            "http_request_duration_seconds",
            "histogram",
            "Time to answer, by path, method and class of status.",
        );
        for (series, histogram) in self.request_seconds.iter().enumerate() {
            let (method_at, class_at) = (series / CLASSES.len() % METHODS.len(), series % CLASSES.len());
            let path = PathLabel::ALL[series / (CLASSES.len() * METHODS.len())];
            let labels = [("path", path.label()), ("method", METHODS[method_at]), ("status", CLASSES[class_at])];
            if histogram.cumulative().0.last().is_some_and(|(_, count)| *count > 0) {
                out.histogram("http_request_duration_seconds", &labels, histogram);
            }
        }
    }

    fn encode_ingest(&self, out: &mut Exposition, gauges: Gauges) {
        self.doors.encode(out);
        out.family("postroom_refused_total", "counter", "Requests refused, by reason.");
        for refusal in Refusal::ALL {
            let count = self.refusals[*refusal as usize].load(Relaxed);
            out.sample("postroom_refused_total", &[("reason", refusal.label())], count);
        }
        out.single("postroom_connections", "gauge", "Open connections.", self.connections.load(Relaxed));
        out.single("postroom_connections_limit", "gauge", "Most connections at once.", self.connections_limit);
        out.single("postroom_queue_messages", "gauge", "Messages waiting for the writer.", gauges.queued);
        out.single("postroom_queue_limit", "gauge", "Most messages that may wait.", self.queue_limit);
    }

    fn encode_store(&self, out: &mut Exposition, gauges: Gauges) {
        let distributions = [
            ("postroom_batch_messages", "Messages per commit.", &self.batch_messages),
            ("postroom_commit_seconds", "One batch, from its first statement to durable.", &self.commit_seconds),
            ("postroom_sync_seconds", "The COMMIT of a batch: writing the log and its fsync.", &self.sync_seconds),
            ("postroom_checkpoint_seconds", "Moving the log into the database file.", &self.checkpoint_seconds),
        ];
        for (name, help, histogram) in distributions {
            out.family(name, "histogram", help);
            out.histogram(name, &[], histogram);
        }
        let last_commit = self.last_commit_seconds.load(Relaxed);
        out.single(
            "postroom_last_commit_timestamp_seconds",
            "gauge",
            "When a batch was last committed; 0: never.",
            last_commit,
        );
        out.family(
            "postroom_damage_total",
            "counter",
            "Times that something stored was found damaged, by what it was.",
        );
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
            "Log lines that stdout did not take.",
            log::dropped_lines(),
        );
        out.family("postroom_build_info", "gauge", "Always 1; the labels tell the build.");
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("sqlite", crate::store::sqlite_version())];
        out.sample("postroom_build_info", &labels, 1);
        let started = self.started.unix_seconds();
        out.single("postroom_process_start_time_seconds", "gauge", "When the process started.", started);
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
