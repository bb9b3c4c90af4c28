//! `postroom serve`: the service, from its settings to its exit code.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::arguments::EXIT_CONFIGURATION;
use runtime::log;
use runtime::signals::{StopSignal, StopSignals};
use server::app::{App, Stop};
use server::config::{Config, ConfigError, Inputs, LogLevel};

/// How long the last log lines wait for a slow reader.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// Runs until a signal. Returns 0 after a clean stop, 2 for invalid settings, 1 for other failures to start.
pub fn run(flags: BTreeMap<&'static str, String>, config_file: Option<PathBuf>) -> ExitCode {
    log::install_panic_hook();
    let read = move || Inputs::gather(flags.clone(), config_file.clone()).and_then(|inputs| Config::load(&inputs));
    let config = match read() {
        Ok(config) => config,
        Err(error) => return refuse_configuration(&error),
    };
    let writer = log::start(config.log_level);
    // One thread serves all connections. The writer and the readers have their own threads, and responses cause
    // no wake-up across threads.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse_start(&error.into()),
    };
    let result = runtime.block_on(serve(config, read));
    writer.stop(LOG_PATIENCE);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse_start(&error),
    }
}

async fn serve(config: Config, read: impl Fn() -> Result<Config, ConfigError>) -> anyhow::Result<()> {
    // A write beyond the file-size limit must fail like any other write, and must not kill the process.
    let _file_size_signal = signal(SignalKind::from_raw(libc_sigxfsz()))?;
    let mut signals = StopSignals::install()?;
    let app = tokio::select! {
        app = App::build(config) => app?,
        signal = signals.next() => anyhow::bail!("stopped by {} before serving", signal.name()),
    };
    let (reloader, mut hang_ups) = (app.reloader(), signal(SignalKind::hangup())?);
    let reloads = async {
        while hang_ups.recv().await.is_some() {
            reloader.reload(read());
        }
    };
    let (told, first) = tokio::sync::oneshot::channel();
    let stop = async { first.await.unwrap_or(Stop { reason: "lost signals", drains: false }) };
    let second = async {
        let signal = signals.next().await;
        let _ = told.send(Stop { reason: signal.name(), drains: matches!(signal, StopSignal::Terminate) });
        signals.next().await
    };
    tokio::select! {
        result = app.run_until(stop) => result,
        // This happens only if the runtime can no longer deliver signals. Then nothing is left to do here.
        () = async { reloads.await; std::future::pending().await } => Ok(()),
        // A second signal requests an immediate stop. Acknowledged data is on disk, so nothing needs to be finished.
        signal = second => {
            log::write_to_stderr(LogLevel::Critical, "stopped at once", &[("reason", signal.name())]);
            std::process::exit(130)
        }
    }
}

/// Number of SIGXFSZ on Linux and the BSDs, for every architecture of Rust's tiers 1 and 2 except MIPS.
fn libc_sigxfsz() -> i32 {
    25
}

fn refuse_configuration(error: &ConfigError) -> ExitCode {
    log::write_to_stderr(LogLevel::Critical, &error.to_string(), &[]);
    ExitCode::from(EXIT_CONFIGURATION)
}

fn refuse_start(error: &anyhow::Error) -> ExitCode {
    log::write_to_stderr(LogLevel::Critical, &format!("{error:#}"), &[]);
    ExitCode::FAILURE
}
