//! A measured server: the service, or the floor.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::usage::{self, Usage};
use super::workplace::{SECRET, Workplace};
use crate::load::Connection;

/// Maximum time for a server to start, to stop, or to catch up with derived data.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Interval of checks whether a server is ready, or has ended.
const ASK_INTERVAL: Duration = Duration::from_millis(2);
/// Interval of checks whether it has caught up, which cost it more.
const ASK_INTERVAL_CAUGHT_UP: Duration = Duration::from_millis(25);
/// How much of a log is discarded at once.
const LOG_BUFFER_BYTES: usize = 64 << 10;
/// Metrics of stored messages that are not in all derived data yet. A service has some of these.
const LAG_METRICS: [&str; 2] = ["postroom_index_lag_messages", "postroom_postgres_uncounted"];

/// A running server. It is killed when it is dropped.
#[derive(Debug)]
pub struct Server {
    workplace: Arc<Workplace>,
    pid: u32,
    address: SocketAddr,
    started: Instant,
    ready_ms: f64,
    log: Option<JoinHandle<()>>,
}

impl Workplace {
    /// Starts the service on a file, with its usual settings, and waits until it is ready.
    pub async fn start_server(self: &Arc<Self>, database: &Path) -> anyhow::Result<Server> {
        self.start_server_on(&format!("sqlite:///{}", database.display())).await
    }

    /// The same on any database URL. The environment of this program has the settings of a PostgreSQL connection.
    pub async fn start_server_on(self: &Arc<Self>, database_url: &str) -> anyhow::Result<Server> {
        let mut command = Command::new(&self.server_program);
        command.arg("serve").env_clear().env("WEBHOOK_SECRET", SECRET).env("DATABASE_URL", database_url);
        command.env("HOST", "127.0.0.1").env("PORT", "0");
        command.envs(std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("POSTROOM_POSTGRES_")));
        let mut server = Server::start(self, command)?;
        server.wait_until_ready().await?;
        Ok(server)
    }

    /// Starts the floor server.
    pub fn start_floor(self: &Arc<Self>) -> anyhow::Result<Server> {
        let mut command = Command::new(&self.floor_program);
        command.args(["bench", "floor"]).env_clear().env("WEBHOOK_SECRET", SECRET);
        Server::start(self, command)
    }
}

impl Server {
    /// Starts a program that prints its address in the first JSON line that has one.
    pub fn start(workplace: &Arc<Workplace>, mut command: Command) -> anyhow::Result<Self> {
        let started = Instant::now();
        let (pid, stdout, complaints) = workplace.spawn(&mut command)?;
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let workplace = Arc::clone(workplace);
        let mut server = Self { workplace, pid, address: unknown, started, ready_ms: 0.0, log: None };
        let Some((address, rest)) = read_address(BufReader::with_capacity(LOG_BUFFER_BYTES, stdout)) else {
            let text = fs::read_to_string(&complaints).unwrap_or_default();
            bail!("{} did not start: {}", command.get_program().display(), text.trim())
        };
        server.address = address;
        server.log = Some(std::thread::spawn(move || drain(rest)));
        Ok(server)
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From its start to the first 200 of `/health/ready`.
    pub fn ready_ms(&self) -> f64 {
        self.ready_ms
    }

    /// Time since its start.
    pub fn running_seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Its resource use so far.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        usage::of(self.pid)
    }

    /// A new connection to it.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(self.address).await
    }

    /// Waits for a 200 of `/health/ready`, and records the time from the start.
    pub async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        while connection.get("/health/ready").await? != 200 {
            lose_patience(self.started)?;
            tokio::time::sleep(ASK_INTERVAL).await;
        }
        self.ready_ms = self.running_seconds() * 1e3;
        Ok(())
    }

    /// Waits until all derived data have caught up with the messages, if the server reports that.
    pub async fn wait_until_caught_up(&self) -> anyhow::Result<()> {
        let (mut connection, began) = (self.connect().await?, Instant::now());
        for metric in LAG_METRICS {
            while connection.metric(metric).await?.is_some_and(|lag| lag > 0.0) {
                lose_patience(began)?;
                tokio::time::sleep(ASK_INTERVAL_CAUGHT_UP).await;
            }
        }
        Ok(())
    }

    /// Stops it and waits for its end: only the database is left.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("a process id is a positive number")?;
        kill_process(pid, Signal::TERM)?;
        let began = Instant::now();
        let status: ExitStatus = loop {
            // The lock is held while it is reaped, so that nobody signals another process that got its number.
            let mut running = self.workplace.running();
            let child = running.get_mut(&self.pid).context("the server ended")?;
            if let Some(status) = child.try_wait()? {
                running.remove(&self.pid);
                break status;
            }
            drop(running);
            lose_patience(began)?;
            std::thread::sleep(ASK_INTERVAL);
        };
        self.log.take().map(JoinHandle::join);
        if status.success() { Ok(()) } else { bail!("the server ended with {status}") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let child = self.workplace.running().remove(&self.pid);
        if let Some(mut child) = child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn lose_patience(since: Instant) -> anyhow::Result<()> {
    if since.elapsed() > PATIENCE { bail!("the server did not finish in {} s", PATIENCE.as_secs()) } else { Ok(()) }
}

/// Reads to the line with the address. Returns the reader for the rest.
fn read_address<R: BufRead>(mut lines: R) -> Option<(SocketAddr, R)> {
    let mut line = String::new();
    while lines.read_line(&mut line).ok()? > 0 {
        let told: Option<Value> = serde_json::from_str(&line).ok();
        if let Some(address) = told.and_then(|line| line["address"].as_str()?.parse().ok()) {
            return Some((address, lines));
        }
        line.clear();
    }
    None
}

/// Reads and discards the log, because a full pipe would slow the server down.
fn drain(mut log: impl BufRead) {
    while let Ok(bytes @ [_, ..]) = log.fill_buf() {
        let length = bytes.len();
        log.consume(length);
    }
}
