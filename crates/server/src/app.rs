//! The service as a whole: `build` opens and binds, `run_until` serves and then stops, in one order, top to bottom.

use std::net::SocketAddr;
use std::sync::{Arc, RwLock, Weak};
use std::time::Instant;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::config::{Config, ConfigError};
use crate::http::answer::{ANSWERS_BYTES_MAX, AnswerRoom, SINGLE_READS_MAX};
use crate::http::rate::Rates;
use crate::http::receive::LARGE_READS_MAX;
use crate::http::sources::Sources;
use crate::http::{AppState, ListenerRole, Quarantine, ROUTES, Stage, connection};
use crate::telemetry::Metrics;
use runtime::{log, process};
use store::{Observer, Store};

/// Why and how the service stops.
#[derive(Debug, Clone, Copy)]
pub struct Stop {
    /// The reason, for the log.
    pub reason: &'static str,
    /// Whether balancers get the configured time to choose other servers. A person at a terminal does not wait.
    pub drains: bool,
}

/// A service that is open and bound, and not serving yet.
#[derive(Debug)]
pub struct App {
    state: Arc<AppState>,
    listener: TcpListener,
    /// The listener for reading, if reading has a separate address.
    reading: Option<TcpListener>,
}

impl App {
    /// Opens the database (and upgrades it if necessary) and binds the address. Any error is one line.
    pub async fn build(mut config: Config) -> anyhow::Result<Self> {
        let started = Instant::now();
        config.server.connections_max = config.server.connections_max.min(connections_possible());
        let (host, port) = (config.server.host.as_str(), config.server.port);
        let listener = TcpListener::bind((host, port)).await;
        let listener = listener.with_context(|| format!("cannot listen on HOST {host}, PORT {port}"))?;
        let reading = match &config.server.read_address {
            None => None,
            Some((host, port)) => {
                let listener = TcpListener::bind((host.as_str(), *port)).await;
                let place =
                    || format!("cannot listen on POSTROOM_SERVER_READ_HOST {host}, POSTROOM_SERVER_READ_PORT {port}");
                Some(listener.with_context(place)?)
            }
        };
        let sources = config.sources.iter().map(|source| source.name.clone()).collect();
        let metrics = Metrics::new(sources, config.store.queue_max, config.server.connections_max);
        let metrics = Arc::new(metrics.with_paths(ROUTES.iter().map(|route| route.label)));
        let store = Store::open(&config.store, Arc::clone(&metrics) as Arc<dyn Observer>)
            .with_context(|| format!("DATABASE_URL: {}", config.store.database))?;
        let read_address = reading.as_ref().map(TcpListener::local_addr).transpose()?;
        tell_configuration(&config, store.durability(), (listener.local_addr()?, read_address), started);
        let state = AppState {
            sources: Sources::new(config.sources),
            rates: Rates::new(&config.access),
            quarantine: Quarantine::new(config.quarantine),
            access: RwLock::new(Arc::new(config.access)),
            reads_apart: reading.is_some(),
            body_room: Semaphore::new(config.server.bodies_bytes_max),
            answer_room: AnswerRoom::new(ANSWERS_BYTES_MAX),
            single_reads: Semaphore::new(SINGLE_READS_MAX),
            large_reads: Semaphore::new(LARGE_READS_MAX),
            limits: config.server,
            store,
            metrics,
            stop: watch::Sender::new(Stage::Serving),
        };
        Ok(Self { state: Arc::new(state), listener, reading })
    }

    /// The bound address.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Replaces sources and tokens while the service runs.
    pub fn reloader(&self) -> Reloader {
        Reloader(Arc::downgrade(&self.state))
    }

    /// Serves until `shutdown` is done, then stops: not ready, no new connections, finish requests, close the queue,
    /// join the writer, checkpoint.
    pub async fn run_until(self, shutdown: impl Future<Output = Stop>) -> anyhow::Result<()> {
        let Self { state, listener, reading } = self;
        let serve = |listener, role| connection::serve(Arc::clone(&state), listener, role, state.stop.subscribe());
        let sources = serve(listener, ListenerRole::Sources);
        let reads = reading.map(|listener| serve(listener, ListenerRole::Reading));
        let both = async {
            tokio::join!(sources, async {
                if let Some(reads) = reads {
                    reads.await
                }
            })
        };
        let mut serving = std::pin::pin!(both);
        let Stop { reason, drains } = tokio::select! {
            _ = serving.as_mut() => unreachable!("serving ends only after a stop"),
            stop = shutdown => stop,
        };
        let (began, drain) = (Instant::now(), state.limits.drain);
        if drains && !drain.is_zero() {
            log::info("stopping: not ready; messages are still accepted for a while")
                .text("reason", reason)
                .value("drain_seconds", drain.as_secs())
                .emit();
            state.stop.send_replace(Stage::Leaving);
            tokio::select! {
                _ = serving.as_mut() => unreachable!("serving ends only after a stop"),
                () = tokio::time::sleep(drain) => {}
            }
        }
        log::info("stopping: no new connections; requests in progress are finished").text("reason", reason).emit();
        state.stop.send_replace(Stage::Stopping);
        serving.await;
        let state = Arc::into_inner(state).context("a request outlived its connection")?;
        tokio::task::spawn_blocking(move || state.store.close()).await.context("the store did not close")?;
        log::info("stopped").value("elapsed_seconds", format_args!("{:.3}", began.elapsed().as_secs_f64())).emit();
        Ok(())
    }
}

