//! One client connection that speaks HTTP/1: hyper's state machine, and a watchdog beside it.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Request};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1::{self, Parts, UpgradeableConnection};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::acceptor::Slot;
use super::activity::{Activity, ConnectionLimits, Phase};
use super::client_body::ClientBody;
use super::client_io::ClientIo;
use super::exchange::{self, Served};
use super::headers::{ClientHeaders, SenderFields, Trust};
use super::lazy_timer::LazyTimer;
use super::linger;
use super::problem::{Problem, ProblemKind};
use super::proxy_protocol;
use super::receive;
use super::rest;
use super::secure;
use super::upstream::RawHeaders;
use super::worker::Worker;
use crate::config::{self, Trusted};
use crate::peer;
use crate::telemetry::metrics::WorkerMetrics;

/// Bytes of a request's head, and of what is buffered of a connection at once.
const MAX_HEAD: usize = 64 * 1024;
/// A peer closes what it does not use itself: that no request meets a closing connection is up to
/// the side that sends requests.
const PEER_IDLE: Duration = Duration::from_secs(600);

/// What its requests need to know of a connection.
pub(crate) struct Client {
    /// What the connection is doing, if it has one request at a time. [HTTP/2](super::http2) keeps
    /// time for each stream.
    activity: Option<Arc<Activity>>,
    /// What the application is told about the client; `None`: a peer, which has said so already.
    headers: Option<ClientHeaders>,
    _place: Option<CountedConnection>,
}

impl Client {
    /// Who has connected to our address `local`.
    pub(crate) fn new(worker: &Worker, local: SocketAddr, peer: SocketAddr, slot: Slot) -> Self {
        let config = &worker.shared.config;
        let trust = if config.trusted.contains(peer.ip()) { Trust::Proxy } else { Trust::Nobody };
        let headers = ClientHeaders::new(trust, peer.ip(), local, config.tls.is_some());
        Self {
            activity: None,
            headers: Some(headers),
            _place: Some(CountedConnection::new(slot, worker)),
        }
    }

    /// A request has come, with this body.
    pub(crate) fn busy(&self, body: Incoming) -> ClientBody {
        if let Some(activity) = &self.activity {
            activity.busy(body.size_hint().exact());
        }
        ClientBody::new(body, self.activity.clone())
    }

    /// Whether not all of the request's body has come, on a connection that waits for it.
    pub(crate) fn is_sending(&self) -> bool {
        self.activity.as_ref().is_some_and(|activity| activity.is_body_open())
    }

    /// A response has ended.
    pub(crate) fn idle(&self, now: Instant) {
        if let Some(activity) = &self.activity {
            activity.idle(now);
        }
    }

    /// The connection carries no HTTP any more.
    pub(crate) fn tunnel(&self) {
        if let Some(activity) = &self.activity {
            activity.tunnel();
        }
    }

    /// The client's address, for logs.
    pub(crate) fn name(&self) -> &str {
        self.headers.as_ref().map_or("peer", ClientHeaders::address)
    }

    /// Whose word about the client counts.
    pub(crate) fn trust(&self) -> Trust {
        self.headers.as_ref().map_or(Trust::Peer, ClientHeaders::trust)
    }

    /// Says who the client is, beside what is left of its own words in a request.
    pub(crate) fn describe(
        &self,
        request: &mut HeaderMap,
        found: SenderFields,
        added: &mut RawHeaders,
        trusted: &Trusted,
    ) {
        if let Some(headers) = &self.headers {
            headers.describe(request, found, added, trusted);
        }
    }

    /// Whether the client came over TLS, here or at a trusted proxy.
    pub(crate) fn is_over_tls(&self, request: &HeaderMap, found: SenderFields) -> bool {
        self.headers.as_ref().is_some_and(|headers| headers.over_tls(request, found))
    }
}

/// A client's place among the connections, counted for as long as it is taken.
struct CountedConnection {
    metrics: Arc<WorkerMetrics>,
    _slot: Slot,
}

impl CountedConnection {
    fn new(slot: Slot, worker: &Worker) -> Self {
        worker.metrics.connection_opened();
        Self { metrics: worker.metrics.clone(), _slot: slot }
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.metrics.connection_closed();
    }
}

/// Serves a client until either side is done.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    mut stream: TcpStream,
    mut peer: SocketAddr,
    slot: Slot,
) {
    let config = &worker.shared.config;
    // Without its own address the socket is of no use any more; the next read will say so.
    let mut local = stream.local_addr().unwrap_or_else(|_| ([0, 0, 0, 0], 0).into());
    if config.proxy_protocol && config.trusted.contains(peer.ip()) {
        // Boxed, as most nodes have no use for it.
        match Box::pin(proxy_protocol::read(&mut stream, config.header_timeout)).await {
            Ok(Some(said)) => (peer, local) = (said.client, said.server),
            Ok(None) => {}
            Err(why) => return tracing::debug!(%peer, "no header of the PROXY protocol: {why}"),
        }
    }
    let client = Client::new(&worker, local, peer, slot);
    match worker.tls() {
        None => serve_http1(worker, stream, client).await,
        // Boxed: what it needs should not make every plain connection larger.
        Some(config) => Box::pin(secure::serve(worker, config, stream, client)).await,
    }
}

