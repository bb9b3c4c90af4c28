//! `GET /`: what this is, for a person with a browser or with curl.

use hyper::header::{ACCEPT, HeaderMap, HeaderValue};
use serde::Serialize;
use utoipa::ToSchema;

use super::Answer;
use super::docs::with_policy;
use super::route::{Handler, Route};
use super::routes::{ROOT, ROUTES};
use super::views::{ok, with_type};

/// What this service is and where to go.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Index)]
pub struct IndexView {
    /// Always `postroom`.
    pub name: &'static str,
    /// The version that answers.
    pub version: &'static str,
    /// The page for people.
    pub docs: &'static str,
    /// The contract for machines.
    pub openapi: &'static str,
    /// What can be asked for.
    pub endpoints: Vec<String>,
}

/// JSON, or a page for whoever prefers HTML.
#[utoipa::path(get, path = "", tag = "about", operation_id = "index",
    responses((status = 200, description = "What this is", body = IndexView)))]
pub fn greet(headers: &HeaderMap) -> Answer {
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
