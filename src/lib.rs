//! Postroom: an inbox for message webhooks.
//!
//! Every message is verified, stored exactly once, acknowledged only when it is safe on disk, and
//! found in milliseconds. The type of each step of a message shows that the step before it happened:
//!
//! ```text
//! HTTP bytes ─verify→ VerifiedBody ─parse→ Intake ─append→ queue → writer → COMMIT → Receipt ─view→ 200
//! ```
//!
//! Modules have one order, and each uses only modules to its left:
//!
//! ```text
//! domain ← providers ← config ← telemetry ← store ← http ← app ← cli ← main
//! ```

pub mod domain;
pub mod providers;
pub mod runtime;

pub mod config;
pub mod telemetry;

pub mod store;

pub mod http;

pub mod app;

pub mod cli;
