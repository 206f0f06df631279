//! Accepts connections and deals them to the workers in turn.
//!
//! A listener per worker (`SO_REUSEPORT`) would leave it to a hash which worker gets a connection:
//! with the few connections that a proxy in front keeps open, some workers would idle.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};
use socket2::{SockFilter, SockRef};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, timeout_at};

use crate::peer;
use crate::telemetry::log_throttle::may_say;

/// How many accepted connections may wait for one worker to take them.
const QUEUE: usize = 256;
/// How many connections may wait to be accepted, if the system allows that many.
pub(crate) const BACKLOG: i32 = 4096;

/// For those who had begun to connect when the port is to be closed.
const ROUND_TRIP: Duration = Duration::from_millis(100);
/// A packet filter that drops TCP segments with SYN and lets the rest pass. Accepted sockets inherit
/// it. Its words are those of linux/filter.h.
const NO_SYN: [SockFilter; 4] = [
    // BPF_LD | BPF_B | BPF_ABS: the byte with the flags (RFC 9293, 3.1).
    SockFilter::new(0x30, 0, 0, 13),
    // BPF_JMP | BPF_JSET | BPF_K: to the next one if SYN is set, else to the one after.
    SockFilter::new(0x45, 0, 1, 0x02),
    // BPF_RET | BPF_K: of the packet nothing is kept, or all.
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// A socket that listens for clients.
pub struct Door {
    pub(crate) listener: TcpListener,
    /// Somebody else has it too and keeps it open: whoever connects when we are gone waits there for our
    /// successor.
    pub(crate) inherited: bool,
}

impl From<TcpListener> for Door {
    fn from(listener: TcpListener) -> Self {
        Self { listener, inherited: false }
    }
}

/// A connection on its way to a worker.
pub(crate) enum Accepted {
    /// Of a client: the socket, non-blocking, who connected, and its place among the connections.
    Client(TcpStream, SocketAddr, Slot),
    /// Of a peer that passes requests on.
    Peer(peer::Stream),
}

/// All client connections of a node, counted.
pub struct Slots {
    open: AtomicUsize,
    most: usize,
    freed: Notify,
    /// (Nearly) all are taken: idle clients are asked to leave.
    pub(crate) full: AtomicBool,
}

/// One connection's place, free again when dropped.
pub(crate) struct Slot(Arc<Slots>);

impl Slots {
    /// Room for that number of connections.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            most,
            freed: Notify::new(),
            full: AtomicBool::new(false),
        })
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Returns once none is open.
    pub(crate) async fn all_closed(&self) {
        while self.open() > 0 {
            self.freed.notified().await;
        }
    }

    /// Counts one more, whatever the limit.
    pub(crate) fn enter(self: &Arc<Self>) -> Slot {
        self.open.fetch_add(1, Relaxed);
        Slot(self.clone())
    }

    /// Whether fewer are open than may be.
    fn have_room(&self) -> bool {
        self.open() < self.most
    }

    /// Waits for a place. Meanwhile new connections wait in the listener's backlog.
    async fn take(self: &Arc<Self>) -> Slot {
        while !self.have_room() {
            if !self.full.swap(true, Relaxed)
                && let Some(held_back) = may_say("max_connections")
            {
                tracing::warn!(
                    held_back,
                    "{} connections are open, as many as proxy.max_connections allows; new ones wait",
                    self.most
                );
            }
            self.freed.notified().await;
        }
        self.enter()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let left = self.0.open.fetch_sub(1, Relaxed) - 1;
        // Not at the very limit, so that it is not left and reached again with each connection.
        if left <= self.0.most - self.0.most / 16 {
            self.0.full.store(false, Relaxed);
        }
        self.0.freed.notify_one();
    }
}

/// The ends of the channels by which connections are dealt.
pub(crate) fn channels(
    workers: usize,
) -> (Vec<mpsc::Sender<Accepted>>, Vec<mpsc::Receiver<Accepted>>) {
    (0..workers).map(|_| mpsc::channel(QUEUE)).unzip()
}

