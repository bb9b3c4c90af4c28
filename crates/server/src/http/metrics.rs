//! `GET /metrics`, for Prometheus.

use hyper::header::HeaderValue;

use super::Answer;
use super::error::ApiError;
use super::route::Call;
use super::views::{DetailView, with_type};

/// The exposition, including values that are measured at the scrape.
#[utoipa::path(get, path = "", tag = "operations", operation_id = "metrics",
    responses(
        (status = 200, description = "Prometheus text format 0.0.4", content_type = "text/plain", body = String),
        (status = 401, description = "Reading needs a token", body = DetailView),
        (status = 429, description = "Over a rate that the operator set (Retry-After)", body = DetailView),
    ),
    security((), ("token" = [])))]
pub async fn expose(Call { app, .. }: Call<'_>) -> Result<Answer, ApiError> {
    let mut gauges = app.store.gauges().await;
    gauges.ready &= !app.is_leaving();
    let text = app.metrics.encode(gauges, &app.sources.secret_uses());
    Ok(with_type(text.into(), HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8")))
}
