//! Load: many connections that send prepared requests, either each after its response (a closed loop), or at given
//! times, whatever the server does (an open loop).

mod connection;
mod requests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use connection::Connection;
use requests::Desk;
pub use requests::{Prepared, Requests, Writer, get};
use server::telemetry::histogram::Spread;

/// Open connections.
#[derive(Debug)]
pub struct Load {
    connections: Vec<Connection>,
}

/// How to send.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    /// Requests per second, evenly spaced; none sends each as soon as its connection is free.
    pub per_second: Option<f64>,
    /// Maximum time of sending. It may end before all requests are sent.
    pub seconds_max: Option<f64>,
    /// Becomes true when enough was sent.
    pub stop: Arc<AtomicBool>,
}

/// The results.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Answers {
    /// The number of responses.
    pub answered: u64,
    /// The number by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Responses per second.
    pub per_second: f64,
    /// From the due time of a request to its response: in an open loop a late request counts from its due time.
    pub p50_ms: f64,
    /// The same, at this quantile.
    pub p99_ms: f64,
    /// The same, at this quantile.
    pub p999_ms: f64,
    /// The maximum, which is the longest stall.
    pub max_ms: f64,
    /// Of the responses with 200 only.
    pub p50_ms_of_200: f64,
    /// The same, at this quantile.
    pub p99_ms_of_200: f64,
}

impl Answers {
    /// How many had this status.
    pub fn those_with(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or_default()
    }

    /// How many had another status.
    pub fn other_than(&self, status: u16) -> u64 {
        self.answered - self.those_with(status)
    }
}

/// The state that all connections share while they send.
struct Shift {
    connections: usize,
    requests: Arc<Requests>,
    end: usize,
    pace: Pace,
    started: Instant,
    /// In an open loop: the number of requests that are due and not yet taken.
    due: Semaphore,
    next: AtomicUsize,
    latency: Spread,
    /// Of the responses with 200 only.
    latency_of_200: Spread,
    slowest_us: AtomicU64,
    statuses: Mutex<BTreeMap<u16, u64>>,
}

impl Load {
    /// Opens the connections.
    pub async fn open(address: SocketAddr, count: usize) -> anyhow::Result<Self> {
        Self::spread(&[address], count).await
    }

    /// Opens this many connections in all, in turn to each address.
    pub async fn spread(addresses: &[SocketAddr], count: usize) -> anyhow::Result<Self> {
        let mut connections = Vec::with_capacity(count);
        for address in addresses.iter().cycle().take(count) {
            connections.push(Connection::open(*address).await?);
        }
        Ok(Self { connections })
    }

    /// The same. Each connection is used once, because a silent new one is closed sooner than an idle one.
    pub async fn open_used(address: SocketAddr, count: usize) -> anyhow::Result<Self> {
        let mut load = Self { connections: Vec::with_capacity(count) };
        for _ in 0..count {
            let mut connection = Connection::open(address).await?;
            ensure!(connection.get("/health/live").await? == 200, "{address} does not respond");
            load.connections.push(connection);
        }
        Ok(load)
    }

    /// Sends the requests of `range`. Returns right after the last response.
    pub async fn send(
        &mut self,
        requests: &Arc<Requests>,
        range: std::ops::Range<usize>,
        pace: Pace,
    ) -> anyhow::Result<Answers> {
        let shift = Arc::new(Shift {
            connections: self.connections.len(),
            requests: Arc::clone(requests),
            end: range.end,
            started: Instant::now(),
            due: Semaphore::new(0),
            next: AtomicUsize::new(range.start),
            latency: Spread::new(),
            latency_of_200: Spread::new(),
            slowest_us: AtomicU64::new(0),
            statuses: Mutex::default(),
            pace,
        });
        let (first, count) = (range.start, range.len());
        let pacer = shift.pace.per_second.map(|rate| {
            let shift = Arc::clone(&shift);
            std::thread::spawn(move || shift.release(rate, count))
        });
        let mut working = JoinSet::new();
        for connection in self.connections.drain(..) {
            working.spawn(Arc::clone(&shift).work(connection, first));
        }
        let mut broken = None;
        while let Some(ended) = working.join_next().await {
            match ended? {
                Ok(connection) => self.connections.push(connection),
                Err(error) => broken = Some(error),
            }
        }
        let seconds = shift.started.elapsed().as_secs_f64();
        // No connection is left to send what would be due later.
        shift.pace.stop.store(true, Relaxed);
        if let Some(pacer) = pacer {
            pacer.join().expect("the pacer does not panic");
        }
        broken.map_or_else(|| Ok(shift.answers(seconds)), Err)
    }
}

