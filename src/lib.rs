//! Postroom: the post room for message webhooks.
//!
//! Every message that arrives is checked at the door, filed exactly once, acknowledged only when it is safe on disk, and
//! found again in milliseconds. A message travels one way, and the type of each step shows that the step before it happened:
//!
//! ```text
//! HTTP bytes ─verify→ VerifiedBody ─parse→ Intake ─append→ queue → writer → COMMIT → Receipt ─view→ 200
//! ```
//!
//! Modules stand in one line, and each uses only what is to its left:
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
