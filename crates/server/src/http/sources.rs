//! The sources while the service runs: found by name, and replaced as a whole when their secrets are reloaded.

use std::net::IpAddr;
use std::sync::{Arc, RwLock};

use hyper::HeaderMap;
use hyper::header::HOST;

use crate::config::{ServerConfig, host};
use crate::telemetry::secret_use::SecretUse;
use providers::{Source, original};

/// All sources. Requests in progress keep those with which they began.
#[derive(Debug)]
pub struct Sources(RwLock<Vec<Arc<Source>>>);

/// The changes of a reload.
#[derive(Debug)]
pub struct Exchanged {
    /// Names of new sources.
    pub added: Vec<String>,
    /// Names of removed sources.
    pub removed: Vec<String>,
}

impl Sources {
    /// The configured sources.
    pub fn new(sources: Vec<Source>) -> Self {
        Self(RwLock::new(sources.into_iter().map(Arc::new).collect()))
    }

    /// The source at `POST /webhook`, if it has a secret.
    pub fn original(&self) -> Option<Arc<Source>> {
        self.find(original::SCHEME.kind)
    }

    /// The source at `/webhook/{name}`. The original one has no name there.
    pub fn named(&self, name: &str) -> Option<Arc<Source>> {
        if name == original::SCHEME.kind { None } else { self.find(name) }
    }

    fn find(&self, name: &str) -> Option<Arc<Source>> {
        let sources = self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        sources.iter().find(|source| source.name == name).cloned()
    }

    /// Replaces all sources with these. Returns which are new and which were removed.
    pub fn replace(&self, sources: Vec<Source>) -> Exchanged {
        let mut current = self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        let names = |sources: &[Arc<Source>]| sources.iter().map(|source| source.name.clone()).collect::<Vec<_>>();
        let before = names(&current);
        let replaced = sources.into_iter().map(|mut source| {
            if let Some(known) = current.iter().find(|known| known.name == source.name) {
                source.keys.iter_mut().for_each(|key| key.continue_counting(&known.keys));
            }
            Arc::new(source)
        });
        *current = replaced.collect();
        let now = names(&current);
        let only = |these: &[String], those: &[String]| {
            these.iter().filter(|name| !those.contains(name)).cloned().collect::<Vec<_>>()
        };
        Exchanged { added: only(&now, &before), removed: only(&before, &now) }
    }

    /// How often each secret verified a request.
    pub fn secret_uses(&self) -> Vec<SecretUse> {
        let sources = self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let uses = |source: &Arc<Source>| {
            let name = source.name.clone();
            let used = source.keys.iter().map(move |key| {
                let (count, last_seconds) = key.uses();
                SecretUse { source: name.clone(), secret: key.label.clone(), count, last_seconds }
            });
            used.collect::<Vec<_>>()
        };
        sources.iter().flat_map(uses).collect()
    }
}

/// Scheme and host of a request's URL: from the operator's setting, or from a trusted proxy.
/// Without this rule, any client could choose the URL that is verified.
pub fn base_url(limits: &ServerConfig, headers: &HeaderMap, peer: IpAddr) -> Option<String> {
    if let Some(url) = &limits.public_base_url {
        return Some(url.clone());
    }
    if !limits.trusted_proxies.iter().any(|network| network.contains(peer)) {
        return None;
    }
    let scheme = first_scheme(headers)?;
    let host = forwarded_host(headers)?;
    host::authority(host).ok()?;
    Some(format!("{scheme}://{host}"))
}

/// Each of several proxies appends its scheme, so the first one is the sender's. A client that forges it
/// only changes the verification of its own request.
fn first_scheme(headers: &HeaderMap) -> Option<&'static str> {
    let line = headers.get("x-forwarded-proto")?.to_str().ok()?;
    let first = line.split(',').next()?.trim();
    ["https", "http"].into_iter().find(|scheme| scheme.eq_ignore_ascii_case(first))
}

/// The host that the proxy received: its own header, or else `Host`, which it then passes on. A proxy may
/// append to its client's value: if values differ, it is unknown which one is from the proxy.
fn forwarded_host(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all("x-forwarded-host").iter();
    let (first, second) = (lines.next(), lines.next());
    let line = match (first.filter(|line| !line.is_empty()), second) {
        (None, None) => return headers.get(HOST)?.to_str().ok(),
        (Some(line), None) => line.to_str().ok()?,
        (_, Some(_)) => return None,
    };
    let mut values = line.split(',').map(str::trim);
    let value = values.next()?;
    values.all(|other| other == value).then_some(value)
}
