//! Answers, and what those that clients do not take may hold of the memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use crate::domain::query::PAGE_BYTES_MAX;

/// Most bytes of all answers under way, beyond the first of each: clients that read slowly would fill the memory with pages.
pub const ANSWERS_BYTES_MAX: usize = PAGE_BYTES_MAX;
/// What an answer may have without asking for room, and what of it is handed over at once. The rest stays here until the client
/// has taken that.
const PIECE_BYTES: usize = 16 << 10;

/// An answer: headers, and a body that is whole from the start.
pub type Answer = Response<AnswerBody>;

/// The bytes that were not handed over yet, and the room that they take.
#[derive(Debug, Default)]
pub struct AnswerBody {
    bytes: Bytes,
    room: Option<OwnedSemaphorePermit>,
}

impl AnswerBody {
    /// A body that takes no room.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, room: None }
    }

    /// Takes room until the last piece was handed over, or the client is gone.
    pub fn take_room(&mut self, room: &Arc<Semaphore>) -> Result<(), ApiError> {
        let wanted =
            u32::try_from(self.bytes.len().saturating_sub(PIECE_BYTES)).map_err(|_| ApiError::BodiesTooLarge)?;
        if wanted > 0 {
            let taken = Arc::clone(room).try_acquire_many_owned(wanted);
            self.room = Some(taken.map_err(|_| ApiError::BodiesTooLarge)?);
        }
        Ok(())
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let most = self.bytes.len().min(PIECE_BYTES);
        let piece = self.bytes.split_to(most);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_answers_share_the_room_until_they_are_gone_and_small_ones_need_none() {
        let room = Arc::new(Semaphore::new(100));
        let body = |bytes: usize| {
            let mut body = AnswerBody::new(vec![0; bytes].into());
            body.take_room(&room).map(|()| body)
        };
        let first = body(PIECE_BYTES + 60).expect("there is room");
        assert!(matches!(body(PIECE_BYTES + 60), Err(ApiError::BodiesTooLarge)));
        assert!(body(PIECE_BYTES).is_ok() && body(PIECE_BYTES + 40).is_ok());
        drop(first);
        assert!(body(PIECE_BYTES + 60).is_ok());
    }

    #[test]
    fn a_body_is_handed_over_whole_in_pieces() {
        for bytes in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * PIECE_BYTES] {
            let whole: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
            let mut body = AnswerBody::new(whole.clone().into());
            let mut taken = Vec::new();
            let mut context = Context::from_waker(std::task::Waker::noop());
            while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) {
                let piece = frame.into_data().expect("data");
                assert!(piece.len() <= PIECE_BYTES);
                taken.extend(piece);
                assert_eq!(body.size_hint().exact(), Some((bytes - taken.len()) as u64));
            }
            assert!(taken == whole && body.is_end_stream(), "{bytes}");
        }
    }
}
