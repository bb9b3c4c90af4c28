//! The response to a signed request. It requires the proof that no part of the request can be lost.

use bytes::Bytes;
use hyper::header::HeaderValue;

use super::Answer;
use super::views::{StoredView, ok, with_type};
use providers::{AnswerStyle, Challenge, VerifiedBody};
use store::Receipt;

/// The reason why a signed request may get a success response. A handler that does not store its content
/// has no `Receipt`, so it cannot create this value by mistake.
///
/// ```
/// use server::http::acknowledged::{Acknowledged, answer};
/// use providers::AnswerStyle;
/// use store::Receipt;
///
/// fn acknowledge(receipt: Receipt) {
///     answer(&Acknowledged::Stored(receipt), AnswerStyle::Json, None);
/// }
/// ```
///
/// Without the line that stores, there is no receipt:
///
/// ```compile_fail,E0425
/// use server::http::acknowledged::{Acknowledged, answer};
/// use providers::AnswerStyle;
///
/// fn acknowledge() {
///     answer(&Acknowledged::Stored(receipt), AnswerStyle::Json, None);
/// }
/// ```
///
/// No other value can replace it:
///
/// ```compile_fail,E0308
/// use server::http::acknowledged::{Acknowledged, answer};
/// use providers::AnswerStyle;
///
/// fn acknowledge() {
///     answer(&Acknowledged::Stored(()), AnswerStyle::Json, None);
/// }
/// ```
///
/// ```compile_fail,E0308
/// use server::http::acknowledged::{Acknowledged, answer};
/// use providers::AnswerStyle;
///
/// fn acknowledge(unverified: Vec<u8>) {
///     answer(&Acknowledged::NothingToStore(unverified), AnswerStyle::Json, None);
/// }
/// ```
///
/// ```compile_fail,E0061
/// use providers::AnswerStyle;
///
/// fn acknowledge() {
///     server::http::acknowledged::answer(AnswerStyle::Json, None);
/// }
/// ```
#[derive(Debug)]
pub enum Acknowledged {
    /// Its whole content was committed, now or before.
    Stored(Receipt),
    /// It was verified and parsed, and contains nothing to store: the provider requested a challenge.
    NothingToStore(VerifiedBody),
}

/// The response that the provider expects: its challenge if it sent one, otherwise that of its protocol.
pub fn answer(_proof: &Acknowledged, style: AnswerStyle, challenge: Option<&Challenge>) -> Answer {
    match (challenge, style) {
        (Some(challenge), _) => plain_text(challenge),
        (None, AnswerStyle::Json) => ok(&StoredView { status: "ok" }),
        (None, AnswerStyle::EmptyTwiml) => with_type(
            Bytes::from_static(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response></Response>"),
            HeaderValue::from_static("text/xml; charset=utf-8"),
        ),
        (None, AnswerStyle::Empty) => Answer::default(),
    }
}

/// A text from the provider, or from a stranger who imitates it. It is always sent as plain text, and
/// `browser::guard` prevents browsers from guessing another type.
pub(super) fn plain_text(Challenge(text): &Challenge) -> Answer {
    with_type(text.clone().into(), HeaderValue::from_static("text/plain; charset=utf-8"))
}
