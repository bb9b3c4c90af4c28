//! The single place that turns errors into answers: clients learn what to fix, operators (in the log) what broke.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{ALLOW, CONNECTION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};

use super::answer::{Answer, AnswerBody};
use super::views;
use crate::domain::FieldError;
use crate::providers::{BadHandshake, BadSignature};
use crate::store::StoreError;
use crate::telemetry::metrics::Refusal;

/// What the operator has to do before a handshake can succeed.
const NO_VERIFY_TOKEN: &str = "no verify token is set: WHATSAPP_VERIFY_TOKEN, or verify_token_env of the source";
/// How long a client that met a passing trouble is asked to wait.
const RETRY_AFTER_SECONDS: u16 = 1;

/// Why a request is not answered with 200.
#[derive(Debug)]
pub enum ApiError {
    /// Not HTTP as it should be; the text is for the log.
    Malformed(&'static str),
    /// No such path.
    NotFound,
    /// The path takes other methods: these, as the header `Allow` has them.
    MethodNotAllowed(&'static str),
    /// The body is compressed, but signatures are over raw bytes.
    ContentEncoding,
    /// The body is longer than allowed.
    BodyTooLarge,
    /// The body did not come in time.
    BodyTooSlow,
    /// The body did not come while another connection waited for the place of this one.
    GaveWay,
    /// The bodies, or the answers, under way take all the memory that they may.
    BodiesTooLarge,
    /// Not signed as the door wants it. The status is what the provider takes for that.
    BadSignature {
        /// Why; only for log and metrics.
        reason: BadSignature,
        /// 401, or 403.
        status: u16,
    },
    /// A handshake that is not the operator's.
    BadHandshake(BadHandshake),
    /// A provider's id that several messages have.
    Ambiguous(Vec<String>),
    /// Reading wants a token.
    NotAuthenticated {
        /// Whether there was one, and it was wrong.
        token_given: bool,
    },
    /// More often than the operator allows; it may be tried again after that time.
    TooMany(Duration),
    /// The service is stopping.
    ShuttingDown,
    /// The answer did not come about in time.
    RequestDeadline,
    /// Fields or parameters that break the contract.
    Invalid(Vec<FieldError>),
    /// The store could not.
    Store(StoreError),
    /// A bug of ours.
    Panic,
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl ApiError {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::NotAuthenticated { .. } => StatusCode::UNAUTHORIZED,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::BadSignature { status, .. } => StatusCode::from_u16(*status).unwrap_or(StatusCode::UNAUTHORIZED),
            Self::BadHandshake(_) => StatusCode::FORBIDDEN,
            Self::Ambiguous(_) => StatusCode::CONFLICT,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Store(StoreError::DiskFull) => StatusCode::INSUFFICIENT_STORAGE,
            Self::GaveWay | Self::BodiesTooLarge | Self::ShuttingDown | Self::RequestDeadline | Self::Store(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Panic => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What is counted, for everything but unknown paths, methods and invalid content.
    pub fn refusal(&self) -> Option<Refusal> {
        Some(match self {
            Self::NotFound | Self::MethodNotAllowed(_) | Self::Invalid(_) | Self::Ambiguous(_) => return None,
            Self::Malformed(_) => Refusal::MalformedRequest,
            Self::ContentEncoding => Refusal::ContentEncoding,
            Self::BodyTooLarge => Refusal::BodyTooLarge,
            Self::BodyTooSlow => Refusal::BodyTooSlow,
            Self::GaveWay => Refusal::ConnectionGaveWay,
            Self::BodiesTooLarge => Refusal::BodiesTooLarge,
            Self::BadSignature { reason, .. } => signature_refusal(*reason),
            Self::BadHandshake(BadHandshake::NoToken) => Refusal::WrongVerifyToken,
            Self::BadHandshake(BadHandshake::Token(_)) => Refusal::WrongVerifyToken,
            Self::BadHandshake(BadHandshake::Mode(_) | BadHandshake::Challenge(_)) => Refusal::MalformedHandshake,
            Self::NotAuthenticated { .. } => Refusal::NotAuthenticated,
            Self::TooMany(_) => Refusal::TooMany,
            Self::ShuttingDown | Self::Store(StoreError::Closed) => Refusal::ShuttingDown,
            Self::RequestDeadline => Refusal::RequestDeadline,
            Self::Store(StoreError::QueueFull) => Refusal::QueueFull,
            Self::Store(StoreError::DiskFull) => Refusal::DiskFull,
            Self::Store(StoreError::Unavailable(_)) => Refusal::DatabaseUnavailable,
            Self::Store(StoreError::Damaged(_)) => Refusal::DataDamaged,
            Self::Store(StoreError::QueryDeadline) => Refusal::QueryDeadline,
            Self::Panic => Refusal::Panic,
        })
    }

    /// What only the log may say.
    pub fn detail_for_log(&self) -> Option<&str> {
        match self {
            Self::Malformed(why) => Some(why),
            Self::Store(StoreError::Unavailable(why) | StoreError::Damaged(why)) => Some(why),
            Self::BadHandshake(BadHandshake::NoToken) => Some(NO_VERIFY_TOKEN),
            _ => None,
        }
    }

    /// Whether the connection ends here, whatever is left of the body: where the next request begins is not known, or the
    /// client has had its time.
    fn ends_connection(&self) -> bool {
        matches!(self, Self::Malformed(_) | Self::BodyTooSlow | Self::GaveWay | Self::Panic)
    }

    /// The answer.
    pub fn answer(&self) -> Answer {
        let status = self.status();
        let body = match self {
            Self::Invalid(errors) => views::json(&views::InvalidView::new(errors)),
            Self::BadSignature { .. } => views::detail("invalid signature"),
            Self::BadHandshake(why) => views::detail(&why.to_string()),
            Self::Ambiguous(keys) => {
                views::json(&views::AmbiguousView { detail: "several messages have this id", keys })
            }
            Self::NotAuthenticated { .. } => views::detail("Not authenticated"),
            // Said in every framework of this kind; `hyper` names some of them otherwise.
            Self::BodyTooLarge => views::detail("Payload Too Large"),
            _ => views::detail(status.canonical_reason().unwrap_or("Error")),
        };
        let mut answer = Answer::new(AnswerBody::new(body));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.insert(hyper::header::CONTENT_TYPE, views::JSON);
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE) {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        if let Self::MethodNotAllowed(allowed) = self {
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        match self {
            Self::NotAuthenticated { token_given: false } => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // RFC 6750, §3.1.
            Self::NotAuthenticated { token_given: true } => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""));
            }
            Self::TooMany(wait) => {
                headers.insert(RETRY_AFTER, wait.as_secs().saturating_add(1).into());
            }
            _ => {}
        }
        if self.ends_connection() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

/// The label of a reason. The client learns only that the signature is invalid.
pub fn signature_refusal(reason: BadSignature) -> Refusal {
    match reason {
        BadSignature::MissingHeader => Refusal::MissingHeader,
        BadSignature::DuplicateHeader => Refusal::DuplicateHeader,
        BadSignature::Malformed => Refusal::MalformedSignature,
        BadSignature::WrongSecret => Refusal::WrongSecret,
        BadSignature::MalformedTimestamp => Refusal::MalformedTimestamp,
        BadSignature::StaleTimestamp => Refusal::StaleTimestamp,
        BadSignature::FutureTimestamp => Refusal::FutureTimestamp,
        BadSignature::WrongAlgorithm => Refusal::WrongAlgorithm,
        BadSignature::BodyMismatch => Refusal::BodyMismatch,
        BadSignature::UnknownUrl => Refusal::UnknownUrl,
    }
}
