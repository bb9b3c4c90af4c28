//! `GET /health/live` and `GET /health/ready`, for orchestrators.

use hyper::StatusCode;

use super::Answer;
use super::error::ApiError;
use super::route::Call;
use super::views::{HealthView, ok};
use store::Health;

/// 200 while the process runs.
#[utoipa::path(get, path = "", tag = "operations", operation_id = "live",
    responses((status = 200, description = "The process runs", body = HealthView)))]
pub fn live() -> Answer {
    ok(&HealthView { status: "ok", reason: None })
}

/// 200 when messages can be stored and read, else 503 with the reason.
#[utoipa::path(get, path = "", tag = "operations", operation_id = "ready",
    responses(
        (status = 200, description = "Messages can be stored and read", body = HealthView),
        (status = 503, description = "They cannot, with the reason", body = HealthView),
    ))]
pub async fn ready(Call { app, .. }: Call<'_>) -> Result<Answer, ApiError> {
    let reason = if app.is_leaving() {
        "shutting down"
    } else {
        match app.store.health().await {
            Health::Ready => return Ok(ok(&HealthView { status: "ready", reason: None })),
            Health::DiskFull => "disk full",
            Health::LogFull => "log full",
            Health::Broken | Health::Refusing => "database not ready",
        }
    };
    let mut answer = ok(&HealthView { status: "not ready", reason: Some(reason) });
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    Ok(answer)
}
