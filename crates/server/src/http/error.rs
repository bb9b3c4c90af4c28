//! The single place that turns errors into responses: clients see how to fix it, operators (log) what failed.

use std::borrow::Cow;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};

use super::answer::{Answer, AnswerBody};
use super::views;
use crate::config::Scope;
use crate::telemetry::metrics::Refusal;
use domain::FieldError;
use providers::{BadHandshake, BadSignature};
use store::StoreError;

/// The operator's step before a handshake can succeed.
const NO_VERIFY_TOKEN: &str = "no verify token is set: WHATSAPP_VERIFY_TOKEN, or verify_token_env of the source";
/// How long a client should wait after a temporary failure.
const RETRY_AFTER_SECONDS: u16 = 1;

/// Why a response is not 200.
#[derive(Debug)]
pub enum ApiError {
    /// Not valid HTTP; the text is for the log.
    Malformed(&'static str),
    /// No such path.
    NotFound,
    /// The path supports only other methods: these, in the form of the header `Allow`.
    MethodNotAllowed(String),
    /// The body is compressed, but signatures cover raw bytes.
    ContentEncoding,
    /// The body is longer than allowed.
    BodyTooLarge,
    /// The body did not arrive in time.
    BodyTooSlow,
    /// The body did not arrive while another connection waited for a place.
    GaveWay,
    /// The bodies or responses in progress use all of their memory.
    BodiesTooLarge,
    /// No valid signature. The status is the one that the provider expects.
    BadSignature {
        /// The reason, only for log and metrics.
        reason: BadSignature,
        /// 401, or 403.
        status: u16,
    },
    /// A handshake with another token than the operator's.
    BadHandshake(BadHandshake),
    /// Several messages have this provider id.
    Ambiguous(Vec<String>),
    /// Reading needs a token.
    NotAuthenticated {
        /// Whether there was a token, which was wrong.
        token_given: bool,
    },
    /// The token is known, and its scope is too small; or no token has the scope.
    NotPermitted {
        /// The scope that is needed.
        needed: Scope,
        /// Whether any token has this scope.
        is_configured: bool,
    },
    /// Over the operator's rate limit. The client may try again after this time.
    TooMany(Duration),
    /// The service is stopping.
    ShuttingDown,
    /// The response was not ready in time.
    RequestDeadline,
    /// Fields or parameters that violate the contract.
    Invalid(Vec<FieldError>),
    /// The store failed.
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
    /// The status of the response.
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
            Self::BadHandshake(_) | Self::NotPermitted { .. } => StatusCode::FORBIDDEN,
            Self::Ambiguous(_) => StatusCode::CONFLICT,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Store(StoreError::DiskFull) => StatusCode::INSUFFICIENT_STORAGE,
            Self::GaveWay | Self::BodiesTooLarge | Self::ShuttingDown | Self::RequestDeadline | Self::Store(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Panic => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The reason that is counted, for everything except unknown paths, methods and invalid content.
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
            Self::NotPermitted { .. } => Refusal::NotPermitted,
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

    /// Details for the log only.
    pub fn detail_for_log(&self) -> Option<&str> {
        match self {
            Self::Malformed(why) => Some(why),
            Self::Store(StoreError::Unavailable(why) | StoreError::Damaged(why)) => Some(why),
            Self::BadHandshake(BadHandshake::NoToken) => Some(NO_VERIFY_TOKEN),
            _ => None,
        }
    }

    /// Whether the connection ends here, whatever is left of the body: the start of the next request is unknown,
    /// or the client's time is over.
    fn ends_connection(&self) -> bool {
        matches!(self, Self::Malformed(_) | Self::BodyTooSlow | Self::GaveWay | Self::Panic)
    }

    /// The response.
    pub fn answer(&self) -> Answer {
        let status = self.status();
        let body = match self {
            Self::Invalid(errors) => views::json(&views::InvalidView::new(errors)),
            Self::Ambiguous(keys) => {
                views::json(&views::AmbiguousView { detail: "several messages have this id", keys })
            }
            _ => views::detail(&self.detail()),
        };
        let mut answer = Answer::new(AnswerBody::new(body));
        *answer.status_mut() = status;
        self.add_headers(answer.headers_mut());
        answer
    }

    /// The error in one sentence.
    pub(super) fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::BadSignature { .. } => "invalid signature".into(),
            Self::BadHandshake(why) => why.to_string().into(),
            Self::NotAuthenticated { .. } => "Not authenticated".into(),
            Self::NotPermitted { needed, is_configured: false } => {
                format!("nobody may do this: {} is not set", needed.setting()).into()
            }
            Self::NotPermitted { needed, is_configured: true } => {
                let settings: Vec<&str> = needed.sufficient().map(Scope::setting).collect();
                format!("the token may not do this: it needs a token of {}", settings.join(" or ")).into()
            }
            // All frameworks of this kind use this text; `hyper` has other names for some statuses.
            Self::BodyTooLarge => "Payload Too Large".into(),
            _ => self.status().canonical_reason().unwrap_or("Error").into(),
        }
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, views::JSON);
        if matches!(self.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE) {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        let challenge = match self {
            Self::NotAuthenticated { token_given: false } => Some("Bearer".to_owned()),
            // RFC 6750, §3.1.
            Self::NotAuthenticated { token_given: true } => Some("Bearer error=\"invalid_token\"".to_owned()),
            Self::NotPermitted { needed, .. } => {
                Some(format!("Bearer error=\"insufficient_scope\", scope=\"{}\"", needed.name()))
            }
            _ => None,
        };
        if let Some(challenge) = challenge.and_then(|challenge| HeaderValue::try_from(challenge).ok()) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        match self {
            Self::MethodNotAllowed(allowed) => {
                HeaderValue::try_from(allowed).into_iter().for_each(|allowed| drop(headers.insert(ALLOW, allowed)));
            }
            Self::TooMany(wait) => drop(headers.insert(RETRY_AFTER, wait.as_secs().saturating_add(1).into())),
            _ => {}
        }
        if self.ends_connection() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// The label of a reason. The client only learns that the signature is invalid.
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
