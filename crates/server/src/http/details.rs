//! Data beyond a listing: one message with all its details, the delivery of a sent message, and records that
//! are neither.

use hyper::header::{CONTENT_DISPOSITION, HeaderName, HeaderValue};

use tokio::sync::SemaphorePermit;

use super::error::ApiError;
use super::route::Call;
use super::views::{
    AmbiguousView, DetailView, EventView, EventsView, FullMessageView, InvalidView, StatusView, ok, with_type,
};
use super::{Answer, AppState, params};
use store::Lookup;

/// A message with all its provider data.
#[utoipa::path(get, path = "", tag = "messages", operation_id = "message",
    description = "The six fields, the details from the provider, and whether the raw body is stored. raw=1 returns that \
        body, byte for byte (except for secrets in it).",
    params(
        ("id" = String, Path, description = "The message's key, percent-encoded; or the provider's id, if only one message has it"),
        ("raw" = Option<String>, Query, description = "1: the raw body instead", pattern = "^[01]?$"),
    ),
    responses(
        (status = 200, description = "The message", body = FullMessageView),
        (status = 401, description = "Reading needs a token", body = DetailView),
        (status = 404, description = "No such message, or no raw body of it", body = DetailView),
        (status = 409, description = "Several messages have this id; use the key", body = AmbiguousView),
        (status = 429, description = "Over a rate that the operator set (Retry-After)", body = DetailView),
        (status = 503, description = "The database is not available", body = DetailView),
    ),
    security((), ("token" = [])))]
pub async fn message(Call { app, parameter, query, .. }: Call<'_>) -> Result<Answer, ApiError> {
    let id = params::path_id(parameter).ok_or(ApiError::NotFound)?;
    let _turn = turn(app).await;
    let found = one(app.store.message(id).await?)?;
    if !params::flag(query, "raw") {
        return Ok(ok(&FullMessageView::new(&found)));
    }
    raw_body(app, found.payload).await
}

/// A stored body, byte for byte.
async fn raw_body(app: &AppState, number: Option<i64>) -> Result<Answer, ApiError> {
    let payload = app.store.payload(number.ok_or(ApiError::NotFound)?).await?.ok_or(ApiError::NotFound)?;
    // Another party wrote these bytes: a browser must not interpret them.
    let mut answer = with_type(payload.into_row().bytes.into(), HeaderValue::from_static("application/octet-stream"));
    answer.headers_mut().insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"payload\""));
    answer.headers_mut().insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    Ok(answer)
}

/// The delivery of a sent message.
#[utoipa::path(get, path = "", tag = "messages", operation_id = "statuses",
    description = "The greatest status of a sent message, and all records. Sent messages are not in the inbox, so \
        the message itself need not exist. raw=1 returns the body of the latest record, or of the latest one of a status and \
        of a recipient.",
    params(
        ("id" = String, Path, description = "The message's key, or the provider's id, as for the message"),
        ("raw" = Option<String>, Query, description = "1: the raw body instead", pattern = "^[01]?$"),
        ("status" = Option<String>, Query, description = "With raw: of a record with this status",
            pattern = "^(queued|sent|delivered|read|played|failed)?$"),
        ("recipient" = Option<String>, Query, description = "With raw: of a record with exactly this recipient"),
    ),
    responses(
        (status = 200, description = "Its statuses", body = StatusView),
        (status = 401, description = "Reading needs a token", body = DetailView),
        (status = 404, description = "No status of it is known, or no raw body of it", body = DetailView),
        (status = 409, description = "Several messages have this id; use the key", body = AmbiguousView),
        (status = 422, description = "A parameter is invalid", body = InvalidView),
        (status = 429, description = "Over a rate that the operator set (Retry-After)", body = DetailView),
        (status = 503, description = "The database is not available", body = DetailView),
    ),
    security((), ("token" = [])))]
pub async fn statuses(Call { app, parameter, query, .. }: Call<'_>) -> Result<Answer, ApiError> {
    let id = params::path_id(parameter).ok_or(ApiError::NotFound)?;
    let wanted = params::record_request(query).map_err(ApiError::Invalid)?;
    let _turn = turn(app).await;
    let found = one(app.store.statuses(id).await?)?;
    let Some(wanted) = wanted else { return Ok(ok(&StatusView::new(&found))) };
    let latest = found.records.iter().rev().find(|record| record.payload.is_some() && wanted.fits(record));
    raw_body(app, latest.and_then(|record| record.payload)).await
}

/// Waits until few others read data of unknown size. Held until the response is made.
async fn turn(app: &AppState) -> SemaphorePermit<'_> {
    app.single_reads.acquire().await.expect("it is never closed")
}

fn one<T>(found: Lookup<T>) -> Result<T, ApiError> {
    match found {
        Lookup::Found(found) => Ok(found),
        Lookup::Absent => Err(ApiError::NotFound),
        Lookup::Ambiguous(keys) => Err(ApiError::Ambiguous(keys)),
    }
}

/// Records of sources that are neither message nor status.
#[utoipa::path(get, path = "", tag = "messages", operation_id = "events",
    description = "Account events, unknown types, bodies that could not be parsed (kind unreadable), and copies that differ from \
        the stored message (kind conflict); own messages, edits and deletions, with the member message. Newest first; \
        before selects older ones.",
    params(
        ("limit" = Option<i64>, Query, description = "Maximum number", minimum = 1, maximum = 100),
        ("before" = Option<i64>, Query, description = "Only events with a smaller number", minimum = 0),
        ("source" = Option<String>, Query, description = "Only from this source"),
        ("kind" = Option<String>, Query, description = "Only of this kind"),
    ),
    responses(
        (status = 200, description = "Events", body = EventsView),
        (status = 401, description = "Reading needs a token", body = DetailView),
        (status = 422, description = "A parameter is invalid", body = InvalidView),
        (status = 429, description = "Over a rate that the operator set (Retry-After)", body = DetailView),
        (status = 503, description = "The database is not available", body = DetailView),
    ),
    security((), ("token" = [])))]
pub async fn events(Call { app, query, .. }: Call<'_>) -> Result<Answer, ApiError> {
    let request = params::event_request(query).map_err(ApiError::Invalid)?;
    let _turn = turn(app).await;
    let events = app.store.events(request).await?;
    let next_before = events.last().map(|event| event.number);
    Ok(ok(&EventsView { data: events.iter().map(EventView::new).collect(), next_before }))
}

/// One event.
#[utoipa::path(get, path = "", tag = "messages", operation_id = "event",
    description = "An event by its number, in the form of the listing. raw=1 returns the body that contained it, byte for byte \
        (except for secrets in it).",
    params(
        ("id" = i64, Path, description = "The number, event_id"),
        ("raw" = Option<String>, Query, description = "1: the raw body instead", pattern = "^[01]?$"),
    ),
    responses(
        (status = 200, description = "The event", body = EventView),
        (status = 401, description = "Reading needs a token", body = DetailView),
        (status = 404, description = "No such message, or no raw body of it", body = DetailView),
        (status = 429, description = "Over a rate that the operator set (Retry-After)", body = DetailView),
        (status = 503, description = "The database is not available", body = DetailView),
    ),
    security((), ("token" = [])))]
pub async fn event(Call { app, parameter, query, .. }: Call<'_>) -> Result<Answer, ApiError> {
    let number = params::path_number(parameter).ok_or(ApiError::NotFound)?;
    let event = app.store.event(number).await?.ok_or(ApiError::NotFound)?;
    match params::flag(query, "raw") {
        true => raw_body(app, event.payload).await,
        false => Ok(ok(&EventView::new(&event))),
    }
}
