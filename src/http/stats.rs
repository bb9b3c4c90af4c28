//! `GET /stats`: the inbox in a few numbers.

use super::error::ApiError;
use super::route::Call;
use super::views::{DetailView, InvalidView, StatsView, StatusCountView, StatusCountsView, ok};
use super::{Answer, params};
use crate::domain::State;

/// Totals, top senders, first and last time, of one snapshot.
#[utoipa::path(get, path = "", tag = "messages", operation_id = "stats",
    description = "Totals, top senders, first and last time. by=status: how far sent messages came, instead (StatusCounts).",
    params(("by" = Option<String>, Query, description = "status: counts of sent messages by state, by recipient")),
    responses(
        (status = 200, description = "The inbox in a few numbers", body = StatsView),
        (status = 400, description = "Not HTTP as it should be", body = DetailView),
        (status = 401, description = "Reading wants a token", body = DetailView),
        (status = 422, description = "A parameter breaks its rule", body = InvalidView),
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
