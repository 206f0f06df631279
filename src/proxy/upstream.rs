//! Connections to an application (or to a peer's Litepilot): kept per worker, and one rule about
//! using them: a request that must not be done twice never goes to an application on a kept
//! connection.
//!
//! When an application closes a connection that it had kept, a request just sent on it is lost, and
//! nobody can tell whether it was read. A read is simply sent again. A write is dialed for afresh
//! (some 50 µs on loopback, where a commit costs milliseconds); the connection is kept for reads.
//! Peers close no connection that we keep, so towards them there is no such race.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::alarm::Alarm;
use super::body::{Outgoing, ReadError};
use crate::cluster::{ClusterView, NodeId};
use crate::config::Target;
use crate::net::Remote;
use crate::peer::{self, Dialer};

/// Idle connections kept to one origin by one worker.
const MAX_IDLE: usize = 256;
/// Bytes buffered per connection in each direction.
const MAX_BUFFER: usize = 128 * 1024;

/// A way to an origin.
#[derive(Clone)]
pub enum Dial {
    /// Over TCP.
    Tcp(Arc<Remote>),
    /// Over a Unix socket.
    Unix(PathBuf),
    /// Through a peer's Litepilot.
    Peer(PrimaryDial),
}

/// The way to the primary's Litepilot.
#[derive(Clone)]
pub struct PrimaryDial {
    dialer: Arc<Dialer>,
    node: NodeId,
    view: watch::Receiver<ClusterView>,
}

impl PrimaryDial {
    /// To that node, which `view` says is the primary.
    pub fn new(dialer: Arc<Dialer>, node: NodeId, view: watch::Receiver<ClusterView>) -> Self {
        Self { dialer, node, view }
    }

    /// Dials for as long as the node is the primary: one that vanished may take the full time to be
    /// missed, and whoever waits wants to go to the next one.
    async fn dial(&self) -> io::Result<peer::Stream> {
        let mut view = self.view.clone();
        let deposed = view
            .wait_for(|view| view.primary.as_ref().is_none_or(|primary| primary.node != self.node));
        tokio::select! {
            dialed = self.dialer.dial(&self.node, peer::HTTP) => dialed.map_err(io::Error::other),
            _ = deposed => Err(io::Error::other("it is no longer the primary")),
        }
    }
}

impl Dial {
    /// The way to an application.
    pub fn app(target: &Target) -> Self {
        match target {
            Target::Tcp(at) => Self::Tcp(Arc::new(Remote::new(at.clone()))),
            Target::Unix(path) => Self::Unix(path.clone()),
        }
    }

    fn is_peer(&self) -> bool {
        matches!(self, Self::Peer(..))
    }
}

/// The times that a request to an origin is bounded by.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// To connect.
    pub connect: Duration,
    /// Between two pieces of a body.
    pub piece: Duration,
    /// To the head of the response, once the request has gone out.
    pub response: Duration,
    /// How long an idle connection is kept.
    pub keep: Duration,
}

/// Where requests are sent, with the connections that are kept to it. Belongs to one worker.
pub struct Origin {
    dial: Dial,
    limits: Limits,
    idle: RefCell<Vec<Idle>>,
}

struct Idle {
    sender: SendRequest<Outgoing>,
    alarm: Alarm,
    since: Instant,
}

/// A request on its way. Boxed, because it passes through many hands.
pub type BoxedRequest = Box<Request<Outgoing>>;

/// A response, and the connection it is coming on.
pub struct Reply {
    /// The head, and the body as it comes.
    pub response: Response<Incoming>,
    /// To be given back once the body has been read to its end.
    pub connection: Connection,
}

/// A connection in use; dropping it closes it.
pub struct Connection {
    sender: SendRequest<Outgoing>,
    alarm: Alarm,
    origin: Rc<Origin>,
}

/// Why there is no response.
pub enum Failure {
    /// The request provably never reached the origin; here it is.
    Unreached(BoxedRequest, io::Error),
    /// The connection ended, or what came is no HTTP: nobody knows whether the request was done.
    Broken(hyper::Error),
    /// The origin took too long; likewise.
    Timeout,
    /// The client's body did not come whole: the origin got half a request.
    Client(ReadError),
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreached(_, why) => write!(f, "unreached: {why}"),
            Self::Broken(why) => write!(f, "broken: {why}"),
            Self::Timeout => f.write_str("timeout"),
            Self::Client(why) => write!(f, "client: {why:?}"),
        }
    }
}

/// How a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// It may be done twice: kept connections are used, and a broken one is made up for.
    Repeatable,
    /// It may be done once: to an application on a fresh connection.
    Once,
    /// Likewise, and the connection may become a tunnel.
    Upgrade,
}

impl Origin {
    /// No connection is made before the first request.
    pub fn new(dial: Dial, limits: Limits) -> Rc<Self> {
        Rc::new(Self { dial, limits, idle: RefCell::default() })
    }

