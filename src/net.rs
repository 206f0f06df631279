//! Dialing a `host:port`: the name resolved at each dial, every address tried, the last good one
//! kept while DNS fails.
//!
//! A dial runs on the runtime of whoever calls it, so one [`Remote`] can serve many runtimes. Names
//! are looked up on that runtime's blocking pool; literal addresses touch no pool at all.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::config::HostPort;

/// Of one name, at most this many addresses are tried in one dial.
const MAX_ADDRESSES: usize = 8;
/// A silent connection is probed after this long, and then again each time it has passed.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// So many probes without an answer end a connection.
const PROBES: u32 = 3;

/// A `host:port` that is dialed again and again.
#[derive(Debug)]
pub(crate) struct Remote {
    at: HostPort,
    literal: Option<IpAddr>,
    last_good: Mutex<Option<SocketAddr>>,
}

/// Why there is no connection. Nothing was sent in any of these cases.
#[derive(Debug)]
pub enum DialError {
    /// The name has no address, and none is known from before.
    Unresolvable {
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Every address refused the connection: nobody listens there.
    Refused(SocketAddr),
    /// The time was up.
    TimedOut(HostPort),
    /// The network said something else, such as "no route to host".
    Failed(SocketAddr, io::Error),
}

impl Remote {
    /// Nothing is resolved yet.
    pub(crate) fn new(at: HostPort) -> Self {
        let literal = at.host.parse().ok();
        Self { at, literal, last_good: Mutex::new(None) }
    }

    pub(crate) fn at(&self) -> &HostPort {
        &self.at
    }

    /// Connects within `limit`, name lookup included, and sets TCP_NODELAY.
    ///
    /// # Errors
    ///
    /// The last address' failure; `Refused` only if every address refused.
    pub(crate) async fn dial(&self, limit: Duration) -> Result<TcpStream, DialError> {
        match self.literal {
            Some(ip) => self.connect(&[SocketAddr::new(ip, self.at.port)], limit).await,
            None => self.dial_resolved(lookup(&self.at), limit).await,
        }
    }

    async fn dial_resolved(
        &self,
        lookup: impl Future<Output = io::Result<Vec<SocketAddr>>>,
        limit: Duration,
    ) -> Result<TcpStream, DialError> {
        let deadline = Instant::now() + limit;
        // A resolver that hangs must leave time to try the address that worked before.
        let found = match timeout(limit / 2, lookup).await {
            Ok(Ok(addresses)) if addresses.is_empty() => Err(io::ErrorKind::NotFound.into()),
            Ok(found) => found,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let addresses = match (found, self.last_good()) {
            (Ok(mut addresses), Some(good)) => {
                // Stable: the resolver's order stands, but for the one that is known to work.
                addresses.sort_by_key(|address| *address != good);
                addresses
            }
            (Ok(addresses), None) => addresses,
            (Err(_), Some(good)) => vec![good],
            (Err(source), None) => {
                return Err(DialError::Unresolvable { host: self.at.host.clone(), source });
            }
        };
        self.connect(&addresses, deadline - Instant::now()).await
    }

    /// Tries one address after the other, each with a fair share of the time that is left, so that
    /// one which swallows packets does not use up everything.
    async fn connect(
        &self,
        addresses: &[SocketAddr],
        limit: Duration,
    ) -> Result<TcpStream, DialError> {
        let deadline = Instant::now() + limit;
        let addresses = &addresses[..addresses.len().min(MAX_ADDRESSES)];
        let mut failure = DialError::TimedOut(self.at.clone());
        for (tried, address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / (addresses.len() - tried) as u32;
            let error = match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    self.remember(*address);
                    // Only a latency matter: a socket that cannot be told so still works.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {
                    DialError::Refused(*address)
                }
                Ok(Err(e)) => DialError::Failed(*address, e),
                Err(_) => DialError::TimedOut(self.at.clone()),
            };
            // `Refused` promises that nobody listens: it must not hide an address that timed out.
            if tried == 0 || !matches!(error, DialError::Refused(_)) {
                failure = error;
            }
        }
        Err(failure)
    }

    fn last_good(&self) -> Option<SocketAddr> {
        *self.last_good.lock()
    }

    fn remember(&self, good: SocketAddr) {
        *self.last_good.lock() = Some(good);
    }
}

async fn lookup(at: &HostPort) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((at.host.as_str(), at.port)).await?.collect())
}

/// Settings of a long-lived connection between nodes: no delay of small writes, and a dead peer is
/// noticed: a silent one after about 20 s, one that owes us acknowledgements after `unacknowledged`.
///
/// Linux counts a peer that reads nothing (back-pressure) like one that is gone
/// (`tcp(7)`, TCP_USER_TIMEOUT): `unacknowledged` must exceed the longest pause that is allowed
/// within a body.
///
/// # Errors
///
/// When the socket refuses a setting.
pub(crate) fn tune(stream: &TcpStream, unacknowledged: Duration) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(PROBE_EVERY).with_interval(PROBE_EVERY).with_retries(PROBES),
    )?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(unacknowledged))?;
    #[cfg(not(target_os = "linux"))]
    let _ = unacknowledged;
    Ok(())
}

