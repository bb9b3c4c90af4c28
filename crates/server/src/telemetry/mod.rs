//! Telemetry of the service: one JSON line per request on stdout, and metrics for Prometheus.

mod exposition;
mod gauges;
pub mod histogram;
mod labels;
pub mod metrics;
mod request_counts;
pub mod secret_use;
mod source_counts;

pub use metrics::Metrics;
