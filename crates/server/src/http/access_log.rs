//! One request in the log and in the metrics. It is counted once and logged in one line, however it ends.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::http::request::Parts;

use super::AppState;
use super::error::ApiError;
use super::route::Handler;
use super::routes::Found;
use crate::config::LogLevel;
use crate::telemetry::metrics::{PathLabel, Refusal, WebhookResult};
use domain::{MessageId, Moment};
use runtime::log;

/// Status in the log for a request whose client disconnected before the response.
const STATUS_UNANSWERED: u16 = 499;

/// The access log record of a request, written when it ends, in any way.
#[derive(Debug)]
pub struct AccessLog<'a> {
    app: &'a AppState,
    head: &'a Parts,
    request_id: &'a str,
    label: PathLabel,
    /// Whether it went to the source of the contract, whose requests have a result.
    is_original: bool,
    /// When its head was complete.
    pub started: Instant,
    answered: bool,
    /// The message, if known.
    pub message_id: Option<MessageId>,
    /// The result of a request to the original source.
    pub result: Option<WebhookResult>,
    /// The copy differed from the first copy, which was kept.
    pub conflict: bool,
    /// The counts of a request at a provider source.
    pub filed: Option<IngestSummary>,
}

/// The counts of everything in a request at a provider source.
#[derive(Debug)]
pub struct IngestSummary {
    /// The source.
    pub source: String,
    /// Messages in it.
    pub messages: usize,
    /// Messages that it created.
    pub created: usize,
    /// Messages that were stored before.
    pub duplicates: usize,
    /// New statuses.
    pub statuses: usize,
    /// New events.
    pub events: usize,
}

/// The result of a refusal at the original source. Most refusals have no result.
fn refused_result(error: Option<&ApiError>) -> Option<WebhookResult> {
    match error? {
        ApiError::BadSignature { .. } => Some(WebhookResult::InvalidSignature),
        ApiError::Invalid(_) => Some(WebhookResult::ValidationError),
        _ => None,
    }
}

impl<'a> AccessLog<'a> {
    /// The record of a request that begins now.
    pub fn new(app: &'a AppState, head: &'a Parts, request_id: &'a str, found: Option<&Found<'_>>) -> Self {
        Self {
            app,
            head,
            request_id,
            label: found.map_or(PathLabel::Unknown, |found| PathLabel::Row(found.number)),
            is_original: found.is_some_and(|found| matches!(found.route.handler, Handler::Original)),
            started: Instant::now(),
            answered: false,
            message_id: None,
            result: None,
            conflict: false,
            filed: None,
        }
    }

    /// Counts the request and writes its one line.
    pub fn answered(&mut self, status: StatusCode, error: Option<&ApiError>) {
        self.answered = true;
        let latency = self.started.elapsed();
        let refusal = error.and_then(ApiError::refusal);
        if self.is_original {
            self.result = self.result.or(refused_result(error));
            self.result.into_iter().for_each(|result| self.app.metrics.webhook_result(result));
        }
        refusal.into_iter().for_each(|refusal| self.app.metrics.refused(refusal));
        let method = self.head.method.as_str();
        self.app.metrics.request_answered(self.label, method, status.as_u16(), latency, self.started + latency);
        let level = match error {
            Some(ApiError::BadSignature { .. } | ApiError::BadHandshake(_)) => LogLevel::Error,
            _ if status.is_server_error() => LogLevel::Error,
            _ if status.is_client_error() => LogLevel::Warning,
            _ => LogLevel::Info,
        };
        self.log(level, status.as_u16(), latency, refusal, error.and_then(ApiError::detail_for_log));
    }

    fn log(&self, level: LogLevel, status: u16, latency: Duration, refusal: Option<Refusal>, error: Option<&str>) {
        let (method, path) = (self.head.method.as_str(), self.head.uri.path());
        let message = format!("{} {} {status}", log::shown(method), log::shown(path));
        let mut line = log::line_at(level, Moment::now(), &message)
            .text("request_id", self.request_id)
            .text("method", method)
            .text("path", path)
            .value("status", status)
            .value("latency_ms", format_args!("{}.{:03}", latency.as_millis(), latency.subsec_micros() % 1_000));
        if self.is_original {
            line = line
                .text_if("message_id", self.message_id.as_ref().map(MessageId::as_str))
                .value("dup", self.result == Some(WebhookResult::Duplicate))
                .text_if("result", self.result.map(WebhookResult::label));
        }
        if self.conflict {
            line = line.value("conflict", true);
        }
        if let Some(filed) = &self.filed {
            line = line
                .text("source", &filed.source)
                .text_if("message_id", self.message_id.as_ref().map(MessageId::as_str))
                .value("messages", filed.messages)
                .value("created", filed.created)
                .value("duplicates", filed.duplicates)
                .value("statuses", filed.statuses)
                .value("events", filed.events);
        }
        line.text_if("reason", refusal.map(Refusal::label)).text_if("error", error).emit();
    }
}

impl Drop for AccessLog<'_> {
    /// The client disconnected, or the grace period of a stop ended, before the response. The content may still
    /// be stored. The client will then retry, and the response reports that it is stored.
    fn drop(&mut self) {
        if !self.answered {
            self.app.metrics.refused(Refusal::Unanswered);
            self.log(LogLevel::Warning, STATUS_UNANSWERED, self.started.elapsed(), Some(Refusal::Unanswered), None);
        }
    }
}
