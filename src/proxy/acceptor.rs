//! Accepts connections and deals them to the workers in turn.
//!
//! A listener per worker (`SO_REUSEPORT`) would leave it to a hash which worker gets a connection:
//! with the few connections that a proxy in front keeps open, some workers would idle.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};

use crate::peer;

/// How many accepted connections may wait for one worker to take them.
const QUEUE: usize = 256;

/// A connection on its way to a worker.
pub enum Accepted {
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
    /// As many are open as may be: idle ones are asked to leave.
    pub full: AtomicBool,
}

/// One connection's place, free again when dropped.
pub struct Slot(Arc<Slots>);

impl Slots {
    /// Room for so many connections.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            most,
            freed: Notify::new(),
            full: AtomicBool::new(false),
        })
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Returns once none is open.
    pub async fn all_closed(&self) {
        while self.open() > 0 {
            self.freed.notified().await;
        }
    }

    /// Counts one more, whatever the limit.
    pub fn enter(self: &Arc<Self>) -> Slot {
        self.open.fetch_add(1, Relaxed);
        Slot(self.clone())
    }

    /// Waits for a place. Meanwhile new connections wait in the listener's backlog.
    async fn take(self: &Arc<Self>) -> Slot {
        while self.open() >= self.most {
            if !self.full.swap(true, Relaxed) {
                tracing::warn!(
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
pub fn channels(workers: usize) -> (Vec<mpsc::Sender<Accepted>>, Vec<mpsc::Receiver<Accepted>>) {
    (0..workers).map(|_| mpsc::channel(QUEUE)).unzip()
}

/// Accepts until the node begins to stop; then the port is closed, so that clients are refused at
/// once and can go elsewhere.
pub async fn run(
    listener: TcpListener,
    slots: Arc<Slots>,
    workers: Vec<mpsc::Sender<Accepted>>,
    mut draining: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let accepting = async {
        for turn in (0..workers.len()).cycle() {
            let slot = slots.take().await;
            let (stream, peer) = accept(&listener).await;
            if workers[turn].send(Accepted::Client(stream, peer, slot)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        _ = draining.wait_for(|draining| *draining) => {}
    }
    Ok(())
}

async fn accept(listener: &tokio::net::TcpListener) -> (TcpStream, SocketAddr) {
    const PAUSE: Duration = Duration::from_millis(100);
    loop {
        let accepted = listener.accept().await.and_then(|(stream, peer)| {
            stream.set_nodelay(true)?;
            // Let go of by this thread's event queue, to be watched by its worker's.
            Ok((stream.into_std()?, peer))
        });
        match accepted {
            Ok(accepted) => return accepted,
            // The client was gone before we looked.
            Err(why) if why.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(why) => {
                tracing::error!(%why, "cannot accept connections; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
