//! `postroom verify --quarantine`: checks the refused requests, and stores those that verify now.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;

use super::arguments::open_existing;
use super::case::Case;
use domain::Moment;
use providers::encoding::Encoding;
use providers::sealed::Sealed;
use providers::{Request, Source};
use server::config::Config;
use server::http::read_key;
use store::Store;

/// Prints a verdict for each kept request; with `readmit`, stores the verified ones and removes their files.
pub fn run(config: Config, readmit: bool) -> anyhow::Result<ExitCode> {
    let folder = config.quarantine.as_ref().map(|quarantine| quarantine.folder.clone());
    let folder = folder.context("POSTROOM_QUARANTINE_FOLDER is not set: no refused requests are kept")?;
    if !folder.exists() {
        say!("{} does not exist: no request was refused yet", folder.display())?;
        return Ok(ExitCode::SUCCESS);
    }
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let key = read_key(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut believed = Vec::new();
    for path in &paths {
        let Some(kept) = Kept::read(path) else {
            say!("{}: cannot be read", path.display())?;
            continue;
        };
        let Some(source) = config.sources.iter().find(|source| source.name == kept.source) else {
            say!("{}: the source '{}' no longer exists", path.display(), kept.source)?;
            continue;
        };
        let base_url = kept.base_url.clone().or_else(|| config.server.public_base_url.clone());
        let (mut headers, body, target) = (kept.headers, kept.body, kept.target);
        match kept.sealed.as_ref().map(|sealed| source.unseal(sealed, key.as_ref()?)) {
            None => {}
            Some(Some((name, value))) => drop(headers.insert(name, value)),
            Some(None) => {
                say!("{}: refused as {}", path.display(), kept.reason)?;
                say!("  hint  no configured secret matches its proof; another secret was used")?;
                continue;
            }
        }
        let case = Case { source, headers, body, base_url, target, now: kept.at };
        match case.verdict() {
            Ok(key) => {
                say!("{}: refused as {}, would verify now, with the secret of {key}", path.display(), kept.reason)?;
                believed.push((path, source, case));
            }
            Err(reason) => {
                say!("{}: refused as {}", path.display(), kept.reason)?;
                for hint in case.hints(reason) {
                    say!("  hint  {hint}")?;
                }
            }
        }
    }
    say!("{} kept, {} would verify now", paths.len(), believed.len())?;
    if readmit && !believed.is_empty() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let store = open_existing(&config.store)?;
            let result = admit(&store, &believed).await;
            tokio::task::spawn_blocking(move || store.close()).await?;
            result
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn admit(store: &Store, believed: &[(&std::path::PathBuf, &Source, Case<'_>)]) -> anyhow::Result<()> {
    for (path, source, case) in believed {
        let request = Request {
            headers: &case.headers,
            body: &case.body,
            base_url: case.base_url.as_deref(),
            target: &case.target,
        };
        let body = source.verify(&request, case.body.clone().into(), case.now)?;
        match source.parse(&body, case.now) {
            Ok(parsed) if !parsed.intake.is_empty() => drop(store.append(parsed.intake).await?),
            Ok(_) => {}
            Err(_) => {
                say!("{}: verified, but not a message", path.display())?;
                continue;
            }
        }
        std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
        say!("{}: stored", path.display())?;
    }
    Ok(())
}

/// A kept request.
struct Kept {
    source: String,
    reason: String,
    at: Moment,
    base_url: Option<String>,
    target: String,
    headers: HeaderMap,
    /// The proof, if it is not among the headers.
    sealed: Option<Sealed>,
    body: Vec<u8>,
}

impl Kept {
    fn read(path: &Path) -> Option<Self> {
        let value: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let mut headers = HeaderMap::new();
        for (name, value) in value["headers"].as_object()? {
            // Values may be other than ASCII: clients send any bytes.
            let value = HeaderValue::from_bytes(value.as_str()?.as_bytes()).ok()?;
            headers.append(HeaderName::try_from(name.as_str()).ok()?, value);
        }
        let encoded = text("body")?;
        let length =
            (encoded.len() / 4 * 3).saturating_sub(encoded.bytes().rev().take_while(|byte| *byte == b'=').count());
        Some(Self {
            source: text("source")?,
            reason: text("reason")?,
            at: Moment::from_microseconds(value["at"].as_i64()?.saturating_mul(1_000_000)),
            base_url: text("base_url"),
            target: text("target")?,
            headers,
            sealed: value.get("sealed").and_then(read_sealed),
            body: Encoding::Base64.decode(encoded.as_bytes(), length)?,
        })
    }
}

fn read_sealed(value: &Value) -> Option<Sealed> {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    Some(Sealed { header: text("header")?, shown: text("shown")?, seal: text("seal")? })
}
