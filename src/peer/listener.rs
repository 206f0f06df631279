//! The listening end: greets, checks who it is, and hands the connection to the protocol's handler.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::acquaintances::Acquaintances;
use super::greeting::{self, GreetingRefusal, Hello};
use super::secure::{Accepted, Credentials};
use super::{Dialer, Stream, Times};
use crate::accept::{Guest, Guests};
use crate::cluster::NodeId;
use crate::crowd::Standing;
use crate::net;
use crate::telemetry::log_throttle::{LogThrottle, may_say};

/// Connections that may be in their greeting at once; for one more another is closed without a word, of a
/// stranger if there is one. A handshake of TLS takes this thread some 0.3 ms: a crowd of strangers keeps it
/// from everything else, such as heartbeats, for less than 100 ms at a time.
const MAX_GREETINGS: usize = 256;
/// How long the refused may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes of theirs that are read meanwhile: closing with bytes unread would take the reason away.
const FAREWELL_BYTES: u64 = 64 * 1024;
/// After a failed `accept`, typically for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const TOO_SLOW: &str = "the greeting did not come in time";

/// Says who is a member of the cluster.
pub type Members = Arc<dyn Fn(&NodeId) -> bool + Send + Sync>;

/// Takes a connection. Called on the listener's runtime; it must not block, so it spawns a task or
/// passes the connection on (see [`Stream::adopt`]).
pub type Handler = Arc<dyn Fn(Incoming) + Send + Sync>;

/// A connection that a peer opened.
#[derive(Debug)]
pub struct Incoming {
    pub(crate) node: NodeId,
    /// The connection.
    pub stream: Stream,
}

/// How many connections of one protocol may be open at once.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// From one peer.
    pub per_peer: usize,
    /// In all.
    pub total: usize,
}

/// The one port between nodes.
pub struct Listener {
    socket: TcpListener,
    reception: Reception,
}

/// What every greeting needs to know.
struct Reception {
    own: NodeId,
    members: Members,
    /// Without them it speaks plain TCP.
    credentials: Option<Arc<Credentials>>,
    times: Times,
    protocols: HashMap<&'static str, Arc<Protocol>>,
    log: LogThrottle<(IpAddr, GreetingRefusal)>,
    acquaintances: Arc<Acquaintances>,
}

struct Protocol {
    handler: Handler,
    limits: ConnectionLimits,
    open: Mutex<HashMap<NodeId, usize>>,
}

impl Listener {
    /// Binds the port; port 0 lets the system choose.
    ///
    /// # Errors
    ///
    /// When the address is in use or not ours.
    pub async fn bind(
        own: NodeId,
        at: SocketAddr,
        members: Members,
        times: Times,
    ) -> io::Result<Self> {
        let socket = TcpListener::bind(at).await?;
        let (protocols, log) = (HashMap::new(), LogThrottle::new());
        let (credentials, acquaintances) = (None, Arc::default());
        let reception =
            Reception { own, members, credentials, times, protocols, log, acquaintances };
        Ok(Self { socket, reception })
    }

    pub(crate) fn secure(&mut self, credentials: Arc<Credentials>) {
        self.reception.credentials = Some(credentials);
    }

