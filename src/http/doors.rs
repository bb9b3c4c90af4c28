//! The doors while the service runs: found by name, and exchanged as a whole when their secrets are read anew.

use std::net::IpAddr;
use std::sync::{Arc, RwLock};

use hyper::HeaderMap;
use hyper::header::HOST;

use crate::config::{ServerConfig, host};
use crate::providers::{Source, original};
use crate::telemetry::secret_use::SecretUse;

/// All doors. Requests under way keep the ones that they began with.
#[derive(Debug)]
pub struct Doors(RwLock<Vec<Arc<Source>>>);

/// What became of the doors.
#[derive(Debug)]
pub struct Exchanged {
    /// Names of those that were not there before.
    pub added: Vec<String>,
    /// Names of those that are not there any more.
    pub removed: Vec<String>,
}

impl Doors {
    /// The configured doors.
    pub fn new(sources: Vec<Source>) -> Self {
        Self(RwLock::new(sources.into_iter().map(Arc::new).collect()))
    }

    /// The door behind `POST /webhook`, if it has a secret.
    pub fn original(&self) -> Option<Arc<Source>> {
        self.find(original::SCHEME.kind)
    }

    /// The door behind `/webhook/{name}`. The original one has no name there.
    pub fn named(&self, name: &str) -> Option<Arc<Source>> {
        if name == original::SCHEME.kind { None } else { self.find(name) }
    }

    fn find(&self, name: &str) -> Option<Arc<Source>> {
        let sources = self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        sources.iter().find(|source| source.name == name).cloned()
    }

    /// Exchanges all doors for these. What the doors before did not know is answered, and what these do not.
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

    /// How often each secret was right.
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

/// Scheme and host under which a request was sent: what the operator says, or else what a proxy says that the operator trusts.
/// Anybody else could choose the URL that is verified.
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

/// Each proxy of several appends by which scheme it was called, so the first is the one that the sender used. Whoever forges it
/// changes nothing but how their own request is verified.
fn first_scheme(headers: &HeaderMap) -> Option<&'static str> {
    let line = headers.get("x-forwarded-proto")?.to_str().ok()?;
    let first = line.split(',').next()?.trim();
    ["https", "http"].into_iter().find(|scheme| scheme.eq_ignore_ascii_case(first))
}

/// The host that the proxy was asked for: what it says, or else `Host`, which it then passes on. A proxy may append to what its
/// client claimed: values that differ do not say which is the proxy's own.
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
