//! Runs a router on a listener: HTTP/1.1 and HTTP/2 on one port, bounded, drained at the end.
//!
//! Bounds against slow and idle clients: a head must arrive in time, also the very first
//! byte of a connection; a connection without requests is closed after a while; an address has
//! a share of the connections, and at the bound of all, idle ones make room for who comes. A
//! reader that takes nothing of its answer for a while is cut.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::answers::Accounted;
use crate::connections::{Connections, Seat};
use crate::held::{SMALL_BYTES, size, until_sent};
use crate::stalls::{Impatient, watched};

/// A connection that makes room for another may take this long to take its leave.
const LEAVE: Duration = Duration::from_secs(1);

/// Bounds of the listener.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Of all addresses; at the bound idle ones make room.
    pub max_connections: usize,
    /// Of one address (of IPv6: of one /64 network).
    pub max_peer_connections: usize,
    /// A request's head must be complete within this time; so an idle HTTP/1.1 connection
    /// is closed after it too.
    pub head_timeout: Duration,
    /// A connection without a request in flight is closed after this.
    pub idle_timeout: Duration,
    /// A connection whose peer takes nothing of what is sent for so long is cut.
    pub write_timeout: Duration,
    /// Requests in flight at shutdown may take this long to finish.
    pub drain_timeout: Duration,
    /// Streams of one HTTP/2 connection at the same time.
    pub max_streams: u32,
    pub max_head_bytes: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            max_connections: 4_096,
            max_peer_connections: 512,
            head_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(300),
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(20),
            max_streams: 256,
            max_head_bytes: 64 << 10,
        }
    }
}

/// Accepts until `shutdown` ends, then lets requests in flight finish within the drain
/// timeout, closing idle connections at once. Returns how many connections had to be cut.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
    config: ServerConfig,
) -> usize {
    let seats = Connections::new(config.max_connections, config.max_peer_connections);
    let (stop, stopping) = watch::channel(false);
    let config = Arc::new(config);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Without a seat the socket is closed: its address has as many in use as it may.
                    let Some(seat) = seats.seat(peer.ip()) else { continue };
                    let connection = Connection { router: router.clone(), peer, config: config.clone(), seat };
                    connections.spawn(connection.run(stream, stopping.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, or a peer that left: never a reason to stop.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    stop.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(config.drain_timeout, drained).await.is_ok() {
        return 0;
    }
    let cut = connections.len();
    tracing::warn!(connections = cut, "requests did not finish in time and are cut");
    connections.shutdown().await;
    cut
}

struct Connection {
    router: Router,
    peer: SocketAddr,
    config: Arc<ServerConfig>,
    seat: Seat,
}

impl Connection {
    async fn run(self, stream: TcpStream, mut stopping: watch::Receiver<bool>) {
        let _ = stream.set_nodelay(true);
        let stream = Impatient::new(stream, self.config.write_timeout);
        let builder = self.builder();
        let service = service_fn(|mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(self.peer));
            let in_flight = self.seat.request();
            let has_windows = request.version() == http::Version::HTTP_2;
            let (activity, patience) = (self.seat.activity.clone(), self.config.write_timeout);
            let response = self.router.clone().oneshot(request.map(axum::body::Body::new));
            async move {
                response.await.map(|response| {
                    let is_large = size(&response).is_none_or(|bytes| bytes > SMALL_BYTES);
                    let is_data = is_large && response.extensions().get::<Accounted>().is_some();
                    let response = until_sent(response, in_flight);
                    match has_windows && is_data {
                        true => watched(response, activity, patience),
                        false => response,
                    }
                })
            }
        });
        let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let mut watch = pin!(self.watch());
        let activity = self.seat.activity.clone();
        let mut evicted = pin!(activity.evicted());
        // Once it is closing, answers may take as long again as an idle connection may live.
        let mut cut_at: Option<Instant> = None;
        loop {
            let closing = cut_at.is_some();
            let cut = tokio::time::sleep_until(cut_at.unwrap_or_else(Instant::now));
            tokio::select! {
                result = &mut connection => {
                    if let Err(error) = result {
                        tracing::debug!(peer = %self.peer, error, "connection ended");
                    }
                    return;
                }
                () = &mut watch, if !closing => {
                    if activity.requests() == 0 {
                        return;
                    }
                    cut_at = Some(Instant::now() + self.config.idle_timeout);
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut evicted, if !closing => {
                    if activity.requests() == 0 {
                        return;
                    }
                    cut_at = Some(Instant::now() + LEAVE);
                    connection.as_mut().graceful_shutdown();
                }
                _ = stopping.wait_for(|stop| *stop), if !closing => {
                    cut_at = Some(Instant::now() + self.config.idle_timeout);
                    connection.as_mut().graceful_shutdown();
                }
                () = cut, if closing => return,
            }
        }
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let config = &self.config;
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // No `pipeline_flush`: with it hyper takes a body in as fast as it is made, and the whole
        // of it waits in memory for its reader.
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(config.head_timeout)
            .max_buf_size(config.max_head_bytes.max(128 << 10));
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(config.head_timeout)
            .keep_alive_timeout(config.head_timeout)
            .max_concurrent_streams(config.max_streams)
            .max_header_list_size(u32::try_from(config.max_head_bytes).unwrap_or(u32::MAX))
            .adaptive_window(true);
        builder
    }

    /// Ends when the connection has not sent its first request in time, or has been without
    /// requests for too long.
    async fn watch(&self) {
        tokio::time::sleep(self.config.head_timeout).await;
        let activity = &self.seat.activity;
        let mut seen = activity.requests();
        if seen == 0 {
            return;
        }
        let mut idle_since = Instant::now();
        loop {
            tokio::time::sleep(self.config.idle_timeout / 4).await;
            let total = activity.requests();
            if total != seen || activity.is_busy() {
                seen = total;
                idle_since = Instant::now();
            } else if idle_since.elapsed() >= self.config.idle_timeout {
                return;
            }
        }
    }
}
