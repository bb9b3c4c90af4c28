//! A request, before it is verified.

use http::HeaderMap;

/// A request, with all parts that verification may need.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body's bytes.
    pub body: &'a [u8],
    /// Scheme, host and port of its URL, if a trusted party reported them.
    pub base_url: Option<&'a str>,
    /// Path and query, as received.
    pub target: &'a str,
}

impl Request<'_> {
    /// The URL that was configured at the provider, with the query as received.
    pub fn url(&self) -> Option<String> {
        self.base_url.map(|base| format!("{}{}", base.trim_end_matches('/'), self.target))
    }
}
