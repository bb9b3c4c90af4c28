//! From accepted sockets to requests. The accept loop is ours because every wait needs a limit: for a head, for rest between
//! requests, for a client that does not read, and for the number of connections.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::CONNECTION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::exchange::{refuse_unparsable, respond};
use super::head::RequestScan;
use super::{AppState, Face};
use crate::config::ServerConfig;
use crate::telemetry::log;
use crate::telemetry::metrics::Refusal;

/// How long after an early answer the rest of a request is read and thrown away: closing at once would reset the connection,
/// and the client might lose the answer.
const LINGER: Duration = Duration::from_secs(2);
/// How long a head that is under way may still take when the service stops.
const HEAD_AT_STOP: Duration = Duration::from_secs(1);
/// A request's deadlines count from a little later than its phase; it is woken until then, a few times.
const DEADLINE_SLACK: Duration = Duration::from_millis(10);
/// How long to wait when the system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts and serves until `stop` turns true, then waits for requests under way, at most `grace`.
pub async fn serve(app: Arc<AppState>, listener: TcpListener, face: Face, mut stop: watch::Receiver<bool>) {
    let signal = stop.clone();
    let places = Arc::new(Semaphore::new(app.limits.connections_max));
    let mut connections = JoinSet::new();
    let mut stopping = pin!(async { stop.wait_for(|stop| *stop).await.is_ok() });
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        let (place, (stream, peer)) = tokio::select! {
            biased;
            _ = &mut stopping => break,
            (place, accepted) = accepted => match accepted {
                Ok((stream, peer)) => (place, (stream, peer.ip())),
                Err(error) => {
                    log::error("cannot accept a connection").cause(&error).emit();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (app, signal) = (Arc::clone(&app), signal.clone());
        connections.spawn(async move {
            attend(&app, stream, (face, peer), signal).await;
            drop(place);
        });
        // Those that ended meanwhile are forgotten.
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let all_gone = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(app.limits.grace, all_gone).await.is_err() {
        log::warning("requests were still under way at the end of the grace period")
            .value("connections", connections.len())
            .emit();
        connections.shutdown().await;
    }
}

/// Serves one connection to its end.
async fn attend(app: &AppState, stream: TcpStream, peer: (Face, IpAddr), mut stop: watch::Receiver<bool>) {
    let _counted = app.metrics.connection_opened();
    // Answers are small and whole: nothing is won by waiting for more.
    let _ = stream.set_nodelay(true);
    let pulse = Pulse::new();
    let service = service_fn(|request| async {
        let fault = pulse.request_began();
        let answer = respond(app, peer, fault, request).await;
        pulse.answer_ready(answer.headers().contains_key(CONNECTION));
        Ok::<_, Infallible>(answer)
    });
    let io = TokioIo::new(Watched { stream, app, pulse: &pulse, instead: None });
    let connection = http1::Builder::new()
        .max_header_size(app.limits.header_bytes_max)
        .max_buf_size(app.limits.header_bytes_max)
        .max_headers(app.limits.headers_max)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut stopping = false;
    let mut stopped = pin!(stop.wait_for(|stop| *stop));
    let mut check = pin!(tokio::time::sleep(pulse.next_check(&app.limits, false)));
    loop {
        tokio::select! {
            biased;
            // What hyper could not read it has answered (see `Watched`); clients that went away are not worth a word.
            _ = connection.as_mut() => return,
            () = check.as_mut() => {
                if let Some(phase) = pulse.overdue(&app.limits, stopping) {
                    if phase == Phase::Head {
                        app.metrics.refused(Refusal::HeadersTooSlow);
                    }
                    return;
                }
                check.as_mut().reset(tokio::time::Instant::now() + pulse.next_check(&app.limits, stopping));
            }
            _ = stopped.as_mut(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
                check.as_mut().reset(tokio::time::Instant::now() + pulse.next_check(&app.limits, stopping));
            }
        }
    }
}

/// What a connection is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The rest of a head, or the first one.
    Head,
    /// Us. The request knows its own deadlines, and only has to be woken then.
    Request,
    /// The client: to take an answer, or to ask something more.
    Rest,
    /// The end of a request whose answer is out already.
    Linger,
}

/// Where a connection stands and since when. Shared by its socket, its requests and its watchdog, all in one task.
struct Pulse(Mutex<Beat>);

struct Beat {
    phase: Phase,
    since: Instant,
    scan: RequestScan,
    linger: bool,
}

impl Pulse {
    fn new() -> Self {
        Self(Mutex::new(Beat {
            phase: Phase::Head,
            since: Instant::now(),
            scan: RequestScan::default(),
            linger: false,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Beat> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Bytes came in.
    fn received(&self, bytes: &[u8]) {
        let mut beat = self.lock();
        if beat.phase == Phase::Rest {
            beat.enter(Phase::Head);
        }
        beat.scan.feed(bytes);
    }

    /// Bytes went out.
    fn sent(&self) {
        let mut beat = self.lock();
        if beat.phase == Phase::Rest {
            beat.since = Instant::now();
        }
    }

    /// A request's head is complete; answers what is wrong with it.
    fn request_began(&self) -> Option<&'static str> {
        let mut beat = self.lock();
        beat.enter(Phase::Request);
        beat.scan.next_fault()
    }

    /// The answer is on its way; `last` if the connection ends with it, perhaps before the whole request was read.
    fn answer_ready(&self, last: bool) {
        let mut beat = self.lock();
        beat.linger = last;
        // A client that does not wait for answers may have begun its next request.
        let next = if beat.scan.is_within_head() { Phase::Head } else { Phase::Rest };
        beat.enter(next);
    }

    /// The connection is to be closed; answers whether to read on for a while first.
    fn closing(&self) -> bool {
        let mut beat = self.lock();
        if beat.linger && beat.phase != Phase::Linger {
            beat.enter(Phase::Linger);
        }
        beat.linger
    }

    /// The phase that has lasted too long, if it has.
    fn overdue(&self, limits: &ServerConfig, stopping: bool) -> Option<Phase> {
        let beat = self.lock();
        let is_over = beat.phase != Phase::Request && beat.since.elapsed() >= beat.limit(limits, stopping);
        is_over.then_some(beat.phase)
    }

    /// When to look again. A phase may begin right after a look, so the wait is no longer than a quarter of the shortest
    /// limit; a phase with a limit is looked at again exactly when it ends.
    fn next_check(&self, limits: &ServerConfig, stopping: bool) -> Duration {
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
    }

    fn limit(&self, limits: &ServerConfig, stopping: bool) -> Duration {
        match self.phase {
            Phase::Head if stopping => HEAD_AT_STOP.min(limits.header_timeout),
            Phase::Head => limits.header_timeout,
            // The body's deadline first, if that is sooner.
            Phase::Request if self.since.elapsed() < limits.body_timeout + DEADLINE_SLACK => {
                limits.body_timeout.min(limits.request_timeout)
            }
            Phase::Request => limits.request_timeout,
            Phase::Rest => limits.idle_timeout,
            Phase::Linger => LINGER,
        }
    }
}

/// A socket that tells its connection's pulse, and lingers before it closes where that is called for.
struct Watched<'a> {
    stream: TcpStream,
    app: &'a AppState,
    pulse: &'a Pulse,
    /// Our words for a refusal of hyper's, and how many bytes of them are out.
    instead: Option<(Vec<u8>, usize)>,
}

/// The status of an answer that hyper made itself, to bytes that are no request: ours all have a request id.
fn refusal_of_hyper(bytes: &[u8]) -> Option<StatusCode> {
    let status = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let is_ours = || memchr::memmem::find(bytes, b"x-request-id: ").is_some();
    (status[0] == b'4' && !is_ours()).then(|| StatusCode::from_bytes(status).ok()).flatten()
}

impl AsyncRead for Watched<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let came = &buffer.filled()[before..];
        if !came.is_empty() {
            self.pulse.received(came);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched<'_> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.instead.is_none()
            && let Some(status) = refusal_of_hyper(bytes)
        {
            this.instead = Some((refuse_unparsable(this.app, status), 0));
        }
        let Some((words, out)) = &mut this.instead else {
            let written = ready!(Pin::new(&mut this.stream).poll_write(context, bytes))?;
            this.pulse.sent();
            return Poll::Ready(Ok(written));
        };
        while *out < words.len() {
            *out += ready!(Pin::new(&mut this.stream).poll_write(context, &words[*out..]))?;
        }
        this.instead = None;
        this.pulse.answer_ready(true);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        if !self.pulse.closing() {
            return Poll::Ready(Ok(()));
        }
        // The watchdog sees to it that this ends.
        let mut scratch = [0; 8 << 10];
        loop {
            let mut unwanted = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut unwanted))?;
            if unwanted.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
