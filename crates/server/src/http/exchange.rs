//! One request and its response. Every request goes through `respond`, is counted once and logged once.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONNECTION, DATE, EXPECT, HOST, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode, Version};

pub use super::access_log::{AccessLog, IngestSummary};
use super::body::RequestBody;
use super::error::ApiError;
use super::request_id::{REQUEST_ID, fresh_request_id, request_id};
use super::route::{Call, Cost, Handler};
use super::routes::{self, Found, ROUTES, allowed};
use super::watchdog::Watchdog;
use super::{Answer, AppState, ListenerRole, browser, date, guard, receive, views};
use crate::telemetry::metrics::Refusal;
use domain::Moment;
use runtime::log;

/// A request, and the data that is known before its body is read.
struct Exchange<'a> {
    app: &'a AppState,
    peer: IpAddr,
    /// The error that the connection found in the head.
    fault: Option<&'static str>,
    head: &'a Parts,
    /// Its row of the route table.
    found: Option<Found<'a>>,
}

/// Responds to a request. `fault` is the error that the connection found in its head. It never panics: a
/// panic becomes a 500.
pub async fn respond(
    app: &AppState,
    (role, peer): (ListenerRole, IpAddr),
    fault: Option<&'static str>,
    watchdog: &Watchdog,
    request: Request<Incoming>,
) -> Answer {
    let (head, body) = request.into_parts();
    let request_id = request_id(&head.headers);
    let found = routes::find(head.uri.path(), &head.method);
    let found = found.filter(|found| found.route.listener.is_shown(role, app.reads_apart));
    let route = found.map(|found| found.route);
    let mut record = AccessLog::new(app, &head, request_id.to_str().unwrap_or_default(), found.as_ref());
    let mut body = RequestBody::new(body, watchdog, head.headers.contains_key(EXPECT));
    let deadline = record.started + app.limits.request_timeout;
    let exchange = Exchange { app, peer, fault, head: &head, found };
    let result = {
        // Pinned where it is created: moving it costs more than the rest of many requests.
        let work = pin!(dispatch(&exchange, &mut body, &mut record));
        with_deadline(work, deadline, || ApiError::RequestDeadline).await
    };
    let result = result.and_then(|mut answer| {
        if route.is_some_and(|route| route.cost == Cost::Page) && !answer.body().has_room() {
            answer.body_mut().take_room(app.answer_room.share())?;
        }
        Ok(answer)
    });
    let (mut answer, error) = match result {
        Ok(answer) => (answer, None),
        Err(error) => (error.answer(), Some(error)),
    };
    record.answered(answer.status(), error.as_ref());
    drop(record);
    // A response always announces that the connection will be closed.
    if !answer.headers().contains_key(CONNECTION) && !body.discard().await {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    browser::guard(app, route, &head.headers, &mut answer);
    answer.headers_mut().insert(REQUEST_ID, request_id);
    answer.headers_mut().insert(DATE, date::value(Moment::now()));
    answer
}

/// Finds the endpoint and calls it. The contract defines the order of the checks.
async fn dispatch(
    exchange: &Exchange<'_>,
    body: &mut RequestBody<'_>,
    record: &mut AccessLog<'_>,
) -> Result<Answer, ApiError> {
    let Exchange { app, peer, fault, head, found } = *exchange;
    if let Some(fault) = fault.or_else(|| head_fault(&head.headers, head.version)) {
        return Err(ApiError::Malformed(fault));
    }
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    if head.method == Method::OPTIONS && path == "*" {
        // The methods of the service as a whole (RFC 9110, §9.3.7).
        return options(&allowed(ROUTES, false));
    }
    let found = found.ok_or(ApiError::NotFound)?;
    let source = receive::source(app, found)?;
    let has_handshake = source.as_ref().is_some_and(|source| source.scheme.has_handshake());
    if let Some(source) = source.as_ref().filter(|_| has_handshake && head.method == Method::GET) {
        return receive::shake_hands(source, query);
    }
    if let Some(answer) = browser::preflight(app, &found, &head.method, &head.headers) {
        return Ok(answer);
    }
    match (&head.method, &source) {
        (&Method::OPTIONS, _) => return options(&allowed(found.rows(), has_handshake)),
        // Some providers check in this way whether a configured address exists.
        (&Method::HEAD, Some(_)) => return Ok(Answer::default()),
        // HEAD is handled like GET. hyper omits the body.
        (method, _) if found.takes(method) => {}
        _ => return Err(ApiError::MethodNotAllowed(allowed(found.rows(), has_handshake))),
    }
    guard::admit(app, found.route.access, &head.headers, peer)?;
    if let Some(source) = &source {
        return receive::receive(app, source, head, peer, body, record).await;
    }
    let call = Call { app, headers: &head.headers, path, parameter: found.parameter, query };
    match found.route.handler {
        Handler::Original | Handler::Source => Err(ApiError::NotFound),
        Handler::Now(make) => make(call),
        Handler::Later(make) => make(call).await,
        Handler::Files(files) => {
            let file = files.iter().find(|file| file.name == call.parameter).ok_or(ApiError::NotFound)?;
            (file.open)(file.name)
        }
    }
}

/// The response to OPTIONS.
fn options(allowed: &str) -> Result<Answer, ApiError> {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer.headers_mut().insert(ALLOW, HeaderValue::from_str(allowed).map_err(|_| ApiError::Panic)?);
    Ok(answer)
}

/// A check of RFC 9112 (§3.2) that hyper lacks: a request of HTTP/1.1 has exactly one Host.
fn head_fault(headers: &HeaderMap, version: Version) -> Option<&'static str> {
    match (version, headers.get_all(HOST).iter().count()) {
        (Version::HTTP_11, 0) => Some("no Host header"),
        (_, 0 | 1) => None,
        _ => Some("more than one Host header"),
    }
}

/// Runs `work` to its end, to its deadline (the error is then `late`), or to a panic, which the panic hook
/// has already logged. A timer would cost every request, but few need one: the connection's watchdog wakes it
/// at either deadline (see `Watchdog::next_check`).
pub async fn with_deadline<T>(
    mut work: Pin<&mut impl Future<Output = Result<T, ApiError>>>,
    deadline: Instant,
    late: fn() -> ApiError,
) -> Result<T, ApiError> {
    std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(Poll::Pending) if Instant::now() >= deadline => Poll::Ready(Err(late())),
        Ok(poll) => poll,
        Err(_) => Poll::Ready(Err(ApiError::Panic)),
    })
    .await
}

/// Counts and logs a request that hyper could not parse, and returns our response. The connection ends with
/// this response.
pub fn refuse_unparsable(app: &AppState, status: StatusCode) -> Vec<u8> {
    let refusal = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => Refusal::HeadersTooLarge,
        _ => Refusal::MalformedRequest,
    };
    app.metrics.refused(refusal);
    app.metrics.unparsable_answered(status.as_u16());
    let request_id = fresh_request_id();
    let request_id = request_id.to_str().unwrap_or_default();
    // Neither method nor path could be read.
    log::warning(&format!("- - {}", status.as_u16()))
        .text("request_id", request_id)
        .text("method", "-")
        .text("path", "-")
        .value("status", status.as_u16())
        .value("latency_ms", "0.0")
        .text("reason", refusal.label())
        .emit();
    let body = views::detail(status.canonical_reason().unwrap_or("Bad Request"));
    let date = Moment::now().to_http_date();
    let head = format!(
        "HTTP/1.1 {status}\r\ndate: {date}\r\ncontent-type: application/json\r\nx-content-type-options: nosniff\r\ncache-control: no-store\r\n\
         x-request-id: {request_id}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}
