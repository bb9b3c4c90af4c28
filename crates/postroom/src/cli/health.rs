//! `postroom health`: the readiness probe of containers without curl.

use server::config::Inputs;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderMap;

use super::arguments::local_url;
use super::client::{Client, Target};
use server::http::routes::READY;

/// Exits 0 if the service is ready, 1 if it is not or cannot be reached.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The service; by default the HOST and PORT of the environment, on this machine
    #[arg(long)]
    url: Option<String>,
    /// How long to wait for a response
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    timeout: u64,
}

/// Requests `/health/ready` and prints the response.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let url = match &arguments.url {
        Some(url) => url.clone(),
        None => {
            let inputs = Inputs::of_environment()?;
            local_url(&inputs.host()?, inputs.port()?)
        }
    };
    let target = Target::parse(&url, READY)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let reply = runtime.block_on(async {
        let mut client = Client::new(target);
        let asked = client.request("GET", HeaderMap::new(), Bytes::new());
        tokio::time::timeout(Duration::from_secs(arguments.timeout), asked).await
    })??;
    say!("{}", String::from_utf8_lossy(&reply.body))?;
    Ok(if reply.status == StatusCode::OK { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