    /// Peers may also come from where `dialer` finds them.
    pub(crate) fn knows_those_of(&mut self, dialer: &Dialer) {
        self.reception.acquaintances = dialer.acquaintances();
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Who takes the connections of a protocol.
    pub fn handle(&mut self, protocol: &'static str, limits: ConnectionLimits, handler: Handler) {
        let open = Mutex::new(HashMap::new());
        self.reception.protocols.insert(protocol, Arc::new(Protocol { handler, limits, open }));
    }

    /// Accepts until it is dropped. Connections already handed over live on with their handlers.
    pub async fn run(self) {
        let reception = Arc::new(self.reception);
        let guests = Guests::of_at_most(MAX_GREETINGS, "the peer port");
        let mut greetings = JoinSet::new();
        loop {
            // Nothing here waits for a peer: each is greeted in a task of its own.
            tokio::select! {
                accepted = self.socket.accept() => match accepted {
                    Ok((socket, remote)) => match guests.take(remote.ip(), reception.standing(remote)) {
                        Some(guest) => {
                            let place = guest.place();
                            let greeting = reception.clone().greet(socket, remote, guest);
                            guests.is_served_by(place, greetings.spawn(greeting));
                            // A turn for each: else it could have to give way before it was ever read from.
                            tokio::task::yield_now().await;
                        }
                        None => reception.log(remote, GreetingRefusal::Busy, "too many are greeting"),
                    },
                    Err(error) => {
                        if let Some(held_back) = may_say("the peer port") {
                            warn!(%error, held_back, "the peer port cannot accept a connection");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = greetings.join_next() => {}
            }
        }
    }
}

/// How a connection opened.
enum Opened {
    /// Somebody says who it is.
    By(Stream, Hello),
    /// By nobody who is wanted; how it can learn that.
    Refused(GreetingRefusal, String, Parting),
    Broken(io::Error),
}

/// How the refused one learns why.
enum Parting {
    Say(Stream),
    /// TLS has said it.
    Said(TcpStream),
    Cut,
}

impl Reception {
    fn standing(&self, remote: SocketAddr) -> Standing {
        match self.acquaintances.has(remote.ip()) {
            true => Standing::Familiar,
            false => Standing::Stranger,
        }
    }

    async fn greet(self: Arc<Self>, socket: TcpStream, remote: SocketAddr, guest: Guest) {
        let opened = match &self.credentials {
            None => self.read_hello(socket).await,
            Some(credentials) => self.shake_hands(credentials, socket).await,
        };
        let result = match opened {
            Opened::By(stream, hello) => match self.admit(&hello) {
                Ok((protocol, slot)) => {
                    guest.is(Standing::Proven);
                    self.acquaintances.met(remote.ip());
                    self.welcome(stream, hello.from, &protocol, slot).await
                }
                Err((refusal, detail)) => {
                    self.part(remote, refusal, &detail, Parting::Say(stream)).await
                }
            },
            Opened::Refused(refusal, detail, parting) => {
                self.part(remote, refusal, &detail, parting).await
            }
            Opened::Broken(error) => Err(error),
        };
        if let Err(error) = result {
            debug!(%remote, %error, "a greeting broke off");
        }
    }

    async fn read_hello(&self, socket: TcpStream) -> Opened {
        let mut stream = Stream::plain(socket);
        let hello = timeout(self.times.greeting, greeting::read_hello(&mut stream)).await;
        let (refusal, detail) = match hello {
            Ok(Ok(Some(hello))) => return Opened::By(stream, hello),
            Ok(Ok(None)) => (GreetingRefusal::Malformed, "this is a Litepilot's peer port"),
            Ok(Err(error)) => return Opened::Broken(error),
            Err(_) => (GreetingRefusal::TooSlow, TOO_SLOW),
        };
        Opened::Refused(refusal, detail.to_owned(), Parting::Say(stream))
    }

    async fn shake_hands(&self, credentials: &Credentials, socket: TcpStream) -> Opened {
        let accepting = credentials.accept(socket, self.protocols.keys().copied());
        match timeout(self.times.greeting, accepting).await {
            Ok(Accepted::Somebody(stream, Ok(hello))) => Opened::By(stream, hello),
            Ok(Accepted::Somebody(stream, Err((refusal, detail)))) => {
                Opened::Refused(refusal, detail, Parting::Say(stream))
            }
            Ok(Accepted::Rejected(socket, refusal, detail)) => {
                Opened::Refused(refusal, detail, Parting::Said(socket))
            }
            Ok(Accepted::Broken(error)) => Opened::Broken(error),
            Err(_) => Opened::Refused(GreetingRefusal::TooSlow, TOO_SLOW.to_owned(), Parting::Cut),
        }
    }

    fn admit(&self, hello: &Hello) -> Result<(Arc<Protocol>, Slot), (GreetingRefusal, String)> {
        let Hello { protocol, from, to } = hello;
        if *from == self.own {
            return Err((GreetingRefusal::Itself, format!("{from} is this node's own name")));
        }
        if !(self.members)(from) {
            return Err((
                GreetingRefusal::NotAMember,
                format!(
                    "{from} is no member of this cluster: `litepilot members add {from}=HOST:PORT` \
                     on one of its nodes makes it one"
                ),
            ));
        }
        if *to != self.own {
            let detail =
                format!("{from} means {to}, but this is {}: check the addresses", self.own);
            return Err((GreetingRefusal::WrongNode, detail));
        }
        let Some(known) = self.protocols.get(protocol.as_str()) else {
            return Err((
                GreetingRefusal::UnknownProtocol,
                format!("{protocol} is not spoken here"),
            ));
        };
        match Slot::take(known, from) {
            Some(slot) => Ok((known.clone(), slot)),
            None => {
                Err((GreetingRefusal::Busy, format!("too many {protocol} connections are open")))
            }
        }
    }

    async fn welcome(
        &self,
        mut stream: Stream,
        node: NodeId,
        protocol: &Protocol,
        slot: Slot,
    ) -> io::Result<()> {
        net::tune(stream.socket(), self.times.unacknowledged)?;
        timeout(self.times.greeting, send(&mut stream, greeting::ACCEPTED)).await??;
        let stream = stream.counted(slot);
        (protocol.handler)(Incoming { node, stream });
        Ok(())
    }

    /// Whether the refused one reads the reason is its own affair.
    async fn part(
        &self,
        remote: SocketAddr,
        refusal: GreetingRefusal,
        detail: &str,
        parting: Parting,
    ) -> io::Result<()> {
        self.log(remote, refusal, detail);
        let farewell = async {
            match parting {
                Parting::Say(mut stream) => {
                    send(&mut stream, &greeting::refusal_line(refusal, detail)).await?;
                    linger(stream).await
                }
                Parting::Said(socket) => linger(socket).await,
                Parting::Cut => Ok(()),
            }
        };
        timeout(FAREWELL, farewell).await?
    }

    fn log(&self, remote: SocketAddr, refusal: GreetingRefusal, detail: &str) {
        if let Some(held_back) = self.log.may_speak((remote.ip(), refusal), Instant::now()) {
            warn!(%remote, reason = %refusal, held_back, "refused on the peer port: {detail}");
        }
    }
}

async fn send(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Ends a connection so that what was sent last arrives.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(FAREWELL_BYTES), &mut tokio::io::sink()).await?;
    Ok(())
}

/// One counted connection; dropping it frees its place.
pub(super) struct Slot {
    protocol: Arc<Protocol>,
    node: NodeId,
}

impl Slot {
    fn take(protocol: &Arc<Protocol>, node: &NodeId) -> Option<Self> {
        let mut open = protocol.open();
        let of_node = open.get(node).copied().unwrap_or(0);
        let in_all: usize = open.values().sum();
        if of_node >= protocol.limits.per_peer || in_all >= protocol.limits.total {
            return None;
        }
        open.insert(node.clone(), of_node + 1);
        Some(Self { protocol: protocol.clone(), node: node.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.protocol.open();
        match open.get_mut(&self.node) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.node)),
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.node).finish()
    }
}

impl Protocol {
    fn open(&self) -> parking_lot::MutexGuard<'_, HashMap<NodeId, usize>> {
        self.open.lock()
    }
}
