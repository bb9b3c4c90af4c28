//! From accepted sockets to requests. The accept loop is ours because every wait needs a limit: for a head, between
//! requests, for a client that does not read, and for the number of connections.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::exchange::{refuse_unparsable, respond};
use super::places::{Place, Places};
use super::watchdog::{Phase, Watchdog};
use super::{AppState, ListenerRole, Stage};
use crate::telemetry::metrics::Refusal;
use runtime::log;
use runtime::process::give_back_memory;

/// Maximum bytes of the rest of a request that are discarded after an early response; then the connection is closed.
const LINGER_BYTES_MAX: usize = 8 << 20;
/// Number of closed connections after which the allocator's memory is returned.
const CROWD_CONNECTIONS: usize = 64;
/// How long to wait when the system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts and serves until the service stops, then waits for requests in progress, at most `grace`.
pub async fn serve(app: Arc<AppState>, listener: TcpListener, role: ListenerRole, mut stop: watch::Receiver<Stage>) {
    let signal = stop.clone();
    let places = Places::new(app.limits.connections_max);
    let mut connections = JoinSet::new();
    let mut crowd = Crowd::default();
    let mut stopping = pin!(async { stop.wait_for(|stage| *stage == Stage::Stopping).await.is_ok() });
    'accepting: loop {
        // One connection over the maximum is accepted: only then is it known that a client waits.
        let mut accepted = pin!(async {
            let (stream, peer) = listener.accept().await?;
            io::Result::Ok((stream, peer.ip(), places.take().await))
        });
        let accepted = loop {
            tokio::select! {
                biased;
                _ = &mut stopping => break 'accepting,
                accepted = accepted.as_mut() => break accepted,
                // A task keeps its memory until it is joined, so joining does not wait for the next connection.
                Some(_) = connections.join_next() => crowd.is_now(connections.len()),
            }
        };
        let (stream, peer, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                log::error("cannot accept a connection").cause(&error).emit();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (app, signal) = (Arc::clone(&app), signal.clone());
        connections.spawn(async move { serve_connection(&app, stream, (role, peer), place, signal).await });
        crowd.is_now(connections.len());
    }
    drop(listener);
    let all_gone = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(app.limits.grace, all_gone).await.is_err() {
        log::warning("requests were still in progress at the end of the grace period")
            .value("connections", connections.len())
            .emit();
        connections.shutdown().await;
    }
}

/// Detects that many connections were closed, and returns the memory that the allocator keeps for them.
#[derive(Debug, Default)]
struct Crowd {
    most: usize,
}

impl Crowd {
    /// Reports the number of open connections.
    fn is_now(&mut self, connections: usize) {
        self.most = self.most.max(connections);
        if connections <= self.most / 4 && self.most - connections >= CROWD_CONNECTIONS {
            self.most = connections;
            give_back_memory();
        }
    }
}

/// Serves one connection to its end.
async fn serve_connection(
    app: &AppState,
    stream: TcpStream,
    peer: (ListenerRole, IpAddr),
    place: Place,
    mut stop: watch::Receiver<Stage>,
) {
    let _counted = app.metrics.connection_opened();
    // Responses are small and complete: waiting for more data has no benefit.
    let _ = stream.set_nodelay(true);
    let watchdog = place.watchdog.as_ref();
    watchdog.served_by(std::future::poll_fn(|context| Poll::Ready(context.waker().clone())).await);
    let service = service_fn(|request| async {
        let fault = watchdog.request_began();
        let mut answer = respond(app, peer, fault, watchdog, request).await;
        // While the service drains, clients and proxies send their next requests to other servers.
        if app.is_leaving() || place.is_wanted() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        watchdog.answer_ready(answer.headers().contains_key(CONNECTION));
        Ok::<_, Infallible>(answer)
    });
    let io = TokioIo::new(Watched { stream, app, watchdog, instead: None, discarded: 0 });
    let mut connection = pin!(within_limits(app).serve_connection(io, service));
    let mut stopping = false;
    let mut stopped = pin!(stop.wait_for(|stage| *stage == Stage::Stopping));
    let attention =
        || std::future::poll_fn(|_| if watchdog.takes_attention() { Poll::Ready(()) } else { Poll::Pending });
    let mut check = pin!(tokio::time::sleep(watchdog.next_check(&app.limits, false)));
    loop {
        tokio::select! {
            biased;
            // Requests that hyper could not parse were already answered (see `Watched`). Disconnects are not logged.
            _ = connection.as_mut() => return,
            () = attention() => {
                if let Some(phase) = watchdog.leaves() {
                    if phase == Phase::Head {
                        app.metrics.refused(Refusal::ConnectionGaveWay);
                    }
                    return;
                }
                check.as_mut().reset(tokio::time::Instant::now() + watchdog.next_check(&app.limits, stopping));
            }
            () = check.as_mut() => {
                if let Some(phase) = watchdog.overdue(&app.limits, stopping) {
                    if phase == Phase::Head {
                        app.metrics.refused(Refusal::HeadersTooSlow);
                    }
                    return;
                }
                check.as_mut().reset(tokio::time::Instant::now() + watchdog.next_check(&app.limits, stopping));
            }
            _ = stopped.as_mut(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
                check.as_mut().reset(tokio::time::Instant::now() + watchdog.next_check(&app.limits, stopping));
            }
        }
    }
}

/// HTTP with the limits of the settings.
fn within_limits(app: &AppState) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_header_size(app.limits.header_bytes_max)
        .max_buf_size(app.limits.header_bytes_max)
        .max_headers(app.limits.headers_max);
    builder
}

/// A socket that reports to its connection's watchdog, and lingers before it closes if necessary.
struct Watched<'a> {
    stream: TcpStream,
    app: &'a AppState,
    watchdog: &'a Watchdog,
    /// Our response that replaces one by hyper, and the number of its bytes that were written.
    instead: Option<(Vec<u8>, usize)>,
    /// Bytes discarded after an early response.
    discarded: usize,
}

/// The status of a response that hyper made itself for an unparsable request: all of ours have a request id.
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
            self.watchdog.received(came);
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
            this.watchdog.sent();
            return Poll::Ready(Ok(written));
        };
        while *out < words.len() {
            *out += ready!(Pin::new(&mut this.stream).poll_write(context, &words[*out..]))?;
        }
        this.instead = None;
        this.watchdog.answer_ready(true);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        if !self.watchdog.closing() {
            return Poll::Ready(Ok(()));
        }
        // The watchdog ends this loop when it takes too long.
        let mut scratch = [0; 8 << 10];
        while self.discarded < LINGER_BYTES_MAX {
            let mut unwanted = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut unwanted))?;
            if unwanted.filled().is_empty() {
                break;
            }
            self.discarded += unwanted.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}
