//! Accepting and serving the admin port's connections, within bounds.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::change::Changes;
use super::forward::Forwarding;
use super::on_primary::OnPrimary;
use super::stream::Streams;
use super::{Admin, routes};
use crate::accept::{self, Guest};
use crate::crowd::Standing;
use crate::telemetry::metrics::traffic::{self, Traffic};

/// Bytes of a request's head; hyper's least buffer.
const MAX_HEAD: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;
/// How long answers under way may take once this node stops.
const DRAIN: Duration = Duration::from_secs(1);

/// What the admin port allows its clients.
#[derive(Clone, Copy, Debug)]
pub struct AdminLimits {
    /// Connections at once; one that asks nothing gives way to the next.
    pub connections: usize,
    /// Clients that follow the events at once; the next gets 503.
    pub streams: usize,
    /// For a request's head, the time between requests included.
    pub header_timeout: Duration,
    /// For a request's body, where one is read.
    pub body_timeout: Duration,
    /// For a change that an operator asks for.
    pub change_timeout: Duration,
    /// A connection whose client takes nothing for this long is closed.
    pub write_timeout: Duration,
}

impl Default for AdminLimits {
    fn default() -> Self {
        Self {
            connections: 128,
            streams: 16,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            // Longer than whoever makes changes takes.
            change_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(10),
        }
    }
}

/// What requests are answered from.
pub(super) struct Server {
    pub(super) admin: Admin,
    pub(super) limits: AdminLimits,
    pub(super) streams: Streams,
    pub(super) traffic: Arc<Traffic>,
    pub(super) changes: Changes,
    pub(super) on_primary: OnPrimary,
    pub(super) forwarding: Forwarding,
    stopping: watch::Receiver<bool>,
}

/// Serves until `stop` is ready; then ends the event streams and finishes what is under way.
pub async fn serve(
    listener: TcpListener,
    admin: Admin,
    limits: AdminLimits,
    stop: impl Future<Output = ()>,
) {
    let (stopped, stopping) = watch::channel(false);
    let (control, events) = (admin.control.clone(), admin.events.clone());
    let server = Arc::new(Server {
        streams: Streams::new(limits.streams, limits.write_timeout, stopping.clone()),
        traffic: Arc::new(traffic::traffic()),
        changes: Changes::new(control.clone(), events.clone(), limits.change_timeout),
        forwarding: Forwarding::new(control.clone()),
        on_primary: OnPrimary::new(admin.view.clone(), control, events, stopping.clone()),
        admin,
        limits,
        stopping,
    });
    let mut connections = JoinSet::new();
    let serve = |stream, _, guest| serve_connection(server.clone(), stream, guest);
    let serving = accept::serve_each(
        &listener,
        "the admin port",
        limits.connections,
        &mut connections,
        serve,
    );
    tokio::select! {
        () = serving => {}
        () = traffic::observe(&server.admin.metrics, &server.traffic) => {}
        () = stop => {}
    }
    drop(listener);
    let _ = stopped.send(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    // What is not done by then ends with the set.
    let _ = tokio::time::timeout(DRAIN, drained).await;
}

async fn serve_connection(server: Arc<Server>, stream: TcpStream, guest: Guest) {
    let Ok(local) = prepare(&stream, &server.limits) else { return };
    let guest = &guest;
    let service = service_fn(|request| {
        let server = server.clone();
        async move {
            guest.is(Standing::Proven);
            let answer = routes::answer(&server, request, local).await;
            // Between requests, or before the first, it gives way to others; within a stream it does not.
            if answer.body().size_hint().exact().is_some() {
                guest.is(Standing::Stranger);
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(server.limits.header_timeout)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut stopping = server.stopping.clone();
    // A broken or slow client is its own problem and not worth a line in the log.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopping.wait_for(|stopping| *stopping) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Bounds how long the kernel waits for a client that does not read, and says to which address it
/// came.
fn prepare(stream: &TcpStream, limits: &AdminLimits) -> std::io::Result<IpAddr> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(limits.write_timeout))?;
    Ok(stream.local_addr()?.ip())
}
