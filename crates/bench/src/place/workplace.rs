//! The benchmark's folder and the servers that it started. Both are removed at its end, for any reason.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Context;

use runtime::signals::StopSignals;

/// The secret with which all requests are signed.
pub const SECRET: &str = "benchmark";

/// A folder, and its running programs.
#[derive(Debug)]
pub struct Workplace {
    scratch: PathBuf,
    datasets: PathBuf,
    pub(super) server_program: PathBuf,
    pub(super) floor_program: PathBuf,
    running: Mutex<BTreeMap<u32, Child>>,
}

impl Workplace {
    /// Creates the folder: below `folder`, where datasets are kept too, or a temporary one. `server` is the program to
    /// measure, this one if none is given.
    pub fn open(folder: Option<&Path>, server: Option<&Path>) -> anyhow::Result<Arc<Self>> {
        let own = std::env::current_exe().context("this program does not know its own path")?;
        let server_program = match server {
            Some(server) => server.canonicalize().with_context(|| format!("cannot find {}", server.display()))?,
            None => own.clone(),
        };
        let parent = folder.map_or_else(std::env::temp_dir, Path::to_path_buf);
        fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let parent = parent.canonicalize()?;
        let scratch = parent.join(format!("postroom-bench-{}", std::process::id()));
        fs::create_dir(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
        let datasets = if folder.is_some() { parent } else { scratch.clone() };
        let workplace =
            Arc::new(Self { scratch, datasets, server_program, floor_program: own, running: Mutex::default() });
        let leaver = Arc::clone(&workplace);
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || leaver.leave_at_signal())?;
        Ok(workplace)
    }

    /// The place of everything except datasets, which is removed at the end.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Where datasets are kept.
    pub fn datasets(&self) -> &Path {
        &self.datasets
    }

    /// An empty folder for one database, and the path of the database there.
    pub fn database_in(&self, folder: &str) -> anyhow::Result<PathBuf> {
        let folder = self.scratch.join(folder);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        Ok(folder.join("app.db"))
    }

    /// Starts a program whose stdout is read here. If it ends early, the second value has its errors.
    pub fn spawn(&self, command: &mut Command) -> anyhow::Result<(u32, std::process::ChildStdout, PathBuf)> {
        let complaints = self.scratch.join("stderr.txt");
        // The lock is held so that no program starts while a signal ends them all.
        let mut running = self.running();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&complaints)?)
            .current_dir(&self.scratch)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let stdout = child.stdout.take().expect("piped");
        let pid = child.id();
        running.insert(pid, child);
        Ok((pid, stdout, complaints))
    }

    /// The running programs, by process id.
    pub fn running(&self) -> MutexGuard<'_, BTreeMap<u32, Child>> {
        self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Kills running programs and removes the folder. No program starts while the result is held.
    fn clear(&self) -> MutexGuard<'_, BTreeMap<u32, Child>> {
        let mut running = self.running();
        for child in running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        running.clear();
        let _ = fs::remove_dir_all(&self.scratch);
        running
    }

    fn leave_at_signal(&self) {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let Ok(mut signals) = StopSignals::install() else { return };
            let code = signals.next().await.exit_code();
            let _held = self.clear();
            std::process::exit(code.into())
        });
    }
}

/// Clears the workplace when the benchmark ends by itself.
#[derive(Debug)]
pub struct Tidy(pub Arc<Workplace>);

impl Drop for Tidy {
    fn drop(&mut self) {
        drop(self.0.clear());
    }
}
