//! Connections to an application (or to a peer's Litepilot): kept per worker, and one rule about
//! using them: a request that must not be done twice never goes to an application on a kept
//! connection.
//!
//! When an application closes a connection that it had kept, a request just sent on it is lost, and
//! nobody can tell whether it was read. A read is simply sent again. A write is dialed for afresh
//! (some 50 µs on loopback, where a commit costs milliseconds); the connection is kept for reads.
//! Peers close no connection that we keep, so towards them there is no such race.

mod body;
mod chunked;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod pool;
mod request;
mod response;
mod round_trip;
#[cfg(test)]
mod tests;
mod tunnel;
mod upload;
mod wire;

use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::request_body::ReadError;
use crate::cluster::{ClusterView, NodeId};
use crate::config::Target;
use crate::net::{self, Remote};
use crate::peer::{self, Dialer};
use pool::Pool;
use round_trip::Connection;
use wire::{Buffers, Wire};

pub(crate) use body::Body;
pub(crate) use request::{RawHeaders, Request, RequestLimits};
pub(crate) use tunnel::Tunnel;

/// A way to an origin.
#[derive(Clone)]
pub(crate) enum Dial {
    Tcp(Arc<Remote>),
    /// Over a Unix socket.
    Unix(PathBuf),
    /// Through a peer's Litepilot.
    Peer(PrimaryDial),
}

/// The way to the primary's Litepilot.
#[derive(Clone)]
pub(crate) struct PrimaryDial {
    dialer: Arc<Dialer>,
    node: NodeId,
    view: watch::Receiver<ClusterView>,
}

impl PrimaryDial {
    /// To that node, which `view` says is the primary.
    pub(crate) fn new(
        dialer: Arc<Dialer>,
        node: NodeId,
        view: watch::Receiver<ClusterView>,
    ) -> Self {
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
    pub(crate) fn app(target: &Target) -> Self {
        match target {
            Target::Tcp(at) => Self::Tcp(Arc::new(Remote::new(at.clone()))),
            Target::Unix(path) => Self::Unix(path.clone()),
        }
    }

    fn is_peer(&self) -> bool {
        matches!(self, Self::Peer(..))
    }
}

/// The times that connections to an origin are bounded by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OriginLimits {
    pub(crate) connect: Duration,
    /// How long an idle connection is kept.
    pub(crate) keep: Duration,
}

/// Where requests are sent, with the connections that are kept to it. Belongs to one worker.
pub(crate) struct Origin {
    dial: Dial,
    limits: OriginLimits,
    pool: Pool,
    buffers: Buffers,
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request provably never reached the origin.
    Unreached(io::Error),
    /// The connection ended, or what came is no HTTP: nobody knows whether the request was done.
    Broken(io::Error),
    /// The origin took too long; likewise.
    Timeout,
    /// The client's body did not come whole: the origin got half a request.
    Client(ReadError),
}

/// How a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// It may be done twice: kept connections are used, and a broken one is made up for.
    Repeatable,
    /// It may be done once: to an application on a fresh connection.
    Once,
    /// Likewise, and the connection may become a tunnel.
    Upgrade,
}

impl Origin {
    /// No connection is made before the first request.
    pub(crate) fn new(dial: Dial, limits: OriginLimits) -> Rc<Self> {
        let (pool, buffers) = (Pool::new(limits.keep), Buffers::default());
        Rc::new(Self { dial, limits, pool, buffers })
    }

    /// Sends a request and waits for the head of its response. One that may be done twice is sent once
    /// more if its connection breaks: a kept one that was closed just then, or a fresh one that still
    /// waited to be accepted when the origin closed its port to restart.
    pub(crate) async fn send(
        self: &Rc<Self>,
        request: &Request,
        sending: Sending,
    ) -> Result<Response<Body>, Failure> {
        let mut reuse = match sending {
            Sending::Repeatable => true,
            Sending::Once => self.dial.is_peer(),
            Sending::Upgrade => false,
        };
        let mut repeatable = sending == Sending::Repeatable;
        loop {
            let kept = if reuse { self.pool.take() } else { None };
            let is_kept = kept.is_some();
            let connection = match kept {
                Some(connection) => connection,
                // Boxed, as all that is rarely done: the future of a request should be small.
                None => match Box::pin(self.connect(sending)).await {
                    Ok(connection) => connection,
                    Err(why) => return Err(Failure::Unreached(why)),
                },
            };
            match connection.send(self, request).await {
                Err(Failure::Unreached(_)) if is_kept => {}
                Err(Failure::Broken(_)) if repeatable && request.body().is_intact() => {
                    (reuse, repeatable) = (false, false);
                }
                answered => return answered,
            }
        }
    }

    async fn connect(&self, sending: Sending) -> io::Result<Connection> {
        let limit = self.limits.connect;
        let wire = match &self.dial {
            Dial::Tcp(remote) => {
                let socket = remote.dial(limit).await.map_err(io::Error::other)?;
                if sending == Sending::Upgrade {
                    // It may be silent for long, and an origin elsewhere may vanish meanwhile.
                    net::notice_vanished(&socket)?;
                }
                Wire::new(socket)
            }
            Dial::Unix(path) => Wire::new(timeout(limit, UnixStream::connect(path)).await??),
            Dial::Peer(primary) => Wire::new(primary.dial().await?),
        };
        Ok(Connection::new(wire))
    }

    /// Closes connections that have been idle for too long, or that the origin has closed.
    pub(crate) fn sweep(&self) {
        self.pool.sweep(&self.buffers);
    }
}
