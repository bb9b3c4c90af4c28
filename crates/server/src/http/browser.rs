//! Headers for browsers: no type guessing, no frames, no caching, and the other origins that may read.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL,
    CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, StatusCode};

use super::route::{Cache, Cors, Route};
use super::routes::{Found, methods};
use super::{Answer, AppState};
use crate::config::AccessConfig;

/// The origin that may read this response, if the operator allows it.
fn allowed_origin(access: &AccessConfig, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    let known = |known: &String| known == "*" || known.as_bytes() == origin.as_bytes();
    access.cors_origins.iter().any(known).then(|| origin.clone())
}

/// Handles the preflight of a browser before it reads with a token.
pub fn preflight(app: &AppState, found: &Found<'_>, method: &Method, headers: &HeaderMap) -> Option<Answer> {
    if *method != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    let shared = found.rows().iter().filter(|row| row.cors == Cors::Named);
    shared.clone().next()?;
    allowed_origin(&app.access(), headers)?;
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let out = answer.headers_mut();
    out.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::try_from(methods(shared)).ok()?);
    let headers = HeaderValue::from_static("authorization, x-postroom-token, x-request-id");
    out.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers);
    out.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    Some(answer)
}

/// Adds the headers for browsers to a response. Sources serve machines, but a link may lead a browser there.
pub fn guard(app: &AppState, route: Option<&Route>, headers: &HeaderMap, answer: &mut Answer) {
    let access = app.access();
    let cache = route.map_or(Cache::NoStore, |route| route.cache);
    if let Cache::Public { seconds } = cache
        && answer.status() == StatusCode::OK
        && let Ok(value) = HeaderValue::try_from(format!("public, max-age={seconds}"))
    {
        answer.headers_mut().insert(CACHE_CONTROL, value);
    }
    let is_shared = route.is_some_and(|route| route.cors == Cors::Named);
    if let Some(origin) = is_shared.then(|| allowed_origin(&access, headers)).flatten() {
        let out = answer.headers_mut();
        out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        out.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("link, x-total-exact, x-request-id, retry-after"),
        );
    }
    if !access.cors_origins.is_empty() {
        // The response depends on the request's origin, and a cache must know that.
        answer.headers_mut().insert(VARY, HeaderValue::from_static("origin"));
    }
    let mut absent = |name: HeaderName, value: HeaderValue| {
        answer.headers_mut().entry(name).or_insert(value);
    };
    absent(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    absent(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    absent(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    if cache == Cache::NoStore {
        absent(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}
