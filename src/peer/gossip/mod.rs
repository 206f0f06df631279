//! What nodes tell each other about themselves: role, position, lag, health.
//!
//! Each node keeps a connection to every other one. On each, both ends send their own report as a
//! line of JSON: at once when it changes (at most each 10 ms), and every 250 ms as a sign of life.
//! The result is a table of what was last heard from whom. It informs; it decides nothing that must
//! be agreed upon.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod link;
mod report;
mod table;

pub use report::Report;
pub(crate) use report::Routes;
pub use table::{Heard, Peers};

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::backoff::Backoff;
use super::{ConnectionLimits, DialError, Dialer, GOSSIP, Handler, Incoming, Stream};
use crate::cluster::NodeId;
use crate::telemetry::log_throttle::LogThrottle;
use table::Table;

/// A peer that has been silent for this long is unreachable.
pub(crate) const SILENCE: Duration = Duration::from_secs(1);
/// For the listener: a peer needs one connection; the others are those it gave up.
pub(crate) const LIMITS: ConnectionLimits = ConnectionLimits { per_peer: 4, total: 256 };
/// Incoming connections that wait to be taken over.
const QUEUE: usize = 16;

/// A node's part in the gossip.
pub(crate) struct Gossip {
    shared: Arc<Shared>,
    incoming: (mpsc::Sender<Incoming>, mpsc::Receiver<Incoming>),
}

/// What every connection needs.
struct Shared {
    own: watch::Receiver<Report>,
    /// Tells this life of the node from its former ones.
    boot: u64,
    /// When this life began: signs of life are due at fixed times from then on.
    origin: Instant,
    /// Of the next report to be sent, over all connections.
    sequence: AtomicU64,
    /// Of the next connection to be opened, either way.
    links: AtomicU64,
    table: Table,
}

impl Gossip {
    /// `own` is what this node tells.
    pub(crate) fn new(own: watch::Receiver<Report>) -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let shared = Shared {
            own,
            boot: since_1970.unwrap_or_default().as_nanos() as u64,
            origin: Instant::now(),
            sequence: AtomicU64::new(1),
            links: AtomicU64::new(1),
            table: Table::new(),
        };
        Self { shared: Arc::new(shared), incoming: mpsc::channel(QUEUE) }
    }

    /// To be registered with the listener, under [`GOSSIP`] with [`LIMITS`].
    pub(crate) fn handler(&self) -> Handler {
        let queue = self.incoming.0.clone();
        // A full queue drops the connection: its peer dials again.
        Arc::new(move |incoming| drop(queue.try_send(incoming)))
    }

    /// What was heard, as it changes.
    pub(crate) fn peers(&self) -> watch::Receiver<Peers> {
        self.shared.table.watch()
    }

    /// Gossips with every peer of `dialer`, as they come and go, until it is dropped.
    pub(crate) async fn run(mut self, dialer: Arc<Dialer>) {
        let mut links = JoinSet::new();
        let mut peers = dialer.peers();
        peers.mark_changed();
        let mut dialed = HashSet::new();
        let shared = self.shared.clone();
        links.spawn(async move { shared.table.notice_silence(SILENCE).await });
        loop {
            tokio::select! {
                Ok(()) = peers.changed() => {
                    let now = peers.borrow_and_update().clone();
                    for peer in now.names().filter(|peer| !dialed.contains(*peer)) {
                        let dialing = self.shared.clone().keep_dialing(dialer.clone(), peer.clone());
                        links.spawn(dialing);
                    }
                    dialed = now.names().cloned().collect();
                }
                Some(incoming) = self.incoming.1.recv() => {
                    dialer.has_called(&incoming.node);
                    links.spawn(self.shared.clone().take(incoming));
                }
                Some(_) = links.join_next() => {}
            }
        }
    }
}

impl Shared {
    /// Keeps a connection to `peer`, at a pace of its own: this is how its return is found out.
    async fn keep_dialing(self: Arc<Self>, dialer: Arc<Dialer>, peer: NodeId) {
        let log = LogThrottle::new();
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            match dialer.dial_now(&peer, GOSSIP).await {
                Ok(stream) => {
                    if self.exchange(&peer, stream).await {
                        backoff.succeeded();
                    }
                }
                // It is no member any more.
                Err(DialError::Unknown(_)) => return,
                Err(error) => {
                    if let Some(held_back) = log.may_speak((), Instant::now()) {
                        warn!(%peer, held_back, "cannot reach a peer: {error}");
                    }
                }
            }
            let now = Instant::now();
            backoff.failed(began, now, getrandom::u32().unwrap_or(u32::MAX));
            tokio::time::sleep(backoff.wait(now).unwrap_or_default()).await;
        }
    }

    async fn take(self: Arc<Self>, incoming: Incoming) {
        self.exchange(&incoming.node, incoming.stream).await;
    }

    /// Talks over one connection until it ends; says whether anything was heard.
    async fn exchange(&self, peer: &NodeId, stream: Stream) -> bool {
        let link = self.links.fetch_add(1, Ordering::Relaxed);
        let mut heard = false;
        let (reader, writer) = tokio::io::split(stream);
        let end = tokio::select! {
            end = link::send(writer, self.own.clone(), self.boot, &self.sequence, self.origin.into()) => end,
            end = link::receive(reader, peer, |line| {
                heard = true;
                self.table.heard(link, line, Instant::now());
            }) => end,
        };
        if let Err(error) = end {
            debug!(%peer, %error, "a gossip connection ended");
        }
        heard
    }
}
