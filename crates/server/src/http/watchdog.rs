//! The state of a connection: its phase, the phase's start, and whether it may be closed for another one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::head::RequestScan;
use crate::config::ServerConfig;

/// How long after an early response the rest of a request is read and discarded: closing at once would reset the
/// connection, and the client might lose the response.
pub const LINGER: Duration = Duration::from_secs(2);
/// Maximum time for an incomplete head when the service stops.
const HEAD_AT_STOP: Duration = Duration::from_secs(1);
/// A request's deadlines begin a little later than its phase. It is woken a few times until then.
const DEADLINE_SLACK: Duration = Duration::from_millis(10);
/// A connection without progress for this long may be closed for another one. Long enough for a proxy
/// that took it out of its pool a moment ago.
const GIVE_WAY_AFTER: Duration = Duration::from_millis(500);

/// The event for which a connection waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The rest of a head, or the first head.
    Head,
    /// The body of a request that needs it. Its deadline is the request's own.
    Body,
    /// The service. The request has its own deadlines; the watchdog only has to wake it then.
    Request,
    /// The rest of a small, unused body; then the response is sent.
    Discard,
    /// The client: to read a response, or to send another request.
    Rest,
    /// The end of a request after its response.
    Linger,
}

/// The phase of a connection and its start. Shared by its socket, requests and watchdog, all in one task, and by
/// the scan for a connection to close.
#[derive(Debug)]
pub struct Watchdog {
    beat: Mutex<Beat>,
    /// The watchdog must check at once, before the next check is due.
    attention: AtomicBool,
    /// Wakes the connection's task.
    waker: OnceLock<Waker>,
}

#[derive(Debug)]
struct Beat {
    phase: Phase,
    since: Instant,
    scan: RequestScan,
    linger: bool,
    gives_way: bool,
}

