//! What browsers are told: that nothing here is to be guessed at, framed or kept, and which other origins may read.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL,
    CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, StatusCode};

use super::{Answer, AppState, Endpoint};
use crate::config::AccessConfig;

/// Whether browsers of other origins may be let in: where something is read, never at the doors.
fn is_shared(endpoint: Endpoint) -> bool {
    use Endpoint::{Events, Live, Message, Messages, OpenApi, Ready, Stats, Statuses};
    matches!(endpoint, Messages | Message | Statuses | Events | Stats | Live | Ready | OpenApi)
}

/// The origin that may read this answer, if the operator lets it.
fn allowed_origin(access: &AccessConfig, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    let known = |known: &String| known == "*" || known.as_bytes() == origin.as_bytes();
    access.cors_origins.iter().any(known).then(|| origin.clone())
}

/// Answers the question that a browser asks before it reads with a token.
pub fn preflight(app: &AppState, endpoint: Endpoint, method: &Method, headers: &HeaderMap) -> Option<Answer> {
    let asks = *method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if !asks || !is_shared(endpoint) {
        return None;
    }
    allowed_origin(&app.access(), headers)?;
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let out = answer.headers_mut();
    out.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET"));
    out.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, x-request-id"));
    out.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    Some(answer)
}

/// Adds to an answer what browsers have to know. The doors answer machines, but a browser can be led there too.
pub fn guard(app: &AppState, endpoint: Option<Endpoint>, headers: &HeaderMap, answer: &mut Answer) {
    let access = app.access();
    if let Some(origin) =
        endpoint.filter(|endpoint| is_shared(*endpoint)).and_then(|_| allowed_origin(&access, headers))
    {
        let out = answer.headers_mut();
        out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        out.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("link, x-total-exact, x-request-id, retry-after"),
        );
    }
    if !access.cors_origins.is_empty() {
        // The answer depends on who asks, and a cache in between must know.
        answer.headers_mut().insert(VARY, HeaderValue::from_static("origin"));
    }
    let mut absent = |name: HeaderName, value: &'static str| {
        answer.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    };
    absent(X_CONTENT_TYPE_OPTIONS, "nosniff");
    absent(REFERRER_POLICY, "no-referrer");
    absent(CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    if !matches!(endpoint, Some(Endpoint::Docs)) {
        absent(CACHE_CONTROL, "no-store");
    }
}
