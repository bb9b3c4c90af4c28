//! `GET /`: name and endpoints of the service, for a browser or for curl.

use hyper::header::{ACCEPT, HeaderMap, HeaderValue};
use serde::Serialize;
use utoipa::ToSchema;

use super::Answer;
use super::docs::with_policy;
use super::route::{Handler, Route};
use super::routes::{ROOT, ROUTES};
use super::views::{ok, with_type};

/// Name and endpoints of this service.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Index)]
pub struct IndexView {
    /// Always `postroom`.
    pub name: &'static str,
    /// The version of the program.
    pub version: &'static str,
    /// The documentation page.
    pub docs: &'static str,
    /// The OpenAPI document.
    pub openapi: &'static str,
    /// The endpoints.
    pub endpoints: Vec<String>,
}

/// JSON, or a page for clients that prefer HTML.
#[utoipa::path(get, path = "", tag = "about", operation_id = "index",
    responses((status = 200, description = "Name and endpoints", body = IndexView)))]
pub fn index_page(headers: &HeaderMap) -> Answer {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/html") {
        let page = include_str!("assets/index.html").replace("{version}", env!("CARGO_PKG_VERSION"));
        return with_policy(with_type(page.into(), HeaderValue::from_static("text/html; charset=utf-8")));
    }
    let is_page = |route: &&Route| route.path.text == ROOT || matches!(route.handler, Handler::Files(_));
    let shown = ROUTES.iter().filter(|route| !is_page(route));
    ok(&IndexView {
        name: "postroom",
        version: env!("CARGO_PKG_VERSION"),
        docs: "docs",
        openapi: "openapi.json",
        endpoints: shown.map(|route| format!("{} {}", route.method, route.path.text)).collect(),
    })
}
