//! The measurements, one file per section.

pub mod ingest;
pub mod latency;
pub mod memory;
pub mod overload;
pub mod reads;
pub mod shared;
pub mod startup;
