//! The latest refused requests, for diagnosis: a bounded number of small files, off by default.
//!
//! Any client can be refused and so cause a write: therefore the ring of files, the limit on bodies,
//! and the limit per second. Requests do not wait for the write, and headers with secrets are left out.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use serde_json::{Map, Value, json};

use super::guard::TOKEN_HEADER;
use crate::config::QuarantineConfig;
use domain::Moment;
use providers::encoding::Encoding;
use providers::sealed::{KEY_BYTES, Sealed};
use providers::{BadSignature, Request, Source};
use runtime::escape::for_terminal;
use runtime::log;

/// The file in the folder with the key that seals secrets.
pub const KEY_FILE: &str = "key";
/// Maximum length of a kept body.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Minimum time between two kept requests.
const PAUSE: Duration = Duration::from_millis(100);

/// The quarantine, if enabled.
#[derive(Debug)]
pub struct Quarantine {
    config: Option<QuarantineConfig>,
    count: AtomicU64,
    last: Mutex<Option<Instant>>,
    /// One file is written at a time.
    writing: Arc<Mutex<()>>,
}

impl Quarantine {
    /// From the settings.
    pub fn new(config: Option<QuarantineConfig>) -> Self {
        let first = config.as_ref().map_or(0, first_number);
        Self { config, count: AtomicU64::new(first), last: Mutex::default(), writing: Arc::default() }
    }

    /// Keeps a request that failed verification, unless another one was kept just before.
    pub fn keep(&self, source: &Source, request: &Request<'_>, reason: BadSignature, now: Moment) {
        let Some(config) = &self.config else { return };
        if request.body.len() > BODY_BYTES_MAX || !self.is_due() {
            return;
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed) % u64::from(config.requests_max);
        let path = config.folder.join(format!("{number:05}.json"));
        let (kept, presented) = (captured(source, request, reason, now), source.presented(request.headers));
        let (folder, writing) = (config.folder.clone(), Arc::clone(&self.writing));
        tokio::task::spawn_blocking(move || {
            let _alone = writing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let sealed = presented.map(|presented| Ok(presented.seal(&own_key(&folder)?))).transpose();
            if let Err(error) =
                sealed.and_then(|sealed| write(&path, &for_terminal(&with_seal(kept, sealed).to_string())))
            {
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

/// The number of the next file: after the newest file of an earlier run, so that the oldest files are
/// overwritten first.
fn first_number(config: &QuarantineConfig) -> u64 {
    let number = |path: &Path| path.file_name()?.to_str()?.strip_suffix(".json")?.parse::<u64>().ok();
    let files = std::fs::read_dir(&config.folder).into_iter().flatten().flatten();
    let newest = files.filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, number(&file.path())?))).max();
    newest.map_or(0, |(_, number)| number + 1)
}

fn with_seal(mut kept: Value, sealed: Option<Sealed>) -> Value {
    if let Some(Sealed { header, shown, seal }) = sealed {
        kept["sealed"] = json!({ "header": header, "shown": shown, "seal": seal });
    }
    kept
}

/// The folder's key, created if it is missing.
fn own_key(folder: &Path) -> std::io::Result<[u8; KEY_BYTES]> {
    let path = folder.join(KEY_FILE);
    if let Some(key) = read_key(folder)? {
        return Ok(key);
    }
    let mut key = [0; KEY_BYTES];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut key)?;
    // Another process may create a key at the same time. The complete file gets its name, and only once.
    let draft = folder.join(format!("{KEY_FILE}.{}", std::process::id()));
    write(&draft, Encoding::Hex.encode(&key).as_str())?;
    let linked = std::fs::hard_link(&draft, &path);
    std::fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => read_key(folder)?.ok_or_else(|| std::io::ErrorKind::NotFound.into()),
    }
}

/// The key in a folder; none if there is no file for it.
pub fn read_key(folder: &Path) -> std::io::Result<Option<[u8; KEY_BYTES]>> {
    match std::fs::read(folder.join(KEY_FILE)) {
        Ok(text) => {
            let key = Encoding::Hex.decode(&text, KEY_BYTES).and_then(|key| key.try_into().ok());
            key.map(Some).ok_or_else(|| std::io::Error::other("the file 'key' does not contain a key; remove it"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn captured(source: &Source, request: &Request<'_>, reason: BadSignature, now: Moment) -> Value {
    let headers: Map<String, Value> = request
        .headers
        .iter()
        .filter(|(name, _)| !holds_secret(source, request.headers, name.as_str()))
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let redacted = source.redact(request.body);
    json!({
        "source": source.name,
        "reason": reason.to_string(),
        "at": now.unix_seconds(),
        "base_url": request.base_url,
        "target": request.target,
        "headers": headers,
        "body": Encoding::Base64.encode(redacted.as_deref().unwrap_or(request.body)),
        "redacted": redacted.is_some(),
    })
}

/// Whether a reader of the file could reuse the header. At sources whose proof is the secret itself, any
/// header may contain it.
/// A repeated header is left out too, because a file has room for one value.
fn holds_secret(source: &Source, headers: &HeaderMap, name: &str) -> bool {
    let harmless = || {
        let kept = source.scheme.kept_headers.contains(&name);
        kept || name == CONTENT_TYPE.as_str() || name == USER_AGENT.as_str()
    };
    let is_secret = match source.shows_secret() {
        true => !harmless(),
        false => {
            matches!(name, "authorization" | "cookie" | "proxy-authorization" | TOKEN_HEADER)
                || source.sealed_header().as_deref() == Some(name)
        }
    };
    is_secret || headers.get_all(name).iter().count() > 1
}

/// Only the owner may read the file, and the folder if it is created here: bodies contain messages.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
