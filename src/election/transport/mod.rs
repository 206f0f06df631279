//! Questions and answers between nodes, over the peer port.
//!
//! To each node there is one connection, kept for as long as it works: questions are numbered, so
//! that several are under way at once. It is dialed when there is something to ask, and replaced as
//! soon as it seems dead: TCP itself would wait for many seconds.

mod connection;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod server;

#[cfg(test)]
mod tests;

pub(crate) use server::handler;

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::rpc::{CallError, Request, Response, Transport};
use crate::cluster::NodeId;
use crate::engine::BoxFuture;
use crate::peer::{ConnectionLimits, Dialer};
use connection::PeerConnection;

/// How many connections of it a node takes: one per peer is in use, those it replaced may linger.
pub(crate) const LIMITS: ConnectionLimits = ConnectionLimits { per_peer: 4, total: 64 };
/// Questions to one node, or on one connection, that may wait for their answers at once.
const IN_FLIGHT: usize = 64;
/// For a peer to take a frame, or to send the rest of one that it has begun.
const STALLED: Duration = Duration::from_secs(10);

/// The [`Transport`] over the peer port.
pub(crate) struct PeerTransport {
    dialer: Arc<Dialer>,
    links: Mutex<HashMap<NodeId, Arc<PeerConnection>>>,
}

impl PeerTransport {
    /// Nothing is dialed yet.
    pub(crate) fn new(dialer: Arc<Dialer>) -> Self {
        Self { dialer, links: Mutex::default() }
    }
}

impl Transport for PeerTransport {
    fn call(
        &self,
        to: NodeId,
        request: Request,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Response, CallError>> {
        let mut links = self.links.lock();
        let link = links.entry(to).or_insert_with_key(|to| {
            Arc::new(PeerConnection::new(self.dialer.clone(), to.clone()))
        });
        let link = link.clone();
        Box::pin(async move { link.ask(request, limit).await })
    }
}
