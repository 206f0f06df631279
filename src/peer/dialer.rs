//! The dialing end.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::acquaintances::Acquaintances;
use super::backoff::Backoff;
use super::greeting::{self, GreetingRefusal, Hello};
use super::places::Places;
use super::secure::Credentials;
use super::{Stream, Times, distrust};
use crate::cluster::NodeId;
use crate::config::HostPort;
use crate::net::{self, Remote};

/// Opens connections to the other nodes. Any thread may use it: a connection belongs to the runtime
/// that dialed it.
pub struct Dialer {
    own: NodeId,
    /// Without them it speaks plain TCP.
    credentials: Option<Arc<Credentials>>,
    times: Times,
    peers: watch::Sender<PeerAddresses>,
    acquaintances: Arc<Acquaintances>,
}

/// Those whose addresses are known, but for this node itself.
#[derive(Clone, Default)]
pub struct PeerAddresses(Arc<HashMap<NodeId, Arc<Peer>>>);

struct Peer {
    places: Places,
    trouble: Mutex<Trouble>,
}

#[derive(Default)]
struct Trouble {
    backoff: Backoff,
    last_error: Arc<str>,
}

/// Why there is no connection to a peer.
///
/// In none of these cases did a byte of the caller's leave this node, so trying again is always safe.
#[derive(Debug)]
pub enum DialError {
    /// No address is known for that name.
    Unknown(NodeId),
    /// It failed a moment ago and was not dialed again.
    BackOff {
        /// When a dial will be tried.
        retry_in: Duration,
        /// Why the last one failed.
        last_error: Arc<str>,
    },
    /// Nobody answers, and how that shows.
    Net(net::DialError),
    /// The connection broke in the greeting, or somebody else than a Litepilot answered.
    Greeting(io::Error),
    /// The peer shows a certificate that is not believed here, and why: goes on after "its
    /// certificate".
    Untrusted(String),
    /// Somebody is there and does not want this connection, or is not who is meant.
    Refused(GreetingRefusal, String),
}

impl Dialer {
    /// Nothing is dialed yet. This node's own entry among `peers` is left out.
    pub fn new(own: NodeId, peers: &[(NodeId, HostPort)], times: Times) -> Self {
        let (peers_now, acquaintances) = (watch::Sender::default(), Arc::default());
        let dialer = Self { own, credentials: None, times, peers: peers_now, acquaintances };
        dialer.set_peers(peers);
        dialer
    }

    /// From now on, these are the peers. Those whose address stays are not forgotten meanwhile.
    pub(crate) fn set_peers(&self, peers: &[(NodeId, HostPort)]) {
        let known = self.peers.borrow().clone();
        let others = peers.iter().filter(|(node, _)| *node != self.own);
        let peers = others.map(|(node, at)| {
            let same = known.0.get(node).filter(|peer| peer.places.known() == at);
            (node.clone(), same.cloned().unwrap_or_else(|| Arc::new(Peer::new(at.clone()))))
        });
        self.peers.send_replace(PeerAddresses(Arc::new(peers.collect())));
    }

    /// Speaks TLS only.
    pub fn secure(&mut self, credentials: Arc<Credentials>) {
        self.credentials = Some(credentials);
    }

    /// Where peers were found.
    pub(super) fn acquaintances(&self) -> Arc<Acquaintances> {
        self.acquaintances.clone()
    }

    /// Every peer, as they change.
    pub(crate) fn peers(&self) -> watch::Receiver<PeerAddresses> {
        self.peers.subscribe()
    }

    /// Opens a connection, unless the last attempt failed a moment ago.
    pub(crate) async fn dial(&self, node: &NodeId, protocol: &str) -> Result<Stream, DialError> {
        if let Some(peer) = self.peer(node) {
            let trouble = peer.trouble();
            if let Some(retry_in) = trouble.backoff.wait(Instant::now()) {
                let last_error = trouble.last_error.clone();
                return Err(DialError::BackOff { retry_in, last_error });
            }
        }
        self.dial_now(node, protocol).await
    }

    /// Opens a connection whatever happened before: for those who keep a pace of their own.
    ///
    /// # Errors
    ///
    /// See [`DialError`], but for [`DialError::BackOff`].
    pub async fn dial_now(&self, node: &NodeId, protocol: &str) -> Result<Stream, DialError> {
        let peer = self.peer(node).ok_or_else(|| DialError::Unknown(node.clone()))?;
        let hello =
            Hello { protocol: protocol.to_owned(), from: self.own.clone(), to: node.clone() };
        let began = Instant::now();
        let result = self.attempt(&peer, &hello).await;
        match &result {
            Err(error) if error.is_of_the_peer() => peer.failed(began, error),
            _ => peer.answered(),
        }
        if let Ok(stream) = &result
            && let Ok(at) = stream.socket().peer_addr()
        {
            self.acquaintances.met(at.ip());
        }
        result
    }

