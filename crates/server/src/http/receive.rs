//! `POST /webhook` and `POST /webhook/{name}`: the path of a message, from bytes to receipt.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};
use hyper::http::request::Parts;

use super::acknowledged::{self, Acknowledged, plain_text};
use super::body::RequestBody;
use super::error::ApiError;
use super::exchange::{AccessLog, IngestSummary};
use super::route::Handler;
use super::routes::Found;
use super::sources::base_url;
use super::views::{DetailView, InvalidView, NewMessageView, StoredView};
use super::{Answer, AppState};
use crate::telemetry::metrics::WebhookResult;
use domain::{Intake, Moment, Outcome};
use providers::{InvalidBody, Parsed, Request, Source, VerifiedBody};
use runtime::process::give_back_memory;
use store::Receipt;

/// Verifies, parses and stores what a provider posts.
///
/// The order of the checks is the contract's.
#[utoipa::path(post, path = "", tag = "messages", operation_id = "receive",
    description = "Stores one message. A known message_id returns 200 again and keeps the first copy. The response follows a \
        commit that survives power loss.",
    security(("signature" = [])),
    request_body(content = NewMessageView, content_type = "application/json"),
    responses(
        (status = 200, description = "Stored, now or before", body = StoredView),
        (status = 400, description = "Not valid HTTP", body = DetailView),
        (status = 401, description = "No valid signature", body = DetailView),
        (status = 408, description = "The body did not arrive in time", body = DetailView),
        (status = 413, description = "The body is too long", body = DetailView),
        (status = 415, description = "The body is compressed", body = DetailView),
        (status = 422, description = "Signed, but not a message", body = InvalidView),
        (status = 429, description = "Over a rate that the operator set (Retry-After)", body = DetailView),
        (status = 503, description = "Not stored; try again (Retry-After)", body = DetailView),
        (status = 507, description = "Not stored: the disk is full; try again (Retry-After)", body = DetailView),
    ))]
pub async fn receive(
    app: &AppState,
    source: &Arc<Source>,
    head: &Parts,
    peer: IpAddr,
    body: &mut RequestBody<'_>,
    record: &mut AccessLog<'_>,
) -> Result<Answer, ApiError> {
    // Requests that arrived before the stop began are still served.
    let stopping = app.is_stopping();
    refuse_encoded(&head.headers)?;
    let deadline = record.started + app.limits.body_timeout;
    let (body, room) = body.read_whole(app, body_bytes_max(app, source), deadline).await?;
    let now = Moment::now();
    let body = verify(app, source, head, peer, body, now).await?;
    if stopping {
        return Err(ApiError::ShuttingDown);
    }
    // This follows the signature check: clients without the secret cannot use up the limit of the others.
    app.rates.post(&source.name).map_err(ApiError::TooMany)?;
    app.store.has_room()?;
    let parsed = read(app, source, &body, now).await.map_err(|refusal| {
        record.message_id = refusal.message_id;
        ApiError::Invalid(refusal.errors)
    })?;
    record.remember(source, &parsed.intake);
    let Parsed { intake, challenge, .. } = parsed;
    // The bytes of the body wait for the writer only if they are kept.
    let room = if source.keeps_payload() { Some(room) } else { None };
    let proof = match intake.is_empty() {
        true => Acknowledged::NothingToStore(body),
        false => {
            drop(body);
            let receipt = app.store.append(intake).await?;
            record.file(app, source, &receipt);
            Acknowledged::Stored(receipt)
        }
    };
    drop(room);
    Ok(acknowledged::answer(&proof, source.scheme.answer, challenge.as_ref()))
}

/// As `receive`, for provider sources.
#[utoipa::path(post, path = "", tag = "messages", operation_id = "receive_at_source",
    description = "Accepts a provider's own format and signature. Each message is stored under its \
        own id; unknown content is kept and listed under /events. The response has the form that the provider expects.",
    params(("source" = String, Path, description = "The name of the source")),
    request_body(content = String, description = "The provider's body, at most 4 MiB", content_type = "*/*"),
    responses(
        (status = 200, description = "Everything in it is stored, now or before"),
        (status = 400, description = "Not valid HTTP", body = DetailView),
        (status = 401, description = "No valid signature", body = DetailView),
        (status = 403, description = "The same, at Twilio's source", body = DetailView),
        (status = 404, description = "There is no such source", body = DetailView),
        (status = 408, description = "The body did not arrive in time", body = DetailView),
        (status = 413, description = "The body is too long", body = DetailView),
        (status = 415, description = "The body is compressed", body = DetailView),
        (status = 422, description = "Only at sources with Postroom's own format: signed, but not a message", body = InvalidView),
        (status = 429, description = "Over a rate that the operator set (Retry-After)", body = DetailView),
        (status = 503, description = "Not stored, or unsigned at Vonage's source; try again (Retry-After)", body = DetailView),
        (status = 507, description = "Not stored: the disk is full; try again (Retry-After)", body = DetailView),
    ))]
#[allow(dead_code)]
pub fn receive_at_source() {}