    /// Sends a request and waits for the head of its response. One that may be done twice is sent once
    /// more if its connection breaks: a kept one that was closed just then, or a fresh one that still
    /// waited to be accepted when the origin closed its port to restart.
    pub async fn send(
        self: &Rc<Self>,
        request: BoxedRequest,
        sending: Sending,
    ) -> Result<Reply, Failure> {
        let reuse = match sending {
            Sending::Repeatable => true,
            Sending::Once => self.dial.is_peer(),
            Sending::Upgrade => false,
        };
        let spare = (sending == Sending::Repeatable).then(|| copy(&request));
        let kept = if reuse { self.kept() } else { None };
        let was_kept = kept.is_some();
        let answered = match kept {
            Some(connection) => connection.exchange(request).await,
            None => self.send_anew(request, sending).await,
        };
        let request = match (answered, spare) {
            (Ok(reply), _) => return Ok(reply),
            (Err(Failure::Unreached(unsent, _)), _) if was_kept => unsent,
            (Err(Failure::Broken(_)), Some(spare)) if spare.body().is_intact() => spare,
            (Err(failure), _) => return Err(failure),
        };
        // Boxed, as all that is rarely done: the future of a request is moved, and should be small.
        Box::pin(self.send_anew(request, sending)).await
    }

    /// Sends a request on a connection of its own.
    async fn send_anew(
        self: &Rc<Self>,
        request: BoxedRequest,
        sending: Sending,
    ) -> Result<Reply, Failure> {
        match Box::pin(self.connect(sending)).await {
            Ok(connection) => connection.exchange(request).await,
            Err(why) => Err(Failure::Unreached(request, why)),
        }
    }

    async fn connect(self: &Rc<Self>, sending: Sending) -> io::Result<Connection> {
        let limit = self.limits.connect;
        let sender = match &self.dial {
            Dial::Tcp(remote) => {
                let stream = remote.dial(limit).await.map_err(io::Error::other)?;
                self.handshake(stream, sending).await?
            }
            Dial::Unix(path) => {
                let stream = timeout(limit, UnixStream::connect(path)).await??;
                self.handshake(stream, sending).await?
            }
            Dial::Peer(primary) => self.handshake(primary.dial().await?, sending).await?,
        };
        Ok(Connection { sender, alarm: Alarm::default(), origin: self.clone() })
    }

    async fn handshake<T>(&self, io: T, sending: Sending) -> io::Result<SendRequest<Outgoing>>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_BUFFER)
            // As towards clients.
            .writev(false)
            .handshake(TokioIo::new(io))
            .await
            .map_err(io::Error::other)?;
        // Errors reach the one who waits for the response; here nobody is left to be told.
        if sending == Sending::Upgrade {
            tokio::task::spawn_local(async move { drop(connection.with_upgrades().await) });
        } else {
            tokio::task::spawn_local(async move { drop(connection.await) });
        }
        Ok(sender)
    }

    /// The most recently used connection that is still good.
    fn kept(self: &Rc<Self>) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let oldest = Instant::now().checked_sub(self.limits.keep);
        for i in (0..idle.len()).rev() {
            if oldest.is_some_and(|oldest| idle[i].since < oldest) {
                // The list is in the order of use: what lies before is older still.
                idle.drain(..=i);
                break;
            }
            // One that is not ready is still finishing its last exchange.
            if idle[i].sender.is_ready() {
                let Idle { sender, alarm, .. } = idle.remove(i);
                return Some(Connection { sender, alarm, origin: self.clone() });
            }
            if idle[i].sender.is_closed() {
                idle.remove(i);
            }
        }
        None
    }

    /// Closes connections that have been idle for too long.
    pub fn sweep(&self) {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|i| i.since.elapsed() < self.limits.keep && !i.sender.is_closed());
    }
}

impl Connection {
    async fn exchange(mut self, request: BoxedRequest) -> Result<Reply, Failure> {
        let progress = request.body().progress();
        if let Some(progress) = &progress {
            progress.begin();
        }
        let (limits, sent_at) = (self.origin.limits, Instant::now());
        let mut response = pin!(self.sender.try_send_request(*request));
        let alarm = &mut self.alarm;
        let answered = poll_fn(|cx| {
            if let Poll::Ready(answered) = response.as_mut().poll(cx) {
                return Poll::Ready(Ok(answered));
            }
            // Until the body has gone out each piece has its limit, then the response has.
            let deadline = match &progress {
                Some(progress) if !progress.sent() => progress.last() + limits.piece,
                Some(progress) => progress.last() + limits.response,
                None => sent_at + limits.response,
            };
            ready!(alarm.poll_passed(deadline, cx));
            Poll::Ready(Err(match &progress {
                Some(progress) if progress.starved() && !progress.sent() => {
                    Failure::Client(ReadError::Timeout)
                }
                _ => Failure::Timeout,
            }))
        });
        match answered.await? {
            Ok(response) => Ok(Reply { response, connection: self }),
            Err(mut failed) => Err(match failed.take_message() {
                Some(request) => {
                    let why = io::Error::other(failed.into_error());
                    Failure::Unreached(Box::new(request), why)
                }
                None => match progress.and_then(|p| p.failed()) {
                    Some(why) => Failure::Client(why),
                    None => Failure::Broken(failed.into_error()),
                },
            }),
        }
    }

    /// Keeps the connection for the next request.
    pub fn give_back(self) {
        let Self { sender, alarm, origin } = self;
        let mut idle = origin.idle.borrow_mut();
        if !sender.is_closed() && idle.len() < MAX_IDLE {
            idle.push(Idle { sender, alarm, since: Instant::now() });
        }
    }
}

/// A second request like this one; see [`Outgoing::copy`].
pub fn copy(request: &Request<Outgoing>) -> BoxedRequest {
    let mut copy = Box::new(Request::new(request.body().copy()));
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    copy
}
