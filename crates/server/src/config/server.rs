//! The address to listen on, and every limit at the edge to the network.

use std::time::Duration;

use super::given::Given;
use super::{ConfigError, Inputs, Network, complaint, sources};

/// The network edge: every limit has a name and a defined response.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Address or host name to bind.
    pub host: String,
    /// Port to bind; 0 chooses a free one.
    pub port: u16,
    /// The separate listener for reading, so that only the sources face the network.
    pub read_address: Option<(String, u16)>,
    /// Maximum bytes of a request body.
    pub body_bytes_max: usize,
    /// Maximum bytes of all bodies in progress, beyond the first 16 KiB of each.
    pub bodies_bytes_max: usize,
    /// Maximum bytes of a request head.
    pub header_bytes_max: usize,
    /// Maximum header fields of a request.
    pub headers_max: usize,
    /// Maximum wait for a whole request head.
    pub header_timeout: Duration,
    /// Maximum wait for a whole request body.
    pub body_timeout: Duration,
    /// Maximum idle time of a connection between requests.
    pub idle_timeout: Duration,
    /// Maximum time from head to response.
    pub request_timeout: Duration,
    /// Maximum connections.
    pub connections_max: usize,
    /// How long the service continues after SIGTERM, not ready, before it stops.
    pub drain: Duration,
    /// How long a stop waits for requests in progress.
    pub grace: Duration,
    /// Maximum bytes of a body at provider sources.
    pub source_body_bytes_max: usize,
    /// Public URL under which providers reach us: scheme, host, optional path.
    pub public_base_url: Option<String>,
    /// Proxies that are trusted for scheme and host, if no base URL is set.
    pub trusted_proxies: Vec<Network>,
}

/// Reads these settings.
pub(super) fn load(inputs: &Inputs) -> Result<ServerConfig, ConfigError> {
    let seconds = |name, least| inputs.number(name, least, 86_400).map(Duration::from_secs);
    let count = |name, least, most| inputs.number(name, least, most).map(|number| number as usize);
    Ok(ServerConfig {
        host: inputs.host()?,
        port: inputs.port()?,
        read_address: read_address(inputs)?,
        body_bytes_max: count("MAX_BODY_BYTES", 1, 1 << 30)?,
        bodies_bytes_max: count("POSTROOM_SERVER_BODIES_BYTES_MAX", 0, 1 << 40)?,
        // Below 8 KiB hyper has no space for reading.
        header_bytes_max: count("POSTROOM_SERVER_HEADER_BYTES_MAX", 8_192, 1 << 20)?,
        headers_max: count("POSTROOM_SERVER_HEADERS_MAX", 8, 1_000)?,
        header_timeout: seconds("POSTROOM_SERVER_HEADER_SECONDS", 1)?,
        body_timeout: seconds("POSTROOM_SERVER_BODY_SECONDS", 1)?,
        idle_timeout: seconds("POSTROOM_SERVER_IDLE_SECONDS", 1)?,
        request_timeout: seconds("POSTROOM_SERVER_REQUEST_SECONDS", 1)?,
        connections_max: count("POSTROOM_SERVER_CONNECTIONS_MAX", 1, 1 << 20)?,
        drain: seconds("POSTROOM_SERVER_DRAIN_SECONDS", 0)?,
        grace: seconds("POSTROOM_SERVER_GRACE_SECONDS", 0)?,
        source_body_bytes_max: count("POSTROOM_SOURCES_BODY_BYTES_MAX", 1, 1 << 30)?,
        public_base_url: public_base_url(inputs.value("PUBLIC_BASE_URL")?)?,
        trusted_proxies: trusted_proxies(inputs)?,
    })
}

/// None unless a port for reading is set.
fn read_address(inputs: &Inputs) -> Result<Option<(String, u16)>, ConfigError> {
    if inputs.value("POSTROOM_SERVER_READ_PORT")?.value.is_empty() {
        return Ok(None);
    }
    let port = inputs.number("POSTROOM_SERVER_READ_PORT", 0, 65_535)? as u16;
    Ok(Some((inputs.host_to_bind("POSTROOM_SERVER_READ_HOST")?, port)))
}

fn public_base_url(given: Given) -> Result<Option<String>, ConfigError> {
    match (given.value.trim(), sources::base_url(given.value.trim())) {
        ("", _) => Ok(None),
        (_, Some(url)) => Ok(Some(url)),
        (_, None) => Err(complaint(given, |_| sources::BASE_URL_RULE.to_owned())),
    }
}

fn trusted_proxies(inputs: &Inputs) -> Result<Vec<Network>, ConfigError> {
    let given = inputs.value("POSTROOM_SERVER_TRUSTED_PROXIES")?;
    let parts = given.value.split(',').map(str::trim).filter(|part| !part.is_empty());
    match parts.map(Network::parse).collect::<Option<Vec<_>>>() {
        Some(networks) => {
            if networks.iter().any(Network::is_everyone) {
                inputs.caution(&given.origin, TRUSTS_EVERYONE);
            }
            Ok(networks)
        }
        None => {
            Err(complaint(given, |value| format!("must be addresses such as 10.0.0.1 or 10.0.0.0/8, not '{value}'")))
        }
    }
}

const TRUSTS_EVERYONE: &str = "trusts every address: any client can then claim another address and another URL";
