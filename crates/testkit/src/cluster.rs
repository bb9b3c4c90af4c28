//! A temporary PostgreSQL cluster for tests.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The user id for PostgreSQL if the tests run as root, because PostgreSQL refuses root.
const UNPRIVILEGED: u32 = 65_534;
/// Settings of a temporary cluster: no data must survive a crash of the machine, so nothing is synced.
const SETTINGS: &str = "-c fsync=off -c listen_addresses= -c max_connections=400 -c log_min_messages=warning";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A server: a new one, or the one in `TEST_POSTGRES_URL`.
#[derive(Debug)]
pub struct Cluster {
    /// The server's folder; none if the server is not ours.
    folder: Option<PathBuf>,
    url: String,
    /// Stops the server and removes the folder when the pipe to it closes, however this process ends.
    keeper: Option<Child>,
}

/// The folder of the server's programs: `TEST_POSTGRES_BIN`, or the installed one.
pub fn programs() -> Option<PathBuf> {
    let Some(named) = named() else { return installed() };
    assert!(named.join("initdb").exists(), "TEST_POSTGRES_BIN names a folder without initdb: {}", named.display());
    Some(named)
}

fn named() -> Option<PathBuf> {
    std::env::var_os("TEST_POSTGRES_BIN").map(PathBuf::from)
}

/// The path of a program. Some builds contain only the server; then the installed clients are used.
fn program(name: &str) -> PathBuf {
    let folders = programs().into_iter().chain(installed());
    folders.map(|folder| folder.join(name)).find(|path| path.exists()).unwrap_or_else(|| name.into())
}

/// The newest version of the server in Debian's folder; otherwise the one in `PATH`.
fn installed() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<_> = versions.map(|entry| entry.path()).collect();
    folders.sort_by_key(|path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
    let debian = folders.into_iter().rev().map(|folder| folder.join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let needed = ["initdb", "pg_ctl", "psql"];
    let has_all = |folder: &PathBuf| needed.iter().all(|program| folder.join(program).exists());
    debian.chain(std::env::split_paths(&path)).find(has_all)
}

/// The cluster that tests share, with one database each. None, with the reason printed, if unavailable.
pub fn shared() -> Option<&'static Cluster> {
    static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| match std::env::var("TEST_POSTGRES_URL") {
        Ok(url) => Some(Cluster { folder: None, url, keeper: None }),
        Err(_) => Cluster::start(""),
    });
    if shared.is_none() {
        println!(
            "skipped: PostgreSQL is not installed (Debian: apt-get install postgresql), and TEST_POSTGRES_URL is not set"
        );
    }
    shared.as_ref()
}

