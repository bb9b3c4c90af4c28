//! The service: settings, metrics, HTTP, and how it starts and stops.

pub mod config;
pub mod telemetry;

pub mod http;

pub mod app;
