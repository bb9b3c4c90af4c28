//! One request and its answer: every request goes through `respond`, is counted once and leaves one log line.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{ALLOW, AUTHORIZATION, CONNECTION, DATE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode, Version};
use uuid::Uuid;

use super::body::RequestBody;
use super::error::ApiError;
use super::pulse::Pulse;
use super::{
    Answer, AppState, Endpoint, Face, Route, browser, date, details, docs, find_route, health, index, messages,
    metrics, receive, stats, views,
};
use crate::config::LogLevel;
use crate::domain::{MessageId, Moment};
use crate::providers::Source;
use crate::runtime::log;
use crate::telemetry::metrics::{PathLabel, Refusal, WebhookResult};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id of a client's that we take over.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Status in the log of a request whose client did not wait for the answer.
const STATUS_UNANSWERED: u16 = 499;

/// What is told of a request when it ends, however it ends.
#[derive(Debug)]
pub struct Record<'a> {
    app: &'a AppState,
    head: &'a Parts,
    request_id: &'a str,
    label: PathLabel,
    /// When its head was complete.
    pub started: Instant,
    answered: bool,
    /// The message, where known.
    pub message_id: Option<MessageId>,
    /// What became of a request to the original door.
    pub result: Option<WebhookResult>,
    /// The copy differed from the first; the first was kept.
    pub conflict: bool,
    /// What a request to a provider's door brought.
    pub filed: Option<Filed>,
}

/// What became of everything in a request to a provider's door.
#[derive(Debug)]
pub struct Filed {
    /// The door.
    pub source: String,
    /// Messages in it.
    pub messages: usize,
    /// Messages stored by it.
    pub created: usize,
    /// Messages stored before.
    pub duplicates: usize,
    /// New statuses.
    pub statuses: usize,
    /// New events.
    pub events: usize,
}