    /// `node` says that it is at `at`: there it is looked for, too.
    pub(crate) fn announce(&self, node: &NodeId, at: HostPort) {
        if let Some(peer) = self.peer(node) {
            peer.places.announce(at);
        }
    }

    /// `node` has called: it need not be spared any more. One that was away for long would otherwise not
    /// be found for seconds.
    pub(crate) fn has_called(&self, node: &NodeId) {
        if let Some(peer) = self.peer(node) {
            peer.trouble().backoff.succeeded();
        }
    }

    fn peer(&self, node: &NodeId) -> Option<Arc<Peer>> {
        self.peers.borrow().0.get(node).cloned()
    }

    /// Where it is known to be, then where it says that it is; fails as the first of them did.
    async fn attempt(&self, peer: &Peer, hello: &Hello) -> Result<Stream, DialError> {
        let places = peer.places.in_order();
        let limit = self.times.connect / places.len() as u32;
        let mut failure = None;
        for place in places {
            match self.attempt_at(&place, limit, hello).await {
                Err(error) if error.may_be_elsewhere() => {
                    failure.get_or_insert(error);
                }
                reached => {
                    peer.places.found(&hello.to, &place);
                    return reached;
                }
            }
        }
        Err(failure.unwrap_or_else(|| DialError::Unknown(hello.to.clone())))
    }

    async fn attempt_at(
        &self,
        place: &Remote,
        limit: Duration,
        hello: &Hello,
    ) -> Result<Stream, DialError> {
        let socket = place.dial(limit).await.map_err(DialError::Net)?;
        net::tune(&socket, self.times.unacknowledged).map_err(DialError::Greeting)?;
        match timeout(self.times.greeting, self.greet(socket, hello)).await {
            Ok(Ok((stream, Ok(())))) => Ok(stream),
            Ok(Ok((_, Err((refusal, detail))))) => Err(DialError::Refused(refusal, detail)),
            Ok(Err(error)) => Err(distrust::of_dialer(error, &hello.protocol)),
            Err(_) => Err(DialError::Net(net::DialError::TimedOut(place.at().clone()))),
        }
    }

    /// Says who it is and whom it means, by a line or by TLS, and gets the answer.
    async fn greet(
        &self,
        socket: TcpStream,
        hello: &Hello,
    ) -> io::Result<(Stream, Result<(), (GreetingRefusal, String)>)> {
        let mut stream = match &self.credentials {
            None => {
                let mut stream = Stream::plain(socket);
                stream.write_all(&hello.to_line()).await?;
                stream
            }
            Some(credentials) => credentials.connect(socket, hello).await?,
        };
        let answer = greeting::read_answer(&mut stream).await?;
        Ok((stream, answer))
    }
}

impl PeerAddresses {
    /// Their names, in no order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &NodeId> {
        self.0.keys()
    }

    /// Whether a node is one of them.
    pub(crate) fn contains(&self, node: &NodeId) -> bool {
        self.0.contains_key(node)
    }
}

impl Peer {
    fn new(at: HostPort) -> Self {
        Self { places: Places::new(at), trouble: Mutex::default() }
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock()
    }

    fn failed(&self, began: Instant, error: &DialError) {
        let mut trouble = self.trouble();
        let chance = getrandom::u32().unwrap_or(u32::MAX);
        trouble.backoff.failed(began, Instant::now(), chance);
        trouble.last_error = error.to_string().into();
    }

    fn answered(&self) {
        self.trouble().backoff.succeeded();
    }
}

impl DialError {
    /// Whether whoever was meant did not answer, or somebody else did.
    fn may_be_elsewhere(&self) -> bool {
        match self {
            Self::Net(_) | Self::Greeting(_) | Self::Untrusted(_) => true,
            Self::Refused(refusal, _) => {
                matches!(refusal, GreetingRefusal::WrongNode | GreetingRefusal::Itself)
            }
            Self::Unknown(_) | Self::BackOff { .. } => false,
        }
    }

    /// Whether it concerns the whole peer, rather than one protocol of it.
    fn is_of_the_peer(&self) -> bool {
        !matches!(self, Self::Refused(GreetingRefusal::Busy | GreetingRefusal::UnknownProtocol, _))
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(node) => write!(f, "no address is known for {node}"),
            Self::BackOff { retry_in, last_error } => {
                write!(f, "{last_error}; not dialed again for {} ms", retry_in.as_millis())
            }
            Self::Net(error) => error.fmt(f),
            Self::Greeting(error) => write!(f, "the greeting failed: {error}"),
            Self::Untrusted(why) => write!(f, "its certificate {why}"),
            Self::Refused(refusal, detail) => write!(f, "refused ({refusal}): {detail}"),
        }
    }
}

impl std::error::Error for DialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Net(error) => Some(error),
            Self::Greeting(error) => Some(error),
            Self::Unknown(_) | Self::BackOff { .. } | Self::Untrusted(_) | Self::Refused(..) => {
                None
            }
        }
    }
}
