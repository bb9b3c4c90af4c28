//! What the service tells about itself: one JSON line per request on stdout, and numbers for Prometheus.

mod door_counts;
mod exposition;
mod gauges;
pub mod histogram;
pub mod metrics;
pub mod secret_use;

pub use metrics::Metrics;