/// Load on a separate thread, during another measurement.
#[derive(Debug)]
pub struct Background {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Answers>>,
}

impl Background {
    /// Begins to send, and continues until `finish`.
    pub fn begin(
        address: SocketAddr,
        connections: usize,
        requests: Requests,
        per_second: Option<f64>,
    ) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let pace = Pace { per_second, seconds_max: None, stop: Arc::clone(&stop) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                Load::open(address, connections).await?.send(&Arc::new(requests), 0..usize::MAX, pace).await
            })
        });
        Ok(Self { stop, thread })
    }

    /// Stops sending, and returns the results.
    pub fn finish(self) -> anyhow::Result<Answers> {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("the thread does not panic")
    }
}

impl Shift {
    /// One connection: sends request after request until there are none.
    async fn work(self: Arc<Self>, mut connection: Connection, first: usize) -> anyhow::Result<Connection> {
        let (mut statuses, mut desk) = (BTreeMap::new(), Desk::default());
        loop {
            if self.pace.per_second.is_some() {
                self.due.acquire().await.expect("the semaphore is never closed").forget();
            }
            let at = self.next.fetch_add(1, Relaxed);
            let now = Instant::now();
            if at >= self.end || self.is_over(now) {
                break;
            }
            let due = match self.pace.per_second {
                Some(rate) => self.started + Duration::from_secs_f64((at - first) as f64 / rate),
                None => now,
            };
            let status = connection.exchange(self.requests.get(at, &mut desk)).await?;
            let elapsed = due.elapsed();
            let waited = self.latency.observe(elapsed);
            if status == 200 {
                self.latency_of_200.observe(elapsed);
            }
            self.slowest_us.fetch_max(waited, Relaxed);
            *statuses.entry(status).or_default() += 1;
        }
        let mut all = self.statuses.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        statuses.into_iter().for_each(|(status, count): (u16, u64)| *all.entry(status).or_default() += count);
        Ok(connection)
    }

    fn is_over(&self, now: Instant) -> bool {
        let too_long = self.pace.seconds_max.is_some_and(|most| (now - self.started).as_secs_f64() >= most);
        too_long || self.pace.stop.load(Relaxed)
    }

    /// The pacer, a separate thread: the runtime's timers only have whole milliseconds.
    fn release(&self, rate: f64, count: usize) {
        let mut unescape_nul = 0;
        while unescape_nul < count && !self.is_over(Instant::now()) {
            let due = ((self.started.elapsed().as_secs_f64() * rate) as usize + 1).min(count);
            self.due.add_permits(due.saturating_sub(unescape_nul));
            unescape_nul = unescape_nul.max(due);
            let next = self.started + Duration::from_secs_f64(unescape_nul as f64 / rate);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        // A waiting connection finds that no request is left. (Closing the semaphore would withdraw requests that are
        // already due.)
        self.due.add_permits(self.connections);
    }

    fn answers(&self, seconds: f64) -> Answers {
        let statuses = self.statuses.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let answered = statuses.values().sum();
        let in_ms = |microseconds: f64| microseconds / 1e3;
        let [p50_ms, p99_ms, p999_ms] = self.latency.quantiles([0.5, 0.99, 0.999]).unwrap_or_default().map(in_ms);
        let [p50_ms_of_200, p99_ms_of_200] = self.latency_of_200.quantiles([0.5, 0.99]).unwrap_or_default().map(in_ms);
        Answers {
            answered,
            statuses,
            per_second: answered as f64 / seconds,
            p50_ms,
            p99_ms,
            p999_ms,
            max_ms: in_ms(self.slowest_us.load(Relaxed) as f64),
            p50_ms_of_200,
            p99_ms_of_200,
        }
    }
}
