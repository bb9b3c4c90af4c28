//! A running program for one test.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use server::config::{Config, Inputs};
use tempfile::TempDir;

use super::{Client, Reply, SECRET, Stored, body, cluster, sign};

/// Maximum time that a test waits for anything.
/// Generous, because machines are slow at times,
/// and only a broken program takes this long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` yields a value.
pub fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The configuration of a server before its start.
pub struct Setup {
    folder: Arc<TempDir>,
    environment: BTreeMap<String, String>,
    arguments: Vec<String>,
}

/// The running program. Killed when dropped.
pub struct Server {
    child: Child,
    /// Its address, on the loopback interface.
    pub address: SocketAddr,
    folder: Arc<TempDir>,
    /// Its `DATABASE_URL`.
    url: String,
    lines: Arc<Mutex<Vec<String>>>,
    stdout: Option<JoinHandle<()>>,
    stderr: Option<JoinHandle<String>>,
}

impl Setup {
    /// A temporary folder, the tests' secret, a free port, and a database named
    /// `app.db`; or a database on PostgreSQL if `POSTROOM_TEST_STORE` requests it.
    pub fn new() -> Self {
        Self::in_folder(Arc::new(tempfile::tempdir().expect("a temporary folder")))
    }

    /// The same in an existing folder, such as that of an earlier server.
    pub fn in_folder(folder: Arc<TempDir>) -> Self {
        let environment = [
            ("WEBHOOK_SECRET", SECRET.to_owned()),
            ("DATABASE_URL", database_url(&folder)),
            ("HOST", "127.0.0.1".to_owned()),
            ("PORT", "0".to_owned()),
        ];
        let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { folder, environment, arguments: Vec::new() }
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.insert(name.to_owned(), value.to_string());
        self
    }

    /// Makes writes wait for another program's lock as long as a test waits for anything.
    pub fn patient(self) -> Self {
        let seconds = PATIENCE.as_secs();
        self.env("POSTROOM_STORE_LOCK_SECONDS", seconds).env("POSTROOM_POSTGRES_WRITE_SECONDS", seconds)
    }

    /// Removes an environment variable.
    pub fn without(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// Adds an argument of the command line.
    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// The working directory of the program.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn database(&self) -> PathBuf {
        self.folder.path().join("app.db")
    }

    /// The configuration that the program derives from this environment.
    pub fn config(&self) -> Config {
        let environment = self.environment.iter().map(|(name, value)| (name.clone(), value.into())).collect();
        let inputs = Inputs::new(BTreeMap::new(), environment, None).expect("the environment can be read");
        Config::load(&inputs).expect("the settings can be used")
    }

    /// The command, with nothing of the test's own environment except the search path of programs.
    pub fn command(&self) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_postroom"))
    }

    /// Another program with the same environment, such as one that runs ours.
    pub fn command_of(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.environment).args(&self.arguments).current_dir(self.folder.path());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }

    /// Runs it to its end, for starts that are refused. Returns its status, stdout and stderr.
    pub fn run(&self) -> (ExitStatus, String, String) {
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("the program starts");
        let pid = child.id();
        let (ended, end) = mpsc::channel();
        std::thread::spawn(move || ended.send(child.wait_with_output()));
        let (output, in_time) = match end.recv_timeout(PATIENCE) {
            Ok(output) => (output, true),
            Err(_) => {
                signal(pid, "KILL");
                (end.recv().expect("the thread sends"), false)
            }
        };
        let output = output.expect("the program can be waited for");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert!(in_time, "the program did not end by itself; stdout: {stdout}stderr: {stderr}");
        (output.status, stdout, stderr)
    }

    /// Starts it and waits until it serves requests.
    pub fn start(self) -> Server {
        let command = self.command();
        self.start_command(command)
    }

    /// Starts `command` (which must run our program) and waits until it serves requests.
    pub fn start_command(self, mut command: Command) -> Server {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stdout = {
            let (lines, stdout) = (Arc::clone(&lines), child.stdout.take().expect("piped"));
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    lines.lock().unwrap().push(line);
                }
            })
        };
        let mut stderr = {
            let mut stderr = child.stderr.take().expect("piped");
            Some(std::thread::spawn(move || {
                let mut text = String::new();
                let _ = stderr.read_to_string(&mut text);
                text
            }))
        };
        let address = wait_until("the server tells its address", || {
            if let Some(status) = child.try_wait().expect("the child can be asked") {
                let said = stderr.take().map(|stderr| stderr.join().expect("it reads"));
                panic!("the program ended with {status} before it served: {:?} {said:?}", lines.lock().unwrap());
            }
            let lines = lines.lock().unwrap();
            lines.iter().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                line["address"].as_str()?.parse::<SocketAddr>().ok()
            })
        });
        let url = self.environment.get("DATABASE_URL").cloned().unwrap_or_default();
        Server { child, address, folder: self.folder, url, lines, stdout: Some(stdout), stderr }
    }
}

