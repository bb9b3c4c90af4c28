//! `GET /stats`: the statistics of the inbox.

use super::error::ApiError;
use super::route::Call;
use super::views::{DetailView, InvalidView, StatsView, StatusCountView, StatusCountsView, ok};
use super::{Answer, params};
use domain::State;

/// Totals, top senders, first and last time, from one snapshot.
#[utoipa::path(get, path = "", tag = "messages", operation_id = "stats",
    description = "Totals, top senders, first and last time. by=status: counts of sent messages by status instead (StatusCounts).",
    params(("by" = Option<String>, Query, description = "status: counts of sent messages by status, per recipient")),
    responses(
        (status = 200, description = "The statistics of the inbox", body = StatsView),
        (status = 400, description = "Not valid HTTP", body = DetailView),
        (status = 401, description = "Reading needs a token", body = DetailView),
        (status = 422, description = "A parameter is invalid", body = InvalidView),
        (status = 429, description = "Over a rate that the operator set (Retry-After)", body = DetailView),
        (status = 503, description = "The database is not available", body = DetailView),
    ),
    security((), ("token" = [])))]
pub async fn summarize(Call { app, query, .. }: Call<'_>) -> Result<Answer, ApiError> {
    if params::by_status(query).map_err(ApiError::Invalid)? {
        let counts = app.store.status_counts().await?;
        let view = |(state, count): (State, u64)| StatusCountView { status: state.name(), count };
        return Ok(ok(&StatusCountsView { messages_per_status: counts.into_iter().map(view).collect() }));
    }
    let stats = app.store.stats().await?;
    Ok(ok(&StatsView::new(&stats)))
}
