//! Where the benchmark works: a folder, and the servers that it started. Nothing of either outlives it, however it ends.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::connection::Connection;
use super::usage::{self, Usage};

/// The secret that all requests are signed with.
pub const SECRET: &str = "benchmark";
/// How long a server may take to start, to stop, or to catch up with what it derives.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How often a server is asked whether it is ready, or has caught up.
const ASK_INTERVAL: Duration = Duration::from_millis(2);
const ASK_INTERVAL_CAUGHT_UP: Duration = Duration::from_millis(25);
/// How much of a log is thrown away at once.
const LOG_BUFFER_BYTES: usize = 64 << 10;
/// How many messages are stored and not yet in everything that is derived from them.
const LAG_METRIC: &str = "postroom_index_lag_messages";

/// A folder, and who works in it.
#[derive(Debug)]
pub struct Workplace {
    scratch: PathBuf,
    datasets: PathBuf,
    server_program: PathBuf,
    floor_program: PathBuf,
    running: Mutex<BTreeMap<u32, Child>>,
}

impl Workplace {
    /// Makes the folder: one below `folder`, where datasets are kept too, or a temporary one. `server` is the program to
    /// measure, this one if none is given.
    pub fn open(folder: Option<&Path>, server: Option<&Path>) -> anyhow::Result<Arc<Self>> {
        let own = std::env::current_exe().context("this program does not know its own path")?;
        let name = format!("postroom-bench-{}", std::process::id());
        let parent = folder.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let scratch = parent.join(name);
        fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::create_dir(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
        let scratch = scratch.canonicalize()?;
        let workplace = Arc::new(Self {
            datasets: folder.map_or_else(|| scratch.clone(), Path::to_path_buf),
            scratch,
            server_program: server.map_or_else(|| own.clone(), Path::to_path_buf),
            floor_program: own,
            running: Mutex::default(),
        });
        let leaver = Arc::clone(&workplace);
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || leaver.leave_at_signal())?;
        Ok(workplace)
    }

    /// Where everything but datasets lies, and is removed at the end.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Where datasets are kept.
    pub fn datasets(&self) -> &Path {
        &self.datasets
    }

    /// Starts the service on a database and waits until it is ready.
    pub async fn start_server(self: &Arc<Self>, database: &Path) -> anyhow::Result<Server> {
        let mut command = Command::new(&self.server_program);
        command
            .arg("serve")
            .env_clear()
            .env("WEBHOOK_SECRET", SECRET)
            .env("DATABASE_URL", format!("sqlite:///{}", database.display()))
            .env("HOST", "127.0.0.1")
            .env("PORT", "0");
        let mut server = self.start(command)?;
        server.wait_until_ready().await?;
        Ok(server)
    }

    /// Starts the floor.
    pub fn start_floor(self: &Arc<Self>) -> anyhow::Result<Server> {
        let mut command = Command::new(&self.floor_program);
        command.args(["bench", "floor"]).env_clear().env("WEBHOOK_SECRET", SECRET);
        self.start(command)
    }

    /// Starts a program that tells its address in the first JSON line that has one.
    fn start(self: &Arc<Self>, mut command: Command) -> anyhow::Result<Server> {
        let complaints = self.scratch.join("stderr.txt");
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&complaints)?)
            .current_dir(&self.scratch)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let stdout = BufReader::with_capacity(LOG_BUFFER_BYTES, child.stdout.take().expect("piped"));
        let pid = child.id();
        self.running().insert(pid, child);
        let mut server = Server {
            workplace: Arc::clone(self),
            pid,
            address: ([127, 0, 0, 1], 0).into(),
            started,
            ready_ms: 0.0,
            log: None,
        };
        match read_address(stdout) {
            Some((address, rest)) => {
                server.address = address;
                server.log = Some(std::thread::spawn(move || drain(rest)));
                Ok(server)
            }
            None => {
                let text = fs::read_to_string(&complaints).unwrap_or_default();
                bail!("{} did not start: {}", command.get_program().display(), text.trim())
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<u32, Child>> {
        self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Kills what still runs and removes the folder.
    fn clear(&self) {
        for child in self.running().values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.scratch);
    }

    fn leave_at_signal(&self) {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            let code = tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            };
            self.clear();
            std::process::exit(code)
        });
    }
}

/// Reads to the line with the address. The rest is given back.
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

/// Reads the log away: a full pipe would slow the server down.
fn drain(mut log: impl BufRead) {
    while let Ok(bytes @ [_, ..]) = log.fill_buf() {
        let length = bytes.len();
        log.consume(length);
    }
}

/// A server that was started here: the service, or the floor. It is killed when it is dropped.
#[derive(Debug)]
pub struct Server {
    workplace: Arc<Workplace>,
    pid: u32,
    address: SocketAddr,
    started: Instant,
    ready_ms: f64,
    log: Option<JoinHandle<()>>,
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From its start to the first 200 of `/health/ready`.
    pub fn ready_ms(&self) -> f64 {
        self.ready_ms
    }

    /// What it has used so far.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        usage::of(self.pid)
    }

    /// A new connection to it.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(self.address).await
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        while connection.get("/health/ready").await? != 200 {
            self.lose_patience(self.started)?;
            tokio::time::sleep(ASK_INTERVAL).await;
        }
        self.ready_ms = self.started.elapsed().as_secs_f64() * 1e3;
        Ok(())
    }

    /// Waits until everything that is derived from the messages has caught up with them, where the server tells.
    pub async fn wait_until_caught_up(&self) -> anyhow::Result<()> {
        let (mut connection, began) = (self.connect().await?, Instant::now());
        while connection.metric(LAG_METRIC).await?.is_some_and(|lag| lag > 0.0) {
            self.lose_patience(began)?;
            tokio::time::sleep(ASK_INTERVAL_CAUGHT_UP).await;
        }
        Ok(())
    }

    fn lose_patience(&self, since: Instant) -> anyhow::Result<()> {
        if since.elapsed() > PATIENCE { bail!("the server was not ready in {} s", PATIENCE.as_secs()) } else { Ok(()) }
    }

    /// Asks it to stop, and waits: all it leaves is the database.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("a process id is a positive number")?;
        kill_process(pid, Signal::TERM)?;
        let began = Instant::now();
        let status: ExitStatus = loop {
            // Held while it is reaped, so that nobody signals a process of another that got its number.
            let mut running = self.workplace.running();
            let child = running.get_mut(&self.pid).context("the server is gone")?;
            if let Some(status) = child.try_wait()? {
                running.remove(&self.pid);
                break status;
            }
            drop(running);
            self.lose_patience(began)?;
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

/// Removes the folder when the benchmark ends by itself.
#[derive(Debug)]
pub struct Tidy(pub Arc<Workplace>);

impl Drop for Tidy {
    fn drop(&mut self) {
        self.0.clear();
    }
}