/// Answers a request. `fault` is what the connection found wrong with its head. Never panics: a panic on the way is a 500.
pub async fn respond(
    app: &AppState,
    (face, peer): (Face, IpAddr),
    fault: Option<&'static str>,
    pulse: &Pulse,
    request: Request<Incoming>,
) -> Answer {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let mut body = RequestBody::new(body, pulse, head.headers.contains_key(EXPECT));
    let route = find_route(head.uri.path()).filter(|route| app.shows(face, route.endpoint));
    let request_id = request_id(&head.headers);
    let mut record = Record {
        app,
        head: &head,
        request_id: request_id.to_str().unwrap_or_default(),
        label: route.map_or(PathLabel::Unknown, |route| route.label),
        started,
        answered: false,
        message_id: None,
        result: None,
        conflict: false,
        filed: None,
    };
    let deadline = started + app.limits.request_timeout;
    let result = {
        // Pinned where it is made: moving it costs more than many a request does otherwise.
        let work = pin!(dispatch(app, peer, fault, route, &head, &mut body, &mut record));
        within(work, deadline, || ApiError::RequestDeadline).await
    };
    let result = result.and_then(|mut answer| {
        if route.is_some_and(|route| reads_pages(route.endpoint)) && !answer.body().has_room() {
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
    // A connection is never closed without having said so.
    if !answer.headers().contains_key(CONNECTION) && !body.discard().await {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    browser::guard(app, route.map(|route| route.endpoint), &head.headers, &mut answer);
    answer.headers_mut().insert(REQUEST_ID, request_id);
    answer.headers_mut().insert(DATE, date::value(Moment::now()));
    answer
}

/// Finds out what is asked, and asks it of the right endpoint. The order of the checks is the contract's.
async fn dispatch(
    app: &AppState,
    peer: IpAddr,
    fault: Option<&'static str>,
    route: Option<&'static Route>,
    head: &Parts,
    body: &mut RequestBody<'_>,
    record: &mut Record<'_>,
) -> Result<Answer, ApiError> {
    if let Some(fault) = fault.or_else(|| head_fault(&head.headers, head.version)) {
        return Err(ApiError::Malformed(fault));
    }
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    if head.method == Method::OPTIONS && path == "*" {
        // What the service as a whole takes (RFC 9110, §9.3.7).
        return Ok(options("GET, POST, HEAD, OPTIONS"));
    }
    let route = route.ok_or(ApiError::NotFound)?;
    let source = receive::door(app, route.endpoint, path)?;
    if let (Some(source), &Method::GET) = (&source, &head.method)
        && source.scheme.has_handshake()
    {
        return receive::shake_hands(source, query);
    }
    if let Some(answer) = browser::preflight(app, route.endpoint, &head.method, &head.headers) {
        return Ok(answer);
    }
    let allowed = allowed_methods(source.as_deref());
    match (&head.method, &source) {
        (&Method::OPTIONS, _) => return Ok(options(allowed)),
        // Some providers ask so whether there is anything at the address that they are given.
        (&Method::HEAD, Some(_)) => return Ok(Answer::default()),
        // As GET; hyper leaves the body out.
        (&Method::HEAD, None) => {}
        (method, _) if *method == route.method => {}
        _ => return Err(ApiError::MethodNotAllowed(allowed)),
    }
    if is_guarded(app, route.endpoint) {
        app.rates.read(peer).map_err(ApiError::TooMany)?;
        authorize(app, &head.headers)?;
    }
    if let Some(source) = &source {
        return receive::receive(app, source, head, peer, body, record).await;
    }
    // In boxes, so that a message does not pay for the room that they take.
    match route.endpoint {
        Endpoint::Webhook | Endpoint::Door => Err(ApiError::NotFound),
        Endpoint::Messages => Box::pin(messages::list(app, path, query)).await,
        Endpoint::Message => Box::pin(details::message(app, path, query)).await,
        Endpoint::Statuses => Box::pin(details::statuses(app, path, query)).await,
        Endpoint::Events => Box::pin(details::events(app, query)).await,
        Endpoint::Event => Box::pin(details::event(app, path, query)).await,
        Endpoint::Stats => Box::pin(stats::summarize(app, query)).await,
        Endpoint::Live => Ok(health::live()),
        Endpoint::Ready => Ok(Box::pin(health::ready(app)).await),
        Endpoint::Metrics => Ok(Box::pin(metrics::expose(app)).await),
        Endpoint::Index => Ok(index::greet(&head.headers)),
        Endpoint::OpenApi => Ok(docs::openapi()),
        Endpoint::Docs => docs::file(path).ok_or(ApiError::NotFound),
    }
}

/// What a path takes, in the form of the header `Allow`.
fn allowed_methods(source: Option<&Source>) -> &'static str {
    match source {
        None => "GET, HEAD, OPTIONS",
        Some(source) if source.scheme.has_handshake() => "GET, POST, HEAD, OPTIONS",
        Some(_) => "POST, HEAD, OPTIONS",
    }
}

/// The answer to OPTIONS.
fn options(allowed: &'static str) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// How a refusal counts among the results of the original door; most are not the door's own.
fn refused_result(error: Option<&ApiError>) -> Option<WebhookResult> {
    match error? {
        ApiError::BadSignature { .. } => Some(WebhookResult::InvalidSignature),
        ApiError::Invalid(_) => Some(WebhookResult::ValidationError),
        _ => None,
    }
}

impl Record<'_> {
    /// Counts the request and writes its one line.
    fn answered(&mut self, status: StatusCode, error: Option<&ApiError>) {
        self.answered = true;
        let latency = self.started.elapsed();
        let refusal = error.and_then(ApiError::refusal);
        if self.label == PathLabel::Webhook {
            self.result = self.result.or(refused_result(error));
            self.result.into_iter().for_each(|result| self.app.metrics.webhook_result(result));
        }
        refusal.into_iter().for_each(|refusal| self.app.metrics.refused(refusal));
        let method = self.head.method.as_str();
        self.app.metrics.request_answered(self.label, method, status.as_u16(), latency, self.started + latency);
        let level = match error {
            Some(ApiError::BadSignature { .. } | ApiError::BadHandshake(_)) => LogLevel::Error,
            _ if status.is_server_error() => LogLevel::Error,
            _ if status.is_client_error() => LogLevel::Warning,
            _ => LogLevel::Info,
        };
        self.log(level, status.as_u16(), latency, refusal, error.and_then(ApiError::detail_for_log));
    }

    fn log(&self, level: LogLevel, status: u16, latency: Duration, refusal: Option<Refusal>, error: Option<&str>) {
        let (method, path) = (self.head.method.as_str(), self.head.uri.path());
        let message = format!("{} {} {status}", log::shown(method), log::shown(path));
        let mut line = log::line_at(level, Moment::now(), &message)
            .text("request_id", self.request_id)
            .text("method", method)
            .text("path", path)
            .value("status", status)
            .value("latency_ms", format_args!("{}.{:03}", latency.as_millis(), latency.subsec_micros() % 1_000));
        if self.label == PathLabel::Webhook {
            line = line
                .text_if("message_id", self.message_id.as_ref().map(MessageId::as_str))
                .value("dup", self.result == Some(WebhookResult::Duplicate))
                .text_if("result", self.result.map(WebhookResult::label));
        }
        if self.conflict {
            line = line.value("conflict", true);
        }
        if let Some(filed) = &self.filed {
            line = line
                .text("source", &filed.source)
                .text_if("message_id", self.message_id.as_ref().map(MessageId::as_str))
                .value("messages", filed.messages)
                .value("created", filed.created)
                .value("duplicates", filed.duplicates)
                .value("statuses", filed.statuses)
                .value("events", filed.events);
        }
        line.text_if("reason", refusal.map(Refusal::label)).text_if("error", error).emit();
    }
}

impl Drop for Record<'_> {
    /// The client went away, or a stop ran out of patience, before there was an answer. What it brought may be stored all the
    /// same; it will ask again, and hear that it is.
    fn drop(&mut self) {
        if !self.answered {
            self.app.metrics.refused(Refusal::Unanswered);
            self.log(LogLevel::Warning, STATUS_UNANSWERED, self.started.elapsed(), Some(Refusal::Unanswered), None);
        }
    }
}

/// What hyper lets pass and RFC 9112 (§3.2) does not: a request of HTTP/1.1 has exactly one Host.
fn head_fault(headers: &HeaderMap, version: Version) -> Option<&'static str> {
    match (version, headers.get_all(HOST).iter().count()) {
        (Version::HTTP_11, 0) => Some("no Host header"),
        (_, 0 | 1) => None,
        _ => Some("more than one Host header"),
    }
}

/// Whether something stored is read. The pages that hold no data, the health probes and the doors ask for no token.
fn is_guarded(app: &AppState, endpoint: Endpoint) -> bool {
    match endpoint {
        Endpoint::Messages | Endpoint::Message | Endpoint::Statuses => true,
        Endpoint::Events | Endpoint::Event | Endpoint::Stats => true,
        Endpoint::Metrics => !app.access().metrics_public,
        Endpoint::Webhook | Endpoint::Door | Endpoint::Live | Endpoint::Ready => false,
        Endpoint::Index | Endpoint::OpenApi | Endpoint::Docs => false,
    }
}

/// Whether an answer may be as large as what others have sent; the rest are small, or lie in the memory anyway.
fn reads_pages(endpoint: Endpoint) -> bool {
    use Endpoint::{Event, Events, Message, Messages, Statuses};
    matches!(endpoint, Messages | Message | Statuses | Events | Event)
}

/// Reading wants a token, if there are tokens.
fn authorize(app: &AppState, headers: &HeaderMap) -> Result<(), ApiError> {
    let access = app.access();
    if access.tokens.is_empty() {
        return Ok(());
    }
    let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let token = match given.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer ") => token.trim_ascii(),
        _ => return Err(ApiError::NotAuthenticated { token_given: false }),
    };
    // Every token is compared, each in constant time.
    let fits = access.tokens.iter().fold(false, |fits, known| known.matches(token) | fits);
    if fits { Ok(()) } else { Err(ApiError::NotAuthenticated { token_given: true }) }
}

