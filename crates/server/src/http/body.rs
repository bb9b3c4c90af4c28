//! The body of a request. It is read whole, within its limits. An unused body is read to its end,
//! so that the connection
//! can be kept.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Incoming};
use tokio::sync::SemaphorePermit;

use super::AppState;
use super::error::ApiError;
use super::exchange::with_deadline;
use super::watchdog::Watchdog;

/// A body of this size is read without a permit: it is in the connection's buffer anyway. An unused body is
/// read up to this size, too, before the connection is closed instead.
const SMALL_BODY_BYTES: usize = 16 << 10;

/// The unread part of a body.
#[derive(Debug)]
pub struct RequestBody<'a> {
    incoming: Incoming,
    watchdog: &'a Watchdog,
    /// The client sends its body only after `100 Continue`.
    is_held_back: bool,
    read: usize,
    ended: bool,
    /// It was incomplete or wrongly framed: the start of the next request is unknown.
    broken: bool,
}

impl<'a> RequestBody<'a> {
    /// An unread body. `is_held_back` if the client waits for `100 Continue`.
    pub fn new(incoming: Incoming, watchdog: &'a Watchdog, is_held_back: bool) -> Self {
        let ended = incoming.is_end_stream();
        Self { incoming, watchdog, is_held_back, read: 0, ended, broken: false }
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, ApiError>>> {
        // From here on the client is asked to send the body.
        self.is_held_back = false;
        while !self.ended && !self.broken {
            match Pin::new(&mut self.incoming).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => self.ended = true,
                Poll::Ready(Some(Err(_))) => {
                    self.broken = true;
                    return Poll::Ready(Some(Err(ApiError::Malformed("the body is incomplete or wrongly framed"))));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.read += data.len();
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            }
        }
        Poll::Ready(None)
    }

    /// The next piece. An error if the connection must be closed for another one.
    async fn data(&mut self) -> Option<Result<Bytes, ApiError>> {
        let mut waited = false;
        let next = std::future::poll_fn(|context| match self.poll_data(context) {
            Poll::Pending => {
                waited = true;
                if self.watchdog.body_awaited() { Poll::Ready(Some(Err(ApiError::GaveWay))) } else { Poll::Pending }
            }
            ready => ready,
        });
        let next = next.await;
        if waited && !matches!(next, Some(Err(ApiError::GaveWay))) {
            self.watchdog.body_came();
        }
        next
    }

    /// Reads a whole body within the limits of length, time and memory. A declared length over the limit is
    /// refused
    /// before anything is read. A stream is cut at the limit. The permit returns the memory of large bodies
    /// when it is dropped.
    pub async fn read_whole<'app>(
        &mut self,
        app: &'app AppState,
        most: usize,
        deadline: Instant,
    ) -> Result<(Bytes, SemaphorePermit<'app>), ApiError> {
        if self.incoming.size_hint().lower() > most as u64 {
            return Err(ApiError::BodyTooLarge);
        }
        let read = pin!(async {
            let mut room = app.body_room.try_acquire_many(0).map_err(|_| ApiError::BodiesTooLarge)?;
            let mut first: Option<Bytes> = None;
            let mut rest = BytesMut::new();
            while let Some(data) = self.data().await {
                let data = data?;
                if self.read > most {
                    return Err(ApiError::BodyTooLarge);
                }
                if self.read > SMALL_BODY_BYTES {
                    let more = u32::try_from(data.len()).map_err(|_| ApiError::BodyTooLarge)?;
                    room.merge(app.body_room.try_acquire_many(more).map_err(|_| ApiError::BodiesTooLarge)?);
                }
                // Nearly every body arrives in one piece and needs no copy.
                match first {
                    None => first = Some(data),
                    Some(_) => rest.extend_from_slice(&data),
                }
            }
            let first = first.unwrap_or_default();
            let whole = if rest.is_empty() { first } else { [first, rest.freeze()].concat().into() };
            Ok((whole, room))
        });
        with_deadline(read, deadline, || ApiError::BodyTooSlow).await
    }

    /// Reads and discards the rest of a small body before a response that does not need it. Returns whether the body
    /// has ended. Otherwise the connection ends with the response: the rest is too long, did not arrive in time, or the
    /// client may never send it.
    pub async fn discard(&mut self) -> bool {
        if self.ended {
            return true;
        }
        let is_small = |body: &Self| {
            let left = usize::try_from(body.incoming.size_hint().lower()).unwrap_or(usize::MAX);
            body.read.saturating_add(left) <= SMALL_BODY_BYTES
        };
        if self.broken || self.is_held_back || !is_small(self) {
            return false;
        }
        let deadline = self.watchdog.discard_began();
        std::future::poll_fn(|context| {
            loop {
                match self.poll_data(context) {
                    Poll::Ready(None) => return Poll::Ready(true),
                    Poll::Ready(Some(Ok(_))) if is_small(self) => {}
                    Poll::Ready(Some(_)) => return Poll::Ready(false),
                    // The connection's watchdog wakes this at the deadline (see `Watchdog::next_check`).
                    Poll::Pending if Instant::now() >= deadline || self.watchdog.body_awaited() => {
                        return Poll::Ready(false);
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }
}