/// The database of a folder: a file in it, or a database in the shared cluster.
fn database_url(folder: &TempDir) -> String {
    if !on_postgres() {
        return format!("sqlite:///{}", folder.path().join("app.db").display());
    }
    // Another start in the same folder uses the same database.
    let noted = folder.path().join(".database-url");
    std::fs::read_to_string(&noted).unwrap_or_else(|_| {
        let url = cluster::shared().expect("PostgreSQL is installed").database();
        std::fs::write(&noted, &url).expect("the folder can be written");
        url
    })
}

/// Whether the test servers store their messages in
/// files. A test of a property that only files have
/// ends early otherwise, and prints the reason.
pub fn on_a_file(why: &str) -> bool {
    if on_postgres() {
        println!("left out on PostgreSQL: {why}");
    }
    !on_postgres()
}

/// Whether all test servers use PostgreSQL.
pub fn on_postgres() -> bool {
    std::env::var("POSTROOM_TEST_STORE").is_ok_and(|store| store == "postgres")
}

impl Server {
    /// A server with the tests' usual settings.
    pub fn start() -> Self {
        Setup::new().start()
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// GETs a target on a new connection.
    pub fn get(&self, target: &str) -> Reply {
        self.client().request("GET", target, &[], b"").expect("an answer")
    }

    /// Posts a signed body on a new connection.
    pub fn post(&self, body: &[u8]) -> Reply {
        self.client().request("POST", "/webhook", &[("X-Signature", &sign(body))], body).expect("an answer")
    }

    /// Posts a signed message and expects that it is stored.
    pub fn store(&self, message: &Value) {
        let reply = self.post(&body(message));
        assert_eq!((reply.status, reply.text().as_str()), (200, r#"{"status":"ok"}"#), "{message}");
    }

    /// The peak memory of the program so far.
    pub fn memory_peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel counts it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Its folder, to be kept for the next server.
    pub fn folder(&self) -> Arc<TempDir> {
        Arc::clone(&self.folder)
    }

    pub fn database(&self) -> PathBuf {
        self.folder.path().join("app.db")
    }

    /// The database file, opened like by another program.
    pub fn sql(&self) -> rusqlite::Connection {
        // A test that reads a file which no server uses would pass, and prove nothing.
        assert!(self.database().exists(), "there is no file: this test is for `on_a_file`, or for `stored`");
        let connection = rusqlite::Connection::open(self.database()).expect("the file opens");
        connection.busy_timeout(PATIENCE).expect("a patience can be set");
        connection
    }

    /// The stored data, as other programs see it.
    pub fn stored(&self) -> Stored {
        Stored::at(&self.url)
    }

    /// The number of messages in the database.
    pub fn rows(&self) -> i64 {
        self.count("messages")
    }

    /// The number of rows in a table.
    pub fn count(&self, table: &str) -> i64 {
        self.stored().number(&format!("SELECT count(*) FROM {table}"))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The log lines so far.
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    /// The unparsed log lines so far.
    pub fn raw_lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits for a log line that `wanted` accepts.
    pub fn wait_for_line(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_until("the log has the line", || self.lines().into_iter().find(|line| wanted(line)))
    }

    /// The value of one sample of /metrics, by its full name with labels.
    pub fn metric(&self, sample: &str) -> Option<f64> {
        let text = self.get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
        line.parse().ok()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Kills it without any cleaning up.
    pub fn kill(mut self) -> Arc<TempDir> {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
        self.folder()
    }

    /// Stops it by SIGTERM and waits. Returns its status, its log lines and its stderr.
    pub fn stop(self) -> (ExitStatus, Vec<Value>, String) {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> (ExitStatus, Vec<Value>, String) {
        let status = wait_until("the program ends", || self.child.try_wait().expect("the child can be asked"));
        self.stdout.take().expect("joined once").join().expect("stdout was read");
        let stderr = self.stderr.take().expect("joined once").join().expect("stderr was read");
        (status, self.lines(), stderr)
    }
}

/// Sends a signal to a process, by the signal's name without SIG.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(status.expect("kill runs").success());
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