impl Watchdog {
    /// The state of a new connection.
    pub fn new() -> Self {
        let beat = Beat {
            phase: Phase::Head,
            since: Instant::now(),
            scan: RequestScan::default(),
            linger: false,
            gives_way: false,
        };
        Self { beat: Mutex::new(beat), attention: AtomicBool::new(false), waker: OnceLock::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Beat> {
        self.beat.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Sets the task that serves the connection; it never changes.
    pub fn served_by(&self, waker: Waker) {
        self.waker.get_or_init(|| waker);
    }

    /// Bytes were received.
    pub fn received(&self, bytes: &[u8]) {
        let mut beat = self.lock();
        if beat.phase == Phase::Rest {
            beat.enter(Phase::Head);
        }
        beat.scan.feed(bytes);
    }

    /// Bytes were sent.
    pub fn sent(&self) {
        let mut beat = self.lock();
        if beat.phase == Phase::Rest {
            beat.enter(Phase::Rest);
        }
    }

    /// A request's head is complete; returns its error.
    pub fn request_began(&self) -> Option<&'static str> {
        let mut beat = self.lock();
        beat.enter(Phase::Request);
        beat.scan.next_fault()
    }

    /// The request waits for more of its body; returns whether it must stop waiting.
    pub fn body_awaited(&self) -> bool {
        let mut beat = self.lock();
        if beat.phase == Phase::Request {
            // The request's deadlines keep their start.
            beat.phase = Phase::Body;
        }
        beat.gives_way
    }

    /// More of the body arrived, or its end.
    pub fn body_came(&self) {
        let mut beat = self.lock();
        if beat.phase == Phase::Body {
            beat.phase = Phase::Request;
            beat.gives_way = false;
        }
    }

    /// The response is ready, and only the rest of the body is still read. Returns the deadline.
    pub fn discard_began(&self) -> Instant {
        let mut beat = self.lock();
        beat.enter(Phase::Discard);
        self.attention.store(true, Ordering::Relaxed);
        beat.since + LINGER
    }

    /// The response is being sent. `last`: the connection ends with it, perhaps before the request was read.
    pub fn answer_ready(&self, last: bool) {
        let mut beat = self.lock();
        // If another connection waits for the place and no body came for a while, there is hardly a rest to read.
        beat.linger = last && !beat.gives_way;
        // A client that does not wait for responses may have begun its next request.
        let next = if beat.scan.is_within_head() { Phase::Head } else { Phase::Rest };
        beat.enter(next);
    }

    /// The connection is to be closed; returns whether to linger first.
    pub fn closing(&self) -> bool {
        let mut beat = self.lock();
        if beat.linger && beat.phase != Phase::Linger {
            beat.enter(Phase::Linger);
            self.attention.store(true, Ordering::Relaxed);
        }
        beat.linger
    }

    /// Its rank for being closed, if it may be closed: first refused connections, then those without a request,
    /// then idle ones, then those whose bodies do not arrive; of each kind those that have waited longest.
    /// Requests that wait for the service keep their places.
    pub fn turn(&self, now: Instant) -> Option<(u8, Instant)> {
        self.lock().turn(now)
    }

    /// Requests that the connection ends and frees its place, if that is allowed now.
    pub fn give_way(&self, now: Instant) -> bool {
        let mut beat = self.lock();
        if beat.turn(now).is_none() {
            return false;
        }
        beat.gives_way = true;
        drop(beat);
        self.attention.store(true, Ordering::Relaxed);
        self.waker.get().into_iter().for_each(Waker::wake_by_ref);
        true
    }

    /// Whether the watchdog must check now.
    pub fn takes_attention(&self) -> bool {
        self.attention.load(Ordering::Relaxed) && self.attention.swap(false, Ordering::Relaxed)
    }

    /// The phase in which the connection is to be closed at once. A request sends its response before that.
    pub fn leaves(&self) -> Option<Phase> {
        let beat = self.lock();
        let can_leave = matches!(beat.phase, Phase::Head | Phase::Rest | Phase::Linger);
        (beat.gives_way && can_leave).then_some(beat.phase)
    }

    /// The phase that has lasted too long, if any.
    pub fn overdue(&self, limits: &ServerConfig, stopping: bool) -> Option<Phase> {
        let beat = self.lock();
        let has_own_deadline = matches!(beat.phase, Phase::Body | Phase::Request | Phase::Discard);
        let is_over = !has_own_deadline && beat.since.elapsed() >= beat.limit(limits, stopping);
        is_over.then_some(beat.phase)
    }

    /// When to check again. A phase may begin right after a check, so the wait is at most a quarter of the shortest
    /// limit; a phase with a limit is checked again exactly when it ends.
    pub fn next_check(&self, limits: &ServerConfig, stopping: bool) -> Duration {
        let shortest =
            limits.header_timeout.min(limits.idle_timeout).min(limits.body_timeout).min(limits.request_timeout);
        let shortest = if stopping { shortest.min(HEAD_AT_STOP) } else { shortest };
        let beat = self.lock();
        let left = beat.limit(limits, stopping).saturating_sub(beat.since.elapsed());
        left.clamp(Duration::from_millis(1), shortest / 4)
    }
}

impl Beat {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
        self.gives_way = false;
    }

    fn turn(&self, now: Instant) -> Option<(u8, Instant)> {
        let order = match self.phase {
            Phase::Linger | Phase::Discard => 0,
            Phase::Head => 1,
            Phase::Rest => 2,
            Phase::Body => 3,
            Phase::Request => return None,
        };
        (now.saturating_duration_since(self.since) >= GIVE_WAY_AFTER).then_some((order, self.since))
    }

    fn limit(&self, limits: &ServerConfig, stopping: bool) -> Duration {
        match self.phase {
            Phase::Head if stopping => HEAD_AT_STOP.min(limits.header_timeout),
            Phase::Head => limits.header_timeout,
            // The body's deadline first, if it is sooner.
            Phase::Body | Phase::Request if self.since.elapsed() < limits.body_timeout + DEADLINE_SLACK => {
                limits.body_timeout.min(limits.request_timeout)
            }
            Phase::Body | Phase::Request => limits.request_timeout,
            Phase::Rest => limits.idle_timeout,
            Phase::Discard | Phase::Linger => LINGER,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long_after() -> Instant {
        Instant::now() + 2 * GIVE_WAY_AFTER
    }

    #[test]
    fn connections_give_way_in_order_and_requests_that_wait_for_us_never() {
        let watchdog = Watchdog::new();
        let turn = |watchdog: &Watchdog| watchdog.turn(long_after()).map(|(order, _)| order);
        assert_eq!(turn(&watchdog), Some(1), "a head that does not come");
        assert_eq!(watchdog.turn(Instant::now()), None, "not yet");
        watchdog.received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n");
        assert_eq!(watchdog.request_began(), None);
        assert_eq!(turn(&watchdog), None, "a request");
        assert!(!watchdog.body_awaited());
        assert_eq!(turn(&watchdog), Some(3), "a body");
        watchdog.body_came();
        assert_eq!(turn(&watchdog), None, "a request again");
        watchdog.answer_ready(false);
        assert_eq!(turn(&watchdog), Some(2), "at rest");
        watchdog.discard_began();
        assert_eq!(turn(&watchdog), Some(0), "refused");
    }

    #[test]
    fn a_connection_that_goes_on_in_time_does_not_leave() {
        let watchdog = Watchdog::new();
        assert!(watchdog.give_way(long_after()) && watchdog.takes_attention());
        assert_eq!(watchdog.leaves(), Some(Phase::Head));
        watchdog.request_began();
        assert_eq!((watchdog.leaves(), watchdog.give_way(long_after())), (None, false));
        watchdog.body_awaited();
        assert!(watchdog.give_way(long_after()));
        assert_eq!(watchdog.leaves(), None, "the request answers first");
        assert!(watchdog.body_awaited(), "and is told so");
        watchdog.answer_ready(true);
        assert!(watchdog.leaves().is_none() && !watchdog.closing(), "its place is free as soon as the answer is out");
        assert!(watchdog.give_way(long_after()));
        watchdog.sent();
        assert_eq!(watchdog.leaves(), None, "the client takes its answer");
    }
}
