//! `GET /messages`: pages of the inbox.

use super::error::ApiError;
use super::views::{DetailView, InvalidView, PageView, ok};
use super::{Answer, AppState, params};

/// One page and the total of all that the filters let through.
#[utoipa::path(get, path = "/messages", tag = "messages", operation_id = "list",
    description = "Messages by ts, then message_id, both bytewise. Filters combine with AND; total counts all messages that \
        they let through, whatever limit and offset. An empty filter is none; the last of a repeated parameter counts.",
    params(
        ("limit" = Option<i64>, Query, description = "How many at most", minimum = 1, maximum = 100),
        ("offset" = Option<i64>, Query, description = "How many to skip", minimum = 0),
        ("from" = Option<String>, Query, description = "Exactly this sender", example = "+919876543210"),
        ("since" = Option<String>, Query, description = "At this time or later: YYYY-MM-DDTHH:MM:SSZ",
            pattern = r"^([0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z)?$",
            example = "2025-01-15T09:30:00Z"),
        ("q" = Option<String>, Query, description = "Text that contains this, whatever the case; every character is literal; \
            at most 1,024 bytes", max_length = 1024),
    ),
    responses(
        (status = 200, description = "A page", body = PageView),
        (status = 400, description = "Not HTTP as it should be", body = DetailView),
        (status = 401, description = "Reading wants a token", body = DetailView),
        (status = 422, description = "A parameter breaks its rule", body = InvalidView),
        (status = 503, description = "The database is not available, or the search took too long", body = DetailView),
    ),
    security((), ("token" = [])))]
pub async fn list(app: &AppState, query: &str) -> Result<Answer, ApiError> {
    let request = params::page_request(query).map_err(ApiError::Invalid)?;
    let (limit, offset) = (request.limit, request.offset);
    let page = app.store.page(request).await?;
    Ok(ok(&PageView::new(&page, limit, offset)))
}
