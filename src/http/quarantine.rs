//! The last refused requests, for whoever wants to find out why: a bounded number of small files, off by default.
//!
//! Anybody can be refused, so anybody can have something written here: hence the ring of files, the limit on bodies, and the limit
//! on how many a second. Nothing waits for the writing, and headers that hold secrets are left out.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::HeaderMap;
use serde_json::{Map, Value, json};

use crate::config::QuarantineConfig;
use crate::domain::Moment;
use crate::providers::encoding::Encoding;
use crate::providers::rule::Proof;
use crate::providers::{BadSignature, Request, Source};
use crate::telemetry::log;

/// Longest body that is kept.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Shortest time between two that are kept.
const PAUSE: Duration = Duration::from_millis(100);

/// Where refused requests go, if anywhere.
#[derive(Debug)]
pub struct Quarantine {
    config: Option<QuarantineConfig>,
    count: AtomicU64,
    last: Mutex<Option<Instant>>,
}

impl Quarantine {
    /// As the settings say.
    pub fn new(config: Option<QuarantineConfig>) -> Self {
        Self { config, count: AtomicU64::new(0), last: Mutex::default() }
    }

    /// Keeps a request that was not believed, unless another one was kept just before.
    pub fn keep(&self, source: &Source, request: &Request<'_>, reason: BadSignature, now: Moment) {
        let Some(config) = &self.config else { return };
        if request.body.len() > BODY_BYTES_MAX || !self.is_due() {
            return;
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed) % u64::from(config.requests_max);
        let path = config.folder.join(format!("{number:05}.json"));
        let text = captured(source, request, reason, now).to_string();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = write(&path, &text) {
                log::warning("a refused request could not be kept")
                    .text("path", &path.display().to_string())
                    .cause(&error)
                    .emit();
            }
        });
    }

    fn is_due(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let due = last.is_none_or(|last| last.elapsed() >= PAUSE);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

fn captured(source: &Source, request: &Request<'_>, reason: BadSignature, now: Moment) -> Value {
    let headers: Map<String, Value> = request
        .headers
        .iter()
        .filter(|(name, _)| !holds_secret(source, request.headers, name.as_str()))
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    json!({
        "source": source.name,
        "reason": reason.to_string(),
        "at": now.unix_seconds(),
        "base_url": request.base_url,
        "target": request.target,
        "headers": headers,
        "body": Encoding::Base64.encode(request.body),
    })
}

/// What could be used again by whoever reads it. A header that came twice is left out too: a file has room for one.
fn holds_secret(source: &Source, headers: &HeaderMap, name: &str) -> bool {
    let is_static = source.rule().is_some_and(|rule| rule.proof == Proof::Secret && rule.header == name);
    let chosen = source.options.header.as_deref() == Some(name);
    is_static
        || chosen
        || matches!(name, "authorization" | "cookie" | "proxy-authorization")
        || headers.get_all(name).iter().count() > 1
}

/// Readable by the owner alone: bodies hold messages.
fn write(path: &PathBuf, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
