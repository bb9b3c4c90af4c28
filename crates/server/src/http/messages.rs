//! `GET /messages`: pages of the inbox.

use hyper::header::{HeaderValue, LINK};

use super::error::ApiError;
use super::route::Call;
use super::views::{DetailView, InvalidView, PageView, ok_page};
use super::{Answer, params};
use domain::{Position, Start};

/// One page and the total of all messages that match the filters.
#[utoipa::path(get, path = "", tag = "messages", operation_id = "list",
    description = "Messages by ts, then message_id, both bytewise. Filters combine with AND; total counts all messages that match \
        them, whatever limit and offset. An empty filter counts as absent; the last value of a repeated parameter counts.",
    params(
        ("limit" = Option<i64>, Query, description = "Maximum number", minimum = 1, maximum = 100),
        ("offset" = Option<i64>, Query, description = "Number of messages to skip", minimum = 0),
        ("from" = Option<String>, Query, description = "Exactly this sender", example = "+919876543210"),
        ("since" = Option<String>, Query, description = "At this time or later: a date and time with Z or an offset (RFC 3339)",
            pattern = r"^([0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9]))?$",
            example = "2025-01-15T09:30:00Z"),
        ("q" = Option<String>, Query, description = "Text that contains this, case-insensitive; every character is literal; \
            at most 1,024 bytes", max_length = 1024),
        ("to" = Option<String>, Query, description = "Exactly this recipient"),
        ("until" = Option<String>, Query, description = "Before this time (exclusive), in the same form",
            pattern = r"^([0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9]))?$"),
        ("source" = Option<String>, Query, description = "From the source of this name; postroom is the original one"),
        ("kind" = Option<String>, Query, description = "Of this kind; messages of the original source are texts",
            pattern = "^(text|image|video|audio|document|sticker|location|contacts|interactive|button|reaction|order|system\
                |edit|revoke|poll|unsupported|unknown)?$"),
        ("order" = Option<String>, Query, description = "By time (ts, the default) or in the order in which they were stored (arrival)",
            pattern = "^(ts|arrival)?$"),
        ("cursor" = Option<String>, Query, description = "Start of the page, from the Link header of the previous page; empty for \
            the first page. Not together with offset"),
        ("total" = Option<String>, Query, description = "bounded: the total may be a lower bound if counting takes long, \
            marked by X-Total-Exact: false", pattern = "^(exact|bounded)?$"),
    ),
    responses(
        (status = 200, description = "A page", body = PageView, headers(
            ("Link" = Option<String>, description = "With cursor or order: the next page, rel=next (RFC 8288)"),
            ("X-Total-Exact" = Option<String>, description = "false: total is a lower bound"),
        )),
        (status = 400, description = "Not valid HTTP", body = DetailView),
        (status = 401, description = "Reading needs a token", body = DetailView),
        (status = 422, description = "A parameter is invalid", body = InvalidView),
        (status = 429, description = "Over a rate that the operator set (Retry-After)", body = DetailView),
        (status = 503, description = "The database is not available, or the search took too long", body = DetailView),
    ),
    security((), ("token" = [])))]
pub async fn list(Call { app, path, query, .. }: Call<'_>) -> Result<Answer, ApiError> {
    let mut request = params::page_request(query).map_err(ApiError::Invalid)?;
    let share = app.answer_room.share();
    request.room = share.room();
    let (limit, start) = (request.limit, request.start.clone());
    let offset = if let Start::Offset(offset) = start { offset } else { 0 };
    let page = app.store.page(request).await?;
    if page.is_too_large {
        return Err(ApiError::BodiesTooLarge);
    }
    let mut answer = ok_page(PageView::new(page.messages, page.total, limit, offset));
    answer.body_mut().take_room(share)?;
    // A client that waits for arrivals continues from its position, also after an empty page.
    let next = page.next.or(match start {
        Start::Behind(position @ Position::Arrival(_)) => Some(position),
        _ => None,
    });
    let link = next.and_then(|position| params::next_link(path, query, &position));
    if let Some(link) = link.and_then(|link| HeaderValue::try_from(format!("<{link}>; rel=\"next\"")).ok()) {
        answer.headers_mut().insert(LINK, link);
    }
    if page.total_is_bound {
        answer.headers_mut().insert("x-total-exact", HeaderValue::from_static("false"));
    }
    Ok(answer)
}
