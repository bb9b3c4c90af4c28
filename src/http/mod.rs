//! The HTTP side: one table of routes, one function through which every request goes, and one file per endpoint.
//!
//! HTTP/1.1 only; HTTP/2 and TLS belong to the proxy in front.

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
mod stats;
pub mod views;

use std::sync::{Arc, RwLock};

use hyper::Method;
use tokio::sync::{Semaphore, watch};

use crate::config::{AccessConfig, ServerConfig};
use crate::providers::Source;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::PathLabel;
pub use answer::{Answer, AnswerRoom};
pub use quarantine::{Quarantine, read_key};

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

impl AppState {
    /// Whether an endpoint is to be seen there.
    fn shows(&self, face: Face, endpoint: Endpoint) -> bool {
        match endpoint {
            Endpoint::Webhook | Endpoint::Door => face == Face::Doors,
            Endpoint::Live | Endpoint::Ready => true,
            _ => face == Face::Reading || !self.reads_apart,
        }
    }
}

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// What this is, for a person.
    Index,
    /// The original door.
    Webhook,
    /// A provider's door.
    Door,
    /// The listing.
    Messages,
    /// One message with its details.
    Message,
    /// How far a sent message came.
    Statuses,
    /// What is neither message nor status.
    Events,
    /// One of these.
    Event,
    /// The inbox in a few numbers.
    Stats,
    /// Whether the process runs.
    Live,
    /// Whether it can do its work.
    Ready,
    /// The numbers for Prometheus.
    Metrics,
    /// The contract for machines.
    OpenApi,
    /// The contract for people, and the files of that page.
    Docs,
}

/// One line of the table.
#[derive(Debug)]
pub struct Route {
    /// The path, without a trailing slash; a part in braces stands for anything.
    pub path: &'static str,
    /// The one method of the path, beside HEAD and OPTIONS. (Sources may also take GET, for a handshake.)
    pub method: Method,
    /// Where it leads.
    pub endpoint: Endpoint,
    /// Its label in metrics.
    pub label: PathLabel,
}

const fn route(method: Method, path: &'static str, endpoint: Endpoint, label: PathLabel) -> Route {
    Route { path, method, endpoint, label }
}

const DOOR: &str = "/webhook/{source}";
const MESSAGE: &str = "/messages/{id}";
const STATUSES: &str = "/messages/{id}/statuses";
const EVENT: &str = "/events/{id}";

/// Every path that answers something other than 404.
pub const ROUTES: &[Route] = &[
    route(Method::POST, "/webhook", Endpoint::Webhook, PathLabel::Webhook),
    route(Method::POST, DOOR, Endpoint::Door, PathLabel::Door),
    route(Method::GET, "/messages", Endpoint::Messages, PathLabel::Messages),
    route(Method::GET, MESSAGE, Endpoint::Message, PathLabel::Message),
    route(Method::GET, STATUSES, Endpoint::Statuses, PathLabel::Statuses),
    route(Method::GET, "/events", Endpoint::Events, PathLabel::Events),
    route(Method::GET, EVENT, Endpoint::Event, PathLabel::Event),
    route(Method::GET, "/stats", Endpoint::Stats, PathLabel::Stats),
    route(Method::GET, "/health/live", Endpoint::Live, PathLabel::Live),
    route(Method::GET, "/health/ready", Endpoint::Ready, PathLabel::Ready),
    route(Method::GET, "/metrics", Endpoint::Metrics, PathLabel::Metrics),
    route(Method::GET, "/", Endpoint::Index, PathLabel::Root),
    route(Method::GET, "/openapi.json", Endpoint::OpenApi, PathLabel::OpenApi),
    route(Method::GET, "/docs", Endpoint::Docs, PathLabel::Docs),
    route(Method::GET, "/docs/docs.css", Endpoint::Docs, PathLabel::Docs),
    route(Method::GET, "/docs/docs.js", Endpoint::Docs, PathLabel::Docs),
    route(Method::GET, "/docs/swagger-ui.css", Endpoint::Docs, PathLabel::Docs),
    route(Method::GET, "/docs/swagger-ui-bundle.js", Endpoint::Docs, PathLabel::Docs),
    route(Method::GET, "/docs/favicon-32x32.png", Endpoint::Docs, PathLabel::Docs),
];

/// The route of a path. One trailing slash is as good as none.
pub fn find_route(path: &str) -> Option<&'static Route> {
    let path = source_path(path);
    let path = match path.strip_suffix('/') {
        Some("") | None => path,
        Some(shorter) => shorter,
    };
    let pattern = pattern_of(path);
    ROUTES.iter().find(|route| route.path == pattern)
}

/// The path with one slash in front of `webhook`, where there are several: a slash at the end of a base URL makes two. Elsewhere
/// they stay, and lead nowhere, so that no rule of a proxy about a path is passed by with one slash more.
pub fn source_path(path: &str) -> &str {
    let bare = path.trim_start_matches('/');
    let doubled = path.len() > bare.len() + 1 && (bare == "webhook" || bare.starts_with("webhook/"));
    if doubled { &path[path.len() - bare.len() - 1..] } else { path }
}

/// The path as the table has it, with braces for what may be anything. A message's id may hold slashes.
fn pattern_of(path: &str) -> &str {
    let below = |parent: &str| path.strip_prefix(parent).filter(|rest| !rest.is_empty() && !rest.starts_with('/'));
    match (below("/webhook/"), below("/messages/"), below("/events/")) {
        (Some(_), ..) => DOOR,
        (_, Some(id), _) if id.ends_with("/statuses") => STATUSES,
        (_, Some(_), _) => MESSAGE,
        (.., Some(_)) => EVENT,
        (None, None, None) if path.contains('{') => "",
        (None, None, None) => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_the_table_says() {
        let endpoint = |path| find_route(path).map(|route| route.endpoint);
        assert_eq!(endpoint("/"), Some(Endpoint::Index));
        assert_eq!(endpoint("/webhook/"), Some(Endpoint::Webhook));
        assert_eq!(endpoint("/docs/docs.css"), Some(Endpoint::Docs));
        for unknown in ["", "/webhook//", "/Webhook", "/docs/a/b", "/health", "*", "/messages//", "/docs/x", "/{id}"] {
            assert_eq!(endpoint(unknown), None, "{unknown}");
        }
        assert_eq!(endpoint("/docs/"), Some(Endpoint::Docs));
        assert_eq!((endpoint("//webhook"), endpoint("///webhook/x")), (Some(Endpoint::Webhook), Some(Endpoint::Door)));
        for doubled in ["//messages", "//webhooks", "/a//webhook", "//messages/webhook", "/webhook//x"] {
            assert_eq!(endpoint(doubled), None, "{doubled}");
        }
        assert_eq!(endpoint("/webhook/meta/"), Some(Endpoint::Door));
        assert_eq!(endpoint("/messages/a/b%2Fc"), Some(Endpoint::Message));
        assert_eq!(endpoint("/messages/a/statuses/"), Some(Endpoint::Statuses));
        assert_eq!(endpoint("/events/"), Some(Endpoint::Events));
        assert_eq!(endpoint("/events/7/"), Some(Endpoint::Event));
        assert_eq!(endpoint("/messages/{id}"), Some(Endpoint::Message));
    }
}