/// Serves a client that speaks HTTP/1.
pub(crate) async fn serve_http1<T>(worker: Rc<Worker>, stream: T, client: Client)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = limits(&worker.shared.config);
    drive(worker, stream, client, limits, exchange::serve).await;
}

/// The limits of a client's connection.
pub(crate) fn limits(config: &config::Proxy) -> ConnectionLimits {
    ConnectionLimits {
        head: config.header_timeout,
        idle: config.keepalive_timeout,
        piece: config.body_timeout,
    }
}

/// Serves a peer that passes requests on. While this node stops, such connections end by themselves
/// once nothing more comes: cutting one could lose an answer, or meet a request on its way.
pub(crate) async fn serve_peer(worker: Rc<Worker>, stream: peer::Stream) {
    let limits = ConnectionLimits { idle: PEER_IDLE, ..limits(&worker.shared.config) };
    let client = Client { activity: None, headers: None, _place: None };
    let _counted = worker.shared.forwarded.enter();
    drive(worker.clone(), stream, client, limits, receive::serve).await;
}

async fn drive<T, F>(
    worker: Rc<Worker>,
    stream: T,
    client: Client,
    limits: ConnectionLimits,
    answer: impl Fn(Rc<Worker>, Rc<Client>, Request<Incoming>) -> F,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Served>,
{
    let activity = Arc::new(Activity::new(limits));
    let client = Rc::new(Client { activity: Some(activity.clone()), ..client });
    let half_close = client.headers.is_some();
    let mut io = ClientIo::new(stream, activity.clone(), worker.shared.node.clone(), half_close);
    let service = service_fn(|request| answer(worker.clone(), client.clone(), request));
    loop {
        let mut connection = http1::Builder::new()
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_HEAD)
            // What is small is put together by `ClientIo`.
            .writev(true)
            .serve_connection(TokioIo::new(io), &service)
            .with_upgrades();
        let end = watch(&worker, &activity, &mut connection).await;
        if end == End::Cut || end == End::Done && !activity.has_unread() {
            return;
        }
        let Some(parts) = connection.into_parts() else { return };
        io = without_buffers(parts);
        match end {
            End::Rest => {
                if !rest::until_a_request(&worker, &activity, &mut io).await {
                    return;
                }
            }
            // Boxed, as these are rare, and each connection keeps room for what it awaits.
            End::SlowHead => return Box::pin(say_timeout(io.into_inner(), &worker)).await,
            End::Cut | End::Done => {
                return Box::pin(linger::close(io.into_inner(), &worker)).await;
            }
        }
    }
}

/// What is left once hyper's buffers are dropped.
fn without_buffers<T, S>(parts: Parts<TokioIo<ClientIo<T>>, S>) -> ClientIo<T> {
    let mut io = parts.io.into_inner();
    io.put_back(&parts.read_buf);
    io
}

/// How a connection ended.
#[derive(PartialEq, Eq)]
enum End {
    /// By itself.
    Done,
    /// By a limit of which the client need not be told.
    Cut,
    /// A request's head began and did not end in time.
    SlowHead,
    /// It has not: the client asks nothing for a while.
    Rest,
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
    let mut timer = LazyTimer::default();
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
        // The answer has left: hyper may see that nothing more will come.
        if activity.has_ended()
            && activity.is_between_messages()
            && Pin::new(&mut *connection).poll(cx).is_ready()
        {
            return Poll::Ready(End::Done);
        }
        presence.get_or_insert_with(|| worker.enter(cx.waker().clone()));
        let deadline = activity.deadline(worker.impatient_since());
        let Some(deadline) = deadline else { return Poll::Pending };
        if let Some(rest) = activity.rest().filter(|rest| *rest < deadline) {
            ready!(timer.poll_passed(rest, cx));
            return Poll::Ready(End::Rest);
        }
        ready!(timer.poll_passed(deadline, cx));
        let slow = activity.phase() == Phase::Head && activity.is_between_messages();
        Poll::Ready(if slow { End::SlowHead } else { End::Cut })
    })
    .await
}

/// Says 408 to a client that began a request and did not end it.
async fn say_timeout(mut stream: impl AsyncRead + AsyncWrite + Unpin, worker: &Worker) {
    let problem = Problem::new(
        ProblemKind::RequestTimeout,
        "the request's head did not come within proxy.header_timeout",
    );
    let answer = problem.raw(&worker.shared.node);
    // The client had its time; a full socket is not waited for.
    if let Ok(Ok(())) = timeout(Duration::from_secs(1), stream.write_all(&answer)).await {
        linger::close_soon(stream).await;
    }
}
