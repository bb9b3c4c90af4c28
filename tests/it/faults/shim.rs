//! The library of `shim.c`, built once per test run, and programs that load it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::harness::server::{Server, Setup};

/// A server with the shim loaded, and the files that control it.
pub struct Shimmed {
    setup: Setup,
    environment: Vec<(&'static str, PathBuf)>,
}

impl Shimmed {
    pub fn new(setup: Setup) -> Self {
        Self { setup, environment: Vec::new() }
    }

    /// Gives the shim a value, such as a number.
    pub fn value(mut self, name: &'static str, value: impl ToString) -> Self {
        self.environment.push((name, value.to_string().into()));
        self
    }

    /// Gives the shim a file of this name in the server's folder.
    pub fn file(mut self, name: &'static str, file: &str) -> Self {
        self.environment.push((name, self.setup.path().join(file)));
        self
    }

    fn command(&self) -> Command {
        let mut command = self.setup.command();
        command.env("LD_PRELOAD", library()).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the server and waits until it serves.
    pub fn start(self) -> Server {
        let command = self.command();
        self.setup.start_command(command)
    }

    /// Starts it without waiting, for starts that may fail.
    /// Returns the exit code if it ended by itself within the
    /// time that a start takes; otherwise stops it by SIGTERM.
    pub fn try_start(&self) -> Option<i32> {
        let mut command = self.command();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts");
        let served = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("piped")))
            .map_while(Result::ok)
            .any(|line| line.contains("postroom is serving"));
        if served {
            let status = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status();
            assert!(status.expect("kill runs").success());
        }
        let status = child.wait().expect("it ends");
        if served { None } else { Some(status.code().expect("no signal ended it")) }
    }
}

/// Creates an empty file, whose presence is a signal to the shim.
pub fn raise(path: &Path) {
    File::create(path).expect("a file can be made");
}

/// The path of the library. A C compiler is available: the build of SQLite needs it.
fn library() -> &'static Path {
    static BUILT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("shim.so");
        let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/it/faults/shim.c");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .args([&path, &source])
            .args(["-ldl", "-lpthread"])
            .status()
            .expect("cc runs");
        assert!(status.success(), "the shim compiles");
        (folder, path)
    });
    path
}