/// Replaces sources and tokens while the service runs. It can outlive the service but does not keep it open.
#[derive(Debug)]
pub struct Reloader(Weak<AppState>);

impl Reloader {
    /// Applies the sources, with their secrets and options, and the access rules.
    /// If the settings cannot be used,
    /// nothing changes.
    pub fn reload(&self, read: Result<Config, ConfigError>) {
        let Some(state) = self.0.upgrade() else { return };
        let Config { sources, access, cautions: settings, .. } = match read {
            Ok(config) => config,
            Err(error) => {
                return log::error("the settings were not reloaded; the previous ones stay in use")
                    .cause(&error)
                    .emit();
            }
        };
        let (source_count, open) = (sources.len(), access.tokens.leave_reading_open());
        let cautions: Vec<_> =
            sources.iter().filter_map(|source| Some((source.name.clone(), source.caution()?))).collect();
        let exchanged = state.reload(sources, access);
        log::info("reloaded the settings")
            .value("sources", source_count)
            .text_if("added", list(&exchanged.added).as_deref())
            .text_if("removed", list(&exchanged.removed).as_deref())
            .text("reading", reading(open))
            .emit();
        for (name, caution) in cautions.iter().filter(|(name, _)| exchanged.added.contains(name)) {
            log::warning(caution).text("source", name).emit();
        }
        warn_of_settings(&settings);
        if open {
            warn_of_open_reading();
        }
    }
}

fn list(names: &[String]) -> Option<String> {
    Some(names.join(", ")).filter(|list| !list.is_empty())
}

fn reading(is_open: bool) -> &'static str {
    if is_open { "open to all" } else { "by token" }
}

fn warn_of_settings(cautions: &[String]) {
    for caution in cautions {
        log::warning(caution).emit();
    }
}

fn warn_of_open_reading() {
    log::warning(
        "reading is open to everyone who reaches this address, and through DNS rebinding to web pages that are open in a browser \
         that reaches it; set API_TOKEN to close it",
    )
    .emit();
}

/// File descriptors that the process needs besides its connections: the database, its log and its readers,
/// the runtime, and a reserve, so that full connections never prevent the database from being opened again.
const FILES_RESERVED: u64 = 64;

/// Raises the limit of open files, and returns how many connections it allows.
fn connections_possible() -> usize {
    let Some(files) = process::raise_open_file_limit() else { return usize::MAX };
    usize::try_from(files.saturating_sub(FILES_RESERVED)).unwrap_or(usize::MAX).max(1)
}

/// The start line: the effective configuration, without secrets.
fn tell_configuration(
    config: &Config,
    durability: &str,
    (address, read_address): (SocketAddr, Option<SocketAddr>),
    started: Instant,
) {
    let (server, store) = (&config.server, &config.store);
    log::info("postroom is serving")
        .text("version", env!("CARGO_PKG_VERSION"))
        .text("address", &address.to_string())
        .text_if("read_address", read_address.map(|address| address.to_string()).as_deref())
        .text("database", &config.store.database.to_string())
        .text("durability", durability)
        .text("log_level", config.log_level.name())
        .text("reading", reading(config.access.tokens.leave_reading_open()))
        .text_if("cors_origins", list(&config.access.cors_origins).as_deref())
        .value("secrets", config.sources.iter().map(|source| source.keys.len()).sum::<usize>())
        .value("max_body_bytes", server.body_bytes_max)
        .value("connections_max", server.connections_max)
        .value("queue_max", store.queue_max)
        .value("batch_max", store.batch_max)
        .value("readers", store.readers)
        .value("query_seconds", store.query_timeout.as_secs())
        .value("lock_seconds", store.lock_timeout.as_secs())
        .value("drain_seconds", server.drain.as_secs())
        .value("grace_seconds", server.grace.as_secs())
        .value("startup_seconds", format_args!("{:.3}", started.elapsed().as_secs_f64()))
        .emit();
    for source in &config.sources {
        if let Some(caution) = source.caution() {
            log::warning(caution).text("source", &source.name).text("provider", source.scheme.kind).emit();
        }
    }
    warn_of_settings(&config.cautions);
    if config.access.tokens.leave_reading_open() {
        warn_of_open_reading();
    }
}
