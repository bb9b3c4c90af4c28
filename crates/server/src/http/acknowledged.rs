//! The answer to a signed request. It takes the proof that nothing of the request can be lost any more.

use bytes::Bytes;
use hyper::header::HeaderValue;

use super::Answer;
use super::views::{StoredView, ok, with_type};
use providers::{AnswerStyle, Challenge, VerifiedBody};
use store::Receipt;

/// Why a signed request may be answered with success. A handler that does not store what it read has no `Receipt`, so
/// it cannot make one of these by mistake.
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
/// Without the line that stores there is no receipt:
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
/// And nothing else does instead:
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
    /// Everything in it was committed, now or before.
    Stored(Receipt),
    /// It was verified and read, and there is nothing in it to store: the provider asked for a challenge.
    NothingToStore(VerifiedBody),
}

/// The answer that the provider expects: its challenge if it sent one, otherwise the answer of its protocol.
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

/// A text that the provider chose, or a stranger who imitates it. It is never anything but text, and `browser::guard`
/// keeps browsers from guessing another type.
pub(super) fn plain_text(Challenge(text): &Challenge) -> Answer {
    with_type(text.clone().into(), HeaderValue::from_static("text/plain; charset=utf-8"))
}
