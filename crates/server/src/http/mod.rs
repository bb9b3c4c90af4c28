//! The HTTP side: one table of routes, one function that handles every request, and one file per endpoint.
//!
//! HTTP/1.1 only; HTTP/2 and TLS are the task of the proxy.

mod access_log;
pub mod acknowledged;
pub mod answer;
mod body;
mod browser;
pub mod connection;
mod cursor;
mod date;
mod details;
mod docs;
mod error;
mod exchange;
mod guard;
pub mod head;
mod health;
mod index;
mod messages;
mod metrics;
pub mod openapi;
pub mod params;
mod places;
mod quarantine;
pub mod rate;
pub mod receive;
mod request_id;
pub mod route;
pub mod routes;
pub mod sources;
mod stats;
pub mod views;
mod watchdog;

use std::sync::{Arc, RwLock};

use tokio::sync::{Semaphore, watch};

use crate::config::{AccessConfig, ServerConfig};
use crate::telemetry::Metrics;
pub use answer::{Answer, AnswerRoom};
use providers::Source;
pub use quarantine::{Quarantine, read_key};
pub use routes::ROUTES;
use store::Store;

/// The shared state of all requests.
#[derive(Debug)]
pub struct AppState {
    /// The sources.
    pub sources: sources::Sources,
    /// The tokens for reading; replaced as a whole when the settings are reloaded.
    pub access: RwLock<Arc<AccessConfig>>,
    /// The rate limits.
    pub rates: rate::Rates,
    /// The quarantine for refused requests, if enabled.
    pub quarantine: Quarantine,
    /// Whether reading has a separate listener.
    pub reads_apart: bool,
    /// Limits at the edge.
    pub limits: ServerConfig,
    /// The store with the messages.
    pub store: Store,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Bytes that all large bodies together may still use.
    pub body_room: Semaphore,
    /// Bytes that all large responses together may still use.
    pub answer_room: AnswerRoom,
    /// Single messages, raw bodies and the like that may still be read at once.
    pub single_reads: Semaphore,
    /// Large bodies that may still be parsed at once.
    pub large_reads: Semaphore,
    /// The phase of a stop.
    pub stop: watch::Sender<Stage>,
}

impl AppState {
    /// Whether the service wants no new requests: it stops, or will soon.
    pub fn is_leaving(&self) -> bool {
        *self.stop.borrow() != Stage::Serving
    }

    /// Whether the service stops: new messages are refused.
    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow() == Stage::Stopping
    }

    /// The current tokens for reading.
    pub fn access(&self) -> Arc<AccessConfig> {
        Arc::clone(&self.access.read().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Applies the sources and tokens of reloaded settings. Limits and addresses stay as they are.
    pub fn reload(&self, sources: Vec<Source>, access: AccessConfig) -> sources::Exchanged {
        // This comes before the change of the sources, so that no request is uncounted.
        self.metrics.sources_opened(sources.iter().map(|source| source.name.clone()).collect());
        *self.access.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Arc::new(access);
        self.sources.replace(sources)
    }
}

/// The phase of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// No stop was requested.
    Serving,
    /// Not ready, so that balancers choose other servers; requests are still accepted, on new connections too.
    Leaving,
    /// No new connections and no new messages; requests in progress are finished.
    Stopping,
}

/// The role of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerRole {
    /// For providers: the sources, and everything else unless reading has a separate listener.
    Sources,
    /// For readers: everything except the sources.
    Reading,
}