/// The client's id if it is sane (it goes into our log), else one of ours.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let sane = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
        (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(plain)
    };
    headers.get(REQUEST_ID).filter(sane).cloned().unwrap_or_else(fresh_request_id)
}

/// A UUID of version 7 (RFC 9562, §5.7): sorted by time, and random by a keyed hash of a counter, which asks the system for
/// nothing and so cannot fail.
fn fresh_request_id() -> HeaderValue {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut random = [0; 10];
    random[..8].copy_from_slice(&KEYS.hash_one(count).to_ne_bytes());
    random[8..].copy_from_slice(&count.to_ne_bytes()[..2]);
    let id = uuid::Builder::from_unix_timestamp_millis(Moment::now().unix_millis(), &random).into_uuid();
    let mut buffer = Uuid::encode_buffer();
    HeaderValue::from_str(id.as_hyphenated().encode_lower(&mut buffer)).expect("hexadecimal and hyphens")
}

/// Runs `work` to its end, or to its deadline, when it is `late`, or to a panic; the panic hook has told of that by then. A timer
/// would cost each request what hardly any needs: the connection's watchdog wakes all of it at either deadline
/// (see `Pulse::next_check`).
pub async fn within<T>(
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

/// Counts and logs what hyper could not read as a request, and puts the answer in our words: the connection ends with it.
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