/// Has the system ask whoever is silent whether he is still there, and end the connection if not. Slower
/// than between nodes: a phone may be without a network for a while. Connections inherit it from the
/// socket on which they were accepted.
pub(crate) fn notice_vanished<'a>(socket: impl Into<SockRef<'a>>) -> io::Result<()> {
    const AFTER: Duration = Duration::from_secs(60);
    const AGAIN: Duration = Duration::from_secs(15);
    let keepalive = TcpKeepalive::new().with_time(AFTER).with_interval(AGAIN).with_retries(PROBES);
    socket.into().set_tcp_keepalive(&keepalive)
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolvable { host, source } => write!(f, "{host} cannot be resolved: {source}"),
            Self::Refused(at) => write!(f, "{at} refused the connection: nobody listens there"),
            Self::TimedOut(at) => write!(f, "{}:{} did not answer in time", at.host, at.port),
            Self::Failed(at, source) => write!(f, "{at} cannot be reached: {source}"),
        }
    }
}

impl std::error::Error for DialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unresolvable { source, .. } | Self::Failed(_, source) => Some(source),
            Self::Refused(_) | Self::TimedOut(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    const GENEROUS: Duration = Duration::from_secs(20);

    fn remote(host: &str, port: u16) -> Remote {
        Remote::new(HostPort { host: host.to_owned(), port })
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        (listener, at)
    }

    /// An address where nobody listens: its port was free a moment ago and is now held unlistened.
    fn nobody() -> (socket2::Socket, SocketAddr) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let at = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, at)
    }

    #[tokio::test]
    async fn names_are_resolved() {
        let (_listener, at) = listener().await;
        let stream = remote("localhost", at.port()).dial(GENEROUS).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), at);
    }

    #[tokio::test]
    async fn every_address_is_tried() {
        let (_held, dead) = nobody();
        let (_listener, alive) = listener().await;
        let remote = remote("app.test", 1);
        let stream = remote.dial_resolved(async { Ok(vec![dead, alive]) }, GENEROUS).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive);
    }

    #[tokio::test]
    async fn the_last_good_address_serves_while_dns_fails_or_hangs() {
        let (_listener, at) = listener().await;
        let remote = remote("app.test", 1);
        remote.dial_resolved(async { Ok(vec![at]) }, GENEROUS).await.unwrap();
        let fails = async { Err(io::Error::other("SERVFAIL")) };
        remote.dial_resolved(fails, GENEROUS).await.unwrap();
        let hangs = std::future::pending();
        remote.dial_resolved(hangs, Duration::from_secs(2)).await.unwrap();
    }

    #[tokio::test]
    async fn a_moved_name_is_followed() {
        let (_old, old) = listener().await;
        let (_new, new) = listener().await;
        let remote = remote("app.test", 1);
        remote.dial_resolved(async { Ok(vec![old]) }, GENEROUS).await.unwrap();
        let stream = remote.dial_resolved(async { Ok(vec![new]) }, GENEROUS).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), new);
    }

    #[tokio::test]
    async fn failures_are_told_apart() {
        let (_held, dead) = nobody();
        let refused = remote("127.0.0.1", dead.port()).dial(GENEROUS).await;
        assert!(matches!(refused, Err(DialError::Refused(at)) if at == dead));

        let unknown = remote("app.test", 1);
        let fails = async { Err(io::Error::other("NXDOMAIN")) };
        let unresolvable = unknown.dial_resolved(fails, GENEROUS).await;
        assert!(matches!(unresolvable, Err(DialError::Unresolvable { .. })));
        let empty = unknown.dial_resolved(async { Ok(vec![]) }, GENEROUS).await;
        assert!(matches!(empty, Err(DialError::Unresolvable { .. })));

        let late = unknown.dial_resolved(async { Ok(vec![dead]) }, Duration::ZERO).await;
        assert!(late.is_err());
    }

    #[tokio::test]
    async fn a_tuned_connection_notices_a_dead_peer() {
        let (_listener, at) = listener().await;
        let stream = TcpStream::connect(at).await.unwrap();
        tune(&stream, Duration::from_secs(45)).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), PROBE_EVERY);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(45)));
    }

    #[test]
    fn a_literal_address_needs_no_blocking_pool() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let (release, held) = std::sync::mpsc::channel::<()>();
        runtime.block_on(async {
            // The pool's only thread is taken: a lookup would wait forever.
            tokio::task::spawn_blocking(move || held.recv());
            let (_listener, at) = listener().await;
            remote("127.0.0.1", at.port()).dial(GENEROUS).await.unwrap();
        });
        drop(release);
    }
}