impl Cluster {
    /// A fresh cluster with more settings, such as `-c name=value`. None if PostgreSQL is missing.
    pub fn start(settings: &str) -> Option<Self> {
        programs()?;
        let cluster = Self::empty();
        let data = cluster.data();
        let data = data.to_str().expect("a plain path");
        cluster.run("initdb", &["-D", data, "-U", "postroom", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"]);
        cluster.launch(settings);
        Some(cluster)
    }

    /// A folder for a cluster that is created later, such as a standby.
    pub fn empty() -> Self {
        let name = format!("postroom-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        if is_root() {
            std::os::unix::fs::chown(&folder, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("root gives it away");
        }
        let url = format!("postgres://postroom@/postgres?host={}", folder.display());
        let mut cluster = Self { folder: Some(folder), url, keeper: None };
        cluster.keeper = Some(cluster.keeper());
        cluster
    }

    fn keeper(&self) -> Child {
        let folder = self.folder().to_str().expect("a plain path").to_owned();
        let programs = programs().expect("PostgreSQL is installed");
        // A terminal interrupt also reaches this shell, which must continue.
        let script =
            "trap '' INT TERM HUP; cat > /dev/null; \"$1/pg_ctl\" -D \"$0/data\" -m immediate -w stop; rm -rf \"$0\"";
        let mut command = self.unprivileged("sh");
        command.args(["-c", script, &folder]).arg(programs);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell runs")
    }

    /// A standby of the server at that host (or in that folder) and port, created but not started.
    pub fn standby_of(host: &str, port: u16) -> Self {
        let standby = Self::empty();
        let (number, to) = (port.to_string(), standby.data().display().to_string());
        let from = ["-h", host, "-p", &number, "-U", "postroom", "-D", &to, "-X", "stream", "-c", "fast"];
        standby.run("pg_basebackup", &from);
        // The settings that `-R` writes are for the version of that program, which may be newer than the server.
        let settings = format!("primary_conninfo = 'host={host} port={port} user=postroom'\n");
        std::fs::write(standby.data().join("postgresql.auto.conf"), settings).expect("a file can be written");
        standby.run("touch", &[standby.data().join("standby.signal").to_str().expect("a plain path")]);
        standby
    }

    /// Starts the server and waits until it responds.
    pub fn launch(&self, settings: &str) {
        let (folder, data) = (self.folder(), self.data());
        let log = folder.join("log");
        let options = format!("{SETTINGS} -c unix_socket_directories={} {settings}", folder.display());
        let [data, log] = [&data, &log].map(|path| path.to_str().expect("a plain path"));
        self.run("pg_ctl", &["-D", data, "-l", log, "-w", "-o", &options, "start"]);
    }

    /// Stops the server: `fast` like an operator, `immediate` like a crash.
    pub fn halt(&self, mode: &str) {
        let data = self.data();
        self.run("pg_ctl", &["-D", data.to_str().expect("a plain path"), "-m", mode, "-w", "stop"]);
    }

    /// Promotes a standby to primary.
    pub fn promote(&self) {
        let data = self.data();
        self.run("pg_ctl", &["-D", data.to_str().expect("a plain path"), "-w", "promote"]);
    }

    /// The id of the server's main process.
    pub fn pid(&self) -> u32 {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).expect("the server runs");
        text.lines().next().and_then(|line| line.parse().ok()).expect("its first line is the process")
    }

    /// Its folder, removed at the end.
    pub fn folder(&self) -> &Path {
        self.folder.as_deref().expect("a cluster of our own")
    }

    /// The data directory of the server.
    pub fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// Creates a database; returns its URL.
    pub fn database(&self) -> String {
        self.database_with("ENCODING 'UTF8'")
    }

    /// The same with options of CREATE DATABASE.
    pub fn database_with(&self, options: impl Display) -> String {
        let name = format!("test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        sql(&self.url, &format!("CREATE DATABASE {name} TEMPLATE template0 {options}"));
        self.url_of(&name)
    }

    /// The URL of a database.
    pub fn url_of(&self, database: &str) -> String {
        let (base, query) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let (server, _) = base.rsplit_once('/').expect("a URL names a database");
        format!("{server}/{database}{}{query}", if query.is_empty() { "" } else { "?" })
    }

    /// The URL of the maintenance database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs one of the server's programs and waits for its end.
    pub fn run(&self, program: &str, arguments: &[&str]) {
        let program = self::program(program);
        let mut command = self.unprivileged(program.to_str().expect("a plain path"));
        // The output goes to a file: a server that outlives the command would keep a pipe open.
        let path = self.folder().join("run.log");
        let log = std::fs::File::create(&path).expect("a file can be made");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let status = command.current_dir("/").status().expect("the program runs");
        let said =
            || [path.clone(), self.folder().join("log")].map(|path| std::fs::read_to_string(path).unwrap_or_default());
        assert!(status.success(), "{program:?} {arguments:?}: {status} {:?}", said());
    }

    /// A program, run as the server's user.
    pub fn unprivileged(&self, program: &str) -> Command {
        if !is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={UNPRIVILEGED}")).arg(format!("--regid={UNPRIVILEGED}")).arg("--clear-groups");
        command.arg(program);
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            // This closes the pipe, so the keeper stops the server.
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

/// The same URL with another user, or user and password.
pub fn as_user(url: &str, user: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL has a scheme");
    let (_, place) = rest.split_once('@').expect("it names a user");
    format!("{scheme}://{user}@{place}")
}

/// Runs SQL with psql; returns its output without decoration.
pub fn sql(url: &str, statement: &str) -> String {
    try_sql(url, statement).unwrap_or_else(|error| panic!("{statement}: {error}"))
}

/// Like `sql`, but may fail.
pub fn try_sql(url: &str, statement: &str) -> Result<String, String> {
    let output = psql(url).args(["-c", statement]).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// The command for psql, with undecorated output.
pub fn psql(url: &str) -> Command {
    let mut command = Command::new(program("psql"));
    command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", url]);
    command
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}
