//! One client connection: hyper's state machine, and a watchdog beside it.

use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1::{self, UpgradeableConnection};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::acceptor::Slot;
use super::activity::{Activity, Limits, Phase};
use super::client_io::ClientIo;
use super::exchange;
use super::headers::{ClientHeaders, Trust};
use super::problem::{Kind, Problem};
use super::worker::Worker;
use crate::telemetry::metrics::WorkerMetrics;

/// Bytes of a request's head, and of what is buffered of a connection at once.
const MAX_HEAD: usize = 64 * 1024;

/// What its requests need to know of a client's connection.
pub struct Client {
    /// What the connection is doing.
    pub activity: Arc<Activity>,
    /// What the application is told about the client.
    pub headers: ClientHeaders,
    metrics: Arc<WorkerMetrics>,
    _slot: Slot,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.metrics.connection_closed();
    }
}

/// Serves a client until either side is done.
pub async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, slot: Slot) {
    let config = &worker.shared.config;
    let limits = Limits {
        head: config.header_timeout,
        idle: config.keepalive_timeout,
        piece: config.body_timeout,
    };
    let trust = if config.trusted.contains(peer.ip()) { Trust::Proxy } else { Trust::Nobody };
    let port = stream.local_addr().map_or(0, |a| a.port());
    let activity = Arc::new(Activity::new(limits));
    let client = Rc::new(Client {
        activity: activity.clone(),
        headers: ClientHeaders::new(trust, peer.ip(), port, false),
        metrics: worker.metrics.clone(),
        _slot: slot,
    });
    worker.metrics.connection_opened();
    let io = ClientIo::new(stream, activity.clone(), worker.shared.node.clone());
    let service = service_fn({
        let worker = worker.clone();
        move |request| {
            let served = exchange::serve(worker.clone(), client.clone(), request);
            async move { Ok::<_, Infallible>(served.await) }
        }
    });
    let mut connection = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    if watch(&worker, &activity, &mut connection).await == End::SlowHead
        && let Some(parts) = connection.into_parts()
    {
        let stream = parts.io.into_inner().into_inner();
        say_timeout(stream, &worker).await;
    }
}

/// How a connection ended.
#[derive(PartialEq, Eq)]
enum End {
    /// By itself, or by a limit of which the client need not be told.
    Done,
    /// A request's head began and did not end in time.
    SlowHead,
}

/// Drives the connection and ends it once its deadline passes.
async fn watch<I, S>(
    worker: &Rc<Worker>,
    activity: &Activity,
    connection: &mut UpgradeableConnection<I, S>,
) -> End
where
    UpgradeableConnection<I, S>: Future + Unpin,
    S: HttpService<Incoming>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S::ResBody: Body + 'static,
    <S::ResBody as Body>::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut alarm = pin!(sleep_until(Instant::now()));
    let mut armed: Option<Instant> = None;
    let mut finishing = false;
    let mut presence = None;
    poll_fn(|cx| {
        // Told while a request is on, so that the client learns it from the response: a connection
        // closed while idle might meet a request on its way. Before the poll, which may respond.
        if worker.is_draining() && !finishing && activity.phase() == Phase::Busy {
            finishing = true;
            Pin::new(&mut *connection).graceful_shutdown();
        }
        if Pin::new(&mut *connection).poll(cx).is_ready() {
            return Poll::Ready(End::Done);
        }
        presence.get_or_insert_with(|| worker.enter(cx.waker().clone()));
        loop {
            let deadline = activity.deadline(worker.impatient_since());
            let Some(deadline) = deadline else { return Poll::Pending };
            // An alarm that is set too early is harmless; most requests never touch it.
            if armed.is_none_or(|armed| armed > deadline) {
                alarm.as_mut().reset(deadline);
                armed = Some(deadline);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            armed = None;
            if deadline <= Instant::now() {
                let slow = activity.phase() == Phase::Head && activity.is_between_messages();
                return Poll::Ready(if slow { End::SlowHead } else { End::Done });
            }
        }
    })
    .await
}

/// Says 408 to a client that began a request and did not end it.
async fn say_timeout(mut stream: TcpStream, worker: &Worker) {
    let problem = Problem::new(
        Kind::RequestTimeout,
        "the request's head did not come within proxy.header_timeout",
    );
    let answer = problem.raw(&worker.shared.node);
    // The client had its time; a full socket is not waited for.
    let said = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await
    };
    let _ = timeout(Duration::from_secs(1), said).await;
}
