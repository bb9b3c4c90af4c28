//! `GET /openapi.json` and `GET /docs`: the contract for machines and for people. Every byte comes from the
//! binary, and the policy does not let the browser load anything from elsewhere.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue};
use utoipa_swagger_ui::Config;

use super::Answer;
use super::error::ApiError;
use super::openapi;
use super::route::File;
use super::views::{JSON, with_type};

/// Scripts, styles and connections of our own origin only; nothing inline, no frames, no forms.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const CSS: HeaderValue = HeaderValue::from_static("text/css; charset=utf-8");
const SCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=utf-8");

/// The OpenAPI document.
#[utoipa::path(get, path = "", tag = "about", operation_id = "openapi",
    responses((status = 200, description = "This document", content_type = "application/json", body = Value)))]
pub fn openapi() -> Answer {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| openapi::document().into());
    with_type(DOCUMENT.clone(), JSON)
}

/// Our own files of the page.
pub const OWN_FILES: &[File] = &[
    File { name: "docs.css", open: |_| Ok(own(include_str!("assets/docs.css"), CSS)) },
    File { name: "docs.js", open: |_| Ok(own(include_str!("assets/docs.js"), SCRIPT)) },
];

/// The files of Swagger UI that the page loads.
pub const SWAGGER_FILES: &[File] = &[
    File { name: "swagger-ui.css", open: swagger_ui },
    File { name: "swagger-ui-bundle.js", open: swagger_ui },
    File { name: "favicon-32x32.png", open: swagger_ui },
];

/// The documentation page, which shows the OpenAPI document and sends test requests.
#[utoipa::path(get, path = "", tag = "about", operation_id = "docs",
    responses((status = 200, description = "The documentation page", content_type = "text/html", body = String)))]
pub fn page(as_folder: bool) -> Answer {
    // All links are relative, and their base depends on the slash at the end.
    let (docs, root) = if as_folder { ("", "../") } else { ("docs/", "") };
    let text = include_str!("assets/docs.html").replace("{docs}", docs).replace("{root}", root);
    with_policy(with_type(text.into(), HTML))
}

fn own(text: &'static str, media_type: HeaderValue) -> Answer {
    with_policy(with_type(Bytes::from_static(text.as_bytes()), media_type))
}

/// A file of Swagger UI, compressed as in the crate.
fn swagger_ui(name: &str) -> Result<Answer, ApiError> {
    let file = utoipa_swagger_ui::serve(name, Arc::new(Config::from("/openapi.json"))).ok().flatten();
    let file = file.ok_or(ApiError::NotFound)?;
    let media_type = HeaderValue::from_str(&file.content_type).map_err(|_| ApiError::NotFound)?;
    let mut answer = with_policy(with_type(file.bytes.into_owned().into(), media_type));
    if file.gzpipped {
        answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(answer)
}

/// Adds the security headers for browsers.
pub fn with_policy(mut answer: Answer) -> Answer {
    let headers = answer.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    headers.insert(HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer"));
    answer
}
