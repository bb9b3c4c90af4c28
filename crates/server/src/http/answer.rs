//! Responses, and the memory that unread ones may use.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use domain::Room;
use domain::query::PAGE_BYTES_MAX;

/// Maximum bytes of all responses in progress, beyond the first part of each, from the first row that is read until the
/// client has the last byte: many or slow readers would otherwise fill the memory with pages.
pub const ANSWERS_BYTES_MAX: usize = PAGE_BYTES_MAX;
/// Single messages, raw bodies, lists of statuses and pages of events that are read at once. Each may be as large as a
/// sender's body, and its size is known only afterwards. More wait.
pub const SINGLE_READS_MAX: usize = 8;
/// Bytes that a response may have without a permit, and that are handed over at once. The rest stays here
/// until the client has read them.
const PIECE_BYTES: usize = 16 << 10;
/// Bytes that are allocated together for a long response, which then grows without being copied.
const CHUNK_BYTES: usize = 64 << 10;

/// A response: headers, and a complete body.
pub type Answer = Response<AnswerBody>;

/// The memory that responses in progress share.
#[derive(Debug, Clone)]
pub struct AnswerRoom(Arc<Semaphore>);

impl AnswerRoom {
    /// Room for this many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes_max)))
    }

    /// The share of one response; empty at first.
    pub fn share(&self) -> Share {
        Share { room: Arc::clone(&self.0), held: Arc::default() }
    }
}

/// The share of one response in the memory. It is returned when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Share {
    room: Arc<Semaphore>,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Takes this many more bytes. Returns false if not enough are left. The whole share is then returned:
    /// several responses that grow at the same pace would otherwise block each other.
    fn grow(&self, bytes: usize) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = (held.bytes + bytes).saturating_sub(PIECE_BYTES);
        let more = wanted.saturating_sub(held.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if more > 0 {
            let taken =
                u32::try_from(more).ok().and_then(|more| Arc::clone(&self.room).try_acquire_many_owned(more).ok());
            let Some(taken) = taken else {
                *held = Held::default();
                return false;
            };
            match &mut held.permit {
                Some(permit) => permit.merge(taken),
                none => *none = Some(taken),
            }
        }
        held.bytes += bytes;
        true
    }

    /// Sets the share to the actual size of the response.
    fn settle(&self, bytes: usize) -> bool {
        let have = self.held.lock().unwrap_or_else(PoisonError::into_inner).bytes;
        if bytes > have {
            return self.grow(bytes - have);
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.bytes = bytes;
        let spare = held.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let spare = spare.saturating_sub(bytes.saturating_sub(PIECE_BYTES));
        if let Some(permit) = &mut held.permit {
            drop(permit.split(spare));
        }
        true
    }

    /// The budget of a page, which takes from the share while it is read.
    pub fn room(&self) -> Room {
        let share = self.clone();
        Room::new(move |bytes| share.grow(bytes))
    }
}

/// The bytes that were not handed over yet, and their share of the memory.
#[derive(Debug, Default)]
pub struct AnswerBody {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    share: Option<Share>,
}

impl AnswerBody {
    /// A body without a share.
    pub fn new(bytes: Bytes) -> Self {
        let length = bytes.len();
        Self { chunks: [bytes].into(), bytes: length, share: None }
    }

    /// Whether it already has a share.
    pub fn has_room(&self) -> bool {
        self.share.is_some()
    }

    /// Takes a share until the last piece is handed over or the client disconnects. Corrects the share's size.
    pub fn take_room(&mut self, share: Share) -> Result<(), ApiError> {
        if !share.settle(self.bytes) {
            return Err(ApiError::BodiesTooLarge);
        }
        self.share = Some(share);
        Ok(())
    }
}

/// A body while it is written. Its memory grows by one chunk at a time.
#[derive(Debug, Default)]
pub struct Chunks {
    full: VecDeque<Bytes>,
    last: Vec<u8>,
    bytes: usize,
}

impl Chunks {
    /// All written bytes.
    pub fn into_body(mut self) -> AnswerBody {
        self.full.push_back(self.last.into());
        AnswerBody { chunks: self.full, bytes: self.bytes, share: None }
    }
}

impl io::Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.last.len() >= CHUNK_BYTES {
            self.full.push_back(std::mem::take(&mut self.last).into());
        }
        let written = bytes.len().min(CHUNK_BYTES - self.last.len());
        self.last.extend_from_slice(&bytes[..written]);
        self.bytes += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while self.chunks.front().is_some_and(Bytes::is_empty) {
            self.chunks.pop_front();
        }
        let piece = self.chunks.front_mut().map(|chunk| chunk.split_to(chunk.len().min(PIECE_BYTES)));
        self.bytes -= piece.as_ref().map_or(0, Bytes::len);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn large_answers_share_the_room_until_they_are_gone_and_small_ones_need_none() {
        let room = AnswerRoom::new(100);
        let body = |bytes: usize| {
            let mut body = AnswerBody::new(vec![0; bytes].into());
            body.take_room(room.share()).map(|()| body)
        };
        let first = body(PIECE_BYTES + 60).expect("there is room");
        assert!(matches!(body(PIECE_BYTES + 60), Err(ApiError::BodiesTooLarge)));
        assert!(body(PIECE_BYTES).is_ok() && body(PIECE_BYTES + 40).is_ok());
        drop(first);
        assert!(body(PIECE_BYTES + 60).is_ok());
    }

    #[test]
    fn room_is_taken_while_a_page_is_read_and_corrected_by_what_it_has_in_the_end() {
        let room = AnswerRoom::new(100);
        let share = room.share();
        assert!(share.grow(PIECE_BYTES) && share.grow(70) && !share.grow(31));
        assert!(room.share().grow(PIECE_BYTES + 100), "who is refused has given all back");
        assert!(share.grow(PIECE_BYTES) && share.grow(100));
        assert!(!room.share().grow(PIECE_BYTES + 1), "all of it is taken");
        let mut body = AnswerBody::new(vec![0; PIECE_BYTES + 50].into());
        body.take_room(share).expect("it needs less than it has");
        let other = room.share();
        assert!(other.grow(PIECE_BYTES + 50) && !other.grow(1));
        drop((body, other));
        assert!(room.share().grow(PIECE_BYTES + 100), "all of it is back");
    }

    #[test]
    fn a_body_is_handed_over_whole_in_pieces() {
        for bytes in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, CHUNK_BYTES, 5 * CHUNK_BYTES + 1] {
            let whole: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
            let mut chunks = Chunks::default();
            whole.chunks(1_000).for_each(|part| chunks.write_all(part).expect("memory takes everything"));
            for mut body in [AnswerBody::new(whole.clone().into()), chunks.into_body()] {
                let mut taken = Vec::new();
                let mut context = Context::from_waker(std::task::Waker::noop());
                while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) {
                    let piece = frame.into_data().expect("data");
                    assert!(!piece.is_empty() && piece.len() <= PIECE_BYTES);
                    taken.extend(piece);
                    assert_eq!(body.size_hint().exact(), Some((bytes - taken.len()) as u64));
                }
                assert!(taken == whole && body.is_end_stream(), "{bytes}");
            }
        }
    }
}
