//! `POST /webhook`: the way of a message, from bytes to receipt.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_ENCODING, HeaderMap};
use tokio::sync::SemaphorePermit;

use super::error::ApiError;
use super::exchange::Record;
use super::views::{DetailView, InvalidView, NewMessageView, StoredView, ok};
use super::{Answer, AppState};
use crate::domain::Moment;
use crate::providers::{AnswerStyle, Parsed, Source};
use crate::store::Receipt;
use crate::telemetry::metrics::{Outcome, WebhookResult};

/// Verifies, reads and stores what a provider posts.
///
/// The order of the checks is the contract's.
#[utoipa::path(post, path = "/webhook", tag = "messages", operation_id = "receive",
    description = "Stores one message. A known message_id answers 200 again and keeps the first copy. The answer comes after a \
        commit that survives power loss.",
    security(("signature" = [])),
    request_body(content = NewMessageView, content_type = "application/json"),
    responses(
        (status = 200, description = "Stored, now or before", body = StoredView),
        (status = 400, description = "Not HTTP as it should be", body = DetailView),
        (status = 401, description = "Not signed as the door wants it", body = DetailView),
        (status = 408, description = "The body did not come in time", body = DetailView),
        (status = 413, description = "The body is too long", body = DetailView),
        (status = 415, description = "The body is compressed", body = DetailView),
        (status = 422, description = "Signed, but not a message", body = InvalidView),
        (status = 503, description = "Not stored; try again (Retry-After)", body = DetailView),
        (status = 507, description = "Not stored: the disk is full; try again (Retry-After)", body = DetailView),
    ))]
pub async fn receive(
    app: &AppState,
    source: &Source,
    headers: &HeaderMap,
    body: Incoming,
    record: &mut Record<'_>,
) -> Result<Answer, ApiError> {
    // Whoever came before the stop began is still served.
    let draining = app.is_draining();
    refuse_encoded(headers)?;
    let (body, room) = read_body(app, body).await?;
    let now = Moment::now();
    let body = source.verify(headers, body)?;
    if draining {
        return Err(ApiError::ShuttingDown);
    }
    app.store.has_room()?;
    let parsed = source.parse(&body, now).map_err(|refusal| {
        record.message_id = refusal.message_id;
        ApiError::Invalid(refusal.errors)
    })?;
    // What waits for the writer is the message, not the bytes that it came in.
    drop((body, room));
    record.remember(&parsed);
    let receipt = app.store.append(parsed).await?;
    record.file(app, source, &receipt);
    Ok(answer(source.scheme.answer))
}

/// What the provider wants to hear. Only called with a receipt in hand.
fn answer(style: AnswerStyle) -> Answer {
    match style {
        AnswerStyle::Json => ok(&StoredView { status: "ok" }),
    }
}

impl Record<'_> {
    /// Keeps for the log line which message a request brought.
    fn remember(&mut self, parsed: &Parsed) {
        if let [message] = parsed.messages.as_slice() {
            self.message_id = Some(message.id.clone());
        }
    }

    /// Counts and notes what became of each message.
    fn file(&mut self, app: &AppState, source: &Source, receipt: &Receipt) {
        for outcome in receipt.outcomes() {
            app.metrics.message_filed(&source.name, *outcome);
        }
        if let [outcome] = receipt.outcomes() {
            self.result = Some(match outcome {
                Outcome::Created => WebhookResult::Created,
                Outcome::Duplicate | Outcome::Conflict => WebhookResult::Duplicate,
            });
            self.conflict = *outcome == Outcome::Conflict;
        }
    }
}

/// The signature is over raw bytes, so there is nothing to decode; and a small body that unpacks to a huge one is no gift.
fn refuse_encoded(headers: &HeaderMap) -> Result<(), ApiError> {
    let encoded = |value: &hyper::header::HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().any(encoded) { Err(ApiError::ContentEncoding) } else { Ok(()) }
}

/// A body up to here is taken without asking for room: it lay in the connection's buffer anyway.
const SMALL_BODY_BYTES: usize = 16 << 10;

/// Reads a whole body, within the limits of length, time and memory. A declared length that is too great is refused before
/// anything is read; a stream is cut at the limit, whatever it declared. What large bodies take of the common room is given
/// back with the permit.
async fn read_body(app: &AppState, mut body: Incoming) -> Result<(Bytes, SemaphorePermit<'_>), ApiError> {
    let most = app.limits.body_bytes_max;
    if body.size_hint().lower() > most as u64 {
        return Err(ApiError::BodyTooLarge);
    }
    let read = async {
        let mut room = app.body_room.try_acquire_many(0).map_err(|_| ApiError::BodiesTooLarge)?;
        let mut first: Option<Bytes> = None;
        let mut rest = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ApiError::Malformed("the body broke off or was badly framed"))?;
            let Ok(data) = frame.into_data() else { continue };
            let read = first.as_ref().map_or(0, Bytes::len) + rest.len() + data.len();
            if read > most {
                return Err(ApiError::BodyTooLarge);
            }
            if read > SMALL_BODY_BYTES {
                let more = u32::try_from(data.len()).map_err(|_| ApiError::BodyTooLarge)?;
                room.merge(app.body_room.try_acquire_many(more).map_err(|_| ApiError::BodiesTooLarge)?);
            }
            // Nearly every body arrives in one piece, which needs no copy.
            match first {
                None => first = Some(data),
                Some(_) => rest.extend_from_slice(&data),
            }
        }
        let first = first.unwrap_or_default();
        let whole = if rest.is_empty() { first } else { [first, rest.freeze()].concat().into() };
        Ok((whole, room))
    };
    tokio::time::timeout(app.limits.body_timeout, read).await.unwrap_or(Err(ApiError::BodyTooSlow))
}
