//! A TCP relay between two nodes that a test can slow down, stall, half-close or cut, at once or
//! after so many bytes.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From whoever connected to the relay, to the target.
    There,
    /// From the target back.
    Back,
}

/// What the relay does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Passes them on.
    Whole,
    /// Passes on pieces of 1 KiB with this pause before each.
    Slow(Duration),
    /// Holds them back; connections stay open.
    Stalled,
    /// Ends this direction of every connection; the other one works.
    HalfClosed(Way),
    /// Resets every connection, and each new one.
    Cut,
}

/// The relay. Dropping it ends every connection, and nobody listens any more.
pub struct Relay {
    addr: SocketAddr,
    shared: Arc<Shared>,
    adopted: mpsc::UnboundedSender<TcpStream>,
    _tasks: JoinSet<()>,
}

struct Shared {
    plan: watch::Sender<Plan>,
    passed: [AtomicU64; 2],
    connections: AtomicU64,
    open: watch::Sender<usize>,
}

#[derive(Clone, Copy)]
struct Plan {
    link: Link,
    /// When so many bytes have passed that way, the link becomes something else.
    trap: Option<(Way, u64, Link)>,
}

impl Relay {
    /// Listens on a port of the system's choice and connects to `target` for each connection.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            plan: watch::Sender::new(Plan { link: Link::Whole, trap: None }),
            passed: [AtomicU64::new(0), AtomicU64::new(0)],
            connections: AtomicU64::new(0),
            open: watch::Sender::new(0),
        });
        let mut tasks = JoinSet::new();
        let (adopted, more) = mpsc::unbounded_channel();
        tasks.spawn(accept(listener, more, target, shared.clone()));
        Self { addr, shared, adopted, _tasks: tasks }
    }

    /// Relays a connection that was accepted elsewhere.
    pub fn adopt(&self, client: TcpStream) {
        // It ends with the relay.
        let _ = self.adopted.send(client);
    }

    /// Where to connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes what happens from now on, to open connections too.
    pub fn set(&self, link: Link) {
        self.shared.plan.send_replace(Plan { link, trap: None });
    }

    /// Changes it as soon as `bytes` more have passed that way; not one more passes before.
    pub fn set_after(&self, way: Way, bytes: u64, link: Link) {
        let trap = Some((way, self.passed(way) + bytes, link));
        self.shared.plan.send_modify(|plan| plan.trap = trap);
        self.shared.spring(way);
    }

    /// Resets every connection; new ones pass.
    pub async fn renew(&self) {
        self.set(Link::Cut);
        self.shared.open.subscribe().wait_for(|open| *open == 0).await.unwrap();
        self.set(Link::Whole);
    }

    /// Bytes that have passed that way.
    pub fn passed(&self, way: Way) -> u64 {
        self.shared.passed[way as usize].load(Ordering::SeqCst)
    }

    /// Returns once the link is in that state, because a trap sprang.
    pub async fn becomes(&self, link: Link) {
        self.shared.plan.subscribe().wait_for(|plan| plan.link == link).await.unwrap();
    }

    /// Connections that were ever made through it.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// How many bytes may pass that way before the trap springs.
    fn room(&self, way: Way, plan: Plan) -> usize {
        match plan.trap {
            Some((trapped, at, _)) if trapped == way => {
                at.saturating_sub(self.passed[way as usize].load(Ordering::SeqCst)) as usize
            }
            _ => usize::MAX,
        }
    }

    fn spring(&self, way: Way) {
        self.plan.send_if_modified(|plan| {
            let sprung = plan.trap.filter(|_| self.room(way, *plan) == 0);
            if let Some((_, _, link)) = sprung {
                *plan = Plan { link, trap: None };
            }
            sprung.is_some()
        });
    }
}

async fn accept(
    listener: TcpListener,
    mut adopted: mpsc::UnboundedReceiver<TcpStream>,
    target: SocketAddr,
    shared: Arc<Shared>,
) {
    let mut connections = JoinSet::new();
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            Some(client) = adopted.recv() => client,
            Some(_) = connections.join_next() => continue,
        };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        shared.open.send_modify(|open| *open += 1);
        let shared = shared.clone();
        connections.spawn(async move {
            relay(client, target, shared.clone()).await;
            shared.open.send_modify(|open| *open -= 1);
        });
    }
}

async fn relay(mut client: TcpStream, target: SocketAddr, shared: Arc<Shared>) {
    let mut plan = shared.plan.subscribe();
    if plan.borrow().link == Link::Cut {
        return reset(client);
    }
    let Ok(mut server) = TcpStream::connect(target).await else { return reset(client) };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let both = async {
        tokio::join!(
            pump(Way::There, client_read, server_write, &shared),
            pump(Way::Back, server_read, client_write, &shared),
        )
    };
    let cut = tokio::select! {
        _ = both => false,
        _ = plan.wait_for(|plan| plan.link == Link::Cut) => true,
    };
    if cut {
        reset(client);
        reset(server);
    }
}

/// An abrupt end: what was sent but not yet read may be lost.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Passes bytes one way until that way ends.
async fn pump(way: Way, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, shared: &Shared) {
    let mut plan = shared.plan.subscribe();
    let mut piece = vec![0; 16 * 1024];
    loop {
        let now = *plan.borrow_and_update();
        let most = match now.link {
            Link::HalfClosed(ended) if ended == way => break,
            Link::Stalled | Link::Cut => {
                if plan.changed().await.is_err() {
                    break;
                }
                continue;
            }
            Link::Slow(_) => 1024,
            _ => piece.len(),
        };
        let room = shared.room(way, now).min(most);
        let read = tokio::select! {
            biased;
            _ = plan.changed() => continue,
            // What does not fit before the trap stays in the socket.
            read = from.read(&mut piece[..room]) => read,
        };
        let Ok(read @ 1..) = read else { break };
        if let Link::Slow(pause) = now.link {
            tokio::time::sleep(pause).await;
        }
        if to.write_all(&piece[..read]).await.is_err() {
            break;
        }
        shared.passed[way as usize].fetch_add(read as u64, Ordering::SeqCst);
        shared.spring(way);
    }
    let _ = to.shutdown().await;
}
