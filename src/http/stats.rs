//! `GET /stats`: the inbox in a few numbers.

use super::error::ApiError;
use super::views::{DetailView, StatsView, ok};
use super::{Answer, AppState};

/// Totals, top senders, first and last time, of one snapshot.
#[utoipa::path(get, path = "/stats", tag = "messages", operation_id = "stats",
    responses(
        (status = 200, description = "The inbox in a few numbers", body = StatsView),
        (status = 400, description = "Not HTTP as it should be", body = DetailView),
        (status = 401, description = "Reading wants a token", body = DetailView),
        (status = 503, description = "The database is not available", body = DetailView),
    ),
    security((), ("token" = [])))]
pub async fn summarize(app: &AppState) -> Result<Answer, ApiError> {
    let stats = app.store.stats().await?;
    Ok(ok(&StatsView::new(&stats)))
}
