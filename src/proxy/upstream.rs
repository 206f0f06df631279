//! Connections to an application (or to a peer's Litepilot): kept per worker, and one rule about
//! using them: a request that must not be done twice never goes out on a kept connection.
//!
//! When an application closes a connection that it had kept, a request just sent on it is lost, and
//! nobody can tell whether it was read. A read is simply sent again. A write is dialed for afresh
//! (some 50 µs on loopback, where a commit costs milliseconds); the connection is kept for reads.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};

use super::body::{Outgoing, ReadError};
use super::dial::Dial;

/// Idle connections kept to one origin by one worker.
const MAX_IDLE: usize = 256;
/// Bytes buffered per connection in each direction.
const MAX_BUFFER: usize = 128 * 1024;

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
    since: Instant,
}

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
    origin: Rc<Origin>,
}

/// Why there is no response.
pub enum Failure {
    /// The request provably never reached the origin; here it is.
    Unreached(Box<Request<Outgoing>>, io::Error),
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
    /// It may be done once: on a fresh connection.
    Once,
    /// Likewise, and the connection may become a tunnel.
    Upgrade,
}

impl Origin {
    /// No connection is made before the first request.
    pub fn new(dial: Dial, limits: Limits) -> Rc<Self> {
        Rc::new(Self { dial, limits, idle: RefCell::default() })
    }

    /// Sends a request and waits for the head of its response.
    pub async fn send(
        self: &Rc<Self>,
        mut request: Request<Outgoing>,
        sending: Sending,
    ) -> Result<Reply, Failure> {
        if sending == Sending::Repeatable
            && let Some(connection) = self.kept()
            && let Some(spare) = copy(&request)
        {
            match connection.exchange(request).await {
                Err(Failure::Unreached(unsent, _)) => request = *unsent,
                Err(Failure::Broken(_)) => request = spare,
                done => return done,
            }
        }
        let connected = timeout(self.limits.connect, self.connect(sending)).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(connection) => connection.exchange(request).await,
            Err(why) => Err(Failure::Unreached(Box::new(request), why)),
        }
    }

    async fn connect(self: &Rc<Self>, sending: Sending) -> io::Result<Connection> {
        let sender = match &self.dial {
            Dial::Tcp(address) => self.handshake(address.connect().await?, sending).await?,
            Dial::Unix(path) => {
                self.handshake(tokio::net::UnixStream::connect(path).await?, sending).await?
            }
        };
        Ok(Connection { sender, origin: self.clone() })
    }

    async fn handshake<T>(&self, io: T, sending: Sending) -> io::Result<SendRequest<Outgoing>>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_BUFFER)
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
                let sender = idle.remove(i).sender;
                return Some(Connection { sender, origin: self.clone() });
            }
            if idle[i].sender.is_closed() {
                idle.remove(i);
            }
        }
        None
    }

    /// Closes connections that have been idle for too long; returns whether any are left.
    pub fn sweep(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|i| i.since.elapsed() < self.limits.keep && !i.sender.is_closed());
        !idle.is_empty()
    }
}

impl Connection {
    async fn exchange(mut self, request: Request<Outgoing>) -> Result<Reply, Failure> {
        let progress = request.body().progress();
        let limits = self.origin.limits;
        let sent_at = Instant::now();
        let response = self.sender.try_send_request(request);
        tokio::pin!(response);
        loop {
            // Until the body has gone out each piece has its limit, then the response has.
            let sending = progress.as_ref().filter(|p| !p.sent());
            let last = progress.as_ref().map_or(sent_at, |p| p.last());
            let allowed = if sending.is_some() { limits.piece } else { limits.response };
            match timeout_at(last + allowed, &mut response).await {
                Ok(Ok(response)) => return Ok(Reply { response, connection: self }),
                Ok(Err(mut failed)) => {
                    return Err(match failed.take_message() {
                        Some(request) => {
                            let why = io::Error::other(failed.into_error());
                            Failure::Unreached(Box::new(request), why)
                        }
                        None => match progress.and_then(|p| p.failed()) {
                            Some(why) => Failure::Client(why),
                            None => Failure::Broken(failed.into_error()),
                        },
                    });
                }
                Err(_) => {}
            }
            match &progress {
                Some(p) if p.last() > last || (p.sent() && sending.is_some()) => {}
                Some(p) if p.starved() && !p.sent() => {
                    return Err(Failure::Client(ReadError::Timeout));
                }
                _ => return Err(Failure::Timeout),
            }
        }
    }

    /// Keeps the connection for the next request.
    pub fn give_back(self) {
        let Self { sender, origin } = self;
        let mut idle = origin.idle.borrow_mut();
        if !sender.is_closed() && idle.len() < MAX_IDLE {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }
}

fn copy(request: &Request<Outgoing>) -> Option<Request<Outgoing>> {
    let mut copy = Request::new(request.body().copy()?);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    Some(copy)
}
