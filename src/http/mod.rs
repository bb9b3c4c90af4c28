//! The HTTP side: one table of routes, one function through which every request goes, and one file per endpoint.
//!
//! HTTP/1.1 only; HTTP/2 and TLS belong to the proxy in front.

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
pub mod doors;
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
mod pulse;
mod quarantine;
pub mod rate;
pub mod receive;
mod request_id;
pub mod route;
pub mod routes;
mod stats;
pub mod views;

use std::sync::{Arc, RwLock};

use tokio::sync::{Semaphore, watch};

use crate::config::{AccessConfig, ServerConfig};
use crate::providers::Source;
use crate::store::Store;
use crate::telemetry::Metrics;
pub use answer::{Answer, AnswerRoom};
pub use quarantine::{Quarantine, read_key};
pub use routes::ROUTES;

/// What every request may need.
#[derive(Debug)]
pub struct AppState {
    /// The doors.
    pub doors: doors::Doors,
    /// Who may read; exchanged as a whole when the settings are read anew.
    pub access: RwLock<Arc<AccessConfig>>,
    /// How often.
    pub rates: rate::Rates,
    /// Where refused requests are kept, if anywhere.
    pub quarantine: Quarantine,
    /// Whether reading has a listener of its own.
    pub reads_apart: bool,
    /// Limits at the edge.
    pub limits: ServerConfig,
    /// Where messages are kept.
    pub store: Store,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Bytes that large bodies may still take, all together.
    pub body_room: Semaphore,
    /// Bytes that large answers may still take, all together.
    pub answer_room: AnswerRoom,
    /// Single messages, raw bodies and the like that may still be read at once.
    pub single_reads: Semaphore,
    /// Large bodies that may still be read into parts at once.
    pub large_reads: Semaphore,
    /// How far a stop has come.
    pub stop: watch::Sender<Stage>,
}

impl AppState {
    /// Whether the service is not to be sent anything new: it stops, or will soon.
    pub fn is_leaving(&self) -> bool {
        *self.stop.borrow() != Stage::Serving
    }

    /// Whether the service stops: new messages are refused.
    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow() == Stage::Stopping
    }

    /// Who may read at this moment.
    pub fn access(&self) -> Arc<AccessConfig> {
        Arc::clone(&self.access.read().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Takes over the doors and tokens of settings that were read anew. Limits and addresses stay as they are.
    pub fn reload(&self, sources: Vec<Source>, access: AccessConfig) -> doors::Exchanged {
        // Before the doors, so that nothing comes in uncounted.
        self.metrics.doors_opened(sources.iter().map(|source| source.name.clone()).collect());
        *self.access.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Arc::new(access);
        self.doors.replace(sources)
    }
}

/// How far a stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nobody asked for one.
    Serving,
    /// Not ready, so that balancers turn away; whatever comes all the same is taken, on new connections too.
    Leaving,
    /// No new connections and no new messages; requests under way are finished.
    Stopping,
}

/// Which side of the service a listener shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// What providers see: the doors, and everything else unless reading has a listener of its own.
    Doors,
    /// What readers see: everything but the doors.
    Reading,
}