/// Accepts until the node begins to stop; then the port is closed, so that clients are refused at
/// once and can go elsewhere, unless somebody keeps it open for our successor.
pub(crate) async fn run(
    door: Door,
    slots: Arc<Slots>,
    workers: Vec<mpsc::Sender<Accepted>>,
    mut draining: watch::Receiver<bool>,
) -> io::Result<()> {
    // Accepted sockets inherit it.
    SockRef::from(&door.listener).set_tcp_nodelay(true)?;
    // tokio's own listener would watch each accepted socket, too, until it is taken off its queue.
    #[expect(deprecated, reason = "what replaces it is unsafe; nobody else closes this descriptor")]
    let listener = AsyncFd::with_interest(door.listener, Interest::READABLE)?;
    let mut turns = workers.iter().cycle();
    loop {
        let next = async {
            let slot = slots.take().await;
            let (stream, peer) = accept(&listener).await;
            Accepted::Client(stream, peer, slot)
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            _ = draining.wait_for(|draining| *draining) => break,
        };
        if !deal(&mut turns, accepted).await {
            return Ok(());
        }
    }
    if !door.inherited {
        take_the_rest(listener, &slots, turns).await;
    }
    Ok(())
}

/// Takes those who are connected, but were not accepted yet: closing the port would cut them off, and
/// they may have sent a request. Not more than there is room for.
///
/// Nobody may begin to connect meanwhile, or there would always be somebody halfway. The system drops
/// their first packet; they send it again a second later, and are refused.
async fn take_the_rest(
    listener: AsyncFd<TcpListener>,
    slots: &Arc<Slots>,
    mut turns: impl Iterator<Item = &mpsc::Sender<Accepted>>,
) {
    if let Err(why) = SockRef::from(listener.get_ref()).attach_filter(&NO_SYN) {
        tracing::debug!(%why, "those who connect while the port is being closed may be cut off");
    }
    let end = Instant::now() + ROUND_TRIP;
    // Without the filter they may come all the time.
    for _ in 0..BACKLOG {
        if !slots.have_room() {
            return;
        }
        let Ok((stream, peer)) = timeout_at(end, accept(&listener)).await else { return };
        let accepted = Accepted::Client(stream, peer, slots.enter());
        if !deal(&mut turns, accepted).await {
            return;
        }
    }
}

/// Hands a connection to the next worker; says whether that one still runs.
async fn deal<'a>(
    turns: &mut impl Iterator<Item = &'a mpsc::Sender<Accepted>>,
    accepted: Accepted,
) -> bool {
    match turns.next() {
        Some(worker) => worker.send(accepted).await.is_ok(),
        None => false,
    }
}

/// The next connection, for its worker's event queue to watch.
async fn accept(listener: &AsyncFd<TcpListener>) -> (TcpStream, SocketAddr) {
    const PAUSE: Duration = Duration::from_millis(100);
    const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);
    loop {
        let accept = |listener: &TcpListener| Ok(acceptfrom_with(listener, FLAGS)?);
        match listener.async_io(Interest::READABLE, accept).await.and_then(named) {
            Ok(accepted) => return accepted,
            // The client was gone before we looked.
            Err(why) if why.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(why) => {
                if let Some(held_back) = may_say("accept") {
                    tracing::error!(%why, held_back, "cannot accept connections; trying again");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Who has connected.
fn named((socket, peer): (OwnedFd, Option<SocketAddrAny>)) -> io::Result<(TcpStream, SocketAddr)> {
    let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((socket.into(), peer.try_into()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_connected_when_the_port_closes_is_dealt_with_as_far_as_there_is_room() {
        for (room, expected) in [(10, 5), (3, 3)] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let address = listener.local_addr().unwrap();
            let clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
            let (senders, mut receivers) = channels(2);
            let (_draining, drain) = watch::channel(true);
            run(listener.into(), Slots::new(room), senders, drain).await.unwrap();
            assert!(TcpStream::connect(address).is_err(), "the port is closed");
            let mut dealt = Vec::new();
            for receiver in &mut receivers {
                while let Some(Accepted::Client(stream, peer, slot)) = receiver.recv().await {
                    dealt.push((stream, peer, slot));
                }
            }
            assert_eq!(dealt.len(), expected);
            drop(clients);
        }
    }
}
