//! `postroom verify`: explains offline whether a captured request would verify, and if not, the reason.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use super::arguments::{ServeArguments, source_named};
use super::case::Case;
use super::quarantine;
use super::sign::read;
use domain::Moment;
use server::config::{Config, Inputs};
use server::http::routes::path_of_source;

/// Verifies a captured request against a source, and explains the errors.
///
/// Reads the settings like `serve`. Exits 0 if the request would verify, 1 if not.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    serve: ServeArguments,
    /// The source's name (postroom is the original one)
    #[arg(long, value_name = "NAME", required_unless_present = "quarantine")]
    source: Option<String>,
    /// The file with exactly the body's bytes; - reads standard input
    #[arg(long, value_name = "FILE", required_unless_present = "quarantine")]
    body: Option<PathBuf>,
    /// Check the refused requests that were kept, instead of a captured one
    #[arg(long)]
    quarantine: bool,
    /// With --quarantine: store those that verify now
    #[arg(long, requires = "quarantine")]
    readmit: bool,
    /// A header as received, such as 'X-Hub-Signature-256: sha256=…'; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Path and query as received, for providers that sign the URL
    #[arg(long, value_name = "PATH")]
    target: Option<String>,
    /// The time of verification, in seconds since 1970, instead of now
    #[arg(long, value_name = "SECONDS")]
    at: Option<i64>,
}

/// Prints the verdict and possible fixes.
pub fn run(flags: BTreeMap<&'static str, String>, arguments: Arguments) -> anyhow::Result<ExitCode> {
    if arguments.quarantine {
        let config = Config::load(&Inputs::gather(flags, arguments.serve.config)?)?;
        return quarantine::run(config, arguments.readmit);
    }
    let (Some(name), Some(body)) = (arguments.source, arguments.body) else { bail!("--source and --body are needed") };
    let (source, config) = source_named(flags, arguments.serve.config, &name)?;
    let body = read(&body)?;
    let headers = parse_headers(&arguments.headers)?;
    let target = arguments.target.unwrap_or_else(|| path_of_source(&source.name));
    ensure!(target.starts_with('/'), "--target must begin with /");
    let now = match arguments.at {
        Some(seconds) => Moment::from_microseconds(seconds.saturating_mul(1_000_000)),
        None => Moment::now(),
    };
    let case = Case { source: &source, headers, body, base_url: config.server.public_base_url, target, now };
    say!("source    {} ({})", source.name, source.scheme.title)?;
    say!("expects   {}", source.expects())?;
    match case.verdict() {
        Ok(key) => {
            say!("verdict   verified, with the secret of {key}")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(reason) => {
            say!("verdict   refused: {reason}")?;
            for hint in case.hints(reason) {
                say!("hint      {hint}")?;
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn parse_headers(lines: &[String]) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { bail!("--header '{line}' has no colon") };
        let name = HeaderName::try_from(name.trim()).with_context(|| format!("'{name}' is not a header name"))?;
        headers
            .append(name, HeaderValue::try_from(value.trim()).context("a header value contains invalid characters")?);
    }
    Ok(headers)
}