/// The source of a path; none if the path is another one. The part after a source's name belongs to the bridge.
pub fn source(app: &AppState, found: Found<'_>) -> Result<Option<Arc<Source>>, ApiError> {
    let source = match found.route.handler {
        Handler::Original => app.sources.original(),
        Handler::Source => {
            let (name, has_suffix) =
                found.parameter.split_once('/').map_or((found.parameter, false), |(name, _)| (name, true));
            app.sources.named(name).filter(|source| !has_suffix || source.scheme.takes_suffix)
        }
        Handler::Now(_) | Handler::Later(_) | Handler::Files(_) => return Ok(None),
    };
    source.map(Some).ok_or(ApiError::NotFound)
}

/// Handles the GET of a provider that checks that the source is ours.
pub fn shake_hands(source: &Source, query: &str) -> Result<Answer, ApiError> {
    let answer = source.handshake(query).ok_or(ApiError::NotFound)?;
    answer.map(|challenge| plain_text(&challenge)).map_err(ApiError::BadHandshake)
}

fn body_bytes_max(app: &AppState, source: &Source) -> usize {
    let usual = if source.keeps_payload() { app.limits.source_body_bytes_max } else { app.limits.body_bytes_max };
    source.options.body_bytes_max.unwrap_or(usual)
}

/// A body from this size on is verified and parsed on a separate thread, because that takes some milliseconds.
const LARGE_BODY_BYTES: usize = 64 << 10;
/// Large bodies that are parsed at once; the others wait. A body of tiny parts takes some forty times its size while
/// it is parsed, and a processor parses one at a time anyway.
pub const LARGE_READS_MAX: usize = 2;

async fn verify(
    app: &AppState,
    source: &Arc<Source>,
    head: &Parts,
    peer: IpAddr,
    body: Bytes,
    now: Moment,
) -> Result<VerifiedBody, ApiError> {
    let refuse = |reason| ApiError::BadSignature { reason, status: source.scheme.refusal_status };
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let base_url = if source.needs_url() { base_url(&app.limits, &head.headers, peer) } else { None };
    if body.len() < LARGE_BODY_BYTES {
        let request = Request { headers: &head.headers, body: &body, base_url: base_url.as_deref(), target };
        return source.verify(&request, body.clone(), now).map_err(|reason| {
            app.quarantine.keep(source, &request, reason, now);
            refuse(reason)
        });
    }
    let (own, headers, target) = (Arc::clone(source), head.headers.clone(), target.to_owned());
    let work = move || {
        let request = Request { headers: &headers, body: &body, base_url: base_url.as_deref(), target: &target };
        own.verify(&request, body.clone(), now)
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::Panic)?.map_err(refuse)
}

async fn read(app: &AppState, source: &Arc<Source>, body: &VerifiedBody, now: Moment) -> Result<Parsed, InvalidBody> {
    if !source.keeps_payload() {
        return source.parse(body, now);
    }
    let (own, whole) = (Arc::clone(source), body.clone());
    // A failure of our parser is not the provider's fault: the body is kept for a better parser.
    let guarded = move || catch_unwind(AssertUnwindSafe(|| own.parse(&whole, now)));
    let parsed = match body.as_bytes().len() < LARGE_BODY_BYTES {
        true => guarded(),
        false => {
            let _turn = app.large_reads.acquire().await;
            let read = move || {
                let parsed = guarded();
                // Another thread may parse the next large body.
                give_back_memory();
                parsed
            };
            tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(Box::new(error)))
        }
    };
    parsed.unwrap_or_else(|_| Ok(source.unreadable(body, "the parser failed", now)))
}

impl AccessLog<'_> {
    /// Records the counts of a request for its log line.
    fn remember(&mut self, source: &Source, intake: &Intake) {
        if let [message] = intake.messages.as_slice() {
            self.message_id = Some(message.id.clone());
        }
        if source.keeps_payload() {
            let (source, messages) = (source.name.clone(), intake.messages.len());
            self.filed = Some(IngestSummary { source, messages, created: 0, duplicates: 0, statuses: 0, events: 0 });
        }
    }

    /// Counts and records the outcome of each element.
    fn file(&mut self, app: &AppState, source: &Source, receipt: &Receipt) {
        for outcome in receipt.outcomes() {
            app.metrics.message_filed(&source.name, *outcome);
        }
        if let [outcome] = receipt.outcomes() {
            self.result = Some(match outcome {
                Outcome::Created => WebhookResult::Created,
                Outcome::Duplicate | Outcome::Conflict => WebhookResult::Duplicate,
            });
        }
        self.conflict = receipt.outcomes().contains(&Outcome::Conflict);
        if let Some(filed) = &mut self.filed {
            filed.created = Outcome::count_created(receipt.outcomes());
            filed.duplicates = receipt.outcomes().len() - filed.created;
            filed.statuses = Outcome::count_created(receipt.statuses());
            filed.events = Outcome::count_created(receipt.events());
            app.metrics.extras_filed(&source.name, filed.statuses, filed.events);
        }
    }
}

/// The signature covers raw bytes, so there is nothing to decode; and a small body that expands to a huge one is an
/// attack. Some clients put the character set there, or write that there is no encoding.
fn refuse_encoded(headers: &HeaderMap) -> Result<(), ApiError> {
    let changes_nothing = |name: &[u8]| {
        let name = name.trim_ascii();
        ["", "identity", "none", "utf-8", "utf8"].iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
    };
    let is_plain = |value: &HeaderValue| value.as_bytes().split(|byte| *byte == b',').all(changes_nothing);
    if headers.get_all(CONTENT_ENCODING).iter().all(is_plain) { Ok(()) } else { Err(ApiError::ContentEncoding) }
}
